// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"testing"

	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
)

// A pass can end with a refusal that a later answer to the same token has taken back: whoever uses the
// token is not woken for it.
func TestOldRefusalDoesNotMakeATokenRefused(t *testing.T) {
	api, err := connectclient.New(connectclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	token := connectclient.NewSecret("rporg_7Hk2pQ9xWcVbNmZt4RsYdFgA")
	health := NewTokenHealth()
	var told []connectclient.Secret
	health.OnChange(func(s connectclient.Secret) { told = append(told, s) })
	p := &pass[*v1alpha1.Artefact]{
		Reconciler: &Reconciler[*v1alpha1.Artefact]{Environment: Environment{API: api, Health: health, Clock: clocktesting.NewFakePassiveClock(noon)}},
		obj:        newArtefact(), held: newArtefact(), token: token,
	}

	if outcome, err := p.finalOutcome(Outcome{}, connectclient.ErrUnauthorized); err != nil || outcome.Reason != v1alpha1.ReasonAccessTokenRejected {
		t.Errorf("%+v, %v", outcome, err)
	}
	if slices.Contains(told, token) {
		t.Error("it is taken for refused, although its budget has not been told so")
	}
}
