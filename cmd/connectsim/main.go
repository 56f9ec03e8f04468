// SPDX-License-Identifier: Apache-2.0

// Connectsim serves the Raspberry Pi Connect Management API from memory, to try
// clients against it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "connectsim:", err)
		os.Exit(1)
	}
}

func run() error {
	address := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	revision := flag.String("revision", string(connectsim.Current), "revision of the API: current or older")
	window := flag.Duration("window", time.Hour, "length of the rate limit's window")
	limit := flag.Int("rate-limit", 5000, "requests per access token and window")
	latency := flag.Duration("latency", 0, "time that every answer takes")
	token := flag.String("token", "", "access token of the organisation (default: a new one)")
	pis := flag.Int("pis", 0, "virtual Raspberry Pis that are signed in and take deployments")
	flag.Usage = func() {
		_, _ = fmt.Fprintf(flag.CommandLine.Output(), "Connectsim serves the Raspberry Pi Connect Management API from memory.\n\nUsage: connectsim [flags]\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	switch connectsim.Revision(*revision) {
	case connectsim.Current, connectsim.Older:
	default:
		return fmt.Errorf("--revision %q: give current or older", *revision)
	}
	if *token == "" {
		*token = connectsim.NewSecret("rporg_")
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := connectsim.New(connectsim.Options{
		Revision: connectsim.Revision(*revision), Window: *window, RateLimit: *limit, Latency: *latency,
	})
	organisation := server.AddOrganisation(*token)

	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	baseURL := "http://" + listener.Addr().String()
	serving := &http.Server{Handler: server.Admin(ctx, baseURL), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = serving.Close()
	}()
	for i := range *pis {
		pi := connectsim.NewPi(baseURL, "pi-"+strconv.Itoa(i+1), fmt.Sprintf("10000000%08x", i+1))
		device := organisation.AddDevice(connectsim.Device{Name: pi.Hostname, SerialNumber: pi.SerialNumber, Model: "5", Memory: "8gb", OS: "raspios-13"})
		pi.SignedIn(organisation, device.ID)
		pi.Behave(connectsim.Behaviour{WorkTime: 2 * time.Second})
		go pi.Run(ctx)
	}
	fmt.Printf("The Connect Management API (%s revision) is at %s\n\n  curl -H 'Authorization: Bearer %s' %s/organisation/devices\n\nFaults, journal and state are under %s/_sim/. Ctrl-C ends.\n",
		*revision, baseURL, *token, baseURL, baseURL)
	if err := serving.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
