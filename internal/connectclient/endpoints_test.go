// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// endpoint is one call of the API: what goes out, what comes back in either
// revision, and what is made of it.
type endpoint struct {
	name string
	call func(context.Context, *Client) (any, error)
	// sent is "METHOD /path body".
	sent string
	// current and older are what the revisions answer. The older one has no
	// such call if its status is 0.
	current, older reply
	// want is what the call gives on the current revision; wantOlder on the
	// older, if that is not the same.
	want, wantOlder any
}

var (
	day = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

	artefact = Artefact{ID: "a1", Name: "kiosk-v1.0", URI: "https://example.com/kiosk.img", Checksum: "ab12"}
	identity = DeviceIdentity{ID: "i1", Description: "pi5-001", DeviceName: "lab", PublicKey: "PEM", Tags: []string{"lab"}, CreatedAt: day}
	untagged = DeviceIdentity{ID: "i1", Description: "pi5-001", DeviceName: "lab", PublicKey: "PEM", CreatedAt: day}
	authKey  = AuthKey{ID: "k1", Description: "pi5-001", DeviceName: "lab", Tags: []string{"lab"}, ExpiresAt: day.AddDate(0, 0, 1), CreatedAt: day}
	device   = Device{
		ID: "p1", Name: "pi5-001", SerialNumber: "10000000abcdef01", Tags: []string{"lab"},
		Board: &Board{Model: "Raspberry Pi 5", Revision: "1.0", Memory: "8 GB"}, OS: &OS{Name: "Raspberry Pi OS", Version: "13"},
		KernelArchitecture: "aarch64", Filters: Filters{Model: "5", Memory: "8gb", OS: "raspios-13"},
	}
	ancient    = Device{ID: "p2", Name: "pi3", SerialNumber: "2"}
	deployment = Deployment{ID: "d1", State: DeploymentFailed, StateReason: "Checksum mismatch", DeviceID: "p1", ArtefactID: "a1", CreatedAt: day, UpdatedAt: day.Add(1500 * time.Millisecond)}
)

const (
	artefactJSON   = `{"id":"a1","name":"kiosk-v1.0","uri":"https://example.com/kiosk.img","checksum":"ab12","new_field":{"x":1}}`
	identityJSON   = `{"id":"i1","description":"pi5-001","device_name":"lab","created_at":"2026-03-01T10:00:00Z","public_key":"PEM","tags":["lab"]}`
	untaggedJSON   = `{"id":"i1","description":"pi5-001","device_name":"lab","created_at":"2026-03-01T10:00:00Z","public_key":"PEM"}`
	authKeyJSON    = `{"id":"k1","description":"pi5-001","device_name":"lab","tags":["lab"],"expires_at":"2026-03-02T10:00:00Z","exchanged_at":null,"created_at":"2026-03-01T10:00:00Z"}`
	deviceJSON     = `{"id":"p1","name":"pi5-001","serial_number":"10000000abcdef01","tags":["lab"],"board":{"model":"Raspberry Pi 5","revision":1.0,"memory":"8 GB"},"os":{"name":"Raspberry Pi OS","version":13},"kernel_architecture":"aarch64","filters":{"model":"5","memory":"8gb","os":"raspios-13"}}`
	ancientJSON    = `{"id":"p2","name":"pi3","serial_number":"2","tags":[],"board":null,"os":null,"kernel_architecture":null,"filters":{}}`
	deploymentJSON = `{"id":"d1","state":"failed","state_reason":"Checksum mismatch","device_id":"p1","artefact_id":"a1","created_at":"2026-03-01T10:00:00Z","updated_at":"2026-03-01T10:00:01.5Z"}`
)

func rows(plural string, objects ...string) reply {
	return reply{status: 200, body: fmt.Sprintf(`{"%s":[%s],"meta":{"page":1,"per_page":100,"total_count":%d,"total_pages":1}}`,
		plural, strings.Join(objects, ","), len(objects))}
}

func ok(body string) reply   { return reply{status: 200, body: body} }
func made(body string) reply { return reply{status: 201, body: body} }

func endpoints(t *testing.T) []endpoint {
	t.Helper()
	name := "lab"
	tags := []string{"lab"}
	noTags := []string(nil)
	secret := strings.TrimSuffix(authKeyJSON, "}") + `,"secret":"rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ"}`
	withSecret := authKey
	withSecret.Secret = NewSecret("rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ")
	withSecretOlder := withSecret
	withSecretOlder.CreatedAt = time.Time{}
	const none = ""

	return []endpoint{
		{
			name:    "list artefacts",
			call:    func(ctx context.Context, c *Client) (any, error) { return collect(c.Artefacts().List().All(ctx)) },
			sent:    "GET /organisation/artefacts?page=1&per_page=100",
			current: rows("artefacts", artefactJSON), older: rows("artefacts", artefactJSON),
			want: []Artefact{artefact},
		},
		{
			name: "find artefact",
			call: func(ctx context.Context, c *Client) (any, error) {
				return collect(c.Artefacts().Find(ctx, "kiosk-v1.0"))
			},
			sent:    "GET /organisation/artefacts?name=kiosk-v1.0&page=1&per_page=100",
			current: rows("artefacts", artefactJSON), older: rows("artefacts", artefactJSON, `{"id":"a0","name":"another"}`),
			want: []Artefact{artefact},
		},
		{
			name:    "get artefact",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Artefacts().Get(ctx, "a1") },
			sent:    "GET /organisation/artefacts/a1",
			current: ok(artefactJSON),
			want:    &artefact,
		},
		{
			name: "create artefact",
			call: func(ctx context.Context, c *Client) (any, error) {
				return c.Artefacts().Create(ctx, ArtefactCreate{Name: "kiosk-v1.0", URI: "https://example.com/?a=1&b=2", Checksum: "ab12"})
			},
			sent:    `POST /organisation/artefacts {"name":"kiosk-v1.0","uri":"https://example.com/?a=1&b=2","checksum":"ab12"}`,
			current: made(artefactJSON), older: made(artefactJSON),
			want: &artefact,
		},
		{
			name:    "delete artefact",
			call:    func(ctx context.Context, c *Client) (any, error) { return none, c.Artefacts().Delete(ctx, "a1") },
			sent:    "DELETE /organisation/artefacts/a1",
			current: ok(artefactJSON), older: reply{status: 204},
			want: none,
		},
		{
			name: "list device identities",
			call: func(ctx context.Context, c *Client) (any, error) {
				return collect(c.DeviceIdentities().List().All(ctx))
			},
			sent:    "GET /organisation/device-identities?page=1&per_page=100",
			current: rows("device_identities", identityJSON), older: rows("device-identities", identityJSON),
			want: []DeviceIdentity{identity},
		},
		{
			name:    "get device identity",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.DeviceIdentities().Get(ctx, "i1") },
			sent:    "GET /organisation/device-identities/i1",
			current: ok(identityJSON), older: ok(identityJSON),
			want: &identity,
		},
		{
			name: "create device identity",
			call: func(ctx context.Context, c *Client) (any, error) {
				r := NewIdentityRequest(c.BaseURL(), c.Token(), DeviceIdentityCreate{PublicKeyPEM: "PEM", Description: "pi5-001", DeviceName: "lab", Tags: tags})
				signature, err := r.Sign(vectorKey(t))
				if err != nil {
					return nil, err
				}
				signed, err := r.Signed(vectorPublic(t), signature)
				if err != nil {
					return nil, err
				}
				return c.DeviceIdentities().Create(ctx, signed)
			},
			sent:    `POST /organisation/device-identities {"public_key":"PEM","description":"pi5-001","device_name":"lab","tags":["lab"]}`,
			current: made(identityJSON), older: made(untaggedJSON),
			want: &identity, wantOlder: &untagged,
		},
		{
			name: "update device identity",
			call: func(ctx context.Context, c *Client) (any, error) {
				return c.DeviceIdentities().Update(ctx, "i1", DeviceIdentityUpdate{Description: new("pi5-001"), DeviceName: &name, Tags: &tags})
			},
			sent:    `PATCH /organisation/device-identities/i1 {"description":"pi5-001","device_name":"lab","tags":["lab"]}`,
			current: ok(identityJSON), older: ok(identityJSON),
			want: &identity,
		},
		{
			name:    "delete device identity",
			call:    func(ctx context.Context, c *Client) (any, error) { return none, c.DeviceIdentities().Delete(ctx, "i1") },
			sent:    "DELETE /organisation/device-identities/i1",
			current: ok(identityJSON), older: reply{status: 204},
			want: none,
		},
		{
			name:    "list auth keys",
			call:    func(ctx context.Context, c *Client) (any, error) { return collect(c.AuthKeys().List().All(ctx)) },
			sent:    "GET /organisation/auth-keys?page=1&per_page=100",
			current: rows("auth_keys", authKeyJSON),
			want:    []AuthKey{authKey},
		},
		{
			name:    "get auth key",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.AuthKeys().Get(ctx, "k1") },
			sent:    "GET /organisation/auth-keys/k1",
			current: ok(authKeyJSON),
			want:    &authKey,
		},
		{
			name: "create auth key",
			call: func(ctx context.Context, c *Client) (any, error) {
				return c.AuthKeys().Create(ctx, AuthKeyCreate{Description: "pi5-001", DeviceName: "lab", Tags: tags, TTLDays: 1})
			},
			sent:    `POST /organisation/auth-keys {"description":"pi5-001","device_name":"lab","tags":["lab"],"ttl_days":1}`,
			current: made(secret),
			older:   made(`{"id":"k1","description":"pi5-001","device_name":"lab","tags":["lab"],"secret":"rpoak_3vQB7B6MrGQZaxCuFg4oH9XQ","expires_at":"2026-03-02T10:00:00Z"}`),
			want:    &withSecret, wantOlder: &withSecretOlder,
		},
		{
			name: "update auth key",
			call: func(ctx context.Context, c *Client) (any, error) {
				return c.AuthKeys().Update(ctx, "k1", AuthKeyUpdate{DeviceName: &name, Tags: &noTags})
			},
			sent:    `PATCH /organisation/auth-keys/k1 {"device_name":"lab","tags":[]}`,
			current: ok(authKeyJSON),
			want:    &authKey,
		},
		{
			name:    "delete auth key",
			call:    func(ctx context.Context, c *Client) (any, error) { return none, c.AuthKeys().Delete(ctx, "k1") },
			sent:    "DELETE /organisation/auth-keys/k1",
			current: ok(authKeyJSON),
			want:    none,
		},
		{
			name:    "list devices",
			call:    func(ctx context.Context, c *Client) (any, error) { return collect(c.Devices().List("").All(ctx)) },
			sent:    "GET /organisation/devices?page=1&per_page=100",
			current: rows("devices", deviceJSON, ancientJSON), older: rows("devices", deviceJSON, ancientJSON),
			want: []Device{device, ancient},
		},
		{
			name: "query devices",
			call: func(ctx context.Context, c *Client) (any, error) {
				return collect(c.Devices().List(" model:3b+ tag:lab ").All(ctx))
			},
			sent:    "GET /organisation/devices?page=1&per_page=100&query=model%3A3b%2B%20tag%3Alab",
			current: rows("devices", deviceJSON), older: rows("devices", deviceJSON),
			want: []Device{device},
		},
		{
			name:    "get device",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Devices().Get(ctx, "p1") },
			sent:    "GET /organisation/devices/p1",
			current: ok(deviceJSON),
			want:    &device,
		},
		{
			name: "update device",
			call: func(ctx context.Context, c *Client) (any, error) {
				return c.Devices().Update(ctx, "p1", DeviceUpdate{Name: new("pi5-001"), Tags: &tags})
			},
			sent:    `PATCH /organisation/devices/p1 {"name":"pi5-001","tags":["lab"]}`,
			current: ok(deviceJSON),
			want:    &device,
		},
		{
			name:    "delete device",
			call:    func(ctx context.Context, c *Client) (any, error) { return none, c.Devices().Delete(ctx, "p1") },
			sent:    "DELETE /organisation/devices/p1",
			current: ok(deviceJSON), older: reply{status: 204},
			want: none,
		},
		{
			name: "list deployments",
			call: func(ctx context.Context, c *Client) (any, error) {
				return collect(c.Deployments().ListOfDevice("p1").All(ctx))
			},
			sent:    "GET /organisation/devices/p1/deployments?page=1&per_page=100",
			current: rows("deployments", deploymentJSON), older: rows("deployments", deploymentJSON),
			want: []Deployment{deployment},
		},
		{
			name:    "newest deployments",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Deployments().History(ctx, "p1") },
			sent:    "GET /organisation/devices/p1/deployments?page=1&per_page=100",
			current: rows("deployments", deploymentJSON), older: rows("deployments", deploymentJSON),
			want: []Deployment{deployment},
		},
		{
			name:    "get deployment",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Deployments().Get(ctx, "d1") },
			sent:    "GET /organisation/deployments/d1",
			current: ok(deploymentJSON), older: ok(deploymentJSON),
			want: &deployment,
		},
		{
			name:    "create deployment",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Deployments().Create(ctx, "p1", "a1") },
			sent:    `POST /organisation/devices/p1/deployments {"artefact_id":"a1"}`,
			current: made(deploymentJSON), older: made(deploymentJSON),
			want: &deployment,
		},
		{
			name:    "cancel deployment",
			call:    func(ctx context.Context, c *Client) (any, error) { return c.Deployments().Cancel(ctx, "d1") },
			sent:    "PUT /organisation/deployments/d1/cancel",
			current: ok(deploymentJSON), older: ok(deploymentJSON),
			want: &deployment,
		},
	}
}

func TestEndpointsOfTheCurrentRevision(t *testing.T) {
	for _, tt := range endpoints(t) {
		t.Run(tt.name, func(t *testing.T) {
			tt.current.header = rateHeaders
			s := serve(t, always(tt.current))
			client := connect(t, s.URL)
			got, err := tt.call(t.Context(), client)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, tt.want)
			}
			mustHaveSent(t, s, tt.sent)
			if client.Revision() != RevisionCurrent {
				t.Errorf("the revision is %s", client.Revision())
			}
		})
	}
}

func TestEndpointsOfTheOlderRevision(t *testing.T) {
	for _, tt := range endpoints(t) {
		t.Run(tt.name, func(t *testing.T) {
			missing := tt.older.status == 0
			if missing {
				tt.older = reply{status: 404}
			}
			s := serve(t, always(tt.older))
			client := connect(t, s.URL)
			client.profile.known = knowledge{silent, RevisionOlder}
			got, err := tt.call(t.Context(), client)
			if missing {
				mustBeOf(t, err, ErrUnsupported)
				if len(s.requests()) > 0 && tt.name != "list auth keys" {
					t.Errorf("a request was spent: %v", s.requests())
				}
				return
			}
			want := tt.want
			if tt.wantOlder != nil {
				want = tt.wantOlder
			}
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
			mustHaveSent(t, s, tt.sent)
		})
	}
}

func mustHaveSent(t *testing.T, s *service, want string) {
	t.Helper()
	requests := s.requests()
	if len(requests) != 1 {
		t.Fatalf("%d requests: %+v", len(requests), requests)
	}
	r := requests[0]
	if got := strings.TrimSpace(r.Method + " " + r.URI + " " + r.Body); got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
	wantHeader := map[string]string{"Authorization": "Bearer " + testToken, "User-Agent": "connectclient-test/1"}
	if r.Body != "" {
		wantHeader["Content-Type"] = "application/json"
	}
	for name, value := range wantHeader {
		if r.Header.Get(name) != value {
			t.Errorf("%s: %q", name, r.Header.Get(name))
		}
	}
	if _, ok := r.Header[http.CanonicalHeaderKey("Accept")]; ok {
		t.Error("an Accept header was sent")
	}
}

func TestDeploymentStates(t *testing.T) {
	for state, terminal := range map[DeploymentState]bool{
		DeploymentPending: false, DeploymentInProgress: false,
		DeploymentSucceeded: true, DeploymentFailed: true, DeploymentCancelled: true,
		"paused": false,
	} {
		if state.Terminal() != terminal {
			t.Errorf("%s: terminal is %t", state, !terminal)
		}
	}
}

// A key whose secret did not come with it is of no use, and exists.
func TestAuthKeyWithoutItsSecret(t *testing.T) {
	s := serve(t, always(made(authKeyJSON)))
	_, err := connect(t, s.URL).AuthKeys().Create(t.Context(), AuthKeyCreate{Description: "pi5-001"})
	mustBeOf(t, err, ErrUnavailable, ErrOutcomeUnknown)
}
