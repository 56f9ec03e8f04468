// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
	"rpi-connect.dev/operator/test/invariants"
)

// settleTime is longer than a late request takes.
const settleTime = 3 * lateness

// world is where one run happens: a namespace, an organisation, and the operator in it.
type world struct {
	client.Client
	cluster.Connect
	ns       string
	revision connectsim.Revision
	theirs   map[string]bool // the ids of the auth keys that others have made
}

var worlds atomic.Int64

func newWorld(ctx context.Context, revision connectsim.Revision) (*world, error) {
	w := &world{Client: control.Client, ns: fmt.Sprintf("crash-%d", worlds.Add(1)), revision: revision, theirs: map[string]bool{}}
	var err error
	if w.Connect, err = cluster.ServeConnect(connectsim.Options{Revision: revision}); err != nil {
		return nil, err
	}
	return w, control.PutToken(ctx, w.ns, w.Token)
}

func (w *world) rememberTheirs() {
	for _, k := range w.Org.AuthKeys() {
		w.theirs[k.ID] = true
	}
}

// operate runs the operator until the process dies or the context ends.
func (w *world) operate(ctx context.Context, operator *rest.Config, p *process) error {
	operator = rest.CopyConfig(operator)
	operator.Wrap(p.kubernetes)
	mgr, err := ctrl.NewManager(operator, ctrl.Options{
		Scheme:                  cluster.Scheme(),
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{w.ns: {}}},
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		Controller:              config.Controller{SkipNameValidation: new(true)},
		GracefulShutdownTimeout: new(10 * time.Second),
	})
	if err != nil {
		return err
	}
	transport, err := connectclient.NewTransport(nil)
	if err != nil {
		return err
	}
	api, err := connectclient.New(connectclient.Options{BaseURL: w.URL, QPS: 1000, Transport: p.connect(transport)})
	if err != nil {
		return err
	}
	if err := controller.SetupWithManager(mgr, controller.Options{
		API:                     api,
		ResyncInterval:          time.Second,
		DeploymentPollMin:       200 * time.Millisecond,
		DeploymentPollMax:       time.Second,
		PostSettleTime:          settleTime,
		MaxConcurrentReconciles: 1,
	}); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	defer p.end()
	go func() {
		select {
		case <-p.disturbed:
			if p.disturbance.Kills() {
				stop()
			}
		case <-running.Done():
		}
	}()
	_ = mgr.Start(running) // how a dead process ends does not matter
	return nil
}

func (w *world) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: w.ns, Name: name}
}

// ready gives what a user sees of a resource: the status and reason of Ready.
func (w *world) ready(ctx context.Context, obj lifecycle.Object) string {
	if err := w.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
		return err.Error()
	}
	if err := invariants.Check(obj); err != nil {
		return err.Error()
	}
	ready, _, _ := strings.Cut(invariants.Ready(obj), ":")
	return ready
}

// gone tells whether a resource is gone.
func (w *world) gone(ctx context.Context, obj client.Object) bool {
	return apierrors.IsNotFound(w.Get(ctx, client.ObjectKeyFromObject(obj), obj))
}

// ofDevice is the hash of a device's id in the name of a rollout's Deployment.
var ofDevice = regexp.MustCompile(`-[a-z2-7]{10}-`)

// snapshot is everything that matters of the organisation and the namespace, without what differs
// from run to run.
func (w *world) snapshot(ctx context.Context) (string, error) {
	lines := w.remote()
	held, secrets, err := w.secrets(ctx)
	if err != nil {
		return "", err
	}
	lines = append(lines, secrets...)
	for _, k := range w.Org.AuthKeys() {
		where := "in no Secret"
		switch {
		case !k.Usable(time.Now()):
			continue
		case w.theirs[k.ID]:
			where = "somebody else's"
		case held[k.Secret]:
			where = "in a Secret"
		case w.revision == connectsim.Older:
			continue // it can be neither listed nor revoked
		}
		lines = append(lines, fmt.Sprintf("auth key of %s %v, %s", k.DeviceName, k.Tags, where))
	}
	for _, list := range cluster.Lists() {
		if err := w.List(ctx, list, client.InNamespace(w.ns)); err != nil {
			return "", err
		}
		if err := meta.EachListItem(list, func(item runtime.Object) error {
			obj, adopted := item.(lifecycle.Object), ""
			if obj.GetCommonStatus().Adopted {
				adopted = ", adopted"
			}
			ready, _, _ := strings.Cut(invariants.Ready(obj), ":")
			name := ofDevice.ReplaceAllString(obj.GetName(), "-{device}-")
			lines = append(lines, fmt.Sprintf("%T %s: %s%s", obj, name, ready, adopted))
			return nil
		}); err != nil {
			return "", err
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

// remote tells of the organisation's objects, but for its auth keys.
func (w *world) remote() []string {
	var lines []string
	names := map[string]string{}
	for _, a := range w.Org.Artefacts() {
		names[a.ID] = a.Name
		lines = append(lines, fmt.Sprintf("artefact %s at %s", a.Name, a.URI))
	}
	for _, i := range w.Org.DeviceIdentities() {
		lines = append(lines, fmt.Sprintf("identity %q of %s %v", i.Description, i.DeviceName, i.Tags))
	}
	devices := map[string]string{}
	for _, d := range w.Org.Devices() {
		devices[d.ID] = d.Name
		lines = append(lines, fmt.Sprintf("device %s %v with the board %s", d.Name, d.Tags, d.SerialNumber))
	}
	for _, d := range w.Org.Deployments("") {
		lines = append(lines, fmt.Sprintf("deployment of %s to %s: %s", names[d.ArtefactID], devices[d.DeviceID], d.State))
	}
	return lines
}

// secrets tells of the Secrets that hold keys; held are the keys.
func (w *world) secrets(ctx context.Context) (held map[string]bool, lines []string, err error) {
	held = map[string]bool{}
	var list corev1.SecretList
	if err := w.List(ctx, &list, client.InNamespace(w.ns)); err != nil {
		return nil, nil, err
	}
	for _, s := range list.Items {
		for key, value := range s.Data {
			if strings.HasPrefix(string(value), "rpoak_") {
				held[string(value)] = true
				lines = append(lines, fmt.Sprintf("Secret %s holds an auth key under %s", s.Name, key))
			}
		}
	}
	return held, lines, nil
}

// lostKeys counts the live auth keys of ours that are in no Secret.
func (w *world) lostKeys(ctx context.Context) (n int, err error) {
	held, _, err := w.secrets(ctx)
	for _, k := range w.Org.AuthKeys() {
		if k.Usable(time.Now()) && !w.theirs[k.ID] && !held[k.Secret] {
			n++
		}
	}
	return n, err
}

// told tells whether there was an event with the reason.
func (w *world) told(ctx context.Context, reason string) bool {
	var list eventsv1.EventList
	return w.List(ctx, &list, client.InNamespace(w.ns)) == nil &&
		slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool { return e.Reason == reason })
}

// artefact returns an Artefact that can be created.
func (w *world) artefact(name string) *v1alpha1.Artefact {
	return &v1alpha1.Artefact{ObjectMeta: w.meta(name), Spec: v1alpha1.ArtefactSpec{
		URI: "https://updates.example.com/" + name + ".tar.zst", Checksum: strings.Repeat("0a", 32),
	}}
}
