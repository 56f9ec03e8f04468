// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Admin is the simulator's own interface, for whoever runs it as a program. It is
// served beside the API, under /_sim/, and needs no token:
//
//	GET    /_sim/state                    everything there is, without secrets
//	GET    /_sim/journal                  every request so far
//	DELETE /_sim/journal                  forget them
//	GET    /_sim/faults                   the faults, and how many requests have met them
//	POST   /_sim/faults                   inject a Fault: its fields, in JSON
//	DELETE /_sim/faults                   end all faults
//	DELETE /_sim/faults/{id}              end one
//	PUT    /_sim/billing                  {"set_up": false} blocks deployments
//	PUT    /_sim/latency                  {"milliseconds": 60}
//	POST   /_sim/pis                      {"hostname", "serial_number", "auth_key"}: a virtual Pi signs in and takes deployments
//	PUT    /_sim/pis/{hostname}           {"offline": true, "fail_with": "…", "work_milliseconds": 500}
//
// The context ends what Pis do.
func (s *Server) Admin(ctx context.Context, baseURL string) http.Handler {
	a := &admin{Server: s, ctx: ctx, baseURL: baseURL, pis: map[string]*Pi{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_sim/state", a.state)
	mux.HandleFunc("GET /_sim/journal", func(w http.ResponseWriter, _ *http.Request) { respond(w, s.Journal()) })
	mux.HandleFunc("DELETE /_sim/journal", func(w http.ResponseWriter, _ *http.Request) { s.ResetJournal(); w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /_sim/faults", a.faultsAndHits)
	mux.HandleFunc("POST /_sim/faults", a.inject)
	mux.HandleFunc("DELETE /_sim/faults/{id}", a.endFault)
	mux.HandleFunc("DELETE /_sim/faults", func(w http.ResponseWriter, _ *http.Request) { s.ClearFaults(); w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("PUT /_sim/billing", a.billing)
	mux.HandleFunc("PUT /_sim/latency", a.latency)
	mux.HandleFunc("POST /_sim/pis", a.addPi)
	mux.HandleFunc("PUT /_sim/pis/{hostname}", a.behave)
	mux.Handle("/_sim/", http.NotFoundHandler())
	mux.Handle("/_sim", http.NotFoundHandler())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if parts := segments(r.URL.EscapedPath()); len(parts) > 0 && parts[0] == "_sim" {
			mux.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

type admin struct {
	*Server
	ctx     context.Context //nolint:containedctx // the life of the Pis, not of a request
	baseURL string
	pis     map[string]*Pi // under the server's lock
}

func respond(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(body)
}

// read reads a JSON body and answers 400 itself if it is none.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.More() {
		err = errors.New("there is more than one JSON value")
	}
	if errors.As(err, new(mistaken)) {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return false
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// state shows everything but secrets.
func (a *admin) state(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := &call{Request: r, server: a.Server}
	all := object{}
	for _, o := range a.organisations {
		all[o.name] = object{
			"artefacts":         shown(o.artefacts.sorted, showArtefact),
			"auth_keys":         shown(o.authKeys.sorted, c.showAuthKey),
			"device_identities": shown(o.identities.sorted, showIdentity),
			"devices":           shown(o.devices.sorted, showDevice),
			"deployments":       shown(o.allDeployments(), showDeployment),
		}
	}
	respond(w, all)
}

func shown[T any](all []*T, show func(*T) object) []object {
	rows := make([]object, len(all))
	for i, one := range all {
		rows[i] = show(one)
	}
	return rows
}

func (a *admin) inject(w http.ResponseWriter, r *http.Request) {
	var f Fault
	if read(w, r, &f) {
		w.Header().Set("Location", fmt.Sprint("/_sim/faults/", a.Inject(f).id))
		w.WriteHeader(http.StatusNoContent)
	}
}

// faultsAndHits lists the faults that have not been ended, used up or not.
func (a *admin) faultsAndHits(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []object{}
	for _, i := range a.faults {
		all = append(all, object{"id": i.id, "fault": i.fault, "skipped": i.skipped, "hits": i.hits, "over": i.over()})
	}
	respond(w, all)
}

func (a *admin) endFault(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !a.clearFault(id) {
		http.NotFound(w, r)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *admin) billing(w http.ResponseWriter, r *http.Request) {
	var body struct {
		SetUp bool `json:"set_up"`
	}
	if read(w, r, &body) {
		a.SetBilling(body.SetUp)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *admin) latency(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Milliseconds int `json:"milliseconds"`
	}
	if read(w, r, &body) {
		a.SetLatency(time.Duration(body.Milliseconds) * time.Millisecond)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (a *admin) addPi(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Hostname     string `json:"hostname"`
		SerialNumber string `json:"serial_number"`
		AuthKey      string `json:"auth_key"`
	}
	if !read(w, r, &body) {
		return
	}
	pi := NewPi(a.baseURL, body.Hostname, body.SerialNumber)
	if err := pi.SignInWithAuthKey(r.Context(), strings.TrimSpace(body.AuthKey)); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	a.mu.Lock()
	a.pis[body.Hostname] = pi
	a.mu.Unlock()
	go pi.Run(a.ctx)
	w.WriteHeader(http.StatusCreated)
}

func (a *admin) behave(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Offline          bool   `json:"offline"`
		FailWith         string `json:"fail_with"`
		WorkMilliseconds int    `json:"work_milliseconds"`
	}
	if !read(w, r, &body) {
		return
	}
	a.mu.Lock()
	pi, found := a.pis[r.PathValue("hostname")]
	a.mu.Unlock()
	if !found {
		http.NotFound(w, r)
		return
	}
	pi.Behave(Behaviour{Offline: body.Offline, FailWith: body.FailWith, WorkTime: time.Duration(body.WorkMilliseconds) * time.Millisecond})
	w.WriteHeader(http.StatusNoContent)
}
