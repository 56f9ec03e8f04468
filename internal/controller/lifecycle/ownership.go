// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// claim sees to it that one remote object has one owner. Who has the object on record comes before
// who merely names it; of several that have it on record, or of several that look for the same
// natural key, the oldest owns it. The others are told so and do nothing.
func (p *pass[O]) claim(ctx context.Context, seen Observation) (Outcome, bool, error) {
	contenders, err := p.contenders(ctx, seen)
	if err != nil {
		return Outcome{}, false, err
	}
	for _, contender := range contenders {
		if p.yieldsTo(contender, seen.ID) {
			return p.claimedBy(contender.GetNamespace(), contender.GetName(), contender.GetUID()), true, nil
		}
	}
	if !seen.exists() {
		return Outcome{}, false, nil
	}
	if holder, taken := p.Claims.Take(objectClaim(p.gvk.Kind, seen.ID), p.holder(), p.record.Own()); taken {
		return p.claimedBy(holder.Namespace, holder.Name, holder.UID), true, nil
	}
	return Outcome{}, false, nil
}

// claimedBy is the outcome of a resource that another one keeps from its remote object. It is
// woken when that one lets go.
func (p *pass[O]) claimedBy(namespace, name string, uid types.UID) Outcome {
	p.Claims.wait(uid, p.req.NamespacedName)
	return AlreadyClaimed(p.gvk.Kind, types.NamespacedName{Namespace: namespace, Name: name})
}

// AlreadyClaimed is the outcome of a resource whose remote object is another one's.
func AlreadyClaimed(kind string, owner types.NamespacedName) Outcome {
	return Stalled(v1alpha1.ReasonAlreadyClaimed, "%s %s manages the same remote object: delete one of the two.", kind, owner)
}

// contenders returns the other resources that are about the same remote object: they have its id on
// record, or look for the same natural key with the same access token and have nothing on record.
func (p *pass[O]) contenders(ctx context.Context, seen Observation) ([]O, error) {
	var contenders []O
	if seen.ID != "" && seen.Relation != Foreign {
		same, err := p.others(ctx, claimID(seen.ID))
		if err != nil {
			return nil, err
		}
		contenders = append(contenders, same...)
	}
	key := p.naturalKey(p.obj)
	if key == "" {
		return contenders, nil
	}
	same, err := p.others(ctx, claimKey(key))
	if err != nil {
		return nil, err
	}
	for _, other := range same {
		if idle := suspended(other) || !other.GetDeletionTimestamp().IsZero(); !idle && recordOf(other).ID == "" && p.sameOrganisation(ctx, other) {
			contenders = append(contenders, other)
		}
	}
	return contenders, nil
}

// yieldsTo tells whether a contender comes before this resource.
func (p *pass[O]) yieldsTo(contender O, id string) bool {
	record := recordOf(contender)
	theirs, mine := record.Own() && record.ID == id, p.record.Own() && p.record.ID == id
	switch {
	case theirs != mine:
		return theirs
	case record.Origin == Imported && !mine:
		// Both name it. Whoever has no business with it does not get in the way: that one has
		// another organisation, or was told that nothing is there.
		return older(contender, p.obj) && p.sameOrganisation(context.Background(), contender) && !suspended(contender)
	default:
		return older(contender, p.obj)
	}
}

func (p *pass[O]) others(ctx context.Context, claim string) ([]O, error) {
	found, err := p.list(ctx, client.MatchingFields{indexClaim: claim})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(obj O) bool { return obj.GetUID() == p.obj.GetUID() }), nil
}

// sameOrganisation tells whether the other resource uses the same access token. Where that cannot
// be told, because its Secret is missing, it does not contend.
func (p *pass[O]) sameOrganisation(ctx context.Context, other O) bool {
	mine, err := p.Tokens.Token(ctx, tokenRef(p.obj))
	if err != nil {
		return false
	}
	theirs, err := p.Tokens.Token(ctx, tokenRef(other))
	return err == nil && mine == theirs
}

// older orders resources by creation time, then by namespace and name.
func older(a, b client.Object) bool {
	at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if !at.Equal(&bt) {
		return at.Before(&bt)
	}
	if a.GetNamespace() != b.GetNamespace() {
		return a.GetNamespace() < b.GetNamespace()
	}
	return a.GetName() < b.GetName()
}

// owner finds another resource that has the remote id on record as its own, in the cache or among
// the claims of this process, which are ahead of it.
func (p *pass[O]) owner(ctx context.Context, id string) (Owner, bool, error) {
	others, err := p.others(ctx, claimID(id))
	if err != nil {
		return Owner{}, false, err
	}
	for _, other := range others {
		if record := recordOf(other); record.Own() {
			return Owner{client.ObjectKeyFromObject(other), other.GetUID(), record.Origin == Created}, true, nil
		}
	}
	if holder, held := p.Claims.HolderOf(objectClaim(p.gvk.Kind, id)); held && holder.UID != p.obj.GetUID() {
		return Owner{holder.NamespacedName, holder.UID, holder.Created}, true, nil
	}
	return Owner{}, false, nil
}

func objectClaim(kind, id string) string { return kind + "/" + id }

// Holder is a resource that holds a claim.
type Holder struct {
	types.NamespacedName
	UID     types.UID
	Age     time.Time // when the resource was created
	Created bool      // what it holds was created for it
}

// hold is a claim that is held.
type hold struct {
	Holder
	until time.Time // zero if until it is given back
}

// Claims are what the resources of a kind hold in this process: remote objects, and whatever else
// one of them works on while others must leave it alone. A claim is ahead of the cache, which shows
// the record of it a moment later.
type Claims struct {
	clock clock.PassiveClock

	mu      sync.Mutex
	holders map[string]hold
	of      map[types.UID]map[string]bool
	waiting map[types.UID]map[types.NamespacedName]bool // who waits for the holder to let go
	wake    func(types.NamespacedName)
}

func newClaims(c clock.PassiveClock) *Claims {
	return &Claims{
		clock: c, holders: map[string]hold{}, of: map[types.UID]map[string]bool{},
		waiting: map[types.UID]map[types.NamespacedName]bool{}, wake: func(types.NamespacedName) {},
	}
}

// Take gives the claim to the resource, unless another one holds it; then it returns that one. Who
// has the object on record takes it from a younger holder, who is woken to be told; and looks again
// itself, because that one may have changed it since the first look.
func (c *Claims) Take(claim string, by Holder, onRecord bool) (holder Holder, taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, held := c.held(claim)
	switch {
	case held && before.UID == by.UID:
	case held && (!onRecord || !by.before(before)):
		return before, true
	case held:
		delete(c.of[before.UID], claim)
		defer c.wake(before.NamespacedName)
		defer c.wake(by.NamespacedName)
	}
	c.holders[claim] = hold{Holder: by}
	if c.of[by.UID] == nil {
		c.of[by.UID] = map[string]bool{}
	}
	c.of[by.UID][claim] = true
	return Holder{}, false
}

func (h Holder) before(other Holder) bool {
	if !h.Age.Equal(other.Age) {
		return h.Age.Before(other.Age)
	}
	return h.String() < other.String()
}

// Written wakes who has taken the claim from the resource while that was on its way to change or remove
// what it is for: no listing will show it as a change.
func (c *Claims) Written(claim string, by types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if has, held := c.held(claim); held && has.UID != by {
		c.wake(has.NamespacedName)
	}
}

// HolderOf returns who holds the claim.
func (c *Claims) HolderOf(claim string) (Holder, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held(claim)
}

// held returns who holds the claim. The lock is held.
func (c *Claims) held(claim string) (Holder, bool) {
	has, held := c.holders[claim]
	if held && !has.until.IsZero() && !c.clock.Now().Before(has.until) {
		delete(c.holders, claim)
		delete(c.of[has.UID], claim)
		return Holder{}, false
	}
	return has.Holder, held
}

// KeepUntil has the resource hold the claim, if it does, for so long at most, whatever becomes of
// it.
func (c *Claims) KeepUntil(claim string, by types.UID, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if has, held := c.holders[claim]; held && has.UID == by {
		has.until = until
		c.holders[claim] = has
	}
}

// Wait has the resource woken when the holder lets one of its claims go.
func (c *Claims) Wait(holder Holder, resource types.NamespacedName) { c.wait(holder.UID, resource) }

func (c *Claims) wait(holder types.UID, resource types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[holder] == nil {
		c.waiting[holder] = map[types.NamespacedName]bool{}
	}
	c.waiting[holder][resource] = true
}

// Release gives one claim back, and wakes who waits for its holder.
func (c *Claims) Release(claim string, by types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders[claim].UID != by {
		return
	}
	delete(c.holders, claim)
	delete(c.of[by], claim)
	c.wakeWaiting(by)
}

// ReleaseAll gives back whatever a resource holds that is gone, or has nothing to do with it any
// more.
func (c *Claims) ReleaseAll(by types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for claim := range c.of[by] {
		if c.holders[claim].UID == by {
			delete(c.holders, claim)
		}
	}
	delete(c.of, by)
	c.wakeWaiting(by)
}

func (c *Claims) wakeWaiting(holder types.UID) {
	for resource := range c.waiting[holder] {
		c.wake(resource)
	}
	delete(c.waiting, holder)
}

// claims lists what identifies the remote object that the resource is about.
func (r *Reconciler[O]) claims(obj O) []string {
	var claims []string
	if record := recordOf(obj); record.ID != "" {
		claims = append(claims, claimID(record.ID))
	}
	if key := r.naturalKey(obj); key != "" {
		claims = append(claims, claimKey(key))
	}
	return claims
}

func (r *Reconciler[O]) naturalKey(obj O) string {
	if r.kind.NaturalKey == nil {
		return ""
	}
	return r.kind.NaturalKey(obj)
}

// claimID and claimKey are the claims on a remote object, by its id and by its natural key.
func claimID(id string) string   { return "id/" + id }
func claimKey(key string) string { return "key/" + key }
