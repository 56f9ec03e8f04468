// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var authKeys = &kind{
	name: "AuthKey", prefix: "k", collection: "auth-keys", names: 3,
	fresh: func(_ *world, name string, variant int) object {
		k := &v1alpha1.AuthKey{}
		k.Spec.Description = name
		k.Spec.TTLDays = int32(1 + variant%3)
		k.Spec.Tags = tags(variant)
		k.Spec.Renewal = []v1alpha1.Renewal{v1alpha1.RenewalNever, v1alpha1.RenewalBeforeExpiry, v1alpha1.RenewalAlways}[variant%3]
		k.Spec.DeletionPolicy = policy(variant / 3)
		return k
	},
	same: func(anew, was object) { anew.(*v1alpha1.AuthKey).Spec = was.(*v1alpha1.AuthKey).Spec },
	change: func(_ *world, obj object, variant int) {
		k := obj.(*v1alpha1.AuthKey)
		k.Spec.DeletionPolicy = policy(variant / 3)
		switch variant % 3 {
		case 0:
			k.Spec.Tags = tags(variant / 3)
		case 1:
			k.Spec.DeviceName = []string{"", "lobby"}[variant%2]
		case 2:
			k.Spec.TTLDays = int32(1 + variant%4)
		}
	},
	add: func(w *world, n, variant int) {
		w.noteTheirs(w.org().AddAuthKey(name("k", n), "", tags(variant), 1).ID)
	},
	alter: nothing, // there is no way to tell
	remove: func(w *world, n, _ int) {
		if k, ok := pick(w.org().AuthKeys(), n); ok {
			w.org().RemoveAuthKey(k.ID)
		}
	},
	ids: func(org *connectsim.Organisation) []string {
		return idsOf(org.AuthKeys(), func(k connectsim.AuthKey) string { return k.ID })
	},
	atRest: func(w *world, obj object) error {
		k := obj.(*v1alpha1.AuthKey)
		_, reason, _ := ready(k)
		at := slices.IndexFunc(w.org().AuthKeys(), func(r connectsim.AuthKey) bool { return r.ID == k.Status.ID })
		held := w.secretOf(k)
		switch reason {
		case v1alpha1.ReasonUsable:
			switch {
			case w.setup.revision == connectsim.Older && (at < 0 || !w.usable(at)):
				return nil // neither can be seen there
			case at < 0:
				return fmt.Errorf("is Usable, and its key is not there")
			case !w.usable(at):
				return fmt.Errorf("is Usable, and its key cannot be used")
			case held != w.org().AuthKeys()[at].Secret:
				return fmt.Errorf("is Usable, and its Secret holds something else")
			}
			return nil
		case v1alpha1.ReasonExchanged, v1alpha1.ReasonExpired:
			if at >= 0 && w.usable(at) {
				return fmt.Errorf("is %s, and its key can be used", reason)
			}
			return nil
		case v1alpha1.ReasonRevoked:
			if at >= 0 {
				return fmt.Errorf("is Revoked, and its key is there")
			}
			return nil
		}
		return w.excused(k)
	},
}

func (w *world) usable(at int) bool {
	k := w.org().AuthKeys()[at]
	return k.Usable(time.Now())
}

// secretOf is the key in the Secret of an AuthKey; empty if there is none.
func (w *world) secretOf(k *v1alpha1.AuthKey) string {
	s := &corev1.Secret{}
	if err := w.user.Get(context.Background(), client.ObjectKey{Namespace: namespace, Name: k.Name}, s); err != nil {
		return ""
	}
	return string(s.Data["auth.key"])
}

// keysAtRest checks that no live key of the operator's is outside of a Secret.
func (w *world) keysAtRest() {
	if w.setup.revision == connectsim.Older {
		return // a key whose answer was lost can be neither listed nor revoked there
	}
	held := map[string]bool{}
	secrets := &corev1.SecretList{}
	w.must(w.user.List(context.Background(), secrets, client.InNamespace(namespace)))
	for _, s := range secrets.Items {
		held[string(s.Data["auth.key"])] = true
	}
	for n, org := range w.orgs {
		for _, k := range org.AuthKeys() {
			m, ours := w.ledger.madeBy(k.ID)
			if !ours || !k.Usable(time.Now()) || held[k.Secret] || w.stays(m) || n != w.organisation {
				continue
			}
			w.violatedf("an auth key of %s is live and in no Secret: %s, made at %s", m.resource, k.ID, m.at)
		}
	}
}

func tags(variant int) []v1alpha1.Tag {
	return [][]v1alpha1.Tag{nil, {"kiosk"}, {"kiosk", "lab"}, {"production"}}[variant%4]
}
