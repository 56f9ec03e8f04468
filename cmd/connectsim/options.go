// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"rpi-connect.dev/operator/internal/connectsim"
)

// options are what the flags say.
type options struct {
	connectsim.Options

	address       string
	admin         bool
	secure        *tls.Config
	tokens        list
	organisations int
	seed          connectsim.Seed
	devices       int
	pis           fleet
	faults        []connectsim.Fault
	noBilling     bool
	spent         int
	begin         time.Time
	revokeAfter   time.Duration
}

// fleet is how many virtual Pis there are, and how many of them are not as they
// should be.
type fleet struct{ n, offline, failing, slow int }

// list is a flag that may repeat.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// parse reads the flags. What makes no sense is an error.
func parse(arguments []string, stderr io.Writer) (*options, error) {
	o := &options{begin: time.Now()}
	var seedFile, certificate, key string
	var faults list
	flags := flag.NewFlagSet("connectsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		_, _ = fmt.Fprintf(stderr, "Connectsim serves the Raspberry Pi Connect Management API from memory.\n\nUsage: connectsim [flags]\n\n")
		flags.PrintDefaults()
	}
	flags.StringVar(&o.address, "addr", "127.0.0.1:8080", "`address` to listen on")
	flags.BoolVar(&o.admin, "admin", false, "serve /_sim/ beyond loopback too: whoever reaches the address controls the simulator")
	flags.StringVar(&certificate, "tls-cert", "", "`file` with a certificate in PEM, to serve HTTPS")
	flags.StringVar(&key, "tls-key", "", "`file` with the certificate's private key in PEM")
	flags.StringVar(&o.PublicURL, "public-url", "", "base `URL` that clients see, if a proxy is in between: it is part of what devices sign")

	flags.Var(&o.tokens, "token", "access `token` (rporg_…) of an organisation, or of the next one of the seed that has none; may repeat (default: a new one)")
	flags.IntVar(&o.organisations, "organisations", 0, "how many organisations there are (default: as many as tokens, or those of the seed, or one)")
	flags.StringVar(&seedFile, "seed", "", "JSON `file` with what there is to begin with")
	flags.IntVar(&o.devices, "devices", 0, "devices of the first organisation, signed in and offline")
	flags.IntVar(&o.pis.n, "pis", 0, "virtual Raspberry Pis of the first organisation, which take deployments")
	flags.IntVar(&o.pis.offline, "pis-offline", 0, "how many of the Pis are offline: the last ones")
	flags.IntVar(&o.pis.failing, "pis-failing", 0, "how many of the Pis fail every deployment: those before them")
	flags.IntVar(&o.pis.slow, "pis-slow", 0, "how many of the Pis take a minute for a deployment: those before them")

	flags.StringVar((*string)(&o.Revision), "revision", string(connectsim.Current), "revision of the API: current or older")
	flags.StringVar((*string)(&o.ErrorBodies), "error-bodies", string(connectsim.MessageBodies), "form of errors whose form is not published: message, error, empty, html or plain")
	flags.StringVar((*string)(&o.PastTheEnd), "past-the-end", string(connectsim.EmptyPage), "what a page past the last one is: empty, last, not-found or bad-request")
	flags.BoolVar(&o.SupersededAsCancelled, "superseded-as-cancelled", false, "a superseded deployment is cancelled instead of failed")
	flags.BoolVar(&o.CancelsInProgress, "cancels-in-progress", false, "a deployment can be cancelled that is in progress")
	flags.BoolVar(&o.noBilling, "no-billing", false, "billing has not been set up: deployments are blocked")

	flags.IntVar(&o.RateLimit, "rate-limit", 5000, "requests per access token and window")
	flags.DurationVar(&o.Window, "window", time.Hour, "length of the rate limit's window")
	flags.IntVar(&o.spent, "spent", 0, "requests of the first window that are used up already")
	flags.DurationVar(&o.Latency, "latency", 0, "time that every answer takes")
	flags.Var(&faults, "fault", "a fault in `JSON`, such as {\"Route\":\"POST /organisation/artefacts\",\"Times\":1,\"Status\":503}; may repeat")
	flags.DurationVar(&o.revokeAfter, "revoke-after", 0, "revoke the first access token after this time")
	flags.Func("time", "`time` at which the clock begins to run, such as 2026-03-01T10:30:00Z (default: now)", func(text string) (err error) {
		if o.begin, err = time.Parse(time.RFC3339, text); err != nil {
			return errors.New("give a time such as 2026-03-01T10:30:00Z")
		}
		return nil
	})
	flags.IntVar(&o.JournalSize, "journal", 100_000, "how many requests the journal keeps")
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("what is %q? There are only flags: connectsim -help lists them", flags.Arg(0))
	}
	limits := slices.ContainsFunc([]string{"rate-limit", "window", "spent"}, func(name string) bool { return given(flags, name) })
	if o.Revision == connectsim.Older && limits {
		return nil, errors.New("--rate-limit, --window and --spent are for --revision current: the older revision has no rate limit")
	}
	return o, errors.Join(o.check(), o.readSeed(seedFile), o.readFaults(faults), o.readCertificate(certificate, key))
}

// given tells whether a flag is on the command line.
func given(flags *flag.FlagSet, name string) (found bool) {
	flags.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// check tells which flags make no sense.
func (o *options) check() error {
	o.PublicURL = strings.TrimRight(o.PublicURL, "/")
	public, err := url.Parse(o.PublicURL)
	publicly := err == nil && (public.Scheme == "http" || public.Scheme == "https") && public.Host != "" && public.User == nil && public.RawQuery == ""
	for _, rule := range []struct {
		broken bool
		why    string
	}{
		{!slices.Contains([]connectsim.Revision{connectsim.Current, connectsim.Older}, o.Revision), fmt.Sprintf("--revision %q: give current or older", o.Revision)},
		{!slices.Contains([]connectsim.ErrorBodies{connectsim.MessageBodies, connectsim.ErrorKey, connectsim.EmptyBodies, connectsim.HTMLBodies, connectsim.PlainBodies}, o.ErrorBodies), fmt.Sprintf("--error-bodies %q: give message, error, empty, html or plain", o.ErrorBodies)},
		{!slices.Contains([]connectsim.PastTheEnd{connectsim.EmptyPage, connectsim.LastPage, connectsim.PageNotFound, connectsim.PageBadRequest}, o.PastTheEnd), fmt.Sprintf("--past-the-end %q: give empty, last, not-found or bad-request", o.PastTheEnd)},
		{o.RateLimit < 1 || o.JournalSize < 1, "--rate-limit and --journal are at least 1"},
		{o.Window < time.Second, "--window is at least 1s"},
		{o.Latency < 0 || o.revokeAfter < 0, "--latency and --revoke-after are not negative"},
		{o.organisations < 0 || o.devices < 0 || o.spent < 0, "--organisations, --devices and --spent are not negative"},
		{min(o.pis.n, o.pis.offline, o.pis.failing, o.pis.slow) < 0, "--pis, --pis-offline, --pis-failing and --pis-slow are not negative"},
		{o.pis.offline+o.pis.failing+o.pis.slow > o.pis.n, "--pis-offline, --pis-failing and --pis-slow are more Pis together than there are (--pis)"},
		{o.organisations > 0 && o.organisations < len(o.tokens), "--organisations is less than there are tokens"},
		{o.PublicURL != "" && !publicly, "--public-url: give a base URL such as https://connect.example.com"},
		{slices.ContainsFunc(o.tokens, func(t string) bool { return !strings.HasPrefix(t, "rporg_") }), "--token: the access token of an organisation begins with rporg_"},
		{len(slices.Compact(slices.Sorted(slices.Values(o.tokens)))) < len(o.tokens), "--token: one token opens one organisation"},
	} {
		if rule.broken {
			return errors.New(rule.why)
		}
	}
	return nil
}

func (o *options) readSeed(file string) error {
	if file == "" {
		return nil
	}
	opened, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("--seed: %w", err)
	}
	defer func() { _ = opened.Close() }()
	if o.seed, err = connectsim.ReadSeed(opened); err != nil {
		return fmt.Errorf("--seed %s: %w", file, err)
	}
	return nil
}

func (o *options) readFaults(texts []string) error {
	for _, text := range texts {
		var fault connectsim.Fault
		if err := json.Unmarshal([]byte(text), &fault); err != nil {
			return fmt.Errorf("--fault %s: %w", text, err)
		}
		o.faults = append(o.faults, fault)
	}
	return nil
}

func (o *options) readCertificate(certificate, key string) error {
	if certificate == "" && key == "" {
		return nil
	}
	if certificate == "" || key == "" {
		return errors.New("--tls-cert and --tls-key belong together")
	}
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	o.secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	return nil
}
