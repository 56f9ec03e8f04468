// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

var identities = &kind{
	name: "DeviceIdentity", prefix: "i", collection: "device-identities", names: 3, orphans: true,
	fresh: func(_ *world, called string, variant int) object {
		i := &v1alpha1.DeviceIdentity{}
		i.Spec.PublicKey = boards[called].public
		i.Spec.Signing = &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: "private-keys", Key: called}}
		changeIdentity(nil, i, variant)
		return i
	},
	same:   func(anew, was object) { anew.(*v1alpha1.DeviceIdentity).Spec = was.(*v1alpha1.DeviceIdentity).Spec },
	change: changeIdentity,
	add: func(w *world, n, variant int) {
		if w.identityOf(name("i", n)) == nil {
			w.noteTheirs(w.org().AddDeviceIdentity(boards[name("i", n)].public, "somebody's", "", tags(variant)).ID)
		}
	},
	alter: func(w *world, n, variant int) {
		if i, ok := pick(w.org().DeviceIdentities(), n); ok {
			w.org().ChangeDeviceIdentity(i.ID, func(i *connectsim.Identity) { i.Tags = tags(variant) })
		}
	},
	remove: func(w *world, n, _ int) {
		if i, ok := pick(w.org().DeviceIdentities(), n); ok {
			w.org().RemoveDeviceIdentity(i.ID)
		}
	},
	ids: identityIDs, goes: identityIDs,
	atRest: func(w *world, obj object) error {
		i := obj.(*v1alpha1.DeviceIdentity)
		status, reason, _ := ready(i)
		if status != "True" || reason != v1alpha1.ReasonAvailable {
			return w.excused(i)
		}
		at := slices.IndexFunc(w.org().DeviceIdentities(), func(r connectsim.Identity) bool { return r.ID == i.Status.ID })
		if at < 0 {
			return fmt.Errorf("is Available, and its identity is not there")
		}
		r := w.org().DeviceIdentities()[at]
		switch {
		case r.PublicKey != i.Spec.PublicKey:
			return fmt.Errorf("is Available, and its identity has another key")
		case i.Spec.Description != "" && r.Description != i.Spec.Description:
			return fmt.Errorf("is Available, and its identity is described as %q", r.Description)
		case r.DeviceID == "" && i.Spec.Tags != nil && !sameTags(r.Tags, i.Spec.Tags):
			return fmt.Errorf("is Available, and its identity has the tags %v", r.Tags)
		}
		return nil
	},
}

func identityIDs(org *connectsim.Organisation) []string {
	return idsOf(org.DeviceIdentities(), func(i connectsim.Identity) string { return i.ID })
}

func changeIdentity(_ *world, obj object, variant int) {
	i := obj.(*v1alpha1.DeviceIdentity)
	i.Spec.DeletionPolicy = policy(variant / 4)
	i.Spec.Tags = tags(variant)
	i.Spec.Description = []string{"", "a board"}[variant%2]
	i.Spec.DeviceName = []string{"", "lobby"}[variant/2%2]
}

// board is what an identity is of.
type board struct{ public, private string }

var boards = makeBoards()

func makeBoards() map[string]board {
	all := map[string]board{}
	for n := range 3 {
		public, private := cluster.NewKey()
		all[name("i", n)] = board{public, private}
	}
	return all
}

// putPrivateKeys writes the Secret with the keys of all boards.
func (w *world) putPrivateKeys() {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "private-keys"}, StringData: map[string]string{}}
	for called, b := range boards {
		s.StringData[called] = b.private
	}
	w.must(w.user.Create(context.Background(), s))
}

func (w *world) identityOf(called string) *connectsim.Identity {
	for _, i := range w.org().DeviceIdentities() {
		if i.PublicKey == boards[called].public {
			return &i
		}
	}
	return nil
}

func sameTags(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
