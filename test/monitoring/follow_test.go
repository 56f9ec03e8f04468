// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/test/cluster"
)

// entry is a line of the log.
type entry struct {
	Level       string `json:"level"`
	Logger      string `json:"logger"`
	Message     string `json:"msg"`
	Kind        string `json:"controllerKind"`
	Namespace   string `json:"namespace"`
	Name        string `json:"name"`
	ReconcileID string `json:"reconcileID"`

	Operation string `json:"operation"` // of a call
	Status    int    `json:"status"`    // of a call
	Reason    string `json:"reason"`    // of an event, and of Ready
	Child     string `json:"child"`     // of a rollout
}

// logged are the lines about one resource.
func logged(kind, namespace, name string) (found []entry) {
	GinkgoHelper()
	for line := range strings.Lines(manager.Log()) {
		var e entry
		Expect(json.Unmarshal([]byte(line), &e)).To(Succeed(), line)
		if e.Kind == kind && e.Namespace == namespace && e.Name == name {
			found = append(found, e)
		}
	}
	return found
}

func reasons(entries []entry, message string) (all []string) {
	for _, e := range entries {
		if e.Message == message {
			all = append(all, e.Reason)
		}
	}
	return slices.Compact(all)
}

// told are the reasons of the events about a resource, in the order of their times.
func told(ctx context.Context, kind, namespace, name string) (all []string) {
	GinkgoHelper()
	var list eventsv1.EventList
	Expect(control.Client.List(ctx, &list, client.InNamespace(namespace))).To(Succeed())
	slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	for _, e := range list.Items {
		if e.Regarding.Kind == kind && e.Regarding.Name == name {
			all = append(all, e.Reason)
		}
	}
	return all
}

var _ = Describe("Somebody who follows one resource", func() {
	// Every pass has lines that its reconcileID joins, and ends with one that says how.
	passesEnd := func(entries []entry) {
		GinkgoHelper()
		last := map[string]string{}
		for _, e := range entries {
			Expect(e.ReconcileID).NotTo(BeEmpty(), "%+v", e)
			last[e.ReconcileID] = e.Message
		}
		Expect(last).NotTo(BeEmpty())
		for id, message := range last {
			Expect(message).To(HavePrefix("Reconciled"), id)
		}
	}

	It("sees in the log what a Deployment has asked of Connect, and what came of it", func(ctx context.Context) {
		entries := logged("Deployment", "default", "kiosk-lobby-v1.0")
		passesEnd(entries)
		Expect(told(ctx, "Deployment", "default", "kiosk-lobby-v1.0")).To(Equal(reasons(entries, "Event")))
		made := slices.IndexFunc(entries, func(e entry) bool { return e.Operation == "create deployment" })
		Expect(made).To(BeNumerically(">=", 0))
		Expect(entries[made]).To(And(HaveField("Level", "debug"), HaveField("Logger", "connect"), HaveField("Status", http.StatusCreated)))
		created := slices.IndexFunc(entries, func(e entry) bool { return e.Message == "Event" })
		Expect(entries[created]).To(And(HaveField("Reason", v1alpha1.EventCreated), HaveField("ReconcileID", entries[made].ReconcileID)))
		Expect(created).To(BeNumerically(">", made))
		ends := reasons(entries, "Reconciled")
		Expect(ends[len(ends)-1]).To(Equal(v1alpha1.ReasonSucceeded))
	})

	It("sees in the log what a FleetRollout does, and finds its Deployments", func(ctx context.Context) {
		entries := logged("FleetRollout", "default", "screens")
		passesEnd(entries)
		Expect(told(ctx, "FleetRollout", "default", "screens")).To(Equal(reasons(entries, "Event")))
		Expect(reasons(entries, "Event")).To(Equal([]string{v1alpha1.EventRevisionBegun, v1alpha1.EventBatchBegun, v1alpha1.ReasonFailuresExceeded}))
		var made []string
		for _, e := range entries {
			if e.Message == "Making a Deployment" {
				made = append(made, e.Child)
			}
		}
		Expect(made).To(HaveLen(1))
		child := logged("Deployment", "default", made[0])
		passesEnd(child)
		Expect(reasons(child, "Reconciled")).To(ContainElement(v1alpha1.ReasonFailed))
	})

	It("sees in the events what docs/monitoring.md shows", func(ctx context.Context) {
		kubeconfig := filepath.Join(GinkgoT().TempDir(), "kubeconfig")
		Expect(cluster.WriteKubeconfig(kubeconfig, control.Config, "default")).To(Succeed())
		shown := regexp.MustCompile(`(?m)^\$ kubectl (events --for \S+)\n((?:\w.+\n)+)`).FindAllStringSubmatch(read(GinkgoTB(), "docs/monitoring.md"), -1)
		Expect(shown).To(HaveLen(2))
		for _, one := range shown {
			out, err := exec.CommandContext(ctx, control.Kubectl(), append([]string{"--kubeconfig=" + kubeconfig}, strings.Fields(one[1])...)...).CombinedOutput()
			Expect(err).NotTo(HaveOccurred(), string(out))
			Expect(column(string(out), 2)).To(Equal(column(one[2], 2)), string(out))
		}
	})

	It("sees in the log what docs/monitoring.md shows", func(ctx context.Context) {
		if _, err := exec.LookPath("jq"); err != nil {
			Skip("there is no jq")
		}
		page := read(GinkgoTB(), "docs/monitoring.md")
		program := regexp.MustCompile(`(?s)jq -r --arg kind .*? '(.*?)'`).FindStringSubmatch(page)
		shown := regexp.MustCompile(`(?m)^\$ follow (\S+) (\S+) (\S+)\n((?:.+\n)+?)`+"```").FindAllStringSubmatch(page, -1)
		Expect(program).NotTo(BeNil())
		Expect(shown).To(HaveLen(2))
		for _, one := range shown {
			jq := exec.CommandContext(ctx, "jq", "-r", "--arg", "kind", one[1], "--arg", "namespace", one[2], "--arg", "name", one[3], program[1])
			jq.Stdin = strings.NewReader(manager.Log())
			out, err := jq.Output()
			Expect(err).NotTo(HaveOccurred())
			lines := steps(string(out))
			for _, step := range steps(one[4]) {
				at := slices.Index(lines, step)
				Expect(at).To(BeNumerically(">=", 0), "%q does not come in its turn in\n%s", step, out)
				lines = lines[at+1:]
			}
		}
	})
})

// column is one of a table of kubectl's, without the head; what is the same several times is there once.
func column(table string, n int) (cells []string) {
	for line := range strings.Lines(table) {
		cells = append(cells, strings.Fields(line)[n])
	}
	return slices.Compact(cells[1:])
}

// steps are the lines without their times and ids, which are different each time, and without what is said
// in the end: what happened, and to what.
func steps(text string) (all []string) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), "  ")
		what := strings.Join(fields[2:min(4, len(fields))], ": ")
		all = append(all, regexp.MustCompile(`screens-1-[a-z0-9]+-1`).ReplaceAllString(what, "screens-1-…-1"))
	}
	return all
}
