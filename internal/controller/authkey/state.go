// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// state is what is known of the key in the Secret.
type state struct {
	connectclient.AuthKey
	listed bool // the API can list keys, and this one is there
	gone   bool // it can, and this one is not there, which is proven
}

func (s state) exchanged() bool { return s.ExchangedAt != nil }

func (s state) expired(now time.Time) bool {
	return !s.exchanged() && !s.ExpiresAt.IsZero() && !now.Before(s.ExpiresAt)
}

// editable tells whether Connect would change the key rather than refuse.
func (s state) editable(now time.Time) bool { return s.listed && !s.exchanged() && !s.expired(now) }

// toBeReplaced tells whether a new key has to be made although there is one: because of what the
// spec says now, or because it is time.
func (e *external) toBeReplaced() bool {
	now := e.clock.Now()
	made, wanted := e.secret.annotation(annotationKeySpecHash), keySpecHash(e.obj)
	if made == "" {
		made = wanted // a restored Secret that lost its marks, but not its id
	}
	switch {
	case fixed(made) != fixed(wanted), made != wanted && !e.key.editable(now):
		return true
	case e.key.gone:
		return false // somebody revoked it, and meant it
	case e.key.exchanged():
		return e.obj.Spec.Renewal == v1alpha1.RenewalAlways
	default:
		return renewed(e.obj) && !now.Before(e.renewAt())
	}
}

// renewed tells whether a key that nobody has used is followed by a new one in time.
func renewed(obj *v1alpha1.AuthKey) bool {
	return obj.Spec.Renewal == v1alpha1.RenewalBeforeExpiry || obj.Spec.Renewal == v1alpha1.RenewalAlways
}

// renewAt is when the key is to be followed by a new one: in time before it expires, but however the
// clocks and the spec are, not before it has lived for a tenth of its lifetime.
func (e *external) renewAt() time.Time {
	at := e.key.ExpiresAt.Add(-renewBefore(e.obj))
	if issued := e.secret.time(annotationIssuedAt); !issued.IsZero() {
		if earliest := issued.Add(lifetime(e.obj) / 10); at.Before(earliest) {
			return earliest
		}
	}
	return at
}

// renewBefore is how long before its expiry a key is renewed.
func renewBefore(obj *v1alpha1.AuthKey) time.Duration {
	if obj.Spec.RenewBefore != nil {
		return obj.Spec.RenewBefore.Duration
	}
	return lifetime(obj) / 3
}

func lifetime(obj *v1alpha1.AuthKey) time.Duration {
	return time.Duration(max(obj.Spec.TTLDays, 1)) * 24 * time.Hour
}

// outcome is what to tell of the key in the Secret.
func (e *external) outcome() lifecycle.Outcome {
	now, name := e.clock.Now(), e.secret.name().Name
	switch {
	case e.key.exchanged():
		return lifecycle.Ready(v1alpha1.ReasonExchanged, "A device signed in with the key at %s.", lifecycle.UTC(*e.key.ExchangedAt))
	case e.key.expired(now):
		return lifecycle.Stalled(v1alpha1.ReasonExpired,
			"Nobody used the key before it expired at %s: delete this AuthKey, or set spec.renewal to have keys renewed in time.", lifecycle.UTC(e.key.ExpiresAt))
	case e.key.gone:
		return lifecycle.Stalled(v1alpha1.ReasonRevoked,
			"Somebody removed the key from the organisation: delete this AuthKey, or Secret %q to have a new key made.", name)
	}
	next := e.key.ExpiresAt
	if renewed(e.obj) {
		next = e.renewAt()
	}
	return lifecycle.Ready(v1alpha1.ReasonUsable, "The key is in Secret %q and can be used until %s.", name, lifecycle.UTC(e.key.ExpiresAt)).
		WithRequeueAfter(max(next.Sub(now), time.Second))
}

// mirror brings what is known of the key into the status.
func (e *external) mirror() {
	status := &e.obj.Status
	status.SecretName = e.secret.name().Name
	status.ExpiresAt = lifecycle.Timestamp(e.key.ExpiresAt)
	if !e.key.CreatedAt.IsZero() {
		status.CreatedAt = lifecycle.Timestamp(e.key.CreatedAt)
	}
	status.ExchangedAt = nil
	if e.key.exchanged() {
		status.ExchangedAt = lifecycle.Timestamp(*e.key.ExchangedAt)
	}
}
