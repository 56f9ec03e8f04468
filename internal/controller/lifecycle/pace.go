// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
)

const (
	// backoffMin and backoffMax bound how soon a resource is worked on again after something went
	// wrong: first after backoffMin, doubling to backoffMax.
	backoffMin, backoffMax = 500 * time.Millisecond, time.Minute
	// freeRequeues is how often a resource that nobody changed may ask to be looked at again in
	// a second or less. From then on requeueFloor holds, doubling to requeueCeiling.
	freeRequeues = 3
	// freeDeferrals is how often the budget may put it off for a moment, in a row.
	freeDeferrals                = 10
	requeueFloor, requeueCeiling = time.Second, time.Minute
)

// pace keeps a resource that nobody changes from being worked on over and over: whatever it asks
// for, and whoever wakes it.
type pace struct {
	subject   string    // what the pace is about; another one begins anew
	failures  int       // passes in a row that asked for a backoff
	notBefore time.Time // no pass before that
	hurries   int       // requeues sooner than the floor
	deferrals int       // … of a budget that has put something off, in a row
}

// subject is what a user can change about a resource. What others in the cluster or the
// organisation change does not begin the pace anew: that would let them bypass it.
func subject(obj Object) string {
	annotations := obj.GetAnnotations()
	return fmt.Sprintf("%s %d %t %q %q %q", obj.GetUID(), obj.GetGeneration(), obj.GetDeletionTimestamp().IsZero(),
		annotations[v1alpha1.AnnotationSuspend], annotations[v1alpha1.AnnotationReconcileRequestedAt], annotations[v1alpha1.AnnotationConfirmOrganisation])
}

// wait returns how long a pass has still to wait; 0 if it may begin.
func (p *pace) wait(subject string, now time.Time) time.Duration {
	if p.subject != subject {
		*p = pace{subject: subject}
	}
	return max(0, p.notBefore.Sub(now))
}

// next returns when the resource is to be looked at again, by what the pass has asked for; 0 if not
// before it is woken.
func (p *pace) next(o Outcome, now time.Time) time.Duration {
	if !o.Scheduled {
		p.deferrals = 0
	}
	switch {
	case o.Backoff:
		delay := jittered(min(backoffMin<<min(p.failures, 10), backoffMax))
		p.failures++
		p.notBefore = now.Add(delay)
		return delay
	case o.Scheduled:
		// A pass that needs two requests would begin anew with each that the budget grants: it waits until
		// there are more.
		return spaced(o.RequeueAfter, &p.deferrals, freeDeferrals)
	}
	if o.Ready != "" && !o.Transient {
		p.failures = 0 // something was concluded
	}
	switch {
	case o.RequeueAfter <= 0:
		return 0
	case o.RequeueAfter >= requeueCeiling:
		p.hurries = 0
		return o.RequeueAfter
	}
	return spaced(o.RequeueAfter, &p.hurries, freeRequeues)
}

// spaced is when a resource is looked at again that asks for it so soon, by how often it has, beyond what
// is free.
func spaced(after time.Duration, hurries *int, free int) time.Duration {
	floor := time.Duration(0)
	if over := *hurries - free; over >= 0 {
		floor = min(requeueFloor<<min(over, 10), requeueCeiling)
	}
	if after <= max(floor, requeueFloor) {
		*hurries++
	}
	return max(after, floor)
}

// jittered spreads d by ±10 %, so that what failed together does not come back together.
func jittered(d time.Duration) time.Duration {
	return time.Duration((0.9 + 0.2*rand.Float64()) * float64(d)) //nolint:gosec // spreading load needs no cryptography
}
