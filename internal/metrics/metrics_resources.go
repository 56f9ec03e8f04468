// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"rpi-connect.dev/operator/api/v1alpha1"
)

var (
	resources = prometheus.NewDesc("rpi_connect_resources", "Resources, by kind; 0 where there is none.", []string{"kind"}, nil)

	conditions = prometheus.NewDesc("rpi_connect_resource_conditions",
		"Resources that have a condition, by kind, and the condition's type, status and reason.",
		[]string{"kind", "type", "status", "reason"}, nil)

	expiring = prometheus.NewDesc("rpi_connect_auth_keys_expiring_unused",
		"AuthKeys that no device has used, that nothing renews, and that have less than a tenth of their lifetime left.",
		nil, nil)

	info = prometheus.NewDesc("rpi_connect_info", "1; the label says which version runs.", []string{"version"}, nil)
)

// Resources counts the resources of every kind when somebody asks, from the manager's cache: nothing is
// kept from one scrape to the next, so nothing can be left behind, and a reconcile costs nothing more.
// Its series are as many as there are reasons, however many resources there are.
type Resources struct {
	// Version is the program's.
	Version string
	// Reader is the manager's cache.
	Reader client.Reader
	// Scheme knows the kinds.
	Scheme *runtime.Scheme
	// Elected is closed when this replica is the one that works. The others count nothing:
	// everything would be counted twice, and they keep no resources in memory.
	Elected <-chan struct{}
}

// scrapeTimeout bounds the wait for a cache that has not been filled yet. Prometheus gives a scrape ten
// seconds.
const scrapeTimeout = 5 * time.Second

// Describe implements [prometheus.Collector].
func (r *Resources) Describe(descs chan<- *prometheus.Desc) {
	descs <- resources
	descs <- conditions
	descs <- expiring
	descs <- info
}

// Collect implements [prometheus.Collector].
func (r *Resources) Collect(series chan<- prometheus.Metric) {
	series <- prometheus.MustNewConstMetric(info, prometheus.GaugeValue, 1, r.Version)
	select {
	case <-r.Elected:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	for name := range r.Scheme.KnownTypes(v1alpha1.GroupVersion) {
		kind, isList := strings.CutSuffix(name, "List")
		if !isList {
			continue // of the API machinery, or a single resource
		}
		if err := r.collect(ctx, kind, series); err != nil {
			// An invalid metric would fail the whole scrape.
			log.Log.WithName("metrics").Error(err, "count resources", "kind", kind)
		}
	}
}

// counted is what resources are counted by.
type counted struct{ kind, condition, status, reason string }

func (r *Resources) collect(ctx context.Context, kind string, series chan<- prometheus.Metric) error {
	empty, err := r.Scheme.New(v1alpha1.GroupVersion.WithKind(kind + "List"))
	if err != nil {
		return err
	}
	list, ok := empty.(client.ObjectList)
	if !ok {
		return nil
	}
	// The objects are the cache's own: they are read, and not copied.
	if err := r.Reader.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	counts := map[counted]int{}
	err = meta.EachListItem(list, func(object runtime.Object) error {
		for _, c := range conditionsOf(object) {
			counts[counted{kind, c.Type, string(c.Status), c.Reason}]++
		}
		return nil
	})
	series <- prometheus.MustNewConstMetric(resources, prometheus.GaugeValue, float64(meta.LenList(list)), kind)
	for by, n := range counts {
		series <- prometheus.MustNewConstMetric(conditions, prometheus.GaugeValue, float64(n), by.kind, by.condition, by.status, by.reason)
	}
	if keys, ok := list.(*v1alpha1.AuthKeyList); ok {
		series <- prometheus.MustNewConstMetric(expiring, prometheus.GaugeValue, float64(expiringUnused(keys.Items, time.Now())))
	}
	return err
}

// conditionsOf are those of any kind.
func conditionsOf(object runtime.Object) []metav1.Condition {
	resource, ok := object.(interface {
		GetCommonStatus() *v1alpha1.CommonStatus
	})
	if !ok {
		return nil
	}
	return resource.GetCommonStatus().Conditions
}

func expiringUnused(keys []v1alpha1.AuthKey, now time.Time) (n int) {
	for i := range keys {
		spec, status := &keys[i].Spec, &keys[i].Status
		usable := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
		if usable == nil || usable.Reason != v1alpha1.ReasonUsable || spec.Renewal != v1alpha1.RenewalNever || status.CreatedAt == nil || status.ExpiresAt == nil {
			continue
		}
		if left := status.ExpiresAt.Sub(now); left > 0 && left < status.ExpiresAt.Sub(status.CreatedAt.Time)/10 {
			n++
		}
	}
	return n
}
