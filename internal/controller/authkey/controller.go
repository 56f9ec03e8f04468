// SPDX-License-Identifier: Apache-2.0

// Package authkey makes auth keys and delivers them in Secrets.
//
// A key is shown once, and has no name by which it could be found again. So the Secret is claimed,
// and tried, before a key is made; it then says, in one write, which key it holds and which ones
// that supersedes; and a live key that is in no Secret is revoked, whenever it appears.
package authkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
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

const (
	// storeTimeout is how long a key that was made may take to be stored, whatever happens to the
	// operator meanwhile.
	storeTimeout = 30 * time.Second
	// clockSkew is by how much the organisation's clock may be behind ours, for what is forgotten
	// when a key has expired.
	clockSkew = 24 * time.Hour
)

// controller is what the AuthKeys of all organisations share.
type controller struct {
	client  client.Client
	clock   clock.PassiveClock
	secrets *secrets
	issued  *issuedKeys
	keys    *reflector.Reflector[connectclient.AuthKey]
}

// Kind is what the loop knows of AuthKeys.
func Kind(options reflector.Options, c client.Client, live client.Reader, clk clock.PassiveClock) lifecycle.Kind[*v1alpha1.AuthKey] {
	all := &controller{client: c, clock: clk, secrets: newSecrets(c, live), issued: newIssuedKeys()}
	all.keys = reflector.New(options, reflector.Collection[connectclient.AuthKey]{
		Name: "auth-keys",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.AuthKey] {
			return c.AuthKeys().List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.AuthKey, error) {
			return c.AuthKeys().Get(ctx, id)
		},
		ID:   func(k connectclient.AuthKey) string { return k.ID },
		Keys: func(connectclient.AuthKey) []string { return nil },
	})
	return lifecycle.Kind[*v1alpha1.AuthKey]{
		New:        func() *v1alpha1.AuthKey { return &v1alpha1.AuthKey{} },
		NewList:    func() client.ObjectList { return &v1alpha1.AuthKeyList{} },
		Noun:       "auth key",
		LooksFirst: func(*v1alpha1.AuthKey) bool { return true }, // the keys that look alike are told apart by which of them was there before
		Secrets: func(obj *v1alpha1.AuthKey) []string {
			return slices.DeleteFunc([]string{secretName(obj), obj.Status.SecretName}, func(name string) bool { return name == "" })
		},
		Source: all.keys,
		Forget: all.forget,
		Reset: func(obj *v1alpha1.AuthKey) {
			obj.Status = v1alpha1.AuthKeyStatus{CommonStatus: obj.Status.CommonStatus, SecretName: obj.Status.SecretName}
		},
		Connect: func(obj *v1alpha1.AuthKey, conn *lifecycle.Connection) lifecycle.Remote {
			return &external{controller: all, obj: obj, conn: conn, store: all.keys.Of(conn.Token)}
		},
	}
}

func (c *controller) forget(resource types.NamespacedName) {
	c.issued.forget(resource)
	c.secrets.forget(resource)
}

func nameOf(obj *v1alpha1.AuthKey) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.Namespace, Name: secretName(obj)}
}

// external is the remote object of one AuthKey.
type external struct {
	*controller
	obj   *v1alpha1.AuthKey
	conn  *lifecycle.Connection
	store *reflector.Store[connectclient.AuthKey]

	secret *keySecret
	key    state              // of the key in the Secret
	lists  bool               // the API can list keys
	sent   []lifecycle.Intent // requests that went to this organisation and whose answers were lost
	lost   []lostKey          // live keys in no Secret, which requests of this AuthKey have made
	// settled: what the newest request has made is among them.
	settled bool
	// unsure: keys that look alike are being made by others just now.
	unsure bool
	// otherOrganisation: an earlier request, with another access token, may have gone to another one.
	otherOrganisation bool
	// overtaken: somebody has changed the key since it was seen, in what was not changed here.
	overtaken bool
}

// Observe implements [lifecycle.Remote]. It says which key the Secret holds and how it is; one that
// has to be followed by a new one it reports as absent.
func (e *external) Observe(ctx context.Context) (lifecycle.Observation, error) {
	if err := e.list(); err != nil {
		return lifecycle.Observation{}, err
	}
	if waits, err := e.open(ctx); err != nil || waits != nil {
		if waits != nil {
			return lifecycle.NotKnown(*waits), err
		}
		return lifecycle.Observation{}, err
	}
	if err := e.sentHere(ctx); err != nil {
		return lifecycle.Observation{}, err
	}
	if e.lists {
		if err := e.findLost(ctx); err != nil {
			return lifecycle.Observation{}, err
		}
	}
	seen, err := e.observe()
	seen.SameOrganisation = !e.otherOrganisation
	return seen, err
}

func (e *external) observe() (lifecycle.Observation, error) {
	switch {
	case e.deleting():
		return e.leftToRevoke()
	case e.secret.id() == "" || !e.secret.holds && !e.secret.cleared(e.secret.id()):
		return e.withoutKey()
	default:
		return e.withKey()
	}
}

func (e *external) deleting() bool { return !e.obj.DeletionTimestamp.IsZero() }

// list waits for a listing that is fresh enough. The older revision has none.
func (e *external) list() error {
	err := lifecycle.Listed(e.conn, e.store)
	e.lists = err == nil
	if errors.Is(err, connectclient.ErrUnsupported) {
		return nil
	}
	return err
}

// open looks at the Secret, and says what the AuthKey waits for if it cannot have it.
func (e *external) open(ctx context.Context) (*lifecycle.Outcome, error) {
	var err error
	if e.secret, err = e.secrets.open(ctx, e.obj); err != nil {
		return nil, err
	}
	switch {
	case e.secret.belongs() == somebodyElses && e.deleting():
		e.secret.meta = nil // none of its business
	case e.secret.belongs() == somebodyElses:
		conflict := lifecycle.Stalled(v1alpha1.ReasonSecretConflict,
			"Secret %q belongs to something else, so no key is made for it: choose another spec.secret.name, or delete that Secret.", e.secret.name().Name)
		return &conflict, nil
	case !e.deleting() && e.secret.awaitsCollection(e.clock.Now()):
		waits := lifecycle.Waiting(v1alpha1.ReasonCreating, "Waiting for Secret %q of the AuthKey before to be removed.", e.secret.name().Name).
			WithRequeueAfter(predecessorPatience)
		return &waits, nil
	}
	return nil, nil
}

// leftToRevoke is the observation of an AuthKey that is being deleted: a key of its own that may
// still be used, wherever it is known from.
func (e *external) leftToRevoke() (lifecycle.Observation, error) {
	record, held := e.conn.Record, e.secret.id()
	switch {
	case record.Own():
		there, err := e.inThisOrganisation()
		if err != nil || !there {
			return lifecycle.AbsentObject(), err
		}
		if e.otherOrganisation && e.lists && !e.hasOneOf([]string{shortHash(record.ID)}) {
			return lifecycle.AbsentObject(), nil // and what a lost request has made may be elsewhere
		}
		return lifecycle.Observation{Relation: lifecycle.Mine, ID: record.ID}, nil
	case held != "":
		return lifecycle.Observation{Relation: lifecycle.Recovered, ID: held, Proof: "the Secret of this AuthKey holds it"}, nil
	case len(e.lost) > 0:
		return lifecycle.Observation{Relation: lifecycle.Recovered, ID: e.lost[0].id,
			Proof: "it is not among the keys that were there before the request whose answer was lost"}, nil
	default:
		return lifecycle.Observation{Relation: lifecycle.Absent, Settled: !e.lists}, nil
	}
}

// inThisOrganisation tells whether the token opens the organisation that has the recorded key.
func (e *external) inThisOrganisation() (bool, error) {
	if !e.conn.Moved || !e.lists {
		return true, nil
	}
	_, there, err := e.store.Lookup(e.conn.Record.ID, e.conn.Waiter)
	return there, lifecycle.FromListing(err)
}

// withoutKey is the observation of an AuthKey whose Secret holds no key: it has never had one, it
// was lost, or somebody has emptied it.
func (e *external) withoutKey() (lifecycle.Observation, error) {
	record := e.conn.Record
	if record.ID != "" && !record.Own() {
		return lifecycle.ForeignObject(record.ID, lifecycle.ImportConflict(
			"The auth key %s is in no Secret of this AuthKey, and Connect never shows a key again", record.ID)), nil
	}
	seen := lifecycle.Observation{Relation: lifecycle.Absent, Settled: e.settled || !e.lists}
	there, err := e.inThisOrganisation()
	if there {
		seen.ID = record.ID
	}
	return seen, err
}

// withKey is the observation of an AuthKey whose Secret holds a key, or held one that is dead.
func (e *external) withKey() (lifecycle.Observation, error) {
	id, record := e.secret.id(), e.conn.Record
	if err := e.look(id); err != nil {
		return lifecycle.Observation{}, err
	}
	recorded := record.Own() && record.ID == id
	stray, err := e.recordIsElsewhere()
	switch {
	case err != nil:
		return lifecycle.Observation{}, err
	case stray:
		return lifecycle.Observation{Relation: lifecycle.Absent, ID: record.ID, Settled: e.settled}, nil
	case e.key.gone && !recorded:
		// The Secret of an AuthKey before, whose key was revoked with it.
		return lifecycle.Observation{Relation: lifecycle.Absent, Settled: e.settled}, nil
	case e.toBeReplaced() && !e.key.gone:
		e.mirror()
		return lifecycle.Observation{Relation: lifecycle.Absent, ID: id, Settled: e.settled || !e.lists}, nil
	case e.toBeReplaced():
		return lifecycle.Observation{Relation: lifecycle.Absent, Settled: e.settled}, nil
	}
	e.mirror()
	seen := e.observation()
	switch {
	case e.key.gone && e.conn.Moved && !e.key.exchanged() && !e.key.expired(e.clock.Now()):
		return lifecycle.NotCreated(e.outcome()), nil // it may be in the organisation of the token before
	case e.key.gone:
		seen.Unseen = true // somebody has removed it; those before it are still to be revoked
	case !recorded:
		seen.Relation, seen.Proof = lifecycle.Recovered, "the Secret of this AuthKey holds it"
	}
	return seen, nil
}

// recordIsElsewhere tells whether the key on record is not the one in the Secret, which does not know of
// it either, and may still be used: it was made for a Secret of another name, and nobody would ever
// revoke it. A new key takes the place of both.
func (e *external) recordIsElsewhere() (bool, error) {
	record := e.conn.Record
	if !e.lists || !record.Own() || record.ID == e.secret.id() || slices.Contains(e.secret.supersedes(), record.ID) {
		return false, nil
	}
	key, there, err := e.store.Lookup(record.ID, e.conn.Waiter)
	return there && key.ExchangedAt == nil, lifecycle.FromListing(err)
}

// look gathers what is known of the key in the Secret. Of one that is gone, what was seen last still
// holds: a key that a device has used stays used.
func (e *external) look(id string) error {
	e.key = state{AuthKey: connectclient.AuthKey{ID: id, ExpiresAt: e.secret.expiresAt()}}
	if e.lists {
		found, there, err := e.store.Lookup(id, e.conn.Waiter)
		if err != nil {
			return lifecycle.FromListing(err)
		}
		if there {
			e.key = state{AuthKey: found, listed: true}
			if e.key.ExpiresAt.IsZero() {
				e.key.ExpiresAt = e.secret.expiresAt()
			}
			return nil
		}
		e.key.gone = true
	}
	if status := e.obj.Status; status.ID == id && status.ExchangedAt != nil {
		e.key.ExchangedAt = &status.ExchangedAt.Time
	}
	if status := e.obj.Status; status.ID == id && status.CreatedAt != nil {
		e.key.CreatedAt = status.CreatedAt.Time
	}
	return nil
}

// observation is what is to be said of the key in the Secret, and whether anything is left to do.
func (e *external) observation() lifecycle.Observation {
	now := e.clock.Now()
	outdated := len(e.secret.supersedes()) > 0 || e.secret.previous() != "" || e.secret.templateOutdated() ||
		len(e.lost) > 0 || e.toBeCleared()
	if e.key.editable(now) {
		outdated = outdated || e.changes() != (connectclient.AuthKeyUpdate{}) || !e.secret.matchesKeySpec()
	}
	outcome := e.outcome()
	if e.unsure {
		outcome.RequeueAfter = time.Second // what was lost can be told from what others make then
	}
	return lifecycle.Observation{Relation: lifecycle.Mine, ID: e.key.ID, Unseen: !e.lists, Outdated: outdated, Outcome: outcome}
}

// toBeCleared tells whether the Secret still holds a key that nobody used in time.
func (e *external) toBeCleared() bool {
	return e.key.expired(e.clock.Now()) && !e.secret.cleared(e.key.ID)
}

// changes is what distinguishes the key listed from the spec.
func (e *external) changes() connectclient.AuthKeyUpdate {
	var changes connectclient.AuthKeyUpdate
	is, should := shown(e.key.AuthKey), wanted(e.obj)
	if should.Description != is.Description {
		changes.Description = &should.Description
	}
	if should.DeviceName != is.DeviceName {
		changes.DeviceName = &should.DeviceName
	}
	if !lifecycle.SameSet(should.Tags, is.Tags) {
		tags := append([]string{}, e.obj.Spec.Tags...)
		changes.Tags = &tags
	}
	return changes
}

// Prepare implements [lifecycle.Creator]: it revokes what an earlier request has made, claims the
// Secret and makes sure that a key can be stored in it.
func (e *external) Prepare(ctx context.Context) (lifecycle.Preparation, error) {
	if e.unsure {
		return lifecycle.Lacking(lifecycle.NoChange(time.Second)), nil
	}
	if err := e.revokeLost(ctx); err != nil {
		return lifecycle.Preparation{}, err
	}
	if e.lists && e.conn.Record.ID != "" {
		// Of a first key, the loop sees to it that the listing is newer than the resource.
		since := e.issued.neededSince(e.conn.Waiter.Resource, e.clock.Now())
		if err := e.store.Await(since, e.conn.Waiter); err != nil {
			return lifecycle.Preparation{}, lifecycle.FromListing(err)
		}
	}
	for _, step := range []func(context.Context) error{e.secret.claim, e.secret.tryToStore} {
		if err := step(ctx); err != nil {
			return e.cannotStore(err)
		}
	}
	if delay := e.issued.delay(e.conn.Waiter.Resource); delay > 0 {
		return lifecycle.Lacking(lifecycle.Waiting(v1alpha1.ReasonCreating,
			"Several keys were made within a short time: waiting before the next one is.").WithRequeueAfter(delay)), nil
	}
	return lifecycle.Preparation{Note: e.noteOf().String(), Matters: lifetime(e.obj) + clockSkew}, nil
}

// cannotStore says why no key can be stored, if a person can mend that.
func (e *external) cannotStore(err error) (lifecycle.Preparation, error) {
	if outcome, refused := e.secretRefused(err); refused {
		return lifecycle.Lacking(outcome), nil
	}
	return lifecycle.Preparation{}, err
}

func (e *external) secretRefused(err error) (lifecycle.Outcome, bool) {
	words, refused := lifecycle.Refusal(err)
	if !refused {
		return lifecycle.Outcome{}, false
	}
	return lifecycle.Stalled(v1alpha1.ReasonSecretConflict,
		"The Kubernetes API server refuses to write Secret %q, so no key is made: %s", e.secret.name().Name, words), true
}

// Create implements [lifecycle.Creator]: it makes a key and puts it into the Secret. If that fails
// the key is revoked at once: nobody will ever see it again.
func (e *external) Create(ctx context.Context) (lifecycle.Observation, error) {
	look := wanted(e.obj)
	defer e.issued.begin(e.conn.Waiter.Resource, look.hash())()
	made, err := e.conn.Client.AuthKeys().Create(ctx, connectclient.AuthKeyCreate{
		Description: look.Description, DeviceName: look.DeviceName, Tags: e.obj.Spec.Tags, TTLDays: int(e.obj.Spec.TTLDays),
	})
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.issued.note(e.conn.Waiter.Resource, made.ID)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := e.secret.store(ctx, made, e.superseded(), e.previousSecret(), e.clock.Now()); err != nil {
		return e.notStored(ctx, made.ID, err)
	}
	e.stored(made)
	e.warnOfLoss()
	return e.observation(), nil
}

// superseded are the keys that a new one takes the place of.
func (e *external) superseded() []string {
	before := e.secret.supersedes()
	for _, id := range []string{e.secret.id(), e.conn.Record.ID} {
		if id != "" && !slices.Contains(before, id) && (id != e.conn.Record.ID || e.conn.Record.Own()) {
			before = append(before, id)
		}
	}
	return before
}

// previousSecret is the Secret of another name that the key was in before.
func (e *external) previousSecret() string {
	if name := e.obj.Status.SecretName; name != "" && name != e.secret.name().Name {
		return name
	}
	return e.secret.previous()
}

// notStored revokes a key that could not be stored. If even that fails, the key is one that a request
// has made whose answer was lost, and is found as such.
func (e *external) notStored(ctx context.Context, id string, err error) (lifecycle.Observation, error) {
	e.issued.lost(e.conn.Waiter.Resource)
	if revokeErr := e.revoke(ctx, id); revokeErr != nil {
		return lifecycle.Observation{}, errors.Join(err, revokeErr, connectclient.ErrOutcomeUnknown)
	}
	e.conn.Event(lifecycle.Event{Warning: true, Reason: v1alpha1.EventKeyRevoked, Action: "Revoke",
		Message: "Revoked the auth key " + id + ", which was made but could not be stored."})
	if outcome, refused := e.secretRefused(err); refused {
		return lifecycle.NotKnown(outcome), nil
	}
	return lifecycle.Observation{}, err
}

// stored notes what is in the Secret now.
func (e *external) stored(made *connectclient.AuthKey) {
	public := *made
	public.Secret = connectclient.Secret{}
	if e.lists {
		e.store.Put(public)
	}
	e.key = state{AuthKey: public, listed: e.lists}
	e.mirror()
	e.conn.Event(lifecycle.Event{Reason: v1alpha1.EventSecretWritten, Action: "Create",
		Message: fmt.Sprintf("Wrote the auth key %s to Secret %s.", made.ID, e.secret.name().Name)})
}

// warnOfLoss tells that an earlier request may have left a key that nobody can find or revoke, where
// the revision cannot list keys.
func (e *external) warnOfLoss() {
	if len(e.conn.Sent) == 0 || e.lists {
		return
	}
	before, _ := parseNote(e.conn.Sent[0].Note)
	e.conn.Event(lifecycle.Event{Warning: true, Reason: v1alpha1.EventKeyLost, Action: "Create",
		Message: fmt.Sprintf("A key with the description %q may have been made and lost before this one; Connect cannot list keys, so it may stay usable until %s.",
			lifecycle.Text(before.Description), lifecycle.UTC(e.clock.Now().Add(lifetime(e.obj))))})
}

// Update implements [lifecycle.Updater]: it finishes what the spec, time or an earlier pass left to
// do.
func (e *external) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	steps := []func(context.Context) error{e.revokeLost, e.applyTemplate, e.edit, e.revokeSuperseded, e.discardPrevious, e.clearDead}
	for _, step := range steps {
		err := step(ctx)
		if outcome, refused := e.secretRefused(err); err != nil && refused {
			return lifecycle.Observation{Relation: lifecycle.Mine, ID: id, Outcome: outcome}, nil
		}
		if errors.Is(err, connectclient.ErrNotEditable) {
			return lifecycle.NotKnown(lifecycle.RequeueWithBackoff()), e.refresh(ctx, id)
		}
		if err != nil {
			return lifecycle.Observation{}, err
		}
	}
	e.mirror()
	seen := e.observation()
	if e.overtaken {
		seen.Outcome = lifecycle.RequeueWithBackoff()
	}
	return seen, nil
}

func (e *external) applyTemplate(ctx context.Context) error {
	if !e.secret.templateOutdated() {
		return nil
	}
	return e.secret.applyTemplate(ctx)
}

// edit changes the key in the organisation to what the spec says.
func (e *external) edit(ctx context.Context) error {
	if !e.key.editable(e.clock.Now()) {
		return nil
	}
	if changes := e.changes(); changes != (connectclient.AuthKeyUpdate{}) {
		changed, err := e.conn.Client.AuthKeys().Update(ctx, e.key.ID, changes)
		if err != nil {
			return err
		}
		e.store.Put(*changed)
		e.key.AuthKey = *changed
		left := e.changes()
		e.overtaken = changes.Description == nil && left.Description != nil || changes.DeviceName == nil && left.DeviceName != nil || changes.Tags == nil && left.Tags != nil
		e.conn.Event(lifecycle.Event{Reason: v1alpha1.EventUpdated, Action: "Update", Message: "Updated the auth key " + e.key.ID + " in the organisation."})
	}
	if !e.secret.matchesKeySpec() {
		return e.secret.noteKeySpec(ctx)
	}
	return nil
}

// refresh looks at one key that is not what the last listing says: a device has used it since, or
// its time has run out.
func (e *external) refresh(ctx context.Context, id string) error {
	found, err := e.conn.Client.AuthKeys().Get(ctx, id)
	if errors.Is(err, connectclient.ErrNotFound) {
		e.store.Remove(id)
		return nil
	}
	if err != nil {
		return err
	}
	e.store.Put(*found)
	return nil
}

// revokeSuperseded revokes the keys that the one in the Secret supersedes.
func (e *external) revokeSuperseded(ctx context.Context) error {
	if len(e.secret.supersedes()) == 0 {
		return nil
	}
	before, err := e.withoutOthers(ctx, e.secret.supersedes())
	if err != nil {
		return err
	}
	for _, id := range before {
		if err := e.revoke(ctx, id); err != nil {
			return err
		}
	}
	return e.secret.forgetSuperseded(ctx)
}

// withoutOthers leaves out the keys that other AuthKeys have on record: what a Secret says may have been
// copied from another one.
func (e *external) withoutOthers(ctx context.Context, ids []string) ([]string, error) {
	var own []string
	for _, id := range ids {
		_, owned, err := e.conn.Owner(ctx, id)
		if err != nil {
			return nil, err
		}
		if !owned {
			own = append(own, id)
		}
	}
	return own, nil
}

// discardPrevious deletes the Secret of another name that the key was in before.
func (e *external) discardPrevious(ctx context.Context) error {
	previous := e.secret.previous()
	if previous == "" {
		return nil
	}
	if previous != e.secret.name().Name {
		if err := e.secret.discard(ctx, previous); err != nil {
			return err
		}
	}
	return e.secret.forgetPrevious(ctx)
}

func (e *external) clearDead(ctx context.Context) error {
	if !e.toBeCleared() {
		return nil
	}
	return e.secret.clear(ctx)
}

// Delete implements [lifecycle.Deleter]: it revokes the key, and every other that this AuthKey has
// made and that may still be used. The Secret goes with its owner; one that is kept holds no key.
func (e *external) Delete(ctx context.Context, id string) (lifecycle.Deletion, error) {
	if e.secret == nil {
		if _, err := e.open(ctx); err != nil {
			return lifecycle.Deletion{}, err
		}
	}
	if e.conn.Client.Revision() == connectclient.RevisionOlder {
		return lifecycle.Retained(v1alpha1.EventOrphaned,
			fmt.Sprintf("Connect cannot revoke auth keys: the key %s stays usable until it is used or expires.", id)), nil
	}
	if err := e.revokeLost(ctx); err != nil {
		return lifecycle.Deletion{}, err
	}
	named := e.secret.supersedes()
	if held := e.secret.id(); held != "" && held != id {
		named = append(named, held)
	}
	own, err := e.withoutOthers(ctx, named)
	if err != nil {
		return lifecycle.Deletion{}, err
	}
	removed := false
	for _, id := range append(own, id) {
		err := e.conn.Client.AuthKeys().Delete(ctx, id)
		if err != nil && !errors.Is(err, connectclient.ErrNotFound) {
			return lifecycle.Deletion{}, err
		}
		removed = removed || err == nil
		e.store.Remove(id)
	}
	if err := e.emptySecret(ctx); err != nil {
		return lifecycle.Deletion{}, err
	}
	if !removed {
		return lifecycle.AlreadyGone(), nil
	}
	return lifecycle.Removed(v1alpha1.EventDeleted, "Revoked the auth key "+id+"."), nil
}

// emptySecret takes the dead key out of the Secret. Whoever keeps the Secret (kubectl delete
// --cascade=orphan) must not take it for a live one. One that cannot be written keeps nobody.
func (e *external) emptySecret(ctx context.Context) error {
	if belongs := e.secret.belongs(); belongs == nobodys || e.secret.id() == "" || !e.secret.meta.DeletionTimestamp.IsZero() {
		return nil
	}
	err := e.secret.forgetKey(ctx)
	if _, refused := lifecycle.Refusal(err); refused {
		return nil
	}
	return client.IgnoreNotFound(err)
}

// revoke removes a key from the organisation, where that can be done.
func (e *external) revoke(ctx context.Context, id string) error {
	err := e.conn.Client.AuthKeys().Delete(ctx, id)
	if err != nil && !errors.Is(err, connectclient.ErrNotFound) && !errors.Is(err, connectclient.ErrUnsupported) {
		return err
	}
	e.store.Remove(id)
	return nil
}
