// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
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

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// known is what a pass knows at noon of a key that lives for nine days; it was issued an hour ago if
// nobody says when it expires.
func known(obj *v1alpha1.AuthKey, mark string, key state) *external {
	issued := noon.Add(-time.Hour)
	obj.Spec.TTLDays = 9
	key.ID = "k1"
	if key.ExpiresAt.IsZero() {
		key.ExpiresAt = issued.Add(lifetime(obj))
	}
	issued = key.ExpiresAt.Add(-lifetime(obj))
	return &external{
		controller: &controller{clock: clocktesting.NewFakePassiveClock(noon)}, obj: obj, key: key,
		secret: &keySecret{owner: obj, meta: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
			annotationKeySpecHash: mark, annotationIssuedAt: issued.Format(time.RFC3339),
		}}}},
	}
}

// A new key takes the place of one that the spec does not fit any more and Connect would not change,
// of one that was used if there is always to be one, and of one whose time has come.
func TestWhenAKeyIsReplaced(t *testing.T) {
	const lost = ""
	mark := func(change func(*v1alpha1.AuthKey)) string {
		before := newAuthKey()
		before.Spec.TTLDays = 9
		change(before)
		return keySpecHash(before)
	}
	same := mark(func(*v1alpha1.AuthKey) {})
	described := mark(func(k *v1alpha1.AuthKey) { k.Spec.Description = "Front porch" })
	shorter := mark(func(k *v1alpha1.AuthKey) { k.Spec.TTLDays = 1 })
	key := func(expiresAt time.Time, exchanged bool) connectclient.AuthKey {
		k := connectclient.AuthKey{ExpiresAt: expiresAt}
		if exchanged {
			k.ExchangedAt = &noon
		}
		return k
	}
	soon, over, never := noon.Add(time.Hour), noon.Add(-time.Minute), time.Time{}
	for name, test := range map[string]struct {
		mark    string
		key     state
		renewal v1alpha1.Renewal
		want    bool
	}{
		"nothing has changed":                                   {same, state{listed: true}, v1alpha1.RenewalNever, false},
		"nothing has changed, and keys cannot be listed":        {same, state{}, v1alpha1.RenewalNever, false},
		"the Secret was restored without its marks":             {lost, state{listed: true}, v1alpha1.RenewalNever, false},
		"the Secret was restored, and keys cannot be listed":    {lost, state{}, v1alpha1.RenewalNever, false},
		"it was described in another way":                       {described, state{listed: true}, v1alpha1.RenewalNever, false},
		"it was described in another way, and cannot be listed": {described, state{}, v1alpha1.RenewalNever, true},
		"it was described in another way, and was used":         {described, state{AuthKey: key(never, true), listed: true}, v1alpha1.RenewalNever, true},
		"it was described in another way, and is over":          {described, state{AuthKey: key(over, false), listed: true}, v1alpha1.RenewalNever, true},
		"its lifetime was another":                              {shorter, state{listed: true}, v1alpha1.RenewalNever, true},

		"somebody has revoked it": {same, state{AuthKey: key(soon, false), gone: true}, v1alpha1.RenewalAlways, false},
		"it was used":             {same, state{AuthKey: key(never, true), listed: true}, v1alpha1.RenewalNever, false},
		"it was used, and is renewed before it expires":    {same, state{AuthKey: key(soon, true), listed: true}, v1alpha1.RenewalBeforeExpiry, false},
		"it was used, and there is always to be one":       {same, state{AuthKey: key(never, true), listed: true}, v1alpha1.RenewalAlways, true},
		"it was used and is over, and there is always one": {same, state{AuthKey: key(over, true), listed: true}, v1alpha1.RenewalAlways, true},
		"it expires soon": {same, state{AuthKey: key(soon, false), listed: true}, v1alpha1.RenewalNever, false},
		"it expires soon, of an AuthKey that does not say":    {same, state{AuthKey: key(soon, false), listed: true}, "", false},
		"it expires soon, and is renewed before":              {same, state{AuthKey: key(soon, false), listed: true}, v1alpha1.RenewalBeforeExpiry, true},
		"it expires soon, and there is always to be one":      {same, state{AuthKey: key(soon, false), listed: true}, v1alpha1.RenewalAlways, true},
		"it will expire, and is renewed before":               {same, state{listed: true}, v1alpha1.RenewalBeforeExpiry, false},
		"it will expire, and there is always to be one, once": {same, state{listed: true}, v1alpha1.RenewalAlways, false},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newAuthKey()
			obj.Spec.Renewal = test.renewal
			if got := known(obj, test.mark, test.key).toBeReplaced(); got != test.want {
				t.Errorf("a new key is made: %t", got)
			}
		})
	}
}

// The next look at a key is when it is renewed, or when it expires if it is not.
func TestNextLookAtAKey(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		renewal v1alpha1.Renewal
		before  time.Duration
		want    time.Duration
	}{
		"it is not renewed":                    {v1alpha1.RenewalNever, 0, 9*day - time.Hour},
		"it is renewed":                        {v1alpha1.RenewalBeforeExpiry, 0, 6*day - time.Hour},
		"there is always to be one":            {v1alpha1.RenewalAlways, 0, 6*day - time.Hour},
		"it is renewed two days before":        {v1alpha1.RenewalBeforeExpiry, 2 * day, 7*day - time.Hour},
		"it is renewed hardly after its birth": {v1alpha1.RenewalBeforeExpiry, 9*day - time.Minute, 9*day/10 - time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			obj := newAuthKey()
			obj.Spec.Renewal = test.renewal
			if test.before > 0 {
				obj.Spec.RenewBefore = &metav1.Duration{Duration: test.before}
			}
			got := known(obj, "", state{listed: true}).outcome()
			if got.Reason != v1alpha1.ReasonUsable || got.RequeueAfter != test.want {
				t.Errorf("it is %s, and looked at in %s, want %s", got.Reason, got.RequeueAfter, test.want)
			}
		})
	}
}

// What is said of a key goes by what became of it first: one that a device has used did not expire.
// Only a key that nobody used is taken out of the Secret.
func TestWhatIsSaidOfAKey(t *testing.T) {
	soon, over := noon.Add(time.Hour), noon.Add(-time.Hour)
	for name, test := range map[string]struct {
		expires    time.Time
		used, gone bool
		want       string
		cleared    bool
	}{
		"it can be used": {expires: soon, want: v1alpha1.ReasonUsable},
		"it can be used, and nobody says how long":  {want: v1alpha1.ReasonUsable},
		"it expires just now":                       {expires: noon, want: v1alpha1.ReasonExpired, cleared: true},
		"it has expired":                            {expires: over, want: v1alpha1.ReasonExpired, cleared: true},
		"it has expired, and is not listed":         {expires: over, gone: true, want: v1alpha1.ReasonExpired, cleared: true},
		"it was used":                               {expires: soon, used: true, want: v1alpha1.ReasonExchanged},
		"it was used, and would have expired since": {expires: over, used: true, want: v1alpha1.ReasonExchanged},
		"somebody has revoked it":                   {expires: soon, gone: true, want: v1alpha1.ReasonRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			e := known(newAuthKey(), "", state{listed: !test.gone, gone: test.gone})
			if e.key.ExpiresAt = test.expires; test.used {
				e.key.ExchangedAt = &noon
			}
			if got := e.outcome().Reason; got != test.want {
				t.Errorf("it is %s, want %s", got, test.want)
			}
			if got := e.toBeCleared(); got != test.cleared {
				t.Errorf("it is taken out of the Secret: %t", got)
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
