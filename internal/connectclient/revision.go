// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"sync/atomic"
)

// Revision is one of the two published revisions of the Management API.
type Revision int32

const (
	// RevisionUnknown stands until an answer tells the revisions apart.
	RevisionUnknown Revision = iota
	// RevisionOlder has no rate limit, knows of auth keys only how to make
	// them, and does not read single artefacts and devices.
	RevisionOlder
	// RevisionCurrent announces its rate limit in every authenticated answer.
	RevisionCurrent
)

func (r Revision) String() string {
	switch r {
	case RevisionOlder:
		return "older"
	case RevisionCurrent:
		return "current"
	default:
		return "unknown"
	}
}

// revision is what has been learnt so far.
//
// Evidence for the current revision always counts: a service that is upgraded
// under a running client is recognised by its next answer.
type revision struct{ value atomic.Int32 }

func (r *revision) get() Revision { return Revision(r.value.Load()) }

func (r *revision) learnCurrent() { r.value.Store(int32(RevisionCurrent)) }

// learnOlder believes the absence of something only as long as nothing has
// proven the opposite.
func (r *revision) learnOlder() {
	r.value.CompareAndSwap(int32(RevisionUnknown), int32(RevisionOlder))
}

// learn is the link that recognises the current revision by its rate headers.
func learn(r *revision) link {
	return func(next exchange) exchange {
		return func(ctx context.Context, req *request) (*answer, error) {
			ans, err := next(ctx, req)
			if ans != nil && ans.rate.HasHeaders {
				r.learnCurrent()
			}
			return ans, err
		}
	}
}
