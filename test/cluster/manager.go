// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Manager is the operator as a process, under its own ServiceAccount.
type Manager struct {
	// MetricsURL serves its metrics, without authentication.
	MetricsURL string
	// ProbesURL is where its probes are, without a path.
	ProbesURL string

	command *exec.Cmd
	log     *logFile
	exited  chan struct{}
}

// BuildManager builds the operator's binary into the folder and returns its path.
func BuildManager(ctx context.Context, folder string) (string, error) {
	path := filepath.Join(folder, "manager")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, ".")
	build.Dir = Root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the operator: %w\n%s", err, out)
	}
	return path, nil
}

// StartManager starts the operator's binary with the flags given; where its API
// and metrics are it is told here. It is ready when WaitReady returns.
func (c *Cluster) StartManager(ctx context.Context, binary string, flags ...string) (*Manager, error) {
	return c.StartManagerAs(ctx, OperatorServiceAccount, binary, flags...)
}

// StartManagerAs starts it under another ServiceAccount of its namespace.
func (c *Cluster) StartManagerAs(ctx context.Context, account, binary string, flags ...string) (*Manager, error) {
	config, err := c.accountConfig(ctx, account)
	if err != nil {
		return nil, err
	}
	kubeconfig := c.path("operator.kubeconfig")
	if err := WriteKubeconfig(kubeconfig, config, metav1.NamespaceDefault); err != nil {
		return nil, err
	}
	metrics, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	probes, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	m := &Manager{MetricsURL: "http://" + metrics + "/metrics", ProbesURL: "http://" + probes, log: &logFile{}, exited: make(chan struct{})}
	m.command = exec.Command(binary, append([]string{
		"--kubeconfig=" + kubeconfig,
		"--metrics-bind-address=" + metrics, "--metrics-secure=false",
		"--health-probe-bind-address=" + probes,
	}, flags...)...)
	m.command.Stdout, m.command.Stderr = m.log, m.log
	endWithParent(m.command)
	if err := m.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = m.command.Wait()
		close(m.exited)
	}()
	return m, nil
}

// WaitReady waits until the operator says that it is ready.
func (m *Manager) WaitReady(ctx context.Context) error {
	for {
		if _, err := get(ctx, m.ProbesURL+"/readyz"); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.exited:
			return fmt.Errorf("the operator has ended:\n%s", m.Log())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Probe asks one of the operator's probes, /healthz or /readyz, as the kubelet does: 200 is well.
func (m *Manager) Probe(ctx context.Context, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ProbesURL+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// Kill ends the operator at once, whatever it is doing (SIGKILL).
func (m *Manager) Kill() {
	_ = m.command.Process.Kill()
	<-m.exited
}

// Dump ends the operator and has it print what each of its goroutines is doing (SIGQUIT).
func (m *Manager) Dump() {
	_ = m.command.Process.Signal(syscall.SIGQUIT)
	<-m.exited
}

// Stop asks the operator to end and waits until it has.
func (m *Manager) Stop() {
	_ = m.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(30 * time.Second):
		m.Kill()
	}
}

// Exited is closed when the operator has ended.
func (m *Manager) Exited() <-chan struct{} { return m.exited }

// Log is what the operator has printed so far.
func (m *Manager) Log() string { return m.log.String() }

// CopyLog writes to w what the operator has printed so far, and from now on.
func (m *Manager) CopyLog(w io.Writer) error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.log.copy = w
	_, err := w.Write(m.log.text.Bytes())
	return err
}

// ResidentBytes is the memory that the operator holds now, as Linux counts it.
func (m *Manager) ResidentBytes() (int64, error) { return ResidentBytes(m.command.Process.Pid) }

// ResidentBytes is the memory that a process holds now, as Linux counts it.
func ResidentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib * 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// Metrics returns the operator's metrics as they are served.
func (m *Manager) Metrics(ctx context.Context) (string, error) { return get(ctx, m.MetricsURL) }

// Metric sums up the samples of a metric whose labels contain all of those given,
// such as `controller="artefact"`.
func (m *Manager) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	text, err := m.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
next:
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(line, label) {
				continue next
			}
		}
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return sum, nil
}

// SecureMetrics asks for the metrics of an operator with --metrics-secure, with a token of the cluster
// or without one. Its certificate is of its own making.
func (m *Manager) SecureMetrics(ctx context.Context, token string) (status int, body string, err error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.Replace(m.MetricsURL, "http://", "https://", 1), nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, res.Status)
	}
	return string(body), err
}

// Ports from here on are below those that the kernel hands out, so that nobody is given one between its
// choice and its use.
const (
	firstPort = 20000
	ports     = 12000
)

// nextPort begins elsewhere in every process.
var nextPort atomic.Int64

func init() { nextPort.Store(int64(os.Getpid()) * 1009) }

// FreeAddress returns an address at which nobody listens.
func FreeAddress() (string, error) {
	var errs []error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", firstPort+nextPort.Add(1)%ports)
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return address, listener.Close()
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// logFile keeps what a process prints, and copies it to a writer if there is one.
type logFile struct {
	mu   sync.Mutex
	text bytes.Buffer
	copy io.Writer
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copy != nil {
		_, _ = l.copy.Write(p)
	}
	return l.text.Write(p)
}

func (l *logFile) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
