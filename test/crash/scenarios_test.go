// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// scenario is what a user does with a resource of one kind, in an organisation where others have
// objects too.
type scenario struct {
	name    string
	further bool         // it shows little that the others do not
	prepare func(*world) // what is there before the operator
	acts    []act
}

// act is one thing that a user does, and what comes of it.
type act struct {
	name    string
	do      func(context.Context, *world) error
	ready   func(context.Context, *world) bool // tells that it has come true
	fits    func(snapshot string) bool         // instead of being as without a disturbance
	anytime bool                               // the user may do it before the last act has come true
	others  bool                               // somebody else does it, in the organisation
}

var scenarios = []scenario{
	{
		name:    "an Artefact is made, removed by somebody, made again, deleted",
		prepare: others,
		acts: []act{
			create(func(w *world) lifecycle.Object { return w.artefact("kiosk") }, "True Available"),
			{name: "is removed in Connect", do: func(ctx context.Context, w *world) error {
				for _, a := range w.Org.Artefacts() {
					if a.Name == "kiosk" {
						w.Org.RemoveArtefact(a.ID)
					}
				}
				return nil
			}, ready: func(ctx context.Context, w *world) bool {
				return len(w.Org.Artefacts()) == 2 && w.ready(ctx, w.artefact("kiosk")) == "True Available"
			}, others: true},
			remove(func(w *world) lifecycle.Object { return w.artefact("kiosk") }),
		},
	},
	{
		name:    "an Artefact takes over what is there, and leaves it there",
		further: true,
		prepare: func(w *world) {
			others(w)
			spec := w.artefact("kiosk").Spec
			w.Org.AddArtefact("kiosk", spec.URI, spec.Checksum)
		},
		acts: []act{
			create(func(w *world) lifecycle.Object { return w.artefact("kiosk") }, "True Available"),
			remove(func(w *world) lifecycle.Object { return w.artefact("kiosk") }),
		},
	},
	{
		name:    "a DeviceIdentity is registered, changed, deleted",
		prepare: others,
		acts: []act{
			{name: "has its key in a Secret", do: func(ctx context.Context, w *world) error {
				return w.Create(ctx, &corev1.Secret{ObjectMeta: w.meta("pi5-001-key"), StringData: map[string]string{"private.pem": privatePEM}})
			}, ready: always},
			create(identity, "True Available"),
			change(identity, "True Available", func(obj lifecycle.Object) {
				obj.(*v1alpha1.DeviceIdentity).Spec.Tags = []v1alpha1.Tag{"lobby", "production"}
			}),
			remove(identity),
		},
	},
	{
		name:    "an AuthKey is made, changed, its Secret is lost, it is deleted",
		prepare: others,
		acts: []act{
			create(authKey, "True Usable"),
			change(authKey, "True Usable", func(obj lifecycle.Object) {
				obj.(*v1alpha1.AuthKey).Spec.Tags = []v1alpha1.Tag{"lobby"}
			}),
			{name: "loses its Secret", do: func(ctx context.Context, w *world) error {
				return w.Delete(ctx, &corev1.Secret{ObjectMeta: w.meta("pi5-001")})
			}, ready: func(ctx context.Context, w *world) bool {
				return w.Get(ctx, client.ObjectKey{Namespace: w.ns, Name: "pi5-001"}, &corev1.Secret{}) == nil && w.ready(ctx, authKey(w)) == "True Usable"
			}},
			remove(authKey),
		},
	},
	{
		name:    "an AuthKey is used by a device, renewed, deleted",
		prepare: others,
		acts: []act{
			create(renewed, "True Usable"),
			{name: "is used", do: func(ctx context.Context, w *world) error {
				held, _, err := w.secrets(ctx)
				if err != nil {
					return err
				}
				for key := range held {
					if err := connectsim.NewPi(w.URL, "pi5-001", "10000000a1b2c3d4").SignInWithAuthKey(ctx, key); err != nil {
						return err
					}
				}
				return nil
			}, ready: func(ctx context.Context, w *world) bool { return w.ready(ctx, renewed(w)) == "True Usable" }},
			remove(renewed),
		},
	},
	{
		name:    "a Deployment runs and succeeds",
		prepare: device,
		acts: []act{
			create(deployment, "Unknown Pending"),
			moves(connectsim.InProgress, "Unknown InProgress"),
			moves(connectsim.Succeeded, "True Succeeded"),
			remove(deployment),
		},
	},
	{
		name:    "a Deployment is cancelled",
		prepare: device,
		acts: []act{
			create(deployment, "Unknown Pending"),
			fitting(change(deployment, "False Cancelled", func(obj lifecycle.Object) { obj.(*v1alpha1.Deployment).Spec.Cancel = true }), "kiosk to pi5-001: pending"),
			fitting(remove(deployment), "kiosk to pi5-001: pending"),
		},
	},
	{
		name:    "a Deployment is deleted while it is pending",
		further: true,
		prepare: device,
		acts:    []act{create(deployment, "Unknown Pending"), fitting(remove(deployment), "kiosk to pi5-001: pending")},
	},
	{
		name:    "a Device is named and tagged, changed, removed",
		prepare: board,
		acts: []act{
			create(managed, "True Available"),
			change(managed, "True Available", func(obj lifecycle.Object) { obj.(*v1alpha1.Device).Spec.Tags = []v1alpha1.Tag{} }),
			remove(managed),
		},
	},
	{
		name:    "a Device follows its board, and leaves it there",
		further: true,
		prepare: board,
		acts: []act{
			create(managed, "True Available"),
			{name: "comes back as another device", do: func(_ context.Context, w *world) error {
				w.Org.ReplaceDevice(boardOf(w).ID)
				return nil
			}, ready: func(ctx context.Context, w *world) bool {
				obj := managed(w).(*v1alpha1.Device)
				return w.ready(ctx, obj) == "True Available" && obj.Status.ID == boardOf(w).ID
			}, others: true},
			change(managed, "True Available", func(obj lifecycle.Object) {
				obj.(*v1alpha1.Device).Spec.DeletionPolicy = v1alpha1.DeletionPolicyOrphan
			}),
			remove(managed),
		},
	},
	{
		name:    "an AuthKey is changed and changed back",
		further: true,
		prepare: others,
		acts: []act{
			create(authKey, "True Usable"),
			change(authKey, "True Usable", func(obj lifecycle.Object) { obj.(*v1alpha1.AuthKey).Spec.Tags = []v1alpha1.Tag{"lobby"} }),
			change(authKey, "True Usable", func(obj lifecycle.Object) { obj.(*v1alpha1.AuthKey).Spec.Tags = []v1alpha1.Tag{"kiosk"} }),
			remove(authKey),
		},
	},
	{
		name:    "an AuthKey is deleted",
		further: true,
		prepare: others,
		acts:    []act{create(authKey, "True Usable"), remove(authKey)},
	},
	{
		name:    "an Artefact is deleted",
		further: true,
		prepare: others,
		acts:    []act{create(func(w *world) lifecycle.Object { return w.artefact("kiosk") }, "True Available"), remove(func(w *world) lifecycle.Object { return w.artefact("kiosk") })},
	},
	{
		name:    "a DeviceIdentity is deleted",
		further: true,
		prepare: others,
		acts: []act{
			{name: "has its key in a Secret", do: func(ctx context.Context, w *world) error {
				return w.Create(ctx, &corev1.Secret{ObjectMeta: w.meta("pi5-001-key"), StringData: map[string]string{"private.pem": privatePEM}})
			}, ready: always},
			create(identity, "True Available"), remove(identity)},
	},
	{
		name:    "an AuthKey is made and removed by a person",
		further: true,
		prepare: others,
		acts: []act{
			create(authKey, "True Usable"),
			{name: "is removed in Connect", do: func(_ context.Context, w *world) error {
				for _, k := range w.Org.AuthKeys() {
					if !w.theirs[k.ID] {
						w.Org.RemoveAuthKey(k.ID)
					}
				}
				return nil
			}, ready: func(ctx context.Context, w *world) bool {
				return w.revision == connectsim.Older || w.ready(ctx, authKey(w)) == "False Revoked"
			}},
			remove(authKey),
		},
	},
	{
		name:    "an Artefact and its Deployment come and go together",
		further: true,
		prepare: others,
		acts: []act{
			{name: "appears", do: func(_ context.Context, w *world) error {
				w.Org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "serial-pi5-001"})
				return nil
			}, ready: always},
			{name: "waits for its artefact", do: func(ctx context.Context, w *world) error { return w.Create(ctx, referring(w)) }, ready: func(ctx context.Context, w *world) bool {
				return w.ready(ctx, referring(w)) == "Unknown ArtefactNotReady"
			}},
			create(func(w *world) lifecycle.Object { return w.artefact("kiosk") }, "True Available"),
			{name: "waits", do: func(context.Context, *world) error { return nil }, ready: func(ctx context.Context, w *world) bool {
				return w.ready(ctx, referring(w)) == "Unknown Pending"
			}},
			{name: "are deleted", do: func(ctx context.Context, w *world) error {
				return errors.Join(w.Delete(ctx, referring(w)), w.Delete(ctx, w.artefact("kiosk")))
			}, ready: func(ctx context.Context, w *world) bool {
				return w.gone(ctx, referring(w)) && w.gone(ctx, w.artefact("kiosk"))
			}},
		},
	},
	{
		name:    "a FleetRollout updates two devices one after the other, is paused, and takes up the next artefact",
		further: true, // it takes as long as the others together
		prepare: kiosks,
		acts: []act{
			create(fleetRollout, "Unknown Progressing"),
			// Whether the first device had its deployment before it was paused depends on the disturbance.
			fitting(change(fleetRollout, "Unknown Paused", func(obj lifecycle.Object) { obj.(*v1alpha1.FleetRollout).Spec.Paused = true }), "of kiosk to pi5-001: pending", "of kiosk to pi5-003"),
			once(change(fleetRollout, "True Complete", func(obj lifecycle.Object) { obj.(*v1alpha1.FleetRollout).Spec.Paused = false }).while(succeeding), "kiosk"),
			once(act{name: "gets another artefact", do: func(ctx context.Context, w *world) error {
				next := artefactNamed(w, "kiosk-next").ID
				return change(fleetRollout, "", func(obj lifecycle.Object) { obj.(*v1alpha1.FleetRollout).Spec.ArtefactID = next }).do(ctx, w)
			}, ready: func(ctx context.Context, w *world) bool {
				return w.ready(ctx, fleetRollout(w)) == "True Complete" && w.deployed("kiosk-next") == 2
			}}.while(succeeding), "kiosk-next"),
		},
	},
}

// while has something happen again and again until the act has come true.
func (a act) while(happens func(*world)) act {
	ready := a.ready
	a.ready = func(ctx context.Context, w *world) bool {
		happens(w)
		return ready(ctx, w)
	}
	return a
}

// once accepts every snapshot in which both devices were updated once.
func once(a act, artefact string) act {
	a.fits = func(snapshot string) bool {
		one := fmt.Sprintf("deployment of %s to pi5-001: succeeded\n", artefact)
		other := fmt.Sprintf("deployment of %s to pi5-003: succeeded\n", artefact)
		return strings.Count(snapshot, one) == 1 && strings.Count(snapshot, other) == 1 && !strings.Contains(snapshot, "of "+artefact+" to pi5-001: pending")
	}
	return a
}

// succeeding has every device of ours report success.
func succeeding(w *world) {
	for _, d := range w.Org.Deployments("") {
		if d.State == connectsim.Pending && d.ArtefactID != artefactNamed(w, "theirs").ID {
			w.Org.MoveDeployment(d.ID, connectsim.Succeeded, "")
		}
	}
}

// deployed counts the deployments of an artefact.
func (w *world) deployed(artefact string) (n int) {
	for _, d := range w.Org.Deployments("") {
		if d.ArtefactID == artefactNamed(w, artefact).ID {
			n++
		}
	}
	return n
}

// kiosks are two devices and two artefacts.
func kiosks(w *world) {
	device(w)
	w.Org.AddDevice(connectsim.Device{Name: "pi5-003", SerialNumber: "serial-pi5-003"})
	w.Org.AddArtefact("kiosk-next", "https://updates.example.com/kiosk-v3.tar.zst", strings.Repeat("0c", 32))
}

func fleetRollout(w *world) lifecycle.Object {
	one := intstr.FromInt32(1)
	return &v1alpha1.FleetRollout{ObjectMeta: w.meta("kiosk"), Spec: v1alpha1.FleetRolloutSpec{
		ArtefactID: artefactNamed(w, "kiosk").ID, Devices: v1alpha1.FleetDevices{Names: []string{"pi5-001", "pi5-003"}},
		Order: v1alpha1.OrderName, MaxConcurrent: &one,
	}}
}

func always(context.Context, *world) bool { return true }

// fitting accepts every snapshot without the words.
func fitting(a act, without ...string) act {
	a.fits = func(snapshot string) bool {
		return !slices.ContainsFunc(without, func(words string) bool { return strings.Contains(snapshot, words) })
	}
	return a
}

// create makes a resource, and waits until it is as it should be.
func create(of func(*world) lifecycle.Object, ready string) act {
	return act{
		name:  "is created",
		do:    func(ctx context.Context, w *world) error { return w.Create(ctx, of(w)) },
		ready: func(ctx context.Context, w *world) bool { return w.ready(ctx, of(w)) == ready },
	}
}

// change edits its spec.
func change(of func(*world) lifecycle.Object, ready string, edit func(lifecycle.Object)) act {
	return act{
		name: "is changed",
		do: func(ctx context.Context, w *world) error {
			obj := of(w)
			if err := w.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil {
				return err
			}
			before := obj.DeepCopyObject().(client.Object)
			edit(obj)
			return w.Patch(ctx, obj, client.MergeFrom(before))
		},
		ready:   func(ctx context.Context, w *world) bool { return w.ready(ctx, of(w)) == ready },
		anytime: true,
	}
}

// remove deletes it, and waits until it is gone.
func remove(of func(*world) lifecycle.Object) act {
	return act{
		name:    "is deleted",
		do:      func(ctx context.Context, w *world) error { return w.Delete(ctx, of(w)) },
		ready:   func(ctx context.Context, w *world) bool { return w.gone(ctx, of(w)) },
		anytime: true,
	}
}

// moves has the device report how its deployments are.
func moves(state, ready string) act {
	return act{
		name: "is " + state,
		do: func(_ context.Context, w *world) error {
			for _, d := range w.Org.Deployments("") {
				if artefactNamed(w, "kiosk").ID == d.ArtefactID {
					w.Org.MoveDeployment(d.ID, state, "")
				}
			}
			return nil
		},
		ready: func(ctx context.Context, w *world) bool { return w.ready(ctx, deployment(w)) == ready },
	}
}

// others have objects that look like ours.
func others(w *world) {
	w.Org.AddArtefact("theirs", "https://updates.example.com/kiosk.tar.zst", strings.Repeat("0a", 32))
	w.Org.AddAuthKey("pi5-001", "pi5-001", []string{"kiosk"}, 30)
	w.Org.AddDeviceIdentity(newPublicPEM(), "pi5-001", "pi5-001", []string{"production"})
	theirs := w.Org.AddDevice(connectsim.Device{Name: "pi5-002", SerialNumber: "serial-pi5-002"})
	w.Org.AddDeployment(theirs.ID, artefactNamed(w, "theirs").ID)
}

// device is where deployments go.
func device(w *world) {
	others(w)
	w.Org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "serial-pi5-001"})
	w.Org.AddArtefact("kiosk", "https://updates.example.com/kiosk-v2.tar.zst", strings.Repeat("0b", 32))
}

// board is one that has signed in under the name that all of them have.
func board(w *world) {
	others(w)
	w.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: "serial-pi5-001", Tags: []string{"new"}})
	w.Org.AddDevice(connectsim.Device{Name: "raspberrypi", SerialNumber: "serial-pi5-003", Tags: []string{"new"}})
}

// boardOf is the device that the board is.
func boardOf(w *world) connectsim.Device {
	for _, d := range w.Org.Devices() {
		if d.SerialNumber == "serial-pi5-001" {
			return d
		}
	}
	return connectsim.Device{}
}

func managed(w *world) lifecycle.Object {
	return &v1alpha1.Device{ObjectMeta: w.meta("pi5-001"), Spec: v1alpha1.DeviceSpec{
		CommonSpec: v1alpha1.CommonSpec{DeletionPolicy: v1alpha1.DeletionPolicyDelete},
		Device:     v1alpha1.SingleDeviceReference{SerialNumber: "serial-pi5-001"},
		Name:       "pi5-001", Tags: []v1alpha1.Tag{"kiosk"},
	}}
}

func artefactNamed(w *world, name string) connectsim.Artefact {
	for _, a := range w.Org.Artefacts() {
		if a.Name == name {
			return a
		}
	}
	return connectsim.Artefact{}
}

func deployment(w *world) lifecycle.Object {
	return &v1alpha1.Deployment{ObjectMeta: w.meta("pi5-001"), Spec: v1alpha1.DeploymentSpec{
		ArtefactID: artefactNamed(w, "kiosk").ID, Device: v1alpha1.DeviceReference{Name: "pi5-001"},
	}}
}

func referring(w *world) lifecycle.Object {
	return &v1alpha1.Deployment{ObjectMeta: w.meta("pi5-001"), Spec: v1alpha1.DeploymentSpec{
		ArtefactRef: &v1alpha1.ArtefactReference{Name: "kiosk"}, Device: v1alpha1.DeviceReference{SerialNumber: "serial-pi5-001"},
	}}
}

func authKey(w *world) lifecycle.Object {
	return &v1alpha1.AuthKey{ObjectMeta: w.meta("pi5-001"), Spec: v1alpha1.AuthKeySpec{DeviceName: "pi5-001", Tags: []v1alpha1.Tag{"kiosk"}}}
}

func renewed(w *world) lifecycle.Object {
	obj := authKey(w)
	obj.(*v1alpha1.AuthKey).Spec.Renewal = v1alpha1.RenewalAlways
	return obj
}

func identity(w *world) lifecycle.Object {
	return &v1alpha1.DeviceIdentity{ObjectMeta: w.meta("pi5-001"), Spec: v1alpha1.DeviceIdentitySpec{
		CommonSpec: v1alpha1.CommonSpec{DeletionPolicy: v1alpha1.DeletionPolicyDelete},
		PublicKey:  publicPEM, DeviceName: "pi5-001", Tags: []v1alpha1.Tag{"production"},
		Signing: &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: "pi5-001-key", Key: "private.pem"}},
	}}
}

// The identity's key.
var publicPEM, privatePEM = cluster.NewKey()

func newPublicPEM() string {
	public, _ := cluster.NewKey()
	return public
}
