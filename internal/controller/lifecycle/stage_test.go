// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/reflector"
)

// stage is the loop over Artefacts and a cluster with one namespace; the remote side does what the
// script says. Time is synctest's.
type stage struct {
	*testing.T
	*Reconciler[*v1alpha1.Artefact]
	script

	conn    *Connection   // of the newest pass
	calls   []string      // of the remote side, and of those who are told
	told    []string      // events
	about   []string      // the kinds of what they are about
	kept    time.Duration // for so long others are kept away when the pass has ended
	writing func(part string) error
	http    func() *http.Response // what Connect answers to whoever asks it directly
}

// script is what the remote side says.
type script struct {
	seen       Observation
	seenErr    error
	ready      Preparation
	readyErr   error
	made       Observation
	madeErr    error
	updated    Observation
	updatedErr error
	deleted    Deletion
	deletedErr error
	during     func(call string) // what happens meanwhile
	lookout    bool              // it can be observed, and that is all
}

const (
	token      = "rporg_one"
	otherToken = "rporg_another"
)

// play tells a story. A natural key makes doubles impossible; without one a lost request settles.
func play(t *testing.T, natural bool, story func(*stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, natural)
		story(s)
	})
}

// playBoth tells a story that goes the same way with a natural key and without one.
func playBoth(t *testing.T, story func(*stage)) {
	t.Run("with a natural key", func(t *testing.T) { play(t, true, story) })
	t.Run("without one", func(t *testing.T) { play(t, false, story) })
}

var stageScheme = sync.OnceValue(func() *runtime.Scheme {
	scheme := runtime.NewScheme()
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(metav1.AddMetaToScheme(scheme))
	return scheme
})

func newStage(t *testing.T, natural bool) *stage {
	s := &stage{T: t, writing: func(string) error { return nil }}
	s.http = func() *http.Response {
		t.Error("Connect is asked directly")
		return answer(http.StatusInternalServerError)
	}
	s.during = func(string) {}
	kind := Kind[*v1alpha1.Artefact]{
		New:     func() *v1alpha1.Artefact { return &v1alpha1.Artefact{} },
		NewList: func() client.ObjectList { return &v1alpha1.ArtefactList{} },
		Noun:    "artefact",
		Source:  s,
		Connect: func(_ *v1alpha1.Artefact, conn *Connection) Remote {
			s.conn = conn
			if s.lookout {
				return watched{s}
			}
			return remote{watched{s}}
		},
	}
	if natural {
		kind.NaturalKey = func(a *v1alpha1.Artefact) string { return a.Spec.Name }
	}
	s.Reconciler = newReconciler(Environment{Clock: clock.RealClock{}, Events: s, Health: NewTokenHealth(), SettleTime: 90 * time.Second}, kind)
	s.gvk = v1alpha1.GroupVersion.WithKind("Artefact")
	s.Client = fake.NewClientBuilder().WithScheme(stageScheme()).WithStatusSubresource(&v1alpha1.Artefact{}).
		WithIndex(&v1alpha1.Artefact{}, indexClaim, func(obj client.Object) []string { return s.claims(obj.(*v1alpha1.Artefact)) }).
		WithObjects(
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "lab"}},
			secretWith("connect-access-token", token), secretWith("another", otherToken),
		).
		WithInterceptorFuncs(interceptor.Funcs{Patch: s.patched, SubResourcePatch: s.statusPatched}).Build()
	s.Live = s.Client
	s.Tokens = accesstoken.NewSource(s.Client, s.Client)
	var err error
	s.API, err = connectclient.New(connectclient.Options{BaseURL: "https://connect.invalid", Transport: s})
	s.must(err)
	return s
}

func secretWith(name, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: name}, Data: map[string][]byte{"token": []byte(value)}}
}

// kiosk is the resource that the stories are about.
func kiosk(change ...func(*v1alpha1.Artefact)) *v1alpha1.Artefact {
	a := &v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: "kiosk", UID: "mine", Generation: 1, CreationTimestamp: metav1.Now()}}
	a.Spec.Name = "kiosk"
	a.Spec.AccessTokenSecretRef = v1alpha1.AccessTokenReference{Name: "connect-access-token", Key: "token"}
	a.Status.ObservedGeneration = -1
	for _, c := range change {
		c(a)
	}
	return a
}

// has puts the record of an object on a resource, as the operator does.
func has(id string, origin Origin) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) {
		annotated(v1alpha1.AnnotationID, id, v1alpha1.AnnotationOrigin, originNote(a, id, origin))(a)
		a.Finalizers = []string{v1alpha1.Finalizer}
		a.Status.ID, a.Status.Adopted = id, origin == Adopted
	}
}

// restored is has after a backup, which drops the status.
func restored(id string, origin Origin) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) {
		has(id, origin)(a)
		a.Status = v1alpha1.ArtefactStatus{}
	}
}

func annotated(pairs ...string) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) {
		if a.Annotations == nil {
			a.Annotations = map[string]string{}
		}
		for pair := range slices.Chunk(pairs, 2) {
			a.Annotations[pair[0]] = pair[1]
		}
	}
}

// asked puts a request on a resource that was sent so long ago, and whose answer nobody has.
func asked(ago time.Duration, change ...func(*Intent)) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) {
		annotated(v1alpha1.AnnotationCreateIntent, marshalled(request(ago, change...)))(a)
		a.Finalizers = []string{v1alpha1.Finalizer}
	}
}

func request(ago time.Duration, change ...func(*Intent)) Intent {
	i := Intent{At: time.Now().Add(-ago), UID: "mine", TokenHash: connectclient.NewSecret(token).Fingerprint(), Note: "before"}
	for _, c := range change {
		c(&i)
	}
	return i
}

func seenWith(value string) func(*v1alpha1.Artefact) {
	return func(a *v1alpha1.Artefact) { a.Status.AccessTokenHash = connectclient.NewSecret(value).Fingerprint() }
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// apply makes a resource, status and all.
func (s *stage) apply(a *v1alpha1.Artefact) {
	s.Helper()
	status := a.Status
	s.must(s.Client.Create(s.Context(), a))
	a.Status = status
	s.must(s.Client.Status().Update(s.Context(), a))
}

func (s *stage) resource() *v1alpha1.Artefact {
	s.Helper()
	a := &v1alpha1.Artefact{}
	s.must(s.Client.Get(s.Context(), types.NamespacedName{Namespace: "lab", Name: "kiosk"}, a))
	return a
}

func (s *stage) gone() bool {
	err := s.Client.Get(s.Context(), types.NamespacedName{Namespace: "lab", Name: "kiosk"}, &v1alpha1.Artefact{})
	return apierrors.IsNotFound(err)
}

// edit changes the resource, as somebody else does.
func (s *stage) edit(change func(*v1alpha1.Artefact)) {
	s.Helper()
	a := s.resource()
	change(a)
	s.must(s.Client.Update(s.Context(), a))
}

func (s *stage) delete() {
	s.Helper()
	s.must(s.Client.Delete(s.Context(), s.resource()))
}

// reconcile runs a pass, and forgets what was called and told before.
func (s *stage) reconcile() reconcile.Result {
	s.Helper()
	result, err := s.try()
	s.must(err)
	return result
}

func (s *stage) try() (reconcile.Result, error) {
	s.calls, s.told, s.about = nil, nil, nil
	return s.Reconcile(s.Context(), reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "lab", Name: "kiosk"}})
}

func (s *stage) called(want string) {
	s.Helper()
	if got := strings.Join(s.calls, " "); got != want {
		s.Errorf("called: %q, want %q", got, want)
	}
}

func (s *stage) tells(want ...string) {
	s.Helper()
	if !slices.Equal(s.told, want) {
		s.Errorf("told: %q, want %q", s.told, want)
	}
}

// keeps checks for how long others are kept away after the pass.
func (s *stage) keeps(want time.Duration) {
	s.Helper()
	if s.kept != want {
		s.Errorf("others are kept away for %s, want %s", s.kept, want)
	}
}

// says checks Ready, and words of its message.
func (s *stage) says(status metav1.ConditionStatus, reason, words string) {
	s.Helper()
	ready := meta.FindStatusCondition(s.resource().Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		s.Errorf("Ready is missing, want %s %s", status, reason)
		return
	}
	if ready.Status != status || ready.Reason != reason || !strings.Contains(ready.Message, words) {
		s.Errorf("Ready is %s %s: %q, want %s %s: %q", ready.Status, ready.Reason, ready.Message, status, reason, words)
	}
	checkInvariants(s.T, s.resource())
}

// silent checks that nothing was concluded.
func (s *stage) silent() {
	s.Helper()
	if ready := meta.FindStatusCondition(s.resource().Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		s.Errorf("Ready is %s %s: %q", ready.Status, ready.Reason, ready.Message)
	}
}

// records checks what the resource has noted of its object, in all places.
func (s *stage) records(id string, origin Origin) {
	s.Helper()
	a := s.resource()
	if got := recordOf(a); got.ID != id || got.Origin != origin {
		s.Errorf("on record is %+v, want %s %d", got, id, origin)
	}
	if note := originNote(a, id, origin); id != "" && a.Annotations[v1alpha1.AnnotationID] != id ||
		id != "" && !strings.HasPrefix(a.Annotations[v1alpha1.AnnotationOrigin], note) {
		s.Errorf("the annotations say %v", a.Annotations)
	}
	if id != "" && a.Status.ID != id {
		s.Errorf("the status says %q", a.Status.ID)
	}
}

// open checks which requests are noted as unanswered: how long ago each was sent.
func (s *stage) open(want ...time.Duration) {
	s.Helper()
	var got []time.Duration
	for _, i := range SentIntents(s.resource()) {
		got = append(got, time.Since(i.At))
	}
	if !slices.Equal(got, want) {
		s.Errorf("open are requests of %v ago, want %v", got, want)
	}
}

// recalls tells whether this process remembers the newest request.
func (s *stage) recalls() bool {
	noted, _ := s.memory.sentBy("mine")
	return noted.intent != nil
}

// lapse lets time go by.
func lapse(d time.Duration) { time.Sleep(d) }

// between checks when the resource is looked at again.
func (s *stage) between(result reconcile.Result, least, most time.Duration) {
	s.Helper()
	if result.RequeueAfter < least || result.RequeueAfter > most {
		s.Errorf("looked at again after %s, want %s to %s", result.RequeueAfter, least, most)
	}
}

func (s *stage) patched(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
	data, err := patch.Data(obj)
	s.must(err)
	var content struct{ Metadata metav1.ObjectMeta }
	s.must(json.Unmarshal(data, &content))
	if err := s.writing("metadata"); err != nil {
		return err
	}
	current := &v1alpha1.Artefact{}
	if err := c.Get(ctx, client.ObjectKeyFromObject(obj), current); err != nil {
		return err
	}
	if content.Metadata.UID != current.UID { // as the API server does
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("artefacts").GroupResource(), obj.GetName(), errors.New("another uid"))
	}
	return c.Patch(ctx, obj, patch, opts...)
}

func (s *stage) statusPatched(ctx context.Context, c client.Client, part string, obj client.Object, patch client.Patch, opts ...client.SubResourcePatchOption) error {
	if err := s.writing(part); err != nil {
		return err
	}
	return c.Status().Patch(ctx, obj, patch, opts...)
}

// Eventf makes the stage the recorder of events.
func (s *stage) Eventf(about, _ runtime.Object, kind, reason, _, _ string, args ...any) {
	s.told = append(s.told, fmt.Sprint(append([]any{kind, " ", reason, ": "}, args...)...))
	s.about = append(s.about, about.GetObjectKind().GroupVersionKind().Kind)
}

// RoundTrip makes the stage Connect, for those who ask it directly.
func (s *stage) RoundTrip(*http.Request) (*http.Response, error) {
	if response := s.http(); response != nil {
		return response, nil
	}
	return nil, errors.New("no route to host")
}

func answer(status int) *http.Response {
	recorder := httptest.NewRecorder()
	for name, value := range map[string]string{"Limit": "5000", "Remaining": "4000", "Reset": "1800"} {
		recorder.Header().Set("X-Rate-Limit-"+name, value)
	}
	recorder.WriteHeader(status)
	return recorder.Result()
}

// ask has Connect give an answer to somebody else who uses the token.
func (s *stage) ask(times int, response func() *http.Response) {
	s.Helper()
	before := s.http
	s.http = response
	for range times {
		_, _ = s.API.ClientFor(connectclient.NewSecret(token)).Artefacts().Get(s.Context(), "a0")
	}
	s.http = before
}

// The stage is the source of the loop.
func (s *stage) Start(context.Context) error            { return nil }
func (s *stage) Subscribe(reflector.Subscription)       {}
func (s *stage) Retry(connectclient.Secret)             { s.calls = append(s.calls, "retry") }
func (s *stage) Retire(connectclient.Secret)            {}
func (s *stage) Forget(reflector.Waiter)                { s.calls = append(s.calls, "forget") }
func (s *stage) call(name string)                       { s.calls = append(s.calls, name); s.during(name) }
func mine(id string) Observation                        { return Observation{Relation: Mine, ID: id, Outcome: available} }
func (s *stage) finds(seen Observation)                 { s.seen, s.seenErr = seen, nil }
func (s *stage) deletes(deletion Deletion, err error)   { s.deleted, s.deletedErr = deletion, err }
func (s *stage) creates(made Observation, err error)    { s.made, s.madeErr = made, err }
func (s *stage) updates(changed Observation, err error) { s.updated, s.updatedErr = changed, err }

var available = Ready(v1alpha1.ReasonAvailable, "It is there.")

// watched is a remote side that can only be looked at; remote can do everything.
type watched struct{ *stage }

type remote struct{ watched }

func (w watched) Observe(context.Context) (Observation, error) {
	w.call("observe")
	return w.seen, w.seenErr
}

func (r remote) Prepare(context.Context) (Preparation, error) {
	r.call("prepare")
	return r.ready, r.readyErr
}

func (r remote) Create(context.Context) (Observation, error) {
	r.call("create")
	return r.made, r.madeErr
}

func (r remote) Update(_ context.Context, id string) (Observation, error) {
	r.call("update " + id)
	return r.updated, r.updatedErr
}

func (r remote) Delete(_ context.Context, id string) (Deletion, error) {
	r.call("delete " + id)
	return r.deleted, r.deletedErr
}

func (r remote) Release(until time.Time) {
	r.calls, r.kept = append(r.calls, "release"), 0
	if !until.IsZero() {
		r.kept = time.Until(until)
	}
}
