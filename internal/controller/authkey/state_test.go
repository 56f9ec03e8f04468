// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// newAuthKey is one with the defaults that the API server puts in.
func newAuthKey() *v1alpha1.AuthKey {
	return &v1alpha1.AuthKey{
		ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: "porch"},
		Spec: v1alpha1.AuthKeySpec{
			TTLDays: 1, Renewal: v1alpha1.RenewalNever, Secret: v1alpha1.AuthKeySecret{Key: "auth.key"},
		},
	}
}

func TestRenewBefore(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		days           int32
		before         time.Duration // 0: the spec does not say
		lifetime, want time.Duration
	}{
		"a third of the shortest lifetime": {1, 0, day, 8 * time.Hour},
		"a third of the longest lifetime":  {90, 0, 90 * day, 30 * day},
		"what the spec says":               {10, 12 * time.Hour, 10 * day, 12 * time.Hour},
		"what is left out is a day":        {0, 0, day, 8 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newAuthKey()
			obj.Spec.TTLDays = test.days
			if test.before > 0 {
				obj.Spec.RenewBefore = &metav1.Duration{Duration: test.before}
			}
			if got := lifetime(obj); got != test.lifetime {
				t.Errorf("it lives %s, want %s", got, test.lifetime)
			}
			if got := renewBefore(obj); got != test.want {
				t.Errorf("it is renewed %s before its end, want %s", got, test.want)
			}
		})
	}
}

// The mark on the Secret tells three things apart: a key that is as the spec
// says, one that Connect may change to be so, and one that has to be replaced.
func TestKeySpecHash(t *testing.T) {
	const same, editable, replaced = "same", "editable", "replaced"
	for name, test := range map[string]struct {
		change func(*v1alpha1.AuthKey)
		want   string
	}{
		"nothing":                            {func(*v1alpha1.AuthKey) {}, same},
		"tags in another order":              {func(k *v1alpha1.AuthKey) { k.Spec.Tags = []string{"pi5", "lab"} }, same},
		"the description that it has anyway": {func(k *v1alpha1.AuthKey) { k.Spec.Description = "porch" }, same},
		"the renewal": {func(k *v1alpha1.AuthKey) {
			k.Spec.Renewal, k.Spec.RenewBefore = v1alpha1.RenewalAlways, &metav1.Duration{Duration: time.Hour}
		}, same},
		"the place of the Secret":  {func(k *v1alpha1.AuthKey) { k.Spec.Secret.Name = "elsewhere" }, same},
		"what is on the Secret":    {func(k *v1alpha1.AuthKey) { k.Spec.Secret.Labels = map[string]v1alpha1.LabelValue{"a": "b"} }, same},
		"another resource's doing": {func(k *v1alpha1.AuthKey) { k.Status.ID, k.Generation = "k1", 5 }, same},

		"the description":   {func(k *v1alpha1.AuthKey) { k.Spec.Description = "Front porch" }, editable},
		"the device's name": {func(k *v1alpha1.AuthKey) { k.Spec.DeviceName = "porch-1" }, editable},
		"a tag more":        {func(k *v1alpha1.AuthKey) { k.Spec.Tags = append(k.Spec.Tags, "new") }, editable},
		"a tag less":        {func(k *v1alpha1.AuthKey) { k.Spec.Tags = k.Spec.Tags[:1] }, editable},
		"no tags":           {func(k *v1alpha1.AuthKey) { k.Spec.Tags = nil }, editable},

		"the lifetime":                   {func(k *v1alpha1.AuthKey) { k.Spec.TTLDays = 2 }, replaced},
		"the key of the Secret":          {func(k *v1alpha1.AuthKey) { k.Spec.Secret.Key = "key" }, replaced},
		"the lifetime and a description": {func(k *v1alpha1.AuthKey) { k.Spec.TTLDays, k.Spec.Description = 2, "Front porch" }, replaced},
	} {
		t.Run(name, func(t *testing.T) {
			before := newAuthKey()
			before.Spec.Tags = []string{"lab", "pi5"}
			after := before.DeepCopy()
			test.change(after)
			was, is := keySpecHash(before), keySpecHash(after)
			got := editable
			switch {
			case was == is:
				got = same
			case fixed(was) != fixed(is):
				got = replaced
			}
			if got != test.want {
				t.Errorf("the key is %s, want %s: %s, then %s", got, test.want, was, is)
			}
		})
	}
}

// A spec that is stored and read again has a list where there was none, or none
// where there was an empty one.
func TestNoTagsAreNoTags(t *testing.T) {
	none, empty := newAuthKey(), newAuthKey()
	empty.Spec.Tags = []string{}
	if keySpecHash(none) != keySpecHash(empty) {
		t.Error("an empty list makes a difference")
	}
}

// What is on a Secret that somebody has spoilt asks for a new key rather than
// passing for what the spec says.
func TestFixedOfJunk(t *testing.T) {
	should := keySpecHash(newAuthKey())
	for _, mark := range []string{"", "/", "junk", "junk/junk", "/" + wanted(newAuthKey()).hash()} {
		if fixed(mark) == fixed(should) {
			t.Errorf("%q passes for %s", mark, should)
		}
	}
}

// Keys can be taken for one another only if Connect shows the same of both.
func TestAppearance(t *testing.T) {
	alike := func(a, b func(*v1alpha1.AuthKey)) bool {
		one, other := newAuthKey(), newAuthKey()
		a(one)
		b(other)
		if wanted(one).equal(wanted(other)) != (wanted(one).hash() == wanted(other).hash()) {
			t.Error("the hash says something else than the comparison")
		}
		return wanted(one).equal(wanted(other))
	}
	for name, test := range map[string]struct {
		a, b func(*v1alpha1.AuthKey)
		want bool
	}{
		"the same": {func(*v1alpha1.AuthKey) {}, func(*v1alpha1.AuthKey) {}, true},
		"of two resources with one description": {
			func(k *v1alpha1.AuthKey) { k.Spec.Description = "A" },
			func(k *v1alpha1.AuthKey) { k.Spec.Description, k.Name, k.Namespace = "A", "attic", "elsewhere" }, true},
		"of two lifetimes, which Connect does not show": {
			func(*v1alpha1.AuthKey) {}, func(k *v1alpha1.AuthKey) { k.Spec.TTLDays = 9 }, true},
		"with white space at the ends, which Connect may take off": {
			func(k *v1alpha1.AuthKey) { k.Spec.Description, k.Spec.DeviceName = "A", "b" },
			func(k *v1alpha1.AuthKey) { k.Spec.Description, k.Spec.DeviceName = "A\n", " b" }, true},
		"of two resources": {
			func(*v1alpha1.AuthKey) {}, func(k *v1alpha1.AuthKey) { k.Name = "attic" }, false},
		"a word in another place": {
			func(k *v1alpha1.AuthKey) { k.Spec.DeviceName = "a" }, func(k *v1alpha1.AuthKey) { k.Spec.Tags = []string{"a"} }, false},
		"words that run into each other": {
			func(k *v1alpha1.AuthKey) { k.Spec.Description, k.Spec.DeviceName = "ab", "c" },
			func(k *v1alpha1.AuthKey) { k.Spec.Description, k.Spec.DeviceName = "a", "bc" }, false},
		"tags that run into each other": {
			func(k *v1alpha1.AuthKey) { k.Spec.Tags = []string{"a", "b"} },
			func(k *v1alpha1.AuthKey) { k.Spec.Tags = []string{"ab"} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := alike(test.a, test.b); got != test.want {
				t.Errorf("alike: %t", got)
			}
		})
	}
}
