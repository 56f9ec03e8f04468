// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/api/v1alpha1"
)

func TestOlder(t *testing.T) {
	resource := func(namespace, name string, age time.Duration) *v1alpha1.Artefact {
		return &v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(noon.Add(-age)),
		}}
	}
	for name, test := range map[string]struct {
		elder, younger *v1alpha1.Artefact
	}{
		"who was created first":                         {resource("z", "z", time.Hour), resource("a", "a", time.Minute)},
		"of the same moment, by the namespace":          {resource("a", "z", time.Hour), resource("b", "a", time.Hour)},
		"of the same moment and namespace, by the name": {resource("a", "a", time.Hour), resource("a", "b", time.Hour)},
		"namespace and name are not read as one word":   {resource("a", "z", time.Hour), resource("ab", "a", time.Hour)},
		"the same moment, as clocks elsewhere show it": {
			&v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{Name: "a", CreationTimestamp: metav1.NewTime(noon.In(time.FixedZone("BST", 3600)))}},
			&v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{Name: "b", CreationTimestamp: metav1.NewTime(noon)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if !older(test.elder, test.younger) {
				t.Error("the elder is not older")
			}
			// Both must never take themselves for the owner, nor neither.
			if older(test.younger, test.elder) {
				t.Error("the younger is older")
			}
		})
	}
	one := resource("a", "a", time.Hour)
	if older(one, one.DeepCopy()) {
		t.Error("a resource is older than itself")
	}
}

// contender is a resource with something on record, or that names an id to import.
func contender(name string, age time.Duration, id string, origin Origin) *v1alpha1.Artefact {
	obj := newArtefact()
	obj.Name, obj.UID, obj.CreationTimestamp = name, types.UID(name), metav1.NewTime(noon.Add(-age))
	switch origin {
	case Created, Adopted:
		obj.Status.ID, obj.Status.Adopted = id, origin == Adopted
	case Imported:
		obj.Annotations[v1alpha1.AnnotationID] = id
	case None:
	}
	return obj
}

// Who has the object comes before who names it, however old; of those that have it, the oldest.
func TestWhoYields(t *testing.T) {
	for name, test := range map[string]struct {
		me, other Origin
		iAmOlder  bool
		yields    bool
	}{
		"the younger of two that have it":                      {Created, Created, false, true},
		"the older of two that have it":                        {Created, Adopted, true, false},
		"who has it, to an older one that names it":            {Created, Imported, false, false},
		"who names it, to a younger one that has it":           {Imported, Created, true, true},
		"who looks for its key, to a younger one that has it":  {None, Created, true, true},
		"who looks for its key, to an older one that does too": {None, None, false, true},
		"who looks for its key, to a younger one":              {None, None, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			mine, theirs := 2*time.Hour, time.Hour
			if !test.iAmOlder {
				mine, theirs = theirs, mine
			}
			p := passOver(newLoop(), contender("me", mine, "a1", test.me))
			if got := p.yieldsTo(contender("other", theirs, "a1", test.other), "a1"); got != test.yields {
				t.Errorf("it yields: %t", got)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	named := func(name string, age time.Duration) Holder {
		return Holder{NamespacedName: types.NamespacedName{Namespace: "lab", Name: name}, UID: types.UID(name), Age: noon.Add(-age)}
	}
	one, two, twin := named("one", 2*time.Hour), named("two", time.Hour), named("twin", 2*time.Hour)
	type step struct {
		claim    string // empty: the resource is gone
		by       Holder
		onRecord bool
		want     bool // it has the claim
	}
	for name, steps := range map[string][]step{
		"who comes first has it":                              {{"a", two, false, true}, {"a", one, false, false}},
		"and may ask again":                                   {{"a", one, false, true}, {"a", one, false, true}, {"a", two, false, false}},
		"there is enough for everybody":                       {{"a", one, false, true}, {"b", two, false, true}},
		"one may have several":                                {{"a", one, false, true}, {"b", one, false, true}, {"a", two, false, false}, {"b", two, false, false}},
		"who is gone gives it back":                           {{"a", one, false, true}, {"", one, false, false}, {"a", two, false, true}},
		"who had nothing takes nothing along":                 {{"a", one, false, true}, {"", two, false, false}, {"a", two, false, false}},
		"who has it on record takes it from a younger one":    {{"a", two, true, true}, {"a", one, true, true}, {"a", two, true, false}},
		"of one age, by the name":                             {{"a", twin, true, true}, {"a", one, true, true}, {"a", twin, true, false}},
		"but not from an older one":                           {{"a", one, true, true}, {"a", two, true, false}},
		"who has nothing on record takes nothing from anyone": {{"a", two, true, true}, {"a", one, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			claims := newClaims(clocktesting.NewFakePassiveClock(noon))
			for i, s := range steps {
				if s.claim == "" {
					claims.ReleaseAll(s.by.UID)
					continue
				}
				if _, taken := claims.Take(s.claim, s.by, s.onRecord); taken == s.want {
					t.Errorf("step %d: %s has %s: %t", i, s.by.Name, s.claim, !taken)
				}
			}
		})
	}
}

// Whoever was told that an object is another one's is woken when that may have changed.
func TestClaimsWake(t *testing.T) {
	one := Holder{NamespacedName: types.NamespacedName{Name: "one"}, UID: "one", Age: noon}
	two := Holder{NamespacedName: types.NamespacedName{Name: "two"}, UID: "two", Age: noon.Add(-time.Hour)}
	for name, test := range map[string]struct {
		happens func(*Claims)
		want    []string
	}{
		"nothing has":                {func(*Claims) {}, nil},
		"the holder is gone":         {func(c *Claims) { c.ReleaseAll("one") }, []string{"waiter"}},
		"the claim was given back":   {func(c *Claims) { c.Release("a", "one") }, []string{"waiter"}},
		"another gives back nothing": {func(c *Claims) { c.Release("a", "two") }, nil},
		"an older one takes it":      {func(c *Claims) { c.Take("a", two, true) }, []string{"two", "one"}},
		"the holder writes":          {func(c *Claims) { c.Written("a", "one") }, nil},
		"another one writes":         {func(c *Claims) { c.Written("a", "two") }, []string{"one"}},
		"something else is written":  {func(c *Claims) { c.Written("b", "two") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			claims := newClaims(clocktesting.NewFakePassiveClock(noon))
			var woken []string
			claims.wake = func(resource types.NamespacedName) { woken = append(woken, resource.Name) }
			claims.Take("a", one, true)
			claims.Wait(one, types.NamespacedName{Name: "waiter"})
			test.happens(claims)
			if !slices.Equal(woken, test.want) {
				t.Errorf("woken are %v, want %v", woken, test.want)
			}
		})
	}
}

// Who takes an object while the one before is still at it is woken when that is done: it may have looked before,
// and no listing will show what the operator itself has written as a change.
func TestWritingToWhatIsTaken(t *testing.T) {
	for name, test := range map[string]struct {
		call   string
		delete bool
	}{
		"changing": {call: "update a1"},
		"removing": {call: "delete a1", delete: true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, true, func(s *stage) {
				taker := Holder{NamespacedName: types.NamespacedName{Namespace: "lab", Name: "taker"}, UID: "taker", Age: time.Now().Add(-24 * time.Hour)}
				var woken []string
				s.apply(kiosk(has("a1", Created)))
				s.Claims.wake = func(resource types.NamespacedName) { woken = append(woken, resource.Name) }
				s.during = func(call string) {
					if call == test.call {
						s.Claims.Take(objectClaim("Artefact", "a1"), taker, true)
						woken = nil
					}
				}
				outdated := mine("a1")
				outdated.Outdated = true
				s.finds(outdated)
				s.updates(mine("a1"), nil)
				s.deletes(Removed("Deleted", "Deleted it."), nil)
				if test.delete {
					s.delete()
				}
				s.reconcile()
				if !slices.Contains(woken, "taker") {
					t.Errorf("woken are %v", woken)
				}
			})
		})
	}
}

// What may still be carried out keeps others away for as long as that, and not for longer, whatever
// becomes of who sent it.
func TestClaimsEnd(t *testing.T) {
	one, two := Holder{UID: "one", Age: noon}, Holder{UID: "two", Age: noon}
	clock := clocktesting.NewFakePassiveClock(noon)
	claims := newClaims(clock)
	claims.Take("device", one, false)
	claims.KeepUntil("device", "two", noon) // who does not hold it keeps nothing
	if _, held := claims.HolderOf("device"); !held {
		t.Error("another has ended it")
	}
	claims.KeepUntil("device", "one", noon.Add(time.Minute))
	clock.SetTime(noon.Add(59 * time.Second))
	if holder, taken := claims.Take("device", two, false); !taken || holder.UID != "one" {
		t.Errorf("it is held by %q after 59 seconds", holder.UID)
	}
	clock.SetTime(noon.Add(time.Minute))
	if _, held := claims.HolderOf("device"); held {
		t.Error("it is held after a minute")
	}
	if holder, taken := claims.Take("device", two, false); taken {
		t.Errorf("it is held by %q after a minute", holder.UID)
	}
	claims.KeepUntil("device", "two", noon)
	if _, taken := claims.Take("device", two, false); taken {
		t.Error("who held it cannot take it again")
	}
	if holder, _ := claims.HolderOf("device"); holder.UID != "two" {
		t.Errorf("%q holds it, which was taken again", holder.UID)
	}
}
