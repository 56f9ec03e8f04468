// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// kind is what a history knows of one of the operator's kinds.
type kind struct {
	name       string
	prefix     string // of the names of its resources
	names      int    // how many of them there are
	collection string // in the API, of its objects; empty if Connect has no such thing
	orphans    bool   // it leaves what it has made, unless its policy is Delete

	fresh  func(w *world, name string, variant int) object // a new resource
	same   func(anew, was object)                          // gives a new resource the spec of another one
	change func(w *world, obj object, variant int)         // what can be changed of the spec
	add    func(w *world, n, variant int)                  // others make an object that looks alike
	alter  func(w *world, n, variant int)                  // others change an object
	remove func(w *world, n, variant int)                  // others remove one
	ids    func(org *connectsim.Organisation) []string     // of the objects that there are
	goes   func(org *connectsim.Organisation) []string     // of those that go with the resource that has made them; nil if all may stay
	atRest func(w *world, obj object) error                // what must be true when all is over
}

// kinds are all of them. They are put together late, because they know of each other.
var kinds []*kind

func init() { //nolint:gochecknoinits // the compiler takes it for a cycle otherwise
	kinds = []*kind{artefacts, authKeys, identities, devices, deployments, rollouts}
}

func TestEveryKindIsPlayed(t *testing.T) {
	for _, called := range cluster.Kinds() {
		if !slices.ContainsFunc(kinds, func(k *kind) bool { return k.name == called }) {
			t.Errorf("no history has a %s: describe it in a file like artefact_test.go, and add that to kinds", called)
		}
	}
}

// kindOf names the kind whose objects are in a collection of the API.
func kindOf(collection string) string {
	at := slices.IndexFunc(kinds, func(k *kind) bool { return collection != "" && k.collection == collection })
	if at < 0 {
		panic(fmt.Sprintf("no kind has the collection %q", collection))
	}
	return kinds[at].name
}

func kindNamed(name string) *kind {
	at := slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
	if at < 0 {
		panic(fmt.Sprintf("there is no kind %q", name))
	}
	return kinds[at]
}

// policy draws a deletion policy.
func policy(variant int) v1alpha1.DeletionPolicy {
	return []v1alpha1.DeletionPolicy{"", "", v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyOrphan}[variant%4]
}

// leaves tells whether what a resource has made stays when it goes.
func (k *kind) leaves(obj object) bool {
	policy := policyOf(obj)
	return policy == v1alpha1.DeletionPolicyOrphan || policy == "" && k.orphans
}

func nothing(*world, int, int) {}

// ready returns the status and reason of Ready.
func ready(obj object) (status, reason, message string) {
	c := meta.FindStatusCondition(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	if c == nil {
		return "", "", ""
	}
	return string(c.Status), c.Reason, c.Message
}

// idsOf are the ids of objects.
func idsOf[T any](all []T, id func(T) string) []string {
	ids := make([]string, len(all))
	for i := range all {
		ids[i] = id(all[i])
	}
	return ids
}

// pick returns one of several; false if there is none.
func pick[T any](all []T, n int) (one T, ok bool) {
	if len(all) == 0 {
		return one, false
	}
	return all[n%len(all)], true
}
