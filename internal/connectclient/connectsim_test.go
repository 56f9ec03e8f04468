// SPDX-License-Identifier: Apache-2.0

package connectclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectsim"
)

// These tests put the client to the simulator, which is another reading of the
// same specification: every call, in both revisions, with every form that
// unpublished error bodies may have.

const checksum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

type env struct {
	*testing.T

	sim    *connectsim.Server
	org    *connectsim.Organisation
	client *connectclient.Client
	older  bool
}

func inEveryEnv(t *testing.T, scenario func(env)) {
	t.Helper()
	for _, revision := range []connectsim.Revision{connectsim.Older, connectsim.Current} {
		for _, bodies := range []connectsim.ErrorBodies{
			connectsim.MessageBodies, connectsim.ErrorKey, connectsim.EmptyBodies, connectsim.HTMLBodies, connectsim.PlainBodies,
		} {
			if revision == connectsim.Older && bodies == connectsim.HTMLBodies {
				continue // see TestPagesOfTheOlderRevision
			}
			t.Run(fmt.Sprintf("%s/%s", revision, bodies), func(t *testing.T) {
				sim := connectsim.New(connectsim.Options{Revision: revision, ErrorBodies: bodies})
				server := httptest.NewServer(sim)
				t.Cleanup(server.Close)
				token := connectsim.NewSecret("rporg_")
				api, err := connectclient.New(connectclient.Options{
					BaseURL: server.URL, QPS: 1e6,
					Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
				})
				if err != nil {
					t.Fatal(err)
				}
				scenario(env{
					T: t, sim: sim, org: sim.AddOrganisation(token),
					client: api.ClientFor(connectclient.NewSecret(token)),
					older:  revision == connectsim.Older,
				})
			})
		}
	}
}

func (s env) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s env) mustBe(err, kind error) {
	s.Helper()
	if !errors.Is(err, kind) {
		s.Fatalf("got %v, want: %v", err, kind)
	}
}

// mustSupport checks the outcome of a call that the older revision does not have.
func (s env) mustSupport(err error) (supported bool) {
	s.Helper()
	if s.older {
		s.mustBe(err, connectclient.ErrUnsupported)
		return false
	}
	s.must(err)
	return true
}

func all[T any](s env, rows iter.Seq2[T, error]) []T {
	s.Helper()
	var all []T
	for row, err := range rows {
		s.must(err)
		all = append(all, row)
	}
	return all
}

// learn lists the auth keys, which tells the revisions apart.
func (s env) learn() {
	s.Helper()
	want := connectclient.RevisionCurrent
	if s.older {
		want = connectclient.RevisionOlder
	}
	for _, err := range s.client.AuthKeys().List().All(s.Context()) {
		s.mustSupport(err)
	}
	if got := s.client.Revision(); got != want {
		s.Fatalf("the revision is %s, want %s", got, want)
	}
}

func TestArtefactsOfTheSimulator(t *testing.T) {
	inEveryEnv(t, func(s env) {
		s.learn()
		ctx, artefacts := s.Context(), s.client.Artefacts()
		made, err := artefacts.Create(ctx, connectclient.ArtefactCreate{Name: "kiosk", URI: "https://example.com/a?b=c&d", Checksum: checksum})
		s.must(err)
		for i := range 250 {
			s.org.AddArtefact(fmt.Sprintf("kiosk-%03d", i), "https://example.com", checksum)
		}
		if got := all(s, artefacts.List().All(ctx)); len(got) != 251 || got[0] != *made {
			s.Errorf("%d artefacts, the first is %+v", len(got), got[0])
		}
		if got := all(s, artefacts.Find(ctx, "kiosk")); len(got) != 1 || got[0] != *made {
			s.Errorf("found %+v", got)
		}
		got, err := artefacts.Get(ctx, made.ID)
		if s.mustSupport(err) && *got != *made {
			s.Errorf("got %+v", got)
		}
		_, err = artefacts.Create(ctx, connectclient.ArtefactCreate{})
		s.mustBe(err, connectclient.ErrInvalid)
		if connectclient.Message(err) != "Validation failed: Name can't be blank" {
			s.Errorf("message %q", connectclient.Message(err))
		}

		s.must(artefacts.Delete(ctx, made.ID))
		s.mustBe(artefacts.Delete(ctx, made.ID), connectclient.ErrNotFound)
		kept := s.org.AddArtefact("deployed", "https://example.com", checksum)
		s.org.MarkDeployed(kept.ID)
		s.mustBe(artefacts.Delete(ctx, kept.ID), connectclient.ErrArtefactDeployed)
	})
}

func TestAuthKeysOfTheSimulator(t *testing.T) {
	inEveryEnv(t, func(s env) {
		s.learn()
		ctx, keys := s.Context(), s.client.AuthKeys()
		made, err := keys.Create(ctx, connectclient.AuthKeyCreate{Description: "lab", DeviceName: "pi5", Tags: []string{"lab"}, TTLDays: 3})
		s.must(err)
		if there := s.org.AuthKeys()[0]; made.Secret.Reveal() != there.Secret || !made.ExpiresAt.Equal(there.ExpiresAt) || made.CreatedAt.IsZero() != s.older {
			s.Errorf("minted %+v", made)
		}
		_, err = keys.Create(ctx, connectclient.AuthKeyCreate{Description: "lab", TTLDays: 91})
		s.mustBe(err, connectclient.ErrInvalid)

		got, err := keys.Get(ctx, made.ID)
		if s.mustSupport(err) && (!got.Secret.IsZero() || got.Description != "lab" || got.ExchangedAt != nil) {
			s.Errorf("got %+v", got)
		}
		none := []string{}
		got, err = keys.Update(ctx, made.ID, connectclient.AuthKeyUpdate{Tags: &none})
		if s.mustSupport(err) && (got.Tags != nil || got.DeviceName != "pi5") {
			s.Errorf("updated to %+v", got)
		}
		if s.mustSupport(keys.Delete(ctx, made.ID)) {
			s.mustBe(keys.Delete(ctx, made.ID), connectclient.ErrNotFound)
			if len(s.org.AuthKeys()) != 0 {
				s.Error("it is still there")
			}
		}
	})
}

func TestDeviceIdentitiesOfTheSimulator(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))

	inEveryEnv(t, func(s env) {
		ctx, identities := s.Context(), s.client.DeviceIdentities()
		request := connectclient.NewIdentityRequest(s.client.BaseURL(), s.client.Token(), connectclient.DeviceIdentityCreate{
			PublicKeyPEM: public, Description: "pi5 <lab> & co", DeviceName: "pi5", Tags: []string{"lab"},
		})
		signature, err := request.Sign(key)
		s.must(err)
		signed, err := request.Signed(&key.PublicKey, signature)
		s.must(err)
		made, err := identities.Create(ctx, signed)
		s.must(err)
		if (made.Tags == nil) != s.older || made.PublicKey != public {
			s.Errorf("registered %+v", made)
		}
		_, err = identities.Create(ctx, signed)
		s.mustBe(err, connectclient.ErrInvalid)

		got, err := identities.Update(ctx, made.ID, connectclient.DeviceIdentityUpdate{Tags: &[]string{"kiosk"}})
		s.must(err)
		if fmt.Sprint(got.Tags) != "[kiosk]" || got.DeviceName != "pi5" {
			s.Errorf("updated to %+v", got)
		}
		_, err = identities.Update(ctx, made.ID, connectclient.DeviceIdentityUpdate{Description: new(string)})
		s.mustBe(err, connectclient.ErrInvalid)

		read, err := identities.Get(ctx, made.ID)
		s.must(err)
		listed := all(s, identities.List().All(ctx))
		if len(listed) != 1 || fmt.Sprint(listed[0]) != fmt.Sprint(*read) || fmt.Sprint(*read) != fmt.Sprint(*got) {
			s.Errorf("listed %+v, read %+v, updated %+v", listed, read, got)
		}
		s.must(identities.Delete(ctx, made.ID))
		_, err = identities.Get(ctx, made.ID)
		s.mustBe(err, connectclient.ErrNotFound)
	})
}

func TestDevicesAndDeploymentsOfTheSimulator(t *testing.T) {
	inEveryEnv(t, func(s env) {
		s.learn()
		ctx, devices, deployments := s.Context(), s.client.Devices(), s.client.Deployments()
		there := s.org.AddDevice(connectsim.Device{Name: "pi5-001", SerialNumber: "10000000abcdef01"})
		s.org.AddDevice(connectsim.Device{Name: "lamp", SerialNumber: "2"})
		artefact := s.org.AddArtefact("kiosk", "https://example.com", checksum)

		if got := all(s, devices.List("").All(ctx)); len(got) != 2 || got[0].Name != "lamp" {
			s.Errorf("listed %+v", got)
		}
		got, err := devices.Get(ctx, there.ID)
		if s.mustSupport(err) && got.SerialNumber != there.SerialNumber {
			s.Errorf("got %+v", got)
		}
		got, err = devices.Update(ctx, there.ID, connectclient.DeviceUpdate{Tags: &[]string{"lab"}})
		if s.mustSupport(err) && (fmt.Sprint(got.Tags) != "[lab]" || got.Name != "pi5-001") {
			s.Errorf("updated to %+v", got)
		}

		first, err := deployments.Create(ctx, there.ID, artefact.ID)
		s.must(err)
		second, err := deployments.Create(ctx, there.ID, artefact.ID)
		s.must(err)
		if second.State != connectclient.DeploymentPending || second.DeviceID != there.ID || second.ArtefactID != artefact.ID || second.CreatedAt.IsZero() {
			s.Errorf("created %+v", second)
		}
		newest, err := deployments.History(ctx, there.ID)
		s.must(err)
		if listed := all(s, deployments.ListOfDevice(there.ID).All(ctx)); len(newest) != 2 || newest[0] != *second || fmt.Sprint(listed) != fmt.Sprint(newest) {
			s.Errorf("newest %+v, all %+v", newest, listed)
		}
		superseded, err := deployments.Get(ctx, first.ID)
		s.must(err)
		if !superseded.State.Terminal() {
			s.Errorf("the first is %+v", superseded)
		}
		cancelled, err := deployments.Cancel(ctx, second.ID)
		s.must(err)
		if cancelled.State != connectclient.DeploymentCancelled {
			s.Errorf("cancelled %+v", cancelled)
		}
		_, err = deployments.Cancel(ctx, second.ID)
		s.mustBe(err, connectclient.ErrNotCancellable)

		_, err = deployments.Create(ctx, there.ID, "no-such-artefact")
		s.mustBe(err, connectclient.ErrNotFound)
		_, err = deployments.History(ctx, "no-such-device")
		s.mustBe(err, connectclient.ErrNotFound)
		s.sim.SetBilling(false)
		_, err = deployments.Create(ctx, there.ID, artefact.ID)
		s.mustBe(err, connectclient.ErrBilling)

		s.must(devices.Delete(ctx, there.ID))
		s.mustBe(devices.Delete(ctx, there.ID), connectclient.ErrNotFound)
	})
}

func TestFaultsOfTheSimulator(t *testing.T) {
	inEveryEnv(t, func(s env) {
		ctx := s.Context()
		create := connectclient.ArtefactCreate{Name: "kiosk", URI: "https://example.com", Checksum: checksum}
		for name, fault := range map[string]connectsim.Fault{
			"lost":      {After: true, Drop: true},
			"replaced":  {After: true, Status: 502, Body: "<html>Bad gateway</html>", ContentType: "text/html"},
			"truncated": {Truncate: true},
			"oversized": {Oversize: 16 << 20},
		} {
			fault.Route, fault.Times = "POST /organisation/artefacts", 1
			s.sim.Inject(fault)
			s.sim.ResetJournal()
			create.Name = name
			_, err := s.client.Artefacts().Create(ctx, create)
			s.mustBe(err, connectclient.ErrOutcomeUnknown)
			if n := s.sim.Count("POST /organisation/artefacts"); n != 1 {
				s.Errorf("%s: the POST was sent %d times", name, n)
			}
			found := all(s, s.client.Artefacts().Find(ctx, name))
			if len(found) != 1 {
				s.Fatalf("%s: made %d times", name, len(found))
			}
			// A deletion whose answer is lost is repeated, and finds its
			// work done.
			s.sim.Inject(connectsim.Fault{Route: "DELETE", Times: 1, After: true, Drop: true})
			s.mustBe(s.client.Artefacts().Delete(ctx, found[0].ID), connectclient.ErrNotFound)
		}
	})
}

// The older revision has nothing by which its own pages could be told from a gateway's: nothing is
// concluded from either, but that it is the older one if it answers everything else and a page, twice,
// in the place of the listing that it does not have.
func TestPagesOfTheOlderRevision(t *testing.T) {
	sim := connectsim.New(connectsim.Options{Revision: connectsim.Older, ErrorBodies: connectsim.HTMLBodies})
	server := httptest.NewServer(sim)
	defer server.Close()
	token := connectsim.NewSecret("rporg_")
	sim.AddOrganisation(token)
	api, err := connectclient.New(connectclient.Options{BaseURL: server.URL, QPS: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	client := api.ClientFor(connectclient.NewSecret(token))
	for _, err := range client.Artefacts().List().All(t.Context()) {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"an artefact that is not there":  func() error { return client.Artefacts().Delete(t.Context(), "gone") },
		"a deployment that is not there": func() error { _, err := client.Deployments().Get(t.Context(), "gone"); return err },
	} {
		if err := call(); !errors.Is(err, connectclient.ErrUnavailable) || errors.Is(err, connectclient.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 2 {
		for _, err := range client.AuthKeys().List().All(t.Context()) {
			if !errors.Is(err, connectclient.ErrUnsupported) || errors.Is(err, connectclient.ErrUnavailable) {
				t.Errorf("auth keys: %v", err)
			}
		}
		if client.Revision() != connectclient.RevisionOlder {
			t.Errorf("the revision is %s", client.Revision())
		}
	}
}

func TestTokensOfTheSimulator(t *testing.T) {
	inEveryEnv(t, func(s env) {
		s.sim.RevokeToken(s.client.Token().Reveal())
		s.sim.ResetJournal()
		for range 3 {
			for _, err := range s.client.Artefacts().List().All(s.Context()) {
				s.mustBe(err, connectclient.ErrUnauthorized)
				if strings.Contains(err.Error(), s.client.Token().Reveal()) {
					s.Error(err)
				}
			}
		}
		if n := s.sim.Count(""); n != 1 {
			s.Errorf("a revoked token cost %d requests", n)
		}
	})
}
