// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/disturb"
)

// step is one thing that happens. It says nothing about what is there when it happens, so that any part
// of a history is a history, too.
type step struct {
	deed    string
	kind    string // for deeds that are done to a resource or an object
	n, more int
}

func (s step) String() string {
	if s.kind == "" {
		return fmt.Sprintf("%s %d %d", s.deed, s.n, s.more)
	}
	return fmt.Sprintf("%s %s %d %d", s.deed, s.kind, s.n, s.more)
}

func parseSteps(text string) (steps []step, err error) {
	for part := range strings.SplitSeq(text, ";") {
		fields := strings.Fields(part)
		s := step{}
		switch len(fields) {
		case 0:
			continue
		case 3:
			_, err = fmt.Sscan(strings.Join(fields[1:], " "), &s.n, &s.more)
		case 4:
			s.kind = fields[1]
			_, err = fmt.Sscan(strings.Join(fields[2:], " "), &s.n, &s.more)
		default:
			err = fmt.Errorf("%q is no step", part)
		}
		if err != nil {
			return nil, err
		}
		s.deed = fields[0]
		steps = append(steps, s)
	}
	return steps, nil
}

// deed is what a step can be.
type deed struct {
	name    string
	weight  int
	ofKinds bool // is done to something of a kind
	do      func(w *world, s step)
}

var deeds = []deed{
	// What people do in the cluster.
	{"apply", 30, true, (*world).apply},
	{"delete", 10, true, (*world).remove},
	{"suspend", 2, true, (*world).suspend},
	{"resume", 4, true, (*world).resume},
	{"look", 2, true, (*world).look},
	{"lose-status", 2, true, (*world).loseStatus},
	{"lose-annotations", 2, true, (*world).loseAnnotations},
	{"restore", 3, true, (*world).restore},
	{"rebuild", 3, true, (*world).rebuild},
	{"copy", 3, true, (*world).copyTo},
	{"import", 3, true, (*world).importByID},
	{"confirm-organisation", 2, true, (*world).confirmOrganisation},
	{"lose-secret", 2, false, (*world).loseSecret},
	{"rotate-token", 2, false, (*world).rotateToken},
	{"swap-token", 2, false, (*world).swapToken},
	{"spoil-token", 1, false, (*world).spoilToken},
	{"mend-token", 5, false, (*world).mendToken},
	// What others do in Connect.
	{"others-add", 5, true, (*world).othersAdd},
	{"others-change", 3, true, (*world).othersChange},
	{"others-remove", 5, true, (*world).othersRemove},
	{"others-churn", 2, false, (*world).othersChurn},
	{"others-spend", 1, false, (*world).othersSpend},
	// What devices do.
	{"devices-go-on", 12, false, (*world).devicesGoOn},
	{"device-signs-in", 3, false, (*world).deviceSignsIn},
	{"device-replaced", 2, false, (*world).deviceReplaced},
	// What the network and the machines do.
	{"restart", 3, false, (*world).restart},
	{"hand-over", 2, false, func(w *world, _ step) { w.handOver() }},
	{"disturb", 16, false, (*world).disturb},
	{"outage", 2, false, func(w *world, _ step) { w.setDown(true) }},
	{"back", 6, false, func(w *world, _ step) { w.setDown(false) }},
	{"compact", 1, false, func(w *world, _ step) { w.api.Compact() }},
	{"cut-watches", 2, false, func(w *world, _ step) { w.api.CutWatches() }},
	{"wait", 30, false, (*world).wait},
}

func draw(random *rand.Rand) step {
	total := 0
	for _, d := range deeds {
		total += d.weight
	}
	at := random.IntN(total)
	for _, d := range deeds {
		if at -= d.weight; at >= 0 {
			continue
		}
		s := step{deed: d.name, n: random.IntN(6), more: random.IntN(24)}
		if d.ofKinds {
			s.kind = kinds[random.IntN(len(kinds))].name
		}
		return s
	}
	panic("unreachable")
}

// do does a step, and lets the operator see it or not.
func (w *world) do(s step) error {
	at := slices.IndexFunc(deeds, func(d deed) bool { return d.name == s.deed })
	if at < 0 {
		return fmt.Errorf("there is no step %q", s.deed)
	}
	if *trace {
		fmt.Printf("%s %s\n", time.Now().Format("02 15:04:05.000"), s)
	}
	deeds[at].do(w, s)
	w.pass([]time.Duration{0, 0, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second}[w.random.IntN(6)])
	w.scan()
	return nil
}

func (w *world) resource(s step) (resource, *kind) {
	k := kindNamed(s.kind)
	return resource{s.kind, name(k.prefix, s.n%k.names)}, k
}

// apply creates a resource, or changes what can be changed of it.
func (w *world) apply(s step) {
	of, k := w.resource(s)
	w.touch(of)
	if !w.update(of, func(obj object) {
		if k.change(w, obj, s.more); obj.GetDeletionTimestamp() != nil && k.leaves(obj) {
			w.mayStay(of)
		}
		w.mu.Lock()
		w.edits[of] = time.Now()
		w.mu.Unlock()
	}) {
		w.create(of, k.fresh(w, of.name, s.more))
	}
}

// update changes a resource; it returns false if there is none.
func (w *world) update(of resource, change func(object)) (exists bool) {
	w.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		obj := w.lookUp(of)
		if exists = obj != nil; !exists {
			return nil
		}
		change(obj)
		return client.IgnoreNotFound(w.user.Update(context.Background(), obj))
	}))
	return exists
}

func (w *world) create(of resource, obj object) {
	obj.SetNamespace(namespace)
	obj.SetName(of.name)
	w.must(w.user.Create(context.Background(), obj))
	w.begin(of, obj)
}

// begin begins a lineage: within one, a device is deployed to once.
func (w *world) begin(of resource, obj object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counter++
	w.lineages[string(obj.GetUID())] = fmt.Sprintf("%s #%d", of, w.counter)
}

func (w *world) remove(s step) {
	of, k := w.resource(s)
	obj := w.lookUp(of)
	if obj == nil {
		return
	}
	w.touch(of)
	if stripped := len(obj.GetFinalizers()) == 0; stripped || k.leaves(obj) {
		w.mayStay(of)
	}
	w.must(client.IgnoreNotFound(w.user.Delete(context.Background(), obj)))
}

// mayStay notes that what the resource has made so far may stay behind when it goes, and what is under way.
func (w *world) mayStay(of resource) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.letGo[of] = time.Now().Add(lateness)
}

func (w *world) annotate(s step, name string, value any) {
	of, _ := w.resource(s)
	obj := w.lookUp(of)
	if obj == nil {
		return
	}
	w.touch(of)
	w.patch(obj, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, name, value))
}

func (w *world) patch(obj object, patch string, subresource ...client.SubResourcePatchOption) {
	p := client.RawPatch(types.MergePatchType, []byte(patch))
	if len(subresource) > 0 {
		w.must(w.user.Status().Patch(context.Background(), obj, p, subresource...))
		return
	}
	w.must(w.user.Patch(context.Background(), obj, p))
}

func (w *world) suspend(s step) { w.annotate(s, v1alpha1.AnnotationSuspend, `"true"`) }
func (w *world) resume(s step)  { w.annotate(s, v1alpha1.AnnotationSuspend, "null") }
func (w *world) look(s step) {
	w.annotate(s, v1alpha1.AnnotationReconcileRequestedAt, fmt.Sprintf("%q", time.Now().Format(time.RFC3339Nano)))
}

// loseStatus is what a restore without status leaves of a resource that stays.
func (w *world) loseStatus(s step) {
	of, _ := w.resource(s)
	if obj := w.lookUp(of); obj != nil {
		w.touch(of)
		w.must(w.user.Status().Patch(context.Background(), obj, client.RawPatch(types.MergePatchType, []byte(`{"status":null}`))))
	}
}

// loseAnnotations is what a tool does that replaces what it has not written. Where nobody has seen them,
// nothing is left: that is the manifest, applied anew.
func (w *world) loseAnnotations(s step) {
	of, _ := w.resource(s)
	w.touch(of)
	if obj := w.lookUp(of); obj != nil && w.isAllThereIs(obj) {
		w.mayStay(of)
		w.begin(of, obj)
	}
	w.update(of, func(obj object) {
		if obj.GetDeletionTimestamp() == nil {
			obj.SetAnnotations(nil)
			obj.SetFinalizers(nil)
		}
	})
}

// isAllThereIs tells whether nothing but annotations knows of what a resource has: there is no status, which
// comes back when Connect has been looked at; or they tell of a request of a process that is dead, and the
// next one cannot have seen it yet.
func (w *world) isAllThereIs(obj object) bool {
	if obj.GetCommonStatus().ID == "" && lifecycle.RecordOf(obj).Own() {
		return true
	}
	return slices.ContainsFunc(lifecycle.SentIntents(obj), func(i lifecycle.Intent) bool {
		return i.At.Before(w.running.began) && time.Since(i.At) <= w.setup.lag
	})
}

// restore brings a resource back from a backup, which has no status and another uid.
func (w *world) restore(s step) {
	of, _ := w.resource(s)
	obj := w.lookUp(of)
	if obj == nil || obj.GetDeletionTimestamp() != nil {
		return
	}
	w.touch(of)
	was, line := obj.DeepCopyObject().(object), w.lineageOf(of)
	w.api.Vanish(v1alpha1.GroupVersion.WithKind(of.kind), client.ObjectKeyFromObject(obj))
	obj.SetResourceVersion("")
	obj.SetUID("")
	w.must(w.user.Create(context.Background(), obj))
	if len(lifecycle.SentIntents(was)) > 0 { // a request is open, of which the restored one cannot be sure
		w.mayStay(of)
		w.begin(of, obj)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lineages[string(obj.GetUID())] = line
}

// rebuild applies the manifest anew, in a cluster that knows of nothing.
func (w *world) rebuild(s step) {
	of, k := w.resource(s)
	obj := w.lookUp(of)
	if obj == nil || obj.GetDeletionTimestamp() != nil {
		return
	}
	w.touch(of)
	w.mayStay(of) // what it has made is adopted, and stays when it goes
	w.api.Vanish(v1alpha1.GroupVersion.WithKind(of.kind), client.ObjectKeyFromObject(obj))
	anew := k.fresh(w, of.name, 0)
	anew.SetName(of.name)
	k.same(anew, obj)
	w.create(of, anew)
	w.mayStay(of)
}

// copyTo applies a copy of a resource under another name, with everything that the operator has put on it.
func (w *world) copyTo(s step) {
	of, k := w.resource(s)
	other := resource{k.name, name(k.prefix, s.more%k.names)}
	obj := w.lookUp(of)
	if obj == nil || w.lookUp(other) != nil {
		return
	}
	w.touch(other)
	obj.SetResourceVersion("")
	obj.SetUID("")
	obj.SetFinalizers(nil)
	obj.SetOwnerReferences(nil)
	w.create(other, obj)
}

// importByID applies a resource that names an object of the organisation by its id.
func (w *world) importByID(s step) {
	of, k := w.resource(s)
	id, ok := pick(k.ids(w.org()), s.more)
	if !ok || w.lookUp(of) != nil {
		return
	}
	w.touch(of)
	obj := k.fresh(w, of.name, s.more)
	obj.SetAnnotations(map[string]string{v1alpha1.AnnotationID: id})
	w.create(of, obj)
}

// confirmOrganisation says that a resource moves to the organisation that the token opens.
func (w *world) confirmOrganisation(s step) {
	of, _ := w.resource(s)
	if obj := w.lookUp(of); obj != nil && obj.GetDeletionTimestamp() == nil {
		w.mayStay(of)
		w.begin(of, obj) // a device of the other organisation is another one
	}
	w.annotate(s, v1alpha1.AnnotationConfirmOrganisation, fmt.Sprintf("%q", connectclient.NewSecret(w.token).Fingerprint()))
}

// othersChurn has the next listing of artefacts lose a row that it has not read yet.
func (w *world) othersChurn(s step) {
	all := w.org().Artefacts()
	if len(all) < 100 {
		return
	}
	w.sim.Inject(connectsim.Fault{
		Route: "GET /organisation/artefacts", Skip: 1, Times: 1,
		Change: &connectsim.Change{Remove: []string{"a0-theirs"}, Insert: []string{fmt.Sprintf("zz-%d", s.more)}},
	})
}

func (w *world) loseSecret(s step) {
	k := kindNamed("AuthKey")
	of := resource{k.name, name(k.prefix, s.n%k.names)}
	w.touch(of)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: of.name}}
	w.must(client.IgnoreNotFound(w.user.Delete(context.Background(), secret)))
}

// rotateToken puts another access token of the same organisation into the Secret.
func (w *world) rotateToken(s step) {
	for _, kind := range []string{artefacts.name, identities.name} {
		w.each(kind, func(obj object) {
			if len(lifecycle.SentIntents(obj)) > 0 { // what is found with another token may have been there before
				w.mayStay(resource{kind, obj.GetName()})
			}
		})
	}
	was := w.token
	w.token = connectsim.NewSecret("rporg_")
	w.mu.Lock()
	w.tokens[w.token] = w.organisation
	w.mu.Unlock()
	w.org().AddToken(w.token)
	w.putToken(w.token)
	if s.more%2 == 0 {
		w.sim.RevokeToken(was)
	}
}

// swapToken puts an access token of another organisation into the Secret.
func (w *world) swapToken(s step) {
	w.organisation = (w.organisation + 1) % len(w.orgs)
	// What was made in the organisation before stays there.
	for _, k := range kinds {
		for n := range k.names {
			w.mayStay(resource{k.name, name(k.prefix, n)})
		}
	}
	s.more = 1
	w.rotateToken(s)
}

// spoilToken takes the Secret away, or puts something else into it.
func (w *world) spoilToken(s step) {
	if s.more%2 == 0 {
		w.putToken("")
		return
	}
	w.putToken(connectsim.NewSecret("rporg_"))
}

func (w *world) mendToken(step) { w.putToken(w.token) }

func (w *world) othersAdd(s step)    { _, k := w.resource(s); k.add(w, s.n%k.names, s.more) }
func (w *world) othersRemove(s step) { _, k := w.resource(s); k.remove(w, s.n, s.more) }
func (w *world) othersChange(s step) { _, k := w.resource(s); k.alter(w, s.n, s.more) }
func (w *world) othersSpend(s step)  { w.sim.Spend(w.token, 4000+50*s.more) }

func (w *world) restart(s step) {
	w.kill()
	time.Sleep([]time.Duration{0, time.Second, time.Minute, time.Hour}[s.more%4])
	w.start()
}

var disturbances = []disturb.Disturbance{disturb.DiesBefore, disturb.DiesAfter, disturb.DiesTooSoon, disturb.Lost, disturb.Lost, disturb.TooLate, disturb.TooLate, refused, slow, lies404, lies401, lies200}

func (w *world) disturb(s step) {
	c := []class{connectWrite, connectWrite, connectWrite, connectRead, kubernetesWrite, kubernetesWrite}[s.n%6]
	d := disturbances[s.more%len(disturbances)]
	if c != connectWrite && d.Late() {
		d = disturb.Lost // only what changes something in Connect matters when it comes late
	}
	w.running.arm(c, d)
}

func (w *world) setDown(down bool) {
	w.down = down
	w.running.setDown(down)
}

func (w *world) wait(s step) {
	waits := []time.Duration{
		time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second,
		5 * time.Second, 20 * time.Second, time.Minute, 100 * time.Second, 3 * time.Minute, 11 * time.Minute, time.Hour, 10 * time.Hour,
	}
	w.pass(waits[s.more%len(waits)])
}
