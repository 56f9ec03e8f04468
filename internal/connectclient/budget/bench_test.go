// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

func BenchmarkTake(b *testing.B) {
	keeper := budget.New(budget.Config{})
	answer := announce(200, 5000, 4000, time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if ticket, err := keeper.Take(budget.Write); err == nil {
			ticket.Done(answer)
		}
	}
}

// Next among 10,000 running deployments of seven intervals.
func BenchmarkNext(b *testing.B) {
	poller := budget.NewPoller[string](pollsPerSecond(1e12))
	now := noon
	for i := range 10_000 {
		poller.Seen(strconv.Itoa(i), 15*time.Second<<(i%7), now.Add(-time.Duration(i)*time.Second))
	}
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(10 * time.Millisecond)
		poller.Next(now)
	}
}

// A budget is asked by every worker at once.
func TestConcurrentUse(t *testing.T) {
	keeper := budget.New(budget.Config{})
	first, err := keeper.Take(budget.Background)
	if err != nil {
		t.Fatal(err)
	}
	first.Done(announce(200, 5000, 1000, time.Hour))
	var group sync.WaitGroup
	var mu sync.Mutex
	sent := 0
	for range 8 {
		group.Go(func() {
			for range 1000 {
				ticket, err := keeper.Take(budget.Poll)
				if err != nil {
					return
				}
				mu.Lock()
				sent++
				mu.Unlock()
				keeper.PollRate()
				keeper.State()
				ticket.Done(budget.Answer{})
			}
		})
	}
	group.Wait()
	if sent != 500 {
		t.Errorf("%d polls were let through, want what is left above the reserve", sent)
	}
}
