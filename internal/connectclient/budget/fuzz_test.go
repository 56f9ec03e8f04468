// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"encoding/binary"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// FuzzAnswers plays any sequence of requests, answers, losses and pauses. Whatever
// headers say: nothing panics, nothing is negative, a refusal is never for the
// past, and nobody is put off for longer than a day.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 200, 0, 100, 50, 30, 0, 0, 3, 0, 1, 1, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 5, 173, 1, 5, 0, 1, 0, 0, 4, 60, 0, 5, 145, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		next := func() int {
			if len(script) == 0 {
				return 0
			}
			n := int(int8(script[0]))
			script = script[1:]
			return n
		}
		number := func() int { // of any size
			if n := next(); n != -128 || len(script) < 8 {
				return n
			}
			n := int(binary.LittleEndian.Uint64(script))
			script = script[8:]
			return n
		}
		now := noon
		b := budget.New(budget.Config{Now: func() time.Time { return now }, ReservePercent: next(), QPS: float64(next())})
		poller := budget.NewPoller[string](b.PollRate)
		var tickets []*budget.Ticket
		for len(script) > 0 {
			switch p := budget.Priority(next() & 3); next() & 7 {
			case 0, 1, 2:
				ticket, err := b.Take(p)
				if err == nil {
					tickets = append(tickets, ticket)
					break
				}
				if wait := refusalOf(err).Until.Sub(now); wait <= 0 || wait > 25*time.Hour {
					t.Fatalf("%s is put off for %s", p, wait)
				}
			case 3, 4, 5:
				if len(tickets) == 0 {
					break
				}
				i := (next() & 127) % len(tickets)
				tickets[i].Done(budget.Answer{
					StatusCode: []int{0, 200, 201, 401, 404, 422, 429, 502}[next()&7], HasHeaders: next()&1 == 0,
					Limit: number(), Remaining: number(), Reset: time.Duration(number()) * time.Second, RetryAfter: time.Duration(number()) * time.Second,
				})
				tickets = append(tickets[:i], tickets[i+1:]...)
			case 6:
				now = now.Add(time.Duration(next()&127) * time.Second)
			case 7:
				poller.Seen(string(rune('a'+next()&7)), time.Duration(1+next()&3)*time.Minute, now)
				if _, ok, wait := poller.Next(now); ok && wait != 0 || wait < 0 {
					t.Fatalf("it waits %s", wait)
				}
			}
			state := b.State()
			if state.Remaining < 0 || state.Remaining > max(state.Limit, 0) || state.InFlight != len(tickets) {
				t.Fatalf("%+v with %d tickets", state, len(tickets))
			}
			if rate := b.PollRate(); rate < 0 || rate != rate {
				t.Fatalf("%f polls a second", rate)
			}
		}
	})
}
