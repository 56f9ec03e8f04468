// SPDX-License-Identifier: Apache-2.0

// Bench measures what the operator costs: requests to Connect, writes to the API
// server, time and memory. It runs the real binary, under its own ServiceAccount,
// on a real API server and etcd, against the simulator, all on this machine.
//
// Times are given as ratios to a floor measured in the same run: what the same
// writes to the same API server take when nothing else is done.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	sizes := flag.String("n", "300,1000,10000", "numbers of Artefacts, separated by commas")
	keySize := flag.Int("keys", 1000, "number of device identities and of auth keys")
	fleets := flag.String("deployments", "1000,10000", "numbers of Deployments, separated by commas")
	devices := flag.String("devices", "1000", "numbers of Devices, separated by commas")
	resources := flag.Int("load", 10000, "number of resources of all kinds in one organisation")
	organisations := flag.Int("organisations", 1000, "number of organisations with twenty resources each")
	only := flag.String("only", "", "run only this part: artefacts, keys, devices, rollouts (of single Deployments), fleetrollouts, offline, load or organisations")
	peer := flag.String("peer", "", "compare with a generic peer, and run nothing else: the folder with the source of Crossplane's provider-http")
	compared := flag.Int("compared", 300, "number of Artefacts that the peer gets")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	fmt.Printf("Measured on %d cores (%s/%s), %s, %s.\n", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, memory(), runtime.Version())
	if *peer != "" {
		return compare(ctx, *peer, *compared)
	}
	parts := []struct {
		name    string
		measure func() error
	}{
		{"artefacts", func() error { return withNumbers(ctx, *sizes, artefacts) }},
		{"keys", func() error { return keys(ctx, *keySize) }},
		{"devices", func() error { return withNumbers(ctx, *devices, managed) }},
		{"rollouts", func() error { return withNumbers(ctx, *fleets, rollouts) }},
		{"fleetrollouts", func() error { return withNumbers(ctx, *fleets, fleetRollouts) }},
		{"offline", func() error { return withNumbers(ctx, *fleets, offline) }},
		{"load", func() error { return one(ctx, *resources) }},
		{"organisations", func() error { return many(ctx, *organisations) }},
	}
	var names []string
	ran := false
	for _, part := range parts {
		names = append(names, part.name)
		if *only != "" && *only != part.name {
			continue
		}
		ran = true
		if err := part.measure(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !ran {
		return fmt.Errorf("-only %s: give one of %s", *only, strings.Join(names, ", "))
	}
	return nil
}

func withNumbers(ctx context.Context, text string, measure func(context.Context, []int) error) error {
	numbers, err := parse(text)
	if err != nil {
		return err
	}
	return measure(ctx, numbers)
}

func parse(sizes string) ([]int, error) {
	var numbers []int
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: give numbers separated by commas", sizes)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func memory() string {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "memory unknown"
	}
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(value)[0])
			return fmt.Sprintf("%d GiB", (kib+1<<19)>>20)
		}
	}
	return "memory unknown"
}

// connect starts a simulated Connect and puts its token where resources look for it.
func connect(ctx context.Context, c *cluster.Cluster, options connectsim.Options) (cluster.Connect, error) {
	connect, err := cluster.ServeConnect(options)
	if err != nil {
		return connect, err
	}
	return connect, c.PutToken(ctx, metav1.NamespaceDefault, connect.Token)
}

// withCluster runs one measurement on a control plane of its own, so that none
// pays for the one before.
func withCluster(ctx context.Context, measure func(*cluster.Cluster, string) error) error {
	c, err := cluster.Start(ctx, cluster.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = c.Stop() }()
	binary, err := cluster.BuildManager(ctx, c.Dir)
	if err != nil {
		return err
	}
	return measure(c, binary)
}
