// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

var (
	porch = types.NamespacedName{Namespace: "lab", Name: "porch"}
	attic = types.NamespacedName{Namespace: "lab", Name: "attic"}
)

// While a key is being made, one that looks like it may be that one, and must not
// be revoked as lost.
func TestIssuedUnderWay(t *testing.T) {
	m := newIssuedKeys()
	check := func(when, appearance string, want bool) {
		t.Helper()
		if got := m.unsure(appearance); got != want {
			t.Errorf("%s: unsure about %s: %t", when, appearance, got)
		}
	}
	check("at first", "a", false)
	first, second := m.begin(porch, "a"), m.begin(porch, "a")
	check("with two under way", "a", true)
	check("with two others under way", "b", false)
	first()
	check("with one still under way", "a", true)
	second()
	check("with none under way", "a", false)

	m.begin(porch, "a")()
	other := m.begin(attic, "b")
	check("after the next", "a", false)
	check("with one under way", "b", true)
	other()
	check("in the end", "b", false)
}

func TestIssuedHere(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*issuedKeys)
		want    bool // of the key k1
	}{
		"nobody knows of it":    {func(*issuedKeys) {}, false},
		"it was made here":      {func(m *issuedKeys) { m.note(porch, "k1") }, true},
		"another was made here": {func(m *issuedKeys) { m.note(porch, "k2") }, false},
		"its AuthKey has a newer": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.note(porch, "k2")
		}, false},
		"it is the newer one": {func(m *issuedKeys) {
			m.note(porch, "k0")
			m.note(porch, "k1")
		}, true},
		"it is noted twice": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.note(porch, "k1")
		}, true},
		"another AuthKey has a newer": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.note(attic, "k2")
		}, true},
		"its AuthKey is gone": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.forget(porch)
		}, false},
		"another AuthKey is gone": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.note(attic, "k2")
			m.forget(attic)
		}, true},
		"an AuthKey that never had one is gone": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.forget(attic)
		}, true},
		"it could not be stored, and a new one was made": {func(m *issuedKeys) {
			m.note(porch, "k1")
			m.lost(porch)
			m.note(porch, "k2")
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newIssuedKeys()
			test.happens(m)
			if got := m.here("k1"); got != test.want {
				t.Errorf("it was made here: %t", got)
			}
		})
	}
}

// Whatever goes wrong, an AuthKey does not make key after key.
func TestIssueLimit(t *testing.T) {
	m := newIssuedKeys()
	n := 0
	for ; m.delay(porch) == 0; n++ {
		m.begin(porch, "a")()
	}
	if n < issueBurst || n > issueBurst+1 {
		t.Errorf("it made %d keys", n)
	}
	if delay := m.delay(porch); delay <= 0 || delay > issueEvery {
		t.Errorf("it waits for %s", delay)
	}
	if m.delay(attic) != 0 {
		t.Error("another AuthKey waits as well")
	}
}
