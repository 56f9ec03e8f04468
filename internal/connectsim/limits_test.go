// SPDX-License-Identifier: Apache-2.0

package connectsim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// limit is what an answer says of the rate limit.
func (a answer) limit() string {
	return strings.Join([]string{
		a.header.Get("X-Rate-Limit-Limit"), a.header.Get("X-Rate-Limit-Remaining"), a.header.Get("X-Rate-Limit-Reset"),
	}, " ")
}

// allows checks what an answer says of the rate limit: limit, remaining and reset.
func (a answer) allows(want string) {
	a.Helper()
	if got := a.limit(); got != want {
		a.Errorf("%s: %d with the limit %q, want %q", a.sent, a.status, got, want)
	}
}

// saysNothing checks that there is no word of a limit.
func (a answer) saysNothing() {
	a.Helper()
	for name := range a.header {
		if strings.Contains(strings.ToLower(name), "rate") || name == "Retry-After" {
			a.Errorf("%s: %d with %s", a.sent, a.status, name)
		}
	}
}

func TestRateLimit(t *testing.T) {
	s := begin(t, connectsim.Options{})
	const path = "/organisation/artefacts"
	s.get(path).allows("5000 4999 1800") // it is half past ten
	s.clock.Advance(10 * time.Minute)
	s.get(path).allows("5000 4998 1200")

	// All authenticated answers say so, also the refusals.
	s.get(path + "/0").is(404).allows("5000 4997 1200")
	s.call("POST", path, `{}`).is(422).allows("5000 4996 1200")
	s.get("/organisation/nothing").is(404).allows("5000 4995 1200")

	s.sim.Spend(token, 4994)
	s.get(path).is(200).allows("5000 0 1200")
	for range 3 {
		throttled := s.call("POST", path, `{"name":"kiosk","uri":"https://example.com","checksum":"`+checksum+`"}`).is(http.StatusTooManyRequests)
		throttled.allows("5000 0 1200")
		if throttled.text != "Throttled" || throttled.header.Get("Content-Type") != "text/plain; charset=utf-8" || throttled.header["Retry-After"] != nil {
			t.Errorf("429 is %q with %v", throttled.text, throttled.header)
		}
	}
	if len(s.org.Artefacts()) != 0 {
		t.Error("a throttled request did its work")
	}

	// The last second is a whole one; then the top of the hour ends it.
	s.clock.Advance(20*time.Minute - time.Second)
	s.get(path).is(429).allows("5000 0 1")
	s.clock.Advance(400 * time.Millisecond)
	s.get(path).is(200).allows("5000 4999 3600")
	s.clock.Advance(3 * time.Hour)
	s.get(path).is(200).allows("5000 4999 3600")
}

func TestTheOlderRevisionHasNoLimit(t *testing.T) {
	s := begin(t, connectsim.Options{Revision: connectsim.Older, RateLimit: 1})
	s.sim.Spend(token, 100)
	for range 3 {
		s.get("/organisation/artefacts").is(200).saysNothing()
		s.send(request{"GET", "/organisation/artefacts", nil, nobody}).is(401).saysNothing()
	}
}

func TestTheLimitIsPerToken(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 2})
	const second = "rporg_second111111111111111111"
	s.org.AddToken(second)
	s.sim.Spend(token, 2)
	s.get("/organisation/artefacts").is(429)
	s.send(request{"GET", "/organisation/artefacts", nil, bearer(second)}).is(200).allows("2 1 1800")
}

func TestInvalidTokensCountToo(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 3})
	get := request{"GET", "/organisation/artefacts", nil, bearer("rporg_later1111111111111111111")}
	for range 2 {
		s.send(get).is(401).saysNothing()
	}
	s.sim.AddOrganisation("rporg_later1111111111111111111")
	s.send(get).is(200).allows("3 0 1800")
	s.sim.RevokeToken("rporg_later1111111111111111111")
	throttled := s.send(get).is(429)
	throttled.saysNothing()
	if throttled.text != "Throttled" {
		t.Errorf("429 is %q", throttled.text)
	}
	s.get("/organisation/artefacts").is(200).allows("3 2 1800") // it is nobody else's window
	s.clock.Advance(time.Hour)
	s.send(get).is(401)
}

func TestWindowsOfAnotherLength(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 1, Window: 5 * time.Second})
	for _, step := range []struct {
		advance time.Duration
		status  int
		limit   string
	}{
		{0, 200, "1 0 5"}, // 10:30:00.6: windows begin at multiples of five seconds
		{4 * time.Second, 429, "1 0 1"},
		{400 * time.Millisecond, 200, "1 0 5"},
		{time.Second, 429, "1 0 4"},
		{3*time.Second + 999*time.Millisecond, 429, "1 0 1"},
		{time.Millisecond, 200, "1 0 5"},
	} {
		s.clock.Advance(step.advance)
		s.get("/organisation/devices").is(step.status).allows(step.limit)
	}
}

// What devices ask is not the organisation's to pay for.
func TestTheDeviceSideIsNotLimited(t *testing.T) {
	s := begin(t, connectsim.Options{RateLimit: 1})
	key := s.org.AddAuthKey("lab", "", nil, 1)
	device := s.exchange(key.Secret)
	for range 3 {
		s.send(request{"GET", "/deployments/pending", nil, bearer(device)}).is(204).saysNothing()
	}
	s.get("/organisation/devices").is(200).allows("1 0 1800")
}
