// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"math"
	"net/http"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// rateOf reads the rate headers, each value of them a header line of its own.
func rateOf(limit, remaining, reset []string) budget.Answer {
	h := http.Header{}
	for name, lines := range map[string][]string{"X-Rate-Limit-Limit": limit, "X-Rate-Limit-Remaining": remaining, "X-Rate-Limit-Reset": reset} {
		for _, line := range lines {
			h.Add(name, line)
		}
	}
	return rate(&answer{status: http.StatusOK, header: h}, newClock().Now())
}

// What is half understood is used by half. It never means that there is no limit.
func TestHalfUnderstoodRateHeaders(t *testing.T) {
	type lines = []string
	documented := budget.Answer{StatusCode: 200, HasHeaders: true, Limit: 5000, Remaining: 4321, Reset: 30 * time.Minute}
	without := func(change func(*budget.Answer)) budget.Answer {
		a := documented
		change(&a)
		return a
	}
	noLimit := without(func(a *budget.Answer) { a.Limit = -1 })
	noRemaining := without(func(a *budget.Answer) { a.Remaining = -1 })
	noReset := without(func(a *budget.Answer) { a.Reset = -1 })
	noneLeft := without(func(a *budget.Answer) { a.Remaining = 0 })
	nothing := budget.Answer{StatusCode: 200, Limit: -1, Remaining: -1, Reset: -1}

	for name, tt := range map[string]struct {
		limit, remaining, reset lines
		want                    budget.Answer
	}{
		"documented":               {lines{"5000"}, lines{"4321"}, lines{"1800"}, documented},
		"with a policy":            {lines{"5000;w=3600"}, lines{"4321"}, lines{"1800"}, documented},
		"with several policies":    {lines{"5000, 9000;w=3600"}, lines{"4321"}, lines{"1800"}, documented},
		"with white space":         {lines{" 5000 "}, lines{"\t4321"}, lines{"1800 ; x"}, documented},
		"fractions":                {lines{"5000.0"}, lines{"4321.9"}, lines{"1799.2"}, documented},
		"twice":                    {lines{"5000", "5000"}, lines{"4400", "4321"}, lines{"60", "1800"}, documented},
		"one of two is garbage":    {lines{"many", "5000"}, lines{"4321, some"}, lines{"soon, 1800"}, documented},
		"no limit":                 {nil, lines{"4321"}, lines{"1800"}, noLimit},
		"a blank limit":            {lines{""}, lines{"4321"}, lines{"1800"}, noLimit},
		"a negative limit":         {lines{"-1"}, lines{"4321"}, lines{"1800"}, noLimit},
		"a limit of none":          {lines{"0"}, lines{"4321"}, lines{"1800"}, noLimit},
		"no remaining":             {lines{"5000"}, nil, lines{"1800"}, noRemaining},
		"remaining in words":       {lines{"5000"}, lines{"plenty"}, lines{"1800"}, noRemaining},
		"remaining is no number":   {lines{"5000"}, lines{"NaN"}, lines{"1800"}, noRemaining},
		"remaining in hexadecimal": {lines{"5000"}, lines{"0x10"}, lines{"1800"}, noRemaining},
		"remaining is infinite":    {lines{"5000"}, lines{"1e999"}, lines{"1800"}, noRemaining},
		"none remaining":           {lines{"5000"}, lines{"0"}, lines{"1800"}, noneLeft},
		"less than none remaining": {lines{"5000"}, lines{"-3"}, lines{"1800"}, noneLeft},
		"no reset":                 {lines{"5000"}, lines{"4321"}, nil, noReset},
		"a reset that is an epoch": {lines{"5000"}, lines{"4321"}, lines{"1772362800"}, noReset},
		"a negative reset":         {lines{"5000"}, lines{"4321"}, lines{"-5"}, noReset},
		"a reset that is a date":   {lines{"5000"}, lines{"4321"}, lines{"Sun, 01 Mar 2026 11:00:00 GMT"}, noReset},
		"nothing":                  {nil, nil, nil, nothing},
		"nothing that is a number": {lines{"", "many"}, lines{" "}, lines{"soon"}, nothing},
		"an epoch is all there is": {nil, nil, lines{"1772362800"}, budget.Answer{StatusCode: 200, HasHeaders: true, Limit: -1, Remaining: -1, Reset: -1}},
		"more than a window has":   {lines{"99999999999"}, lines{"99999999999"}, lines{"1800"}, budget.Answer{StatusCode: 200, HasHeaders: true, Limit: math.MaxInt32, Remaining: math.MaxInt32, Reset: 30 * time.Minute}},
	} {
		if got := rateOf(tt.limit, tt.remaining, tt.reset); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

func TestRetryAfterOfAnyForm(t *testing.T) {
	now := newClock().Now()
	for text, want := range map[string]time.Duration{
		"":                              0,
		"120":                           2 * time.Minute,
		"1.5":                           2 * time.Second,
		"0":                             0,
		"-60":                           0,
		"999999":                        maxRetryAfter,
		"99999999999999":                maxRetryAfter,
		"soon":                          0,
		"Sun, 01 Mar 2026 10:31:00 GMT": time.Minute,
		"Sun, 01 Mar 2026 10:29:00 GMT": 0,
		"Mon, 01 Mar 2027 10:29:00 GMT": maxRetryAfter,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzRateHeaders(f *testing.F) {
	for _, seed := range [][4]string{
		{"5000", "4321", "1800", ""},
		{"5000;w=3600", "-1", "1772362800", "120"},
		{"", "12.5, 7", "9e99", "Sun, 01 Mar 2026 10:31:00 GMT"},
		{"0x10", "+3", "1800;w=\"x\"", "-0.0000001"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, limit, remaining, reset, after string) {
		a := rate(&answer{status: 200, header: http.Header{
			"X-Rate-Limit-Limit": {limit}, "X-Rate-Limit-Remaining": {remaining}, "X-Rate-Limit-Reset": {reset}, "Retry-After": {after},
		}}, newClock().Now())
		switch {
		case a.Limit == 0 || a.Limit < -1 || a.Limit > math.MaxInt32,
			a.Remaining < -1 || a.Remaining > math.MaxInt32,
			a.Reset < -1 || a.Reset > longestReset,
			a.RetryAfter < 0 || a.RetryAfter > maxRetryAfter,
			!a.HasHeaders && (a.Limit != -1 || a.Remaining != -1 || a.Reset != -1):
			t.Errorf("%+v", a)
		}
	})
}
