// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// stage is the kind without the loop, in front of a simulated Connect. Time is synctest's.
type stage struct {
	*testing.T
	client.Client

	org   *connectsim.Organisation
	token connectclient.Secret
	api   *connectclient.API
	kind  lifecycle.Kind[*v1alpha1.AuthKey]
}

type direct struct{ sim *connectsim.Server }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	d.sim.ServeHTTP(recorder, r)
	return recorder.Result(), nil
}

func play(t *testing.T, story func(*stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		scheme := runtime.NewScheme()
		for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, metav1.AddMetaToScheme} {
			if err := add(scheme); err != nil {
				t.Fatal(err)
			}
		}
		sim, token := connectsim.New(connectsim.Options{}), connectsim.NewSecret("rporg_")
		s := &stage{T: t, org: sim.AddOrganisation(token), token: connectclient.NewSecret(token)}
		s.Client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.AuthKey{}).Build()
		var err error
		s.api, err = connectclient.New(connectclient.Options{Transport: direct{sim}})
		s.must(err)
		s.kind = Kind(reflector.Options{API: s.api, Interval: 10 * time.Minute}, s.Client, s.Client, clock.RealClock{})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = s.kind.Source.Start(ctx) }()
		synctest.Wait()
		story(s)
		stop()
		synctest.Wait()
	})
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// made is an AuthKey of a namespace with a key of its own, in its Secret.
func (s *stage) made(namespace, name string) *v1alpha1.AuthKey {
	s.Helper()
	obj := &v1alpha1.AuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name)}}
	obj.Spec.TTLDays, obj.Spec.Secret.Key = 1, "auth.key"
	s.must(s.Create(s.Context(), obj))
	s.mint(obj)
	return obj
}

// mint makes a key, and records it as the loop does.
func (s *stage) mint(obj *v1alpha1.AuthKey) {
	s.Helper()
	creator := s.look(obj, lifecycle.Absent).(lifecycle.Creator)
	ready, err := creator.Prepare(s.Context())
	for errors.Is(err, reflector.ErrPending) { // it wants to know which keys are there just now
		time.Sleep(time.Second)
		creator = s.look(obj, lifecycle.Absent).(lifecycle.Creator)
		ready, err = creator.Prepare(s.Context())
	}
	s.must(err)
	if ready.Missing != nil {
		s.Fatalf("%+v", ready.Missing)
	}
	made, err := creator.Create(s.Context())
	s.must(err)
	s.record(obj, made.ID)
}

func (s *stage) record(obj *v1alpha1.AuthKey, id string) {
	s.Helper()
	obj.Status.ID = id
	s.must(s.Status().Update(s.Context(), obj))
}

// connect begins a pass.
func (s *stage) connect(obj *v1alpha1.AuthKey) lifecycle.Remote {
	return s.kind.Connect(obj, &lifecycle.Connection{
		Waiter:   reflector.Waiter{Subscriber: "AuthKey", Resource: client.ObjectKeyFromObject(obj)},
		Token:    s.token,
		Client:   s.api.ClientFor(s.token),
		Record:   lifecycle.RecordOf(obj),
		Answered: func(context.Context, lifecycle.Intent) error { return nil },
		WentHere: func(context.Context, lifecycle.Intent) error { return nil },
		Owner: func(ctx context.Context, id string) (lifecycle.Owner, bool, error) {
			var all v1alpha1.AuthKeyList
			if err := s.List(ctx, &all); err != nil {
				return lifecycle.Owner{}, false, err
			}
			for _, other := range all.Items {
				if other.UID != obj.UID && other.Status.ID == id {
					return lifecycle.Owner{UID: other.UID, Created: true}, true, nil
				}
			}
			return lifecycle.Owner{}, false, nil
		},
		Event: func(lifecycle.Event) {},
	})
}

// look observes until the listing is there, and checks what the key is to the AuthKey.
func (s *stage) look(obj *v1alpha1.AuthKey, want lifecycle.Relation) lifecycle.Remote {
	s.Helper()
	for range 100 {
		remote := s.connect(obj)
		seen, err := remote.Observe(s.Context())
		if errors.Is(err, reflector.ErrPending) {
			time.Sleep(time.Second)
			continue
		}
		s.must(err)
		if seen.Relation != want {
			s.Fatalf("%s: the key %s is %s, want %s: %+v", obj.Name, seen.ID, seen.Relation, want, seen.Outcome)
		}
		return remote
	}
	s.Fatal("nothing was listed")
	return nil
}

// live are the ids of the keys that a device could use.
func (s *stage) live() (ids []string) {
	for _, key := range s.org.AuthKeys() {
		if key.Usable(time.Now()) {
			ids = append(ids, key.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

func (s *stage) secret(namespace, name string) *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{}
	s.must(s.Get(s.Context(), types.NamespacedName{Namespace: namespace, Name: name}, secret))
	return secret
}

// Somebody copies the Secret of one AuthKey over the Secret of another, is told that both manage the
// same key, and deletes one of them, as the message says: the other's key stays.
func TestDeletingAnAuthKeyLeavesTheKeysOfOthers(t *testing.T) {
	for name, copied := range map[string][]string{
		"that its Secret names":             {v1alpha1.AnnotationID, annotationKeyHash},
		"that its Secret says to supersede": {annotationSupersedes},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *stage) {
				front, attic := s.made("front", "pi"), s.made("attic", "pi")
				from, to := s.secret("front", "pi"), s.secret("attic", "pi")
				from.Annotations[annotationSupersedes] = front.Status.ID
				for _, annotation := range copied {
					to.Annotations[annotation] = from.Annotations[annotation]
				}
				to.Data = from.Data
				s.must(s.Update(s.Context(), to))

				s.must(s.Delete(s.Context(), attic))
				attic.DeletionTimestamp = &metav1.Time{Time: time.Now()}
				deletion, err := s.connect(attic).(lifecycle.Deleter).Delete(s.Context(), attic.Status.ID)
				s.must(err)
				if got := s.live(); !slices.Equal(got, []string{front.Status.ID}) || deletion.Event == nil {
					s.Errorf("live are %v, want %s: %+v", got, front.Status.ID, deletion)
				}
			})
		})
	}
}

// The name of the Secret is changed and changed back, and the process dies in between or Connect is
// away: the key that was made for the other Secret is followed by one for this, and not forgotten.
func TestASecretThatIsRenamedThereAndBack(t *testing.T) {
	play(t, func(s *stage) {
		obj := s.made("front", "pi")
		first := obj.Status.ID
		s.look(obj, lifecycle.Mine)
		obj.Spec.Secret.Name, obj.Status.SecretName = "other", "pi"
		s.mint(obj) // and nothing is revoked any more
		second := obj.Status.ID
		obj.Spec.Secret.Name, obj.Status.SecretName = "pi", "other"
		if len(s.live()) != 2 {
			s.Fatalf("live are %v", s.live())
		}

		s.mint(obj)
		third := obj.Status.ID
		updater := s.look(obj, lifecycle.Mine).(lifecycle.Updater)
		_, err := updater.Update(s.Context(), third)
		s.must(err)
		if got := s.live(); !slices.Equal(got, []string{third}) {
			s.Errorf("live are %v, want %s alone (before it were %s and %s)", got, third, first, second)
		}
		if err := s.Get(s.Context(), types.NamespacedName{Namespace: "front", Name: "other"}, &corev1.Secret{}); client.IgnoreNotFound(err) != nil || err == nil {
			s.Errorf("the Secret before: %v", err)
		}
		if string(s.secret("front", "pi").Data["auth.key"]) == "" {
			s.Error("the Secret holds no key")
		}
	})
}

// Somebody changes a key after the last listing, in something that the AuthKey believes to be right: when it
// changes something else it is told, and puts that back as well.
func TestAKeyThatSomebodyElseHasChangedMeanwhile(t *testing.T) {
	play(t, func(s *stage) {
		obj := s.made("front", "pi")
		s.look(obj, lifecycle.Mine)
		_, err := s.api.ClientFor(s.token).AuthKeys().Update(s.Context(), obj.Status.ID, connectclient.AuthKeyUpdate{Tags: &[]string{"theirs"}})
		s.must(err)

		obj.Spec.Description = "the front door"
		for range 2 {
			updater := s.look(obj, lifecycle.Mine).(lifecycle.Updater)
			seen, err := updater.Update(s.Context(), obj.Status.ID)
			s.must(err)
			if again := seen.Outcome == lifecycle.RequeueWithBackoff(); again != seen.Outdated {
				s.Errorf("it is looked at again: %t, and is outdated: %t", again, seen.Outdated)
			}
		}
		if key := s.org.AuthKeys()[0]; key.Description != "the front door" || len(key.Tags) > 0 {
			s.Errorf("the key is %q with the tags %v", key.Description, key.Tags)
		}
	})
}
