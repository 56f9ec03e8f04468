// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=authkeys,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=authkeys/status,verbs=patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=authkeys/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=secrets,verbs=create;patch;delete

// clockSkew is by how much Connect's clock may be behind ours.
const clockSkew = time.Minute

// authKeyKind makes auth keys and delivers them in Secrets.
//
// A key is shown once, and has no name by which it could be found again. So the
// Secret is claimed before a key is made; it then says, in one write, which key
// it holds and which one that supersedes; and a key that is in no Secret is
// revoked.
func authKeyKind(options reflector.Options, c client.Client, live client.Reader, clk clock.PassiveClock) lifecycle.Kind[*v1alpha1.AuthKey] {
	keys := reflector.New(options, reflector.Collection[connectclient.AuthKey]{
		Name: "auth-keys",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.AuthKey] {
			return c.AuthKeys.List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.AuthKey, error) {
			return c.AuthKeys.Get(ctx, id)
		},
		ID: func(k connectclient.AuthKey) string { return k.ID },
	})
	minted := newMinted()
	return lifecycle.Kind[*v1alpha1.AuthKey]{
		New:          func() *v1alpha1.AuthKey { return &v1alpha1.AuthKey{} },
		NewList:      func() client.ObjectList { return &v1alpha1.AuthKeyList{} },
		Secrets:      func(obj *v1alpha1.AuthKey) []string { return []string{authKeySecretName(obj)} },
		Organisation: keys,
		Connect: func(obj *v1alpha1.AuthKey, conn *lifecycle.Connection) lifecycle.Remote {
			return &authKey{obj: obj, conn: conn, store: keys.Of(conn.Token), client: c, live: live, clock: clk, minted: minted}
		},
		Forget: minted.forget,
	}
}

// authKey is the remote twin of one AuthKey.
type authKey struct {
	obj    *v1alpha1.AuthKey
	conn   *lifecycle.Connection
	store  *reflector.Store[connectclient.AuthKey]
	client client.Client
	live   client.Reader
	clock  clock.PassiveClock
	minted *minted

	secret *keySecret
	key    keyState // of the key in the Secret
}

// keyState is what is known of the key in the Secret. The older revision cannot
// list keys: there it is what the Secret's annotations say.
type keyState struct {
	connectclient.AuthKey
	listed bool // the revision can list keys
	gone   bool // it can, and this one is not there
}

func (k keyState) exchanged() bool { return k.ExchangedAt != nil }

func (k keyState) expired(now time.Time) bool { return !k.exchanged() && !now.Before(k.ExpiresAt) }

// Observe says which key the Secret holds and how it is. A key that has to be
// followed by a new one is reported as not there.
func (a *authKey) Observe(ctx context.Context) (lifecycle.Observation, error) {
	unlisted := a.store.Await(a.conn.NotBefore, a.conn.Waiter)
	if unlisted != nil && !errors.Is(unlisted, connectclient.ErrUnsupported) {
		return lifecycle.Observation{}, unlisted
	}
	var err error
	if a.secret, err = openKeySecret(ctx, a.client, a.obj); err != nil {
		return lifecycle.Observation{}, err
	}
	if a.secret.id() == "" {
		// The id is still of use to a deletion: the key may be all that is left.
		return lifecycle.Observation{ID: a.conn.ID}, nil
	}
	if a.key, err = a.look(unlisted == nil); err != nil {
		return lifecycle.Observation{}, err
	}
	a.mirror()
	if a.toBeReplaced() {
		return lifecycle.Observation{ID: a.key.ID}, nil
	}
	return a.observation(), nil
}

// look gathers what is known of the key in the Secret.
func (a *authKey) look(listed bool) (keyState, error) {
	state := keyState{listed: listed}
	if listed {
		found, ok, err := a.store.Lookup(a.secret.id(), a.conn.Waiter)
		if err != nil {
			return state, err
		}
		state.AuthKey, state.gone = found, !ok
	}
	state.ID = a.secret.id()
	if state.ExpiresAt.IsZero() {
		state.ExpiresAt = a.secret.expiresAt()
	}
	return state, nil
}

// mirror brings what is known of the key into the status.
func (a *authKey) mirror() {
	status := &a.obj.Status
	status.SecretName = a.secret.name().Name
	status.ExpiresAt = timeOrNil(a.key.ExpiresAt)
	if !a.key.CreatedAt.IsZero() {
		status.CreatedAt = timeOrNil(a.key.CreatedAt)
	}
	status.ExchangedAt = nil
	if a.key.exchanged() {
		status.ExchangedAt = timeOrNil(*a.key.ExchangedAt)
	}
}

func (a *authKey) observation() lifecycle.Observation {
	now := a.clock.Now()
	outdated := a.secret.annotation(annotationSupersedes) != "" || a.secret.shapeOutdated() ||
		a.key.expired(now) && a.secret.annotation(annotationEmptied) == ""
	if a.key.editable(now) {
		outdated = outdated || a.changes() != (connectclient.AuthKeyUpdate{}) || a.secret.annotation(annotationMintedFor) != mintedFor(a.obj)
	}
	return lifecycle.Observation{
		Exists: true, Ours: true, ID: a.key.ID,
		Outdated: outdated,
		Verdict:  a.verdict(now),
	}
}

// toBeReplaced tells whether a new key has to be made although there is one:
// because of what the spec says now, or because it is time.
func (a *authKey) toBeReplaced() bool {
	now := a.clock.Now()
	minted, wanted := a.secret.annotation(annotationMintedFor), mintedFor(a.obj)
	if minted == "" {
		minted = wanted // a restored Secret that lost its marks, but not its id
	}
	switch {
	case fixed(minted) != fixed(wanted), minted != wanted && !a.key.editable(now):
		return true
	case a.key.gone:
		return false // somebody revoked it, and meant it
	case a.key.exchanged():
		return a.obj.Spec.Renewal == v1alpha1.RenewalAlways
	case a.obj.Spec.Renewal == v1alpha1.RenewalNever || a.obj.Spec.Renewal == "":
		return false
	default:
		return !now.Before(a.renewAt())
	}
}

// renewAt is when the key is to be followed by a new one.
func (a *authKey) renewAt() time.Time { return a.key.ExpiresAt.Add(-renewBefore(a.obj)) }

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

// editable tells whether Connect would change the key rather than refuse.
func (k keyState) editable(now time.Time) bool {
	return k.listed && !k.gone && !k.exchanged() && !k.expired(now)
}

func (a *authKey) verdict(now time.Time) lifecycle.Verdict {
	name := a.secret.name().Name
	switch {
	case a.key.gone:
		return lifecycle.Stalled(v1alpha1.ReasonRevoked,
			"Somebody removed the key from the organisation: delete this AuthKey, or Secret %q to have a new key made.", name)
	case a.key.exchanged():
		return lifecycle.Ready(v1alpha1.ReasonExchanged, "A device signed in with the key at %s.", utc(*a.key.ExchangedAt))
	case a.key.expired(now):
		return lifecycle.Stalled(v1alpha1.ReasonExpired,
			"Nobody used the key before it expired at %s: delete this AuthKey, or set spec.renewal to have keys renewed in time.", utc(a.key.ExpiresAt))
	}
	next := a.key.ExpiresAt
	if a.obj.Spec.Renewal == v1alpha1.RenewalBeforeExpiry || a.obj.Spec.Renewal == v1alpha1.RenewalAlways {
		next = a.renewAt()
	}
	return lifecycle.Ready(v1alpha1.ReasonUsable, "The key is in Secret %q and can be used until %s.", name, utc(a.key.ExpiresAt)).
		LookAgain(max(next.Sub(now), time.Second))
}

// changes is what distinguishes the key listed from the spec.
func (a *authKey) changes() connectclient.AuthKeyUpdate {
	var changes connectclient.AuthKeyUpdate
	if description := authKeyDescription(a.obj); description != a.key.Description {
		changes.Description = &description
	}
	if a.obj.Spec.DeviceName != a.key.DeviceName {
		changes.DeviceName = &a.obj.Spec.DeviceName
	}
	if !sameSet(a.obj.Spec.Tags, a.key.Tags) {
		tags := append([]string{}, a.obj.Spec.Tags...)
		changes.Tags = &tags
	}
	return changes
}

// Prepare claims the Secret, and revokes what an earlier pass may have made
// without living to store it.
func (a *authKey) Prepare(ctx context.Context) (string, error) {
	if err := a.secret.claim(ctx, a.live); err != nil {
		return "", err
	}
	if a.conn.Intent == nil {
		return "", nil
	}
	orphans := slices.Collect(a.store.All())
	// Only now: what is on its way may be in the picture already.
	if a.minted.unsure(likeness(a.obj)) {
		return "", lifecycle.Verdict{Again: time.Second}
	}
	for _, orphan := range orphans {
		if !a.lostBy(orphan) || a.minted.here(orphan.ID) {
			continue
		}
		switch held, err := a.heldBySomebody(ctx, orphan.ID); {
		case err != nil:
			return "", err
		case held:
			continue
		}
		if err := a.revoke(ctx, orphan.ID); err != nil {
			return "", err
		}
		a.conn.Event(lifecycle.Event{Warning: true, Reason: v1alpha1.EventKeyRevoked, Action: "Create",
			Message: "Revoked the key " + orphan.ID + ", which was made but could not be stored."})
	}
	return "", nil
}

// lostBy tells whether the key can be the one that the POST of an earlier pass
// made: it is like ours, not older than the intent, and unused.
func (a *authKey) lostBy(orphan connectclient.AuthKey) bool {
	return orphan.Description == authKeyDescription(a.obj) &&
		orphan.DeviceName == a.obj.Spec.DeviceName &&
		sameSet(orphan.Tags, a.obj.Spec.Tags) &&
		orphan.ExchangedAt == nil &&
		!orphan.CreatedAt.Before(a.conn.Intent.At.Add(-clockSkew)) &&
		orphan.ID != a.secret.id()
}

// heldBySomebody tells whether the key is another AuthKey's.
func (a *authKey) heldBySomebody(ctx context.Context, id string) (bool, error) {
	var all v1alpha1.AuthKeyList
	if err := a.client.List(ctx, &all); err != nil {
		return false, err
	}
	for i := range all.Items {
		other := &all.Items[i]
		if other.Status.ID == id || other.Annotations[v1alpha1.AnnotationID] == id {
			return true, nil
		}
		secret, err := openKeySecret(ctx, a.client, other)
		if err != nil {
			continue // it is not that AuthKey's Secret
		}
		if secret.id() == id || secret.annotation(annotationSupersedes) == id {
			return true, nil
		}
	}
	return false, nil
}

// Create makes a key and puts it into the Secret. If that fails the key is
// revoked at once: nobody will ever see it again.
func (a *authKey) Create(ctx context.Context) (lifecycle.Observation, error) {
	before := a.secret.id()
	if before == "" {
		before = a.conn.ID
	}
	defer a.minted.begin(likeness(a.obj))()
	made, err := a.conn.Client.AuthKeys.Create(ctx, connectclient.AuthKeyCreate{
		Description: authKeyDescription(a.obj),
		DeviceName:  a.obj.Spec.DeviceName,
		Tags:        a.obj.Spec.Tags,
		TTLDays:     int(a.obj.Spec.TTLDays),
	})
	if err != nil {
		return lifecycle.Observation{}, err
	}
	a.minted.note(a.conn.Resource, made.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	moved := a.obj.Status.SecretName
	if err := a.keep(ctx, made, before); err != nil {
		a.minted.forget(a.conn.Resource)
		return lifecycle.Observation{}, errors.Join(err, a.revoke(ctx, made.ID))
	}
	a.warnOfLoss()
	if err := a.secret.discard(ctx, moved); err != nil {
		return lifecycle.Observation{}, err
	}
	return a.observation(), nil
}

// storeTimeout is how long a key that was made may take to be stored, whatever
// happens to the operator meanwhile.
const storeTimeout = 30 * time.Second

// keep puts the key into the Secret and the picture of the organisation.
func (a *authKey) keep(ctx context.Context, made *connectclient.AuthKey, before string) error {
	if err := a.secret.hold(ctx, made, before); err != nil {
		return fmt.Errorf("store the auth key in Secret %s: %w", a.secret.name(), err)
	}
	public := *made
	public.Secret = connectclient.Secret{}
	a.store.Put(public)
	a.key = keyState{AuthKey: public, listed: a.conn.Client.Revision() != connectclient.RevisionOlder}
	a.secret.meta.Annotations = merged(a.secret.meta.Annotations, map[string]string{
		v1alpha1.AnnotationID: made.ID, annotationMintedFor: mintedFor(a.obj), annotationSupersedes: before,
	})
	a.mirror()
	a.conn.Event(lifecycle.Event{Reason: v1alpha1.EventSecretWritten, Action: "Create",
		Message: "Wrote the key to Secret " + a.secret.name().Name + "."})
	return nil
}

// warnOfLoss tells that an earlier POST may have left a key that nobody can find
// or revoke, where the revision cannot list keys.
func (a *authKey) warnOfLoss() {
	if a.conn.Intent == nil || a.key.listed {
		return
	}
	a.conn.Event(lifecycle.Event{Warning: true, Reason: v1alpha1.EventKeyLost, Action: "Create",
		Message: fmt.Sprintf("A key with the description %q may have been made and lost before this one; Connect cannot list keys, so it may stay usable until %s.",
			authKeyDescription(a.obj), utc(a.clock.Now().Add(lifetime(a.obj))))})
}

// Update finishes what the spec, time or an earlier pass left to do.
func (a *authKey) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	if a.secret.shapeOutdated() {
		if err := a.secret.applyShape(ctx); err != nil {
			return lifecycle.Observation{}, err
		}
	}
	if err := a.edit(ctx, id); err != nil {
		return lifecycle.Observation{}, err
	}
	if err := a.retire(ctx); err != nil {
		return lifecycle.Observation{}, err
	}
	if a.key.expired(a.clock.Now()) {
		if err := a.secret.empty(ctx); err != nil {
			return lifecycle.Observation{}, err
		}
	}
	a.mirror()
	return a.observation(), nil
}

// edit changes the key in the organisation to what the spec says.
func (a *authKey) edit(ctx context.Context, id string) error {
	if !a.key.editable(a.clock.Now()) {
		return nil
	}
	if changes := a.changes(); changes != (connectclient.AuthKeyUpdate{}) {
		changed, err := a.conn.Client.AuthKeys.Update(ctx, id, changes)
		if errors.Is(err, connectclient.ErrNotEditable) {
			// Since it was listed, a device has used it or its time has run out.
			return cmp.Or(a.store.Await(a.clock.Now(), a.conn.Waiter), reflector.ErrPending)
		}
		if err != nil {
			return err
		}
		a.store.Put(*changed)
		a.key.AuthKey = *changed
		a.conn.Event(updated)
	}
	if a.secret.annotation(annotationMintedFor) != mintedFor(a.obj) {
		return a.secret.note(ctx, map[string]any{annotationMintedFor: mintedFor(a.obj)})
	}
	return nil
}

// retire revokes the key that the one in the Secret supersedes.
func (a *authKey) retire(ctx context.Context) error {
	before := a.secret.annotation(annotationSupersedes)
	if before == "" {
		return nil
	}
	if err := a.revoke(ctx, before); err != nil {
		return err
	}
	return a.secret.note(ctx, map[string]any{annotationSupersedes: nil})
}

// Delete revokes the key; the Secret goes with its owner.
func (a *authKey) Delete(ctx context.Context, id string) error {
	if a.secret != nil {
		if err := a.retire(ctx); err != nil {
			return err
		}
	}
	if a.conn.Client.Revision() == connectclient.RevisionOlder {
		return lifecycle.Retained{Reason: v1alpha1.EventLeftBehind,
			Message: fmt.Sprintf("Connect cannot revoke auth keys: the key %s stays usable until it is used or expires.", id)}
	}
	return a.revoke(ctx, id)
}

// revoke removes a key from the organisation, where that can be done.
func (a *authKey) revoke(ctx context.Context, id string) error {
	err := a.conn.Client.AuthKeys.Delete(ctx, id)
	if err != nil && !errors.Is(err, connectclient.ErrNotFound) && !errors.Is(err, connectclient.ErrUnsupported) {
		return err
	}
	a.store.Remove(id)
	return nil
}

// mintedFor is the mark of what of the spec is in a key: first what cannot be
// changed once it is made, then what Connect may change.
func mintedFor(obj *v1alpha1.AuthKey) string {
	return digest(obj.Spec.TTLDays, obj.Spec.Secret.Key) + "/" + likeness(obj)
}

// likeness is the mark of what Connect shows of a key besides its times. Keys of
// the same likeness cannot be told apart.
func likeness(obj *v1alpha1.AuthKey) string {
	return digest(authKeyDescription(obj), obj.Spec.DeviceName, sorted(obj.Spec.Tags))
}

// fixed is the part of the mark that only a new key can change.
func fixed(mark string) string {
	part, _, _ := strings.Cut(mark, "/")
	return part
}

func authKeyDescription(obj *v1alpha1.AuthKey) string {
	if obj.Spec.Description != "" {
		return obj.Spec.Description
	}
	return obj.Name
}
