// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Admin is the simulator's own interface, for whoever runs it as a program. It is
// served beside the API, under /_sim/, needs no token, and is not in the journal.
// GET /_sim/ lists what it can do. It answers 400 to what is no JSON of the right
// form and 422 to what makes no sense.
type Admin struct {
	server  *Server
	ctx     context.Context //nolint:containedctx // the life of the Pis, not of a request
	baseURL string
	mux     *http.ServeMux

	mu  sync.Mutex
	pis map[string]*running // by host name
}

// Admin returns the API with the admin interface beside it. The context ends what
// its Pis do, which reach the API at the base URL.
func (s *Server) Admin(ctx context.Context, baseURL string) *Admin {
	a := &Admin{server: s, ctx: ctx, baseURL: baseURL, pis: map[string]*running{}, mux: http.NewServeMux()}
	for _, e := range a.endpoints() {
		a.mux.HandleFunc(e.pattern, e.handle)
	}
	a.mux.HandleFunc("GET /_sim/{$}", a.index)
	return a
}

// ServeHTTP serves what is under /_sim, and the API beside it.
func (a *Admin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if parts := segments(r.URL.EscapedPath()); len(parts) > 0 && parts[0] == "_sim" {
		a.mux.ServeHTTP(w, r)
		return
	}
	a.server.ServeHTTP(w, r)
}

// endpoint is something that the admin interface can do.
type endpoint struct {
	pattern, about string
	handle         http.HandlerFunc
}

func (a *Admin) endpoints() []endpoint {
	return []endpoint{
		{"GET /_sim/state", "everything there is, without secrets", a.state},
		{"POST /_sim/seed", `more of everything: {"organisations": [{"devices": […], …}]}`, a.seed},
		{"GET /_sim/journal", "the requests so far, the newest last", a.journal},
		{"DELETE /_sim/journal", "forget them", a.forget},
		{"GET /_sim/faults", "the faults, and how many requests have met them", a.faults},
		{"POST /_sim/faults", `inject one: {"Route": "POST /organisation/artefacts", "Times": 1, "Status": 503}`, a.inject},
		{"DELETE /_sim/faults", "end all of them", a.endFaults},
		{"DELETE /_sim/faults/{id}", "end one", a.endFault},
		{"GET /_sim/pis", "the virtual Raspberry Pis", a.listPis},
		{"POST /_sim/pis", `plug one in: {"hostname": "shop", "model": "5"}`, a.plugIn},
		{"PUT /_sim/pis/{hostname}", `steer it: {"offline": true, "fail_with": "…", "fail_share": 0.2, "work_milliseconds": 500}`, a.steer},
		{"POST /_sim/pis/{hostname}/replacement", "let it sign in as another device, of the same serial number", a.replace},
		{"DELETE /_sim/pis/{hostname}", "unplug it; its device stays", a.unplug},
		{"POST /_sim/organisations", `make another one: {"name": "shops", "token": "rporg_…"}`, a.addOrganisation},
		{"POST /_sim/tokens", `let another token open an organisation: {"organisation": "shops", "token": "rporg_…"}`, a.addToken},
		{"DELETE /_sim/tokens/{token}", "revoke it", a.revoke},
		{"POST /_sim/spend", `use up requests of this window: {"requests": 4990, "token": "rporg_…"}`, a.spend},
		{"PUT /_sim/billing", `{"set_up": false} blocks deployments`, a.billing},
		{"PUT /_sim/latency", `{"milliseconds": 60}`, a.latency},
		{"GET /_sim/clock", "what time it is", a.tellTime},
		{"PUT /_sim/clock", `move it: {"advance": "90m"} or {"time": "2026-03-01T10:30:00Z"}`, a.moveClock},
	}
}

func (a *Admin) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, e := range a.endpoints() {
		_, _ = fmt.Fprintf(w, "%-39s %s\n", e.pattern, e.about)
	}
}

// respond answers with JSON, or with no content if there is none.
func respond(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// read reads a JSON body and refuses it itself if it is none.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64*maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.More() {
		err = errors.New("there is more than one JSON value")
	}
	switch {
	case err == nil:
		return true
	case errors.As(err, new(mistaken)):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	default:
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
	return false
}

// refuse answers 422 if there is an error.
func refuse(w http.ResponseWriter, err error) bool {
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	}
	return err != nil
}

// state shows everything but secrets, in an order that stays.
func (a *Admin) state(w http.ResponseWriter, r *http.Request) {
	s := a.server
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &call{Request: r, server: s}
	all := object{}
	for _, o := range s.organisations {
		all[o.name] = object{
			"artefacts":         shown(o.artefacts.sorted, showArtefact),
			"auth_keys":         shown(o.authKeys.sorted, c.showAuthKey),
			"device_identities": shown(o.identities.sorted, showIdentity),
			"devices":           shown(o.devices.sorted, showDevice),
			"deployments":       shown(o.allDeployments(), showDeployment),
		}
	}
	respond(w, http.StatusOK, all)
}

func shown[T any](all []*T, show func(*T) object) []object {
	rows := make([]object, len(all))
	for i, one := range all {
		rows[i] = show(one)
	}
	return rows
}

func (a *Admin) journal(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusOK, a.server.Journal())
}

func (a *Admin) forget(w http.ResponseWriter, _ *http.Request) {
	a.server.ResetJournal()
	respond(w, 0, nil)
}

// faults lists the faults that have not been ended, used up or not.
func (a *Admin) faults(w http.ResponseWriter, _ *http.Request) {
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	all := []object{}
	for _, i := range a.server.faults {
		all = append(all, object{"id": i.id, "fault": i.fault, "skipped": i.skipped, "hits": i.hits, "over": i.over()})
	}
	respond(w, http.StatusOK, all)
}

func (a *Admin) inject(w http.ResponseWriter, r *http.Request) {
	var f Fault
	if read(w, r, &f) {
		w.Header().Set("Location", fmt.Sprint("/_sim/faults/", a.server.Inject(f).id))
		respond(w, 0, nil)
	}
}

func (a *Admin) endFaults(w http.ResponseWriter, _ *http.Request) {
	a.server.ClearFaults()
	respond(w, 0, nil)
}

func (a *Admin) endFault(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !a.server.clearFault(id) {
		http.NotFound(w, r)
		return
	}
	respond(w, 0, nil)
}

func (a *Admin) addOrganisation(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name  string `json:"name"`
		Token string `json:"token"`
	}
	if !read(w, r, &body) {
		return
	}
	token := orElse(body.Token, NewSecret("rporg_"))
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	o, err := a.server.newOrganisation(body.Name, token)
	if !refuse(w, err) {
		respond(w, http.StatusCreated, object{"name": o.name, "token": token})
	}
}

func (a *Admin) addToken(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Organisation string `json:"organisation"`
		Token        string `json:"token"`
	}
	if !read(w, r, &body) {
		return
	}
	token := orElse(body.Token, NewSecret("rporg_"))
	a.server.mu.Lock()
	defer a.server.mu.Unlock()
	o, err := a.server.organisationNamed(body.Organisation)
	if err == nil {
		err = a.server.checkToken(token)
	}
	if !refuse(w, err) {
		a.server.byToken[token] = o
		respond(w, http.StatusCreated, object{"organisation": o.name, "token": token})
	}
}

func (a *Admin) revoke(w http.ResponseWriter, r *http.Request) {
	token := r.PathValue("token")
	if a.server.Organisation(token) == nil {
		http.NotFound(w, r)
		return
	}
	a.server.RevokeToken(token)
	respond(w, 0, nil)
}

func (a *Admin) spend(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Requests int    `json:"requests"`
		Token    string `json:"token"`
	}
	if !read(w, r, &body) || body.Requests < 0 && refuse(w, mistake("requests is not negative")) {
		return
	}
	if body.Token != "" {
		a.server.Spend(body.Token, body.Requests)
	} else {
		a.server.SpendAll(body.Requests)
	}
	respond(w, 0, nil)
}

func (a *Admin) billing(w http.ResponseWriter, r *http.Request) {
	var body struct {
		SetUp bool `json:"set_up"`
	}
	if read(w, r, &body) {
		a.server.SetBilling(body.SetUp)
		respond(w, 0, nil)
	}
}

func (a *Admin) latency(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Milliseconds int `json:"milliseconds"`
	}
	if !read(w, r, &body) || body.Milliseconds < 0 && refuse(w, mistake("milliseconds is not negative")) {
		return
	}
	a.server.SetLatency(time.Duration(body.Milliseconds) * time.Millisecond)
	respond(w, 0, nil)
}

func (a *Admin) tellTime(w http.ResponseWriter, _ *http.Request) {
	respond(w, http.StatusOK, object{"time": a.server.options.Now().UTC()})
}

func (a *Admin) moveClock(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Advance duration  `json:"advance"`
		Time    time.Time `json:"time"`
	}
	if !read(w, r, &body) {
		return
	}
	clock := a.server.options.Clock
	switch {
	case clock == nil:
		refuse(w, mistake("this simulator goes by a clock of its owner's"))
		return
	case (body.Advance == 0) == body.Time.IsZero():
		refuse(w, mistake("give either advance or time"))
		return
	case body.Advance != 0:
		clock.Advance(time.Duration(body.Advance))
	default:
		clock.Set(body.Time)
	}
	a.tellTime(w, r)
}

func (a *Admin) seed(w http.ResponseWriter, r *http.Request) {
	var seed Seed
	if !read(w, r, &seed) {
		return
	}
	for _, so := range seed.Organisations {
		for _, pi := range so.Pis {
			if a.known(pi.Hostname) {
				refuse(w, alreadyPluggedIn(pi.Hostname))
				return
			}
		}
	}
	pis, err := a.server.Seed(seed)
	if refuse(w, err) {
		return
	}
	for _, pi := range pis {
		if refuse(w, a.PlugIn(r.Context(), pi)) {
			return
		}
	}
	respond(w, 0, nil)
}
