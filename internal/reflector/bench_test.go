// SPDX-License-Identifier: Apache-2.0

package reflector

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/internal/connectclient"
)

// fleet shows devices, a hundred a page.
type fleet struct {
	devices []connectclient.Device
	at      int
}

func (f *fleet) Next(context.Context) ([]connectclient.Device, bool, error) {
	rows := make([]connectclient.Device, 100)
	for i := range rows { // as they come from the wire: nothing is shared with the snapshot
		rows[i] = f.devices[f.at+i]
		rows[i].Board = &connectclient.Board{Model: "Raspberry Pi 5", Memory: "8 GB"}
		rows[i].Tags = []string{"lab", "kiosk"}
	}
	f.at += len(rows)
	return rows, f.at < len(f.devices), nil
}

func (*fleet) Skipped() int { return 0 }
func (*fleet) Whole() bool  { return true }

// BenchmarkListingThatChangesNothing lists 10,000 devices while 10,000 resources wait:
// for names, and for whatever matches a query.
func BenchmarkListingThatChangesNothing(b *testing.B) {
	for name, await := range map[string]func(*Store[connectclient.Device], Waiter, int){
		"keys": func(s *Store[connectclient.Device], w Waiter, i int) {
			s.AwaitKeys(w, fmt.Sprint("other", i), fmt.Sprint("pi", i))
		},
		"matches": func(s *Store[connectclient.Device], w Waiter, _ int) {
			s.AwaitMatch(w, func(d connectclient.Device) bool { return d.Filters.Model == "zero2w" })
		},
	} {
		b.Run(name, func(b *testing.B) {
			store := benchmarked(b)
			for i := range 10_000 {
				await(store, Waiter{Subscriber: "Deployment", Resource: types.NamespacedName{Name: fmt.Sprint(i)}}, i)
			}
			for b.Loop() {
				store.list(b.Context())
			}
			if len(store.waiters.all) != 10_000 {
				b.Errorf("%d still wait", len(store.waiters.all))
			}
		})
	}
}

// BenchmarkReadingDuringListings finds devices by name while nothing but listings goes
// on: what they cost must not hold readers up.
func BenchmarkReadingDuringListings(b *testing.B) {
	store := benchmarked(b)
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			store.list(ctx)
		}
	}()
	longest := time.Duration(0)
	for b.Loop() {
		began := time.Now()
		_ = store.Find("pi77")
		longest = max(longest, time.Since(began))
	}
	b.ReportMetric(float64(longest.Microseconds()), "µs-longest")
	stop()
	<-done
}

func benchmarked(b *testing.B) *Store[connectclient.Device] {
	b.Helper()
	devices := make([]connectclient.Device, 10_000)
	for i := range devices {
		devices[i] = connectclient.Device{ID: fmt.Sprint(i), Name: fmt.Sprint("pi", i), SerialNumber: fmt.Sprintf("%016x", i)}
	}
	api, err := connectclient.New(connectclient.Options{})
	if err != nil {
		b.Fatal(err)
	}
	r := New(Options{API: api}, Collection[connectclient.Device]{
		Name: "devices",
		List: func(*connectclient.Client, string) Pager[connectclient.Device] { return &fleet{devices: devices} },
		ID:   func(d connectclient.Device) string { return d.ID },
		Keys: func(d connectclient.Device) []string { return []string{d.Name, d.SerialNumber} },
	})
	r.Subscribe(Subscription{Name: "Deployment", Notify: func(n Notification) {
		if len(n.Waiters)+len(n.IDs) > 0 {
			b.Errorf("%d are woken", len(n.Waiters))
		}
	}})
	store := r.Of(connectclient.NewSecret("rporg_test"))
	store.list(b.Context())
	return store
}
