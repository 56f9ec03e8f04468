// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rpi-connect.dev/operator/internal/connectsim"
)

// serve has the simulator answer a request without a network.
func serve(b *testing.B, sim *connectsim.Server, method, path, body, token string) {
	b.Helper()
	r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if sim.ServeHTTP(w, r); w.Code >= http.StatusBadRequest {
		b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

// What the benchmarks of the operator ask of the simulator must not be what they
// measure: ten thousand of everything are made, listed and polled.
func BenchmarkTenThousand(b *testing.B) {
	const n = 10_000
	sim := connectsim.New(connectsim.Options{RateLimit: 1 << 30})
	o := sim.AddOrganisation(token)
	made := 0
	b.Run("created", func(b *testing.B) {
		for b.Loop() {
			made++
			serve(b, sim, "POST", artefacts, artefactJSON(fmt.Sprintf("artefact-%09d", (made*7919)%1_000_000_007)), token)
		}
	})
	for ; made < n; made++ {
		o.AddArtefact(fmt.Sprintf("more-%06d", made), "https://example.com", checksum)
	}
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			serve(b, sim, "GET", artefacts+"?page=50", "", token)
		}
	})
	var devices []connectsim.Device
	for i := range n {
		device := o.AddDevice(connectsim.Device{Name: fmt.Sprintf("pi-%06d", i), SerialNumber: fmt.Sprint(i)})
		devices = append(devices, device)
	}
	artefact := o.Artefacts()[0].ID
	b.Run("deployed", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 1) % n
			serve(b, sim, "POST", "/organisation/devices/"+devices[i].ID+"/deployments", `{"artefact_id":"`+artefact+`"}`, token)
		}
	})
	key := 0
	b.Run("signed in", func(b *testing.B) {
		for b.Loop() {
			key++
			secret := o.AddAuthKey("key", "", nil, 1).Secret
			serve(b, sim, "POST", "/client/auth-key-exchange", fmt.Sprintf(`{"auth_key":%q,"serial_number":"new-%d","hostname":"pi"}`, secret, key), "")
		}
	})
	run := o.Deployments(devices[1].ID)[0].ID
	b.Run("seen", func(b *testing.B) {
		for b.Loop() {
			serve(b, sim, "GET", "/organisation/deployments/"+run, "", token)
		}
	})
	b.Run("counted", func(b *testing.B) {
		for b.Loop() {
			sim.Count("POST " + artefacts)
		}
	})
}
