// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/workqueue"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// wake is three namespaces, each of which has an Artefact of the same name: two with one
// organisation's token, and one with another's.
type wake struct {
	*testing.T
	*Reconciler[*v1alpha1.Artefact]
}

const (
	ours   = "rporg_ours"
	theirs = "rporg_theirs"
)

func newWake(t *testing.T) *wake {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	r := newReconciler(Environment{Clock: clocktesting.NewFakePassiveClock(noon)}, Kind[*v1alpha1.Artefact]{
		NewList:    func() client.ObjectList { return &v1alpha1.ArtefactList{} },
		NaturalKey: func(a *v1alpha1.Artefact) string { return a.Name },
	})
	var objects []client.Object
	for namespace, token := range map[string]string{"a": ours, "b": ours, "c": theirs} {
		objects = append(objects, artefactIn(namespace), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "connect-access-token"},
			Data:       map[string][]byte{"token": []byte(token)},
		})
	}
	r.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&v1alpha1.Artefact{}, indexClaim, func(obj client.Object) []string { return r.claims(obj.(*v1alpha1.Artefact)) }).
		Build()
	r.Tokens = accesstoken.NewSource(r.Client, r.Client)
	r.queue = workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(r.queue.ShutDown)
	return &wake{t, r}
}

func artefactIn(namespace string) *v1alpha1.Artefact {
	a := newArtefact()
	a.Namespace, a.Name = namespace, "kiosk"
	a.Spec.AccessTokenSecretRef = v1alpha1.AccessTokenReference{Name: "connect-access-token", Key: "token"}
	return a
}

// know has the operator read the tokens of all namespaces.
func (w *wake) know() {
	w.Helper()
	for _, namespace := range []string{"a", "b", "c"} {
		if _, err := w.Tokens.Token(w.Context(), tokenRef(artefactIn(namespace))); err != nil {
			w.Fatal(err)
		}
	}
}

// wakes tells the namespaces whose Artefacts are looked at.
func (w *wake) wakes(want ...string) {
	w.Helper()
	var got []string
	for w.queue.Len() > 0 {
		req, _ := w.queue.Get()
		w.queue.Done(req)
		got = append(got, req.Namespace)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.Errorf("woken are those in %q instead of %q", got, want)
	}
}

// A thousand organisations have artefacts of one name: what happens in one is nothing to the others.
func TestWhatHappensInAnOrganisationWakesNobodyElse(t *testing.T) {
	w := newWake(t)
	w.know()

	w.enqueue(reflector.Notification{Token: connectclient.NewSecret(ours), Keys: []string{"kiosk"}})
	w.wakes("a", "b")
	w.enqueueContenders(t.Context(), event.DeleteEvent{Object: artefactIn("a")}, w.queue)
	w.wakes("a", "b")
	w.enqueueContenders(t.Context(), event.DeleteEvent{Object: artefactIn("c")}, w.queue)
	w.wakes("c")
}

// Whoever waits for an owner is told of its end, although its token has not been read.
func TestContendersOfAnOwnerWhoseTokenIsUnknown(t *testing.T) {
	w := newWake(t)
	w.enqueueContenders(t.Context(), event.DeleteEvent{Object: artefactIn("a")}, w.queue)
	w.wakes("a", "b", "c")
}
