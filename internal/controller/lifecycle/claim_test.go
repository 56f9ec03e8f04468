// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

func TestTakings(t *testing.T) {
	one, two := types.NamespacedName{Namespace: "lab", Name: "one"}, types.NamespacedName{Namespace: "lab", Name: "two"}
	type step struct {
		id   string // empty: the resource is gone
		by   types.NamespacedName
		want bool
	}
	for name, steps := range map[string][]step{
		"who comes first has it":          {{"a", one, true}, {"a", two, false}},
		"and may ask again":               {{"a", one, true}, {"a", one, true}, {"a", two, false}},
		"there is enough for everybody":   {{"a", one, true}, {"b", two, true}},
		"who takes another gives it back": {{"a", one, true}, {"b", one, true}, {"a", two, true}, {"b", two, false}},
		"who is refused keeps what it had": {
			{"a", one, true}, {"b", two, true}, {"b", one, false}, {"a", two, false}, {"a", one, true}},
		"who is gone gives it back":           {{"a", one, true}, {"", one, false}, {"a", two, true}},
		"who had nothing takes nothing along": {{"a", one, true}, {"", two, false}, {"a", two, false}},
		"who is gone can come back":           {{"a", one, true}, {"", one, false}, {"a", one, true}, {"a", two, false}},
	} {
		t.Run(name, func(t *testing.T) {
			takings := newTakings()
			for i, s := range steps {
				if s.id == "" {
					takings.forget(s.by)
					continue
				}
				if got := takings.take(s.id, s.by); got != s.want {
					t.Errorf("step %d: %s takes %s: %t", i, s.by.Name, s.id, got)
				}
			}
		})
	}
}
