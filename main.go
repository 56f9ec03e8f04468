// SPDX-License-Identifier: Apache-2.0

// The operator for Raspberry Pi Connect for Organisations.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // for kubeconfigs that name a credential plugin
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller"
	"rpi-connect.dev/operator/internal/informers"
	"rpi-connect.dev/operator/internal/metrics"
)

// version is set by the linker when a release is built.
var version = "devel"

// options are the program's flags.
type options struct {
	connectAPIURL  string
	connectCAFile  string
	apiQPS         float64
	apiReserve     int
	resync         time.Duration
	pollMin        time.Duration
	pollMax        time.Duration
	watchNamespace string
	settleTime     time.Duration
	concurrency    int
	leaderElect    bool
	leaseDuration  time.Duration
	leaseNamespace string
	metricsAddress string
	metricsSecure  bool
	probeAddress   string
	logging        zap.Options
}

func (o *options) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.connectAPIURL, "connect-api-url", connectclient.DefaultBaseURL, "Base URL of the Connect Management API.")
	fs.StringVar(&o.connectCAFile, "connect-ca-file", "", "PEM file with the certificate authority of the Connect API, instead of the system's. TLS is always verified.")
	fs.StringVar(&o.watchNamespace, "watch-namespaces", "", "Namespaces to watch, separated by commas. Empty: all of them.")
	fs.DurationVar(&o.resync, "resync-interval", 10*time.Minute, "Time between two listings of a collection, to notice what others changed in the organisation. A listing costs one request per 100 objects.")
	fs.DurationVar(&o.pollMin, "deployment-poll-min", 15*time.Second, "Shortest time between two polls of a running deployment: of one that has just begun to install.")
	fs.DurationVar(&o.pollMax, "deployment-poll-max", 15*time.Minute, "Longest time between two polls of a running deployment, as far as the request budget allows: of one whose device has been offline for long.")
	fs.IntVar(&o.apiReserve, "api-budget-reserve", 10, "Percentage of the hourly request budget that polling and listing leave to creating, changing, cancelling, and to other users of the same access token.")
	fs.Float64Var(&o.apiQPS, "api-qps", 10, "Requests per second and access token where the API announces no budget.")
	fs.DurationVar(&o.settleTime, "post-settle-time", controller.DefaultPostSettleTime, "How long to wait before an auth key or a deployment is asked for again, after the answer to the first request was lost: until then, what that request made may still appear.")
	fs.IntVar(&o.concurrency, "max-concurrent-reconciles", 16, "Resources of one kind that are worked on at the same time.")
	fs.BoolVar(&o.leaderElect, "leader-elect", false, "Make sure that only one of several replicas is active.")
	fs.DurationVar(&o.leaseDuration, "leader-elect-lease-duration", 15*time.Second, "How long a replica that does not answer any more is still held to be the active one. One that cannot reach the API server for two thirds of that ends, and is started anew: raise it where the API server stalls for seconds, as it does on a slow SD card.")
	fs.StringVar(&o.leaseNamespace, "leader-elect-namespace", "", "Namespace of the lease that tells replicas apart. Empty: the pod's, and outside a cluster "+defaultNamespace+".")
	fs.StringVar(&o.metricsAddress, "metrics-bind-address", ":8443", "Address that serves metrics; 0 serves none.")
	fs.BoolVar(&o.metricsSecure, "metrics-secure", true, "Serve metrics over HTTPS, to those only whom the cluster authenticates and allows to read them.")
	fs.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "Address that serves /healthz and /readyz; 0 serves none.")
	o.logging = zap.Options{TimeEncoder: zapcore.ISO8601TimeEncoder}
	o.logging.BindFlags(fs)
}

func main() {
	var o options
	o.bind(flag.CommandLine)
	if err := fromEnvironment(flag.CommandLine, os.LookupEnv); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	flag.Parse()
	if err := errors.Join(o.check(flag.Args()), checkDebug(os.Getenv("GODEBUG"))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}

	o.logging.Level = withoutBodies(o.logging.Level)
	o.logging.DestWriter = withoutSecrets{os.Stderr}
	logger := zap.New(zap.UseFlagOptions(&o.logging))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	log.SetFlags(0)
	log.SetOutput(standardLog{logger.WithName("net")})
	if err := run(ctrl.SetupSignalHandler(), o); err != nil {
		logger.Error(err, "the operator stops")
		os.Exit(1)
	}
}

// standardLog is where the standard library's own log goes. What it quotes is left out: net/http quotes
// what a server sends beyond the length that it has announced, which may be the rest of an auth key.
type standardLog struct{ logr.Logger }

// Write implements [io.Writer].
func (l standardLog) Write(line []byte) (int, error) {
	text, _, quotes := strings.Cut(string(line), `"`)
	if quotes {
		text += "…"
	}
	l.Info(connectclient.Text(text, connectclient.MaxMessage))
	return len(line), nil
}

// withoutSecrets writes lines of the log without the secrets that somebody quotes in them. The operator's
// own words have none; the API server's errors are printed by whoever meets them, as they are.
type withoutSecrets struct{ io.Writer }

// Write implements [io.Writer].
func (w withoutSecrets) Write(line []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, connectclient.LogLine(string(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// withoutBodies limits the verbosity of the log. Beyond it, the Kubernetes client
// prints what is read and written: Secrets, and the URIs of artefacts.
func withoutBodies(level zapcore.LevelEnabler) zapcore.LevelEnabler {
	const most = zapcore.Level(-6)
	if level != nil && level.Enabled(most-1) {
		return most
	}
	return level
}

// fromEnvironment sets every flag whose variable is there: --resync-interval is
// RPI_CONNECT_RESYNC_INTERVAL. What stands on the command line comes later and
// wins. KUBECONFIG has a variable of its own already.
func fromEnvironment(fs *flag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	fs.VisitAll(func(f *flag.Flag) {
		name := "RPI_CONNECT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := lookup(name); ok {
			if err := fs.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s=%q: %w", name, value, err))
			}
		}
	})
	return errors.Join(errs...)
}

// minLeaseDuration is the shortest for which the active replica still has a few tries.
const minLeaseDuration = 5 * time.Second

// check refuses what cannot be meant. The rest is what follows the flags: Go stops at the first word that
// is none, and every flag behind it would be ignored without a word.
func (o *options) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("what is %q? There are only flags; one that is on or off is written with =, such as --leader-elect=true", rest[0])
	case o.apiReserve < 0 || o.apiReserve > 90:
		return fmt.Errorf("--api-budget-reserve=%d: give a percentage from 0 to 90", o.apiReserve)
	case o.apiQPS <= 0:
		return fmt.Errorf("--api-qps=%g: give a number of requests per second above 0", o.apiQPS)
	case o.resync <= 0:
		return fmt.Errorf("--resync-interval=%s: give a time above 0, such as 10m", o.resync)
	case o.pollMin <= 0 || o.pollMax < o.pollMin:
		return fmt.Errorf("--deployment-poll-min=%s and --deployment-poll-max=%s: give times above 0, the second not below the first", o.pollMin, o.pollMax)
	case o.settleTime <= 0:
		return fmt.Errorf("--post-settle-time=%s: give a time above 0, such as 90s; a request may be carried out long after its connection broke", o.settleTime)
	case o.leaseDuration < minLeaseDuration:
		return fmt.Errorf("--leader-elect-lease-duration=%s: give at least %s; each replica asks the API server several times in it", o.leaseDuration, minLeaseDuration)
	case o.concurrency < 1:
		return fmt.Errorf("--max-concurrent-reconciles=%d: give at least 1", o.concurrency)
	}
	return nil
}

// checkDebug refuses the settings of GODEBUG that make Go's HTTP/2 print every header
// that is sent. It looks for them as net/http does, which takes them anywhere.
func checkDebug(godebug string) error {
	if strings.Contains(godebug, "http2debug=1") || strings.Contains(godebug, "http2debug=2") {
		return errors.New("GODEBUG has http2debug: it prints the Authorization header, and with it the access token, which is as good as an administrator's password. Take it out")
	}
	return nil
}

func run(ctx context.Context, o options) error {
	api, err := newAPI(o)
	if err != nil {
		return err
	}
	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	err = controller.SetupWithManager(mgr, controller.Options{
		API:                     api,
		ResyncInterval:          o.resync,
		DeploymentPollMin:       o.pollMin,
		DeploymentPollMax:       o.pollMax,
		PostSettleTime:          o.settleTime,
		MaxConcurrentReconciles: o.concurrency,
	})
	if err != nil {
		return err
	}
	ctrl.Log.Info("rpi-connect-operator", "version", version, "connectAPI", o.connectAPIURL)
	return mgr.Start(ctx)
}

// newAPI opens the way to Connect. The address is the operator's, never a
// resource's: otherwise a resource could send the token anywhere.
func newAPI(o options) (*connectclient.API, error) {
	var transport http.RoundTripper
	if o.connectCAFile != "" {
		pem, err := os.ReadFile(o.connectCAFile)
		if err != nil {
			return nil, fmt.Errorf("--connect-ca-file: %w", err)
		}
		if transport, err = connectclient.NewTransport(pem); err != nil {
			return nil, fmt.Errorf("--connect-ca-file %s: %w", o.connectCAFile, err)
		}
	}
	return connectclient.New(connectclient.Options{
		BaseURL:        o.connectAPIURL,
		UserAgent:      "rpi-connect-operator/" + version,
		Transport:      transport,
		QPS:            o.apiQPS,
		ReservePercent: reserve(o.apiReserve),
		Observe:        metrics.Observe,
		Logger:         slog.New(perResource{logr.ToSlogHandler(ctrl.Log.WithName("connect"))}),
	})
}

// perResource logs with the logger of the context, where there is one: that of a reconcile names the
// resource. What slog calls debug is what --zap-log-level=debug shows.
type perResource struct{ slog.Handler }

// levelDebug is V(1) of logr.
const levelDebug = slog.Level(-1)

// Enabled implements [slog.Handler].
func (h perResource) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, max(level, levelDebug))
}

// Handle implements [slog.Handler].
func (h perResource) Handle(ctx context.Context, record slog.Record) error {
	record.Level = max(record.Level, levelDebug)
	if logger, err := logr.FromContext(ctx); err == nil {
		return logr.ToSlogHandler(logger.WithName("connect")).Handle(ctx, record)
	}
	return h.Handler.Handle(ctx, record)
}

// reserve is the client's word for the flag: there, 0 stands for the default.
func reserve(percent int) int {
	if percent == 0 {
		return -1
	}
	return percent
}

func newManager(o options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))

	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("there is no way to the API server (outside of a cluster, --kubeconfig or KUBECONFIG names one): %w", err)
	}
	// The API server's own fairness paces the operator; a second limit here
	// would only make a large apply slow.
	config.QPS = -1

	metricsOptions := metricsserver.Options{BindAddress: o.metricsAddress, SecureServing: o.metricsSecure}
	if o.metricsSecure {
		metricsOptions.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         informers.CacheOptions(o.watchNamespace),
		Metrics:                       metricsOptions,
		HealthProbeBindAddress:        o.probeAddress,
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              "rpi-connect-operator",
		LeaderElectionNamespace:       leaseNamespace(o),
		LeaseDuration:                 new(o.leaseDuration),
		RenewDeadline:                 new(o.leaseDuration * 2 / 3),
		LeaderElectionReleaseOnCancel: true, // main ends as soon as the manager has stopped
	})
	if err != nil {
		return nil, err
	}
	resources := &metrics.Resources{Version: version, Reader: mgr.GetCache(), Scheme: scheme, Elected: mgr.Elected()}
	return mgr, errors.Join(
		ctrlmetrics.Registry.Register(resources),
		mgr.AddHealthzCheck("healthz", healthz.Ping),
		mgr.AddReadyzCheck("caches", inSync(mgr.GetCache())),
	)
}

// inSync is ready once the caches show what the API server has. Whether Connect answers is no reason to
// take the operator down: the resources say so.
func inSync(caches cache.Informers) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), time.Second)
		defer cancel()
		if !caches.WaitForCacheSync(ctx) {
			return errors.New("the caches are not in sync with the API server yet")
		}
		return nil
	}
}

// defaultNamespace is where config/default puts the operator.
const defaultNamespace = "rpi-connect-system"

// leaseNamespace is where replicas tell who is active; empty stands for the pod's
// own namespace.
func leaseNamespace(o options) string {
	if o.leaseNamespace != "" {
		return o.leaseNamespace
	}
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil {
		return ""
	}
	return defaultNamespace
}
