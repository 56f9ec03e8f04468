// SPDX-License-Identifier: Apache-2.0

// Package lifecycle is the one reconcile loop of this operator.
//
// Every kind has a remote twin, and the story is always the same: connect,
// observe, create or update, or let go. [Reconciler] runs that story. It alone
// knows finalizers, the record of what was created, ownership, conditions,
// events and when to look again; a kind knows its own remote object ([Remote])
// and nothing of the above. A new kind is a new [Kind], and no edit here.
package lifecycle

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// Object is a resource of this API group.
type Object interface {
	client.Object
	GetCommonSpec() *v1alpha1.CommonSpec
	GetCommonStatus() *v1alpha1.CommonStatus
}

// Kind says what the loop needs to know of one kind.
type Kind[O Object] struct {
	// New returns an empty resource, NewList an empty list of them.
	New     func() O
	NewList func() client.ObjectList

	// Secrets names the Secrets, besides the access token's, whose change
	// concerns the resource. Optional.
	Secrets func(O) []string

	// NaturalKey is what identifies the remote object before its id is known,
	// an artefact's name for example. Two resources with the same natural key
	// in one organisation are about the same remote object. Nil where a kind
	// has none, empty where a resource's cannot be told.
	NaturalKey func(O) string

	// OrphanUnlessTold leaves the remote object in place on deletion when
	// the spec does not set a deletionPolicy, even if the operator made it.
	OrphanUnlessTold bool

	// Done tells whether a resource has come to its end, and what to say of
	// it: from then on nothing is asked of the organisation any more. Nil for
	// kinds that never end.
	Done func(O) (Verdict, bool)

	// Forget is told that a resource is gone. Optional.
	Forget func(types.NamespacedName)

	// Connect ties a resource to its organisation for one pass. It MUST NOT
	// send anything.
	Connect func(O, *Connection) Remote

	// Organisation wakes the loop when the organisation changes behind the
	// operator's back.
	Organisation Organisation

	// Indexes are cache indexes that the kind looks its resources up by.
	// Optional.
	Indexes map[string]func(O) []string

	// Watch adds what else the kind has to be woken by. Optional.
	Watch func(*builder.Builder)
}

// Organisation watches organisations for one kind; mostly it is a
// [reflector.Reflector].
type Organisation interface {
	// Start watches until the context ends.
	Start(context.Context) error
	// Subscribe says, before Start, whom to tell of changes, and who knows
	// whether a token is still in use.
	Subscribe(s reflector.Subscription)
	// Retry asks again what could not be asked because the token was refused.
	Retry(token connectclient.Secret)
}

// Connection is what a pass knows of the organisation that its resource belongs
// to.
type Connection struct {
	// Resource is who the pass is about, and Waiter who to wake when a listing
	// it waits for is there.
	Resource types.NamespacedName
	Waiter   reflector.Waiter
	// Token opens the organisation; Client calls it.
	Token  connectclient.Secret
	Client *connectclient.Client
	// NotBefore is how fresh a picture of the organisation must be for this
	// pass; zero if any will do. It is set after a response was lost, after a
	// restart between intent and id, and when the user asks for a look.
	NotBefore time.Time
	// ID is the recorded remote id; empty while there is none.
	ID string
	// Intent is set if an earlier pass may have sent a POST whose answer
	// nobody has.
	Intent *Intent
	// Claimed tells whether the remote id is another resource's; if not, it is
	// this one's from now on.
	Claimed func(ctx context.Context, id string) (bool, error)
	// Event announces something to the user once the status that goes with
	// it is written.
	Event func(Event)
}

// Remote is the remote twin of one resource during one pass.
//
// Every verb may return a [Verdict] as its error, to end the pass with what the
// user should be told; other errors of [connectclient] and [reflector] are
// understood by the loop.
type Remote interface {
	// Observe says what is there. It MUST NOT change anything remotely,
	// because it also runs for resources that turn out to belong to another
	// owner. It may fill the resource's own status fields.
	Observe(context.Context) (Observation, error)

	// Prepare brings about everything that Create needs besides the POST, or
	// says what is missing. It runs before the intent is recorded, so that a
	// resource that waits for something writes nothing. The note it returns
	// is kept in the intent ([Intent.Note]).
	Prepare(context.Context) (note string, err error)

	// Create makes the remote object. It MUST send exactly one POST, and MUST
	// have kept everything that is shown only once before it returns: after
	// it the loop records the id.
	Create(context.Context) (Observation, error)

	// Update makes the remote object under id what the spec says.
	Update(ctx context.Context, id string) (Observation, error)

	// Delete removes the remote object under id. It MUST treat one that is
	// not there as removed. A [Retained] error lets the resource go all the
	// same.
	Delete(ctx context.Context, id string) error
}

// Observation is what a pass knows of the remote object.
type Observation struct {
	// Exists says that the remote object is there, under ID. Where it does
	// not exist, or a new one has to take its place, ID names what a
	// deletion still has to remove, if anything.
	Exists bool
	ID     string
	// Ours says that the operator made the remote object for this resource,
	// although the resource may not have recorded it: it fits what an earlier
	// pass was about to make.
	Ours bool
	// Outdated says that Update has something to do.
	Outdated bool
	// Verdict is what to tell the user if nothing more has to be done.
	Verdict Verdict
}

// Retained is the error of a Delete that the vendor refuses for ever: there is
// nothing to wait for, so the resource is let go with a warning.
type Retained struct {
	Reason, Message string
}

func (r Retained) Error() string { return r.Message }
