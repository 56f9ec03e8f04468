// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// claim sees to it that one remote object has one owner. Of the resources that
// are about the same one the oldest owns it; the others are told so and do
// nothing.
func (p *pass[O]) claim(ctx context.Context, seen Observation) error {
	rivals, err := p.rivals(ctx, seen.ID)
	if err != nil {
		return err
	}
	for _, rival := range rivals {
		if older(rival, p.obj) {
			return Stalled(v1alpha1.ReasonAlreadyClaimed,
				"%s %s/%s, which is older, manages the same remote object: delete one of the two.",
				p.gvk.Kind, rival.GetNamespace(), rival.GetName())
		}
	}
	return nil
}

// rivals returns the other resources that are about the same remote object: they
// have recorded its id or, as long as they have recorded none, look for the same
// natural key with the same access token.
func (p *pass[O]) rivals(ctx context.Context, id string) ([]O, error) {
	var rivals []O
	if id != "" {
		same, err := p.others(ctx, claimID(id))
		if err != nil {
			return nil, err
		}
		rivals = append(rivals, same...)
	}
	key := p.naturalKey(p.obj)
	if key == "" {
		return rivals, nil
	}
	same, err := p.others(ctx, claimKey(key))
	if err != nil {
		return nil, err
	}
	for _, other := range same {
		if recordedID(other) == "" && p.sameOrganisation(ctx, other) {
			rivals = append(rivals, other)
		}
	}
	return rivals, nil
}

func (p *pass[O]) others(ctx context.Context, claim string) ([]O, error) {
	found, err := p.list(ctx, client.MatchingFields{indexClaim: claim})
	if err != nil {
		return nil, err
	}
	var others []O
	for _, obj := range found {
		if obj.GetUID() != p.obj.GetUID() {
			others = append(others, obj)
		}
	}
	return others, nil
}

// sameOrganisation tells whether the other resource uses the same access token.
// Where that cannot be told, because its Secret is missing, it does not rival.
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

// claimed tells whether another resource has recorded the remote id, or is about
// to; if not, it is this resource's from now on.
func (p *pass[O]) claimed(ctx context.Context, id string) (bool, error) {
	others, err := p.others(ctx, claimID(id))
	if err != nil || len(others) > 0 {
		return true, err
	}
	return !p.takings.take(id, p.req.NamespacedName), nil
}

// takings remembers who has taken which remote object that nobody had recorded:
// the record takes a moment to reach the cache, and another resource that looks
// for one meanwhile must not take the same.
type takings struct {
	mu sync.Mutex
	by map[string]types.NamespacedName
	of map[types.NamespacedName]string
}

func newTakings() *takings {
	return &takings{by: map[string]types.NamespacedName{}, of: map[types.NamespacedName]string{}}
}

// take gives the remote object to the resource, unless another one has it.
func (t *takings) take(id string, resource types.NamespacedName) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if owner, taken := t.by[id]; taken {
		return owner == resource
	}
	delete(t.by, t.of[resource])
	t.by[id], t.of[resource] = resource, id
	return true
}

// forget gives back what a resource had that is gone.
func (t *takings) forget(resource types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, t.of[resource])
	delete(t.of, resource)
}
