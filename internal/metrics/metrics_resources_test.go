// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/metrics"
	"rpi-connect.dev/operator/test/cluster"
)

func ready(status metav1.ConditionStatus, reason string) []metav1.Condition {
	return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: status, Reason: reason}}
}

func key(name string, renewal v1alpha1.Renewal, reason string, age, left time.Duration) *v1alpha1.AuthKey {
	created, expires := metav1.NewTime(time.Now().Add(-age)), metav1.NewTime(time.Now().Add(left))
	k := &v1alpha1.AuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: name}, Spec: v1alpha1.AuthKeySpec{Renewal: renewal}}
	k.Status.Conditions = ready(metav1.ConditionTrue, reason)
	k.Status.CreatedAt, k.Status.ExpiresAt = &created, &expires
	return k
}

// resources counts the objects, on the replica that works, or on one that waits.
func resources(t *testing.T, elected bool, objects ...client.Object) *metrics.Resources {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	works := make(chan struct{})
	if elected {
		close(works)
	}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	return &metrics.Resources{Version: "v1.2.3", Reader: reader, Scheme: scheme, Elected: works}
}

func expect(t *testing.T, counted *metrics.Resources, want string) {
	t.Helper()
	if err := testutil.CollectAndCompare(counted, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

const version = `# HELP rpi_connect_info 1; the label says which version runs.
# TYPE rpi_connect_info gauge
rpi_connect_info{version="v1.2.3"} 1
`

// kindsSay is how many resources there are, with those named.
func kindsSay(there map[string]int) string {
	text := "# HELP rpi_connect_resources Resources, by kind; 0 where there is none.\n# TYPE rpi_connect_resources gauge\n"
	for _, kind := range cluster.Kinds() {
		text += fmt.Sprintf("rpi_connect_resources{kind=%q} %d\n", kind, there[kind])
	}
	return text
}

func expiringSay(n int) string {
	return fmt.Sprintf(`# HELP rpi_connect_auth_keys_expiring_unused AuthKeys that no device has used, that nothing renews, and that have less than a tenth of their lifetime left.
# TYPE rpi_connect_auth_keys_expiring_unused gauge
rpi_connect_auth_keys_expiring_unused %d
`, n)
}

const conditionsHead = `# HELP rpi_connect_resource_conditions Resources that have a condition, by kind, and the condition's type, status and reason.
# TYPE rpi_connect_resource_conditions gauge
`

func TestResourcesAreCountedByReasonHoweverManyThereAre(t *testing.T) {
	var objects []client.Object
	for i := range 300 {
		a := &v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: fmt.Sprintf("kiosk-%d", i)}}
		a.Status.Conditions = ready(metav1.ConditionTrue, v1alpha1.ReasonAvailable)
		objects = append(objects, a)
	}
	failed := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: "lobby"}}
	failed.Status.Conditions = ready(metav1.ConditionFalse, v1alpha1.ReasonFailed)
	unseen := &v1alpha1.Device{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: "lobby"}}
	expect(t, resources(t, true, append(objects, failed, unseen)...), conditionsHead+
		`rpi_connect_resource_conditions{kind="Artefact",reason="Available",status="True",type="Ready"} 300
rpi_connect_resource_conditions{kind="Deployment",reason="Failed",status="False",type="Ready"} 1
`+expiringSay(0)+kindsSay(map[string]int{"Artefact": 300, "Deployment": 1, "Device": 1})+version)
}

func TestAReplicaThatWaitsCountsNothing(t *testing.T) {
	a := &v1alpha1.Artefact{ObjectMeta: metav1.ObjectMeta{Namespace: "shops", Name: "kiosk"}}
	a.Status.Conditions = ready(metav1.ConditionTrue, v1alpha1.ReasonAvailable)
	expect(t, resources(t, false, a), version)
}

func TestAKeyIsAboutToExpireUnused(t *testing.T) {
	const hour = time.Hour
	expect(t, resources(t, true,
		key("soon", v1alpha1.RenewalNever, v1alpha1.ReasonUsable, 23*hour, hour),
		key("later", v1alpha1.RenewalNever, v1alpha1.ReasonUsable, 20*hour, 4*hour),
		key("renewed", v1alpha1.RenewalBeforeExpiry, v1alpha1.ReasonUsable, 23*hour, hour),
		key("used", v1alpha1.RenewalNever, v1alpha1.ReasonExchanged, 23*hour, hour),
	), conditionsHead+
		`rpi_connect_resource_conditions{kind="AuthKey",reason="Exchanged",status="True",type="Ready"} 1
rpi_connect_resource_conditions{kind="AuthKey",reason="Usable",status="True",type="Ready"} 3
`+expiringSay(1)+kindsSay(map[string]int{"AuthKey": 4})+version)
}
