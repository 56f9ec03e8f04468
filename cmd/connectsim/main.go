// SPDX-License-Identifier: Apache-2.0

// Connectsim serves the Raspberry Pi Connect Management API from memory, to try
// clients against it. docs/simulator.md is its manual.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "connectsim:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

// run serves until the context ends.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) error {
	o, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	o.Clock = connectsim.NewRunningClock(o.begin)
	server := connectsim.New(o.Options)
	defer server.Close()
	pis, err := o.populate(server)
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", o.address)
	if err != nil {
		return err
	}
	scheme := "http"
	if o.secure != nil {
		scheme = "https"
	}
	baseURL := scheme + "://" + listener.Addr().String()
	admin := server.Admin(ctx, local(scheme, listener.Addr()))
	ended := make(chan error, 1)
	go func() {
		if o.admin || loopback(listener.Addr()) {
			ended <- server.Serve(listener, admin, o.secure)
			return
		}
		ended <- server.Serve(listener, server, o.secure)
	}()
	for _, pi := range pis {
		if err := admin.PlugIn(ctx, pi); err != nil {
			return err
		}
	}
	if first := server.Tokens()[0].Token; o.revokeAfter > 0 {
		defer time.AfterFunc(o.revokeAfter, func() { server.RevokeToken(first) }).Stop()
	}
	o.announce(stdout, stderr, server, baseURL, loopback(listener.Addr()))
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

// populate makes what there is to begin with; it returns the Pis, which need a
// server to sign in to.
func (o *options) populate(server *connectsim.Server) ([]connectsim.VirtualPi, error) {
	tokens := o.tokens
	for i := range o.seed.Organisations {
		if so := &o.seed.Organisations[i]; so.Token == "" && len(tokens) > 0 {
			so.Token, tokens = tokens[0], tokens[1:]
		}
	}
	pis, err := server.Seed(o.seed)
	if err != nil {
		return nil, fmt.Errorf("--seed: %w", err)
	}
	for _, token := range tokens {
		if server.Organisation(token) == nil {
			server.AddOrganisation(token)
		}
	}
	for len(server.Tokens()) < max(1, o.organisations) {
		server.AddOrganisation(connectsim.NewSecret("rporg_"))
	}
	more, err := server.Seed(connectsim.Seed{Organisations: []connectsim.SeedOrganisation{{
		Name: server.Tokens()[0].Organisation, Devices: someDevices(o.devices), Pis: o.pis.plugIn(),
	}}})
	if err != nil {
		return nil, fmt.Errorf("--devices and --pis beside --seed: %w", err)
	}
	for _, fault := range o.faults {
		server.Inject(fault)
	}
	server.SetBilling(!o.noBilling)
	server.SpendAll(o.spent)
	return append(pis, more...), nil
}

// boards are what a fleet is made of.
var boards = []connectsim.Board{
	{Model: "5", Memory: "8gb", OS: "raspios-13"},
	{Model: "cm5lite", Memory: "4gb", OS: "raspios-13"},
	{Model: "4b", Memory: "2gb", OS: "raspios-12"},
	{Model: "zero2w", Memory: "512mb", OS: "raspios-13"},
	{OldClient: true},
}

// someDevices are signed in and offline: nobody takes their deployments.
func someDevices(n int) []connectsim.SeedDevice {
	devices := make([]connectsim.SeedDevice, n)
	for i := range devices {
		devices[i] = connectsim.SeedDevice{Name: fmt.Sprintf("device-%03d", i+1), SerialNumber: fmt.Sprintf("20000000%08x", i+1), Board: boards[i%len(boards)]}
	}
	return devices
}

// plugIn describes Pis that take deployments, the sound ones first.
func (f fleet) plugIn() []connectsim.VirtualPi {
	pis := make([]connectsim.VirtualPi, f.n)
	for i := range pis {
		pis[i] = connectsim.VirtualPi{
			Hostname: "pi-" + strconv.Itoa(i+1), SerialNumber: fmt.Sprintf("10000000%08x", i+1), Board: boards[0],
			Steering: connectsim.Steering{WorkMilliseconds: new(2000)},
		}
		switch last := f.n - i; {
		case last <= f.offline:
			pis[i].Offline = new(true)
		case last <= f.offline+f.failing:
			pis[i].FailWith = new("Checksum mismatch")
		case last <= f.offline+f.failing+f.slow:
			pis[i].WorkMilliseconds = new(60_000)
		}
	}
	return pis
}

// announce says where everything is.
func (o *options) announce(stdout, stderr io.Writer, server *connectsim.Server, baseURL string, loopback bool) {
	seen := baseURL
	if o.PublicURL != "" {
		seen = o.PublicURL
	}
	_, _ = fmt.Fprintf(stdout, "The Connect Management API (%s revision) is at %s\n\n", o.Revision, seen)
	for _, t := range server.Tokens() {
		_, _ = fmt.Fprintf(stdout, "  curl -H 'Authorization: Bearer %s' %s/organisation/devices # %s\n", t.Token, seen, t.Organisation)
	}
	switch {
	case o.admin && !loopback:
		_, _ = fmt.Fprintf(stderr, "\nWarning: whoever reaches %s controls the simulator under /_sim/, without a token.\n", baseURL)
	case !loopback:
		_, _ = fmt.Fprintf(stderr, "\nFaults, journal and state (/_sim/) are not served beyond loopback; --admin serves them to whoever reaches %s.\n", baseURL)
	default:
		_, _ = fmt.Fprintf(stdout, "\nFaults, journal, state and Pis are under %s/_sim/. Ctrl-C ends.\n", baseURL)
	}
}

// loopback tells whether only this machine reaches an address.
func loopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// local is how this program reaches itself, whatever it listens on.
func local(scheme string, address net.Addr) string {
	host := address.String()
	if tcp, ok := address.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host = net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return scheme + "://" + host
}
