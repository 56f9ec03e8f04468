// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"rpi-connect.dev/operator/test/cluster"
)

// patience is how long anything may take.
const patience = 30 * time.Minute

// until polls; seldom enough not to be what is measured: what a look has taken is
// waited ten times over, but at most half a second.
func until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it did not happen in time"))
	defer cancel()
	for {
		began := time.Now()
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := pause(ctx, min(max(10*time.Since(began), 50*time.Millisecond), 500*time.Millisecond)); err != nil {
			return err
		}
	}
}

// soon polls quickly: what is waited for is what is measured.
func soon(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it did not happen in time"))
	defer cancel()
	for !done() {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// reconciles is how many there have been; -1 if it cannot be told.
func reconciles(ctx context.Context, m *cluster.Manager) float64 {
	n, err := m.Metric(ctx, "controller_runtime_reconcile_total")
	if err != nil {
		return -1
	}
	return n
}

// quiet waits until there are no reconciles for two seconds.
func quiet(ctx context.Context, m *cluster.Manager) error {
	last, since := -1.0, time.Now()
	return until(ctx, func() (bool, error) {
		if n := reconciles(ctx, m); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 2*time.Second, nil
	})
}
