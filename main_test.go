// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"go.uber.org/zap/zapcore"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"rpi-connect.dev/operator/internal/informers"
)

// parse is what the program makes of a command line and an environment.
func parse(environment map[string]string, args ...string) (options, error) {
	var o options
	fs := flag.NewFlagSet("manager", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.bind(fs)
	lookup := func(name string) (string, bool) { value, ok := environment[name]; return value, ok }
	if err := fromEnvironment(fs, lookup); err != nil {
		return o, err
	}
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	return o, o.check(fs.Args())
}

func TestDefaultsAreValid(t *testing.T) {
	o, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.connectAPIURL != "https://api.connect.raspberrypi.com" || o.resync != 10*time.Minute || o.apiReserve != 10 || o.apiQPS != 10 ||
		o.pollMin != 15*time.Second || o.pollMax != 15*time.Minute || !o.metricsSecure || o.leaderElect {
		t.Errorf("%+v", o)
	}
}

func TestCommandLineWinsOverEnvironment(t *testing.T) {
	environment := map[string]string{
		"RPI_CONNECT_RESYNC_INTERVAL":  "5m",
		"RPI_CONNECT_WATCH_NAMESPACES": "fleet, lab",
	}
	o, err := parse(environment, "--resync-interval=1m")
	if err != nil {
		t.Fatal(err)
	}
	if o.resync != time.Minute {
		t.Errorf("resync every %s", o.resync)
	}
	namespaces := informers.CacheOptions(o.watchNamespace).DefaultNamespaces
	if _, lab := namespaces["lab"]; !lab || len(namespaces) != 2 {
		t.Errorf("it watches %v", namespaces)
	}
	if informers.CacheOptions("").DefaultNamespaces != nil {
		t.Error("without the flag it does not watch everything")
	}
}

func TestNonsenseIsRefusedWithAHint(t *testing.T) {
	for args, words := range map[string]string{
		"--api-budget-reserve=95":   "from 0 to 90",
		"--api-budget-reserve=-1":   "from 0 to 90",
		"--api-qps=0":               "above 0",
		"--resync-interval=0s":      "such as 10m",
		"--deployment-poll-min=1h":  "the second not below the first",
		"--deployment-poll-max=-1s": "the second not below the first",
		"--resync-interval=often":   "invalid value",

		"--max-concurrent-reconciles=0": "at least 1",

		"--leader-elect true --watch-namespaces=fleet": "--leader-elect=true",

		"--leader-elect-lease-duration=1s": "at least 5s",
	} {
		if _, err := parse(nil, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want something with %q", args, err, words)
		}
	}
	if _, err := parse(map[string]string{"RPI_CONNECT_API_QPS": "many"}); err == nil || !strings.Contains(err.Error(), "RPI_CONNECT_API_QPS") {
		t.Errorf("the error does not name the variable: %v", err)
	}
}

func TestNoReserveIsNotTheDefault(t *testing.T) {
	if reserve(0) >= 0 || reserve(25) != 25 {
		t.Errorf("0 becomes %d, 25 becomes %d", reserve(0), reserve(25))
	}
}

// Go's HTTP/2 prints the Authorization header if it is told to.
func TestDebuggingOfHTTP2IsRefused(t *testing.T) {
	for godebug, refused := range map[string]bool{
		"":                                     false,
		"http2client=0":                        false,
		"http2debug=0":                         false,
		"http2debug=1":                         true,
		"http2debug=2":                         true,
		"netdns=go,http2debug=1,http2server=0": true,
		"xhttp2debug=2":                        true, // net/http is not particular
	} {
		err := checkDebug(godebug)
		if (err != nil) != refused {
			t.Errorf("%q: %v", godebug, err)
		}
		if err != nil && !strings.Contains(err.Error(), "Authorization header") {
			t.Errorf("it does not say why: %v", err)
		}
	}
}

// An error of the API server may quote what it was sent.
func TestLogShowsNoSecretsThatOthersQuote(t *testing.T) {
	var log strings.Builder
	logger := zap.New(zap.WriteTo(withoutSecrets{&log}))
	logger.Error(errors.New(`webhook denied {"token":"rporg_abcdef"}`), "Reconciler error", "name", "kiosk")
	if strings.Contains(log.String(), "abcdef") || !strings.Contains(log.String(), `"name":"kiosk"`) || !json.Valid([]byte(log.String())) {
		t.Errorf("the log says %s", log.String())
	}
}

// A panic is printed with its value, which may be an error that quotes what was read.
func TestLogShowsNoSecretsOfPanics(t *testing.T) {
	utilruntime.ReallyCrash = false
	defer func() { utilruntime.ReallyCrash = true }()
	var log strings.Builder
	func() {
		defer utilruntime.HandleCrashWithLogger(zap.New(zap.WriteTo(withoutSecrets{&log})))
		panic(errors.New(`cannot decode {"secret":"rpoak_abcdef"}`))
	}()
	if strings.Contains(log.String(), "abcdef") || !strings.Contains(log.String(), "cannot decode") {
		t.Errorf("the log says %s", log.String())
	}
}

// Beyond a verbosity the Kubernetes client prints Secrets.
func TestLogNeverShowsBodies(t *testing.T) {
	if level := withoutBodies(zapcore.Level(-10)); level.Enabled(-7) || !level.Enabled(-6) {
		t.Error("the highest verbosity shows bodies, or less than it could")
	}
	if level := withoutBodies(zapcore.InfoLevel); level.Enabled(-1) {
		t.Error("a quiet log became verbose")
	}
}

// A gateway that shortens the length of an answer makes net/http print the rest of it to the standard log.
func TestStandardLogQuotesNoAnswer(t *testing.T) {
	sent := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nrpoak_secretsecretsecret")
		<-sent
	}))
	defer server.Close()
	lines := make(chan string, 10)
	log.SetOutput(standardLog{funcr.New(func(_, args string) { lines <- args }, funcr.Options{})})
	defer log.SetOutput(os.Stderr)
	answer, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	line := <-lines
	close(sent)
	if !strings.Contains(line, "Unsolicited response") || strings.Contains(line, "k_secret") {
		t.Errorf("the log says %s", line)
	}
}
