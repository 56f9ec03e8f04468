// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// Cache indexes of Deployments.
const (
	indexArtefact = "spec.artefactRef.name" // of those that wait for it
	indexDevice   = "status.deviceID"       // of those that run there
	indexTarget   = "rpi-connect.dev/target"
)

func byArtefact(obj *v1alpha1.Deployment) []string {
	// One that was restored from a backup is compared with its Artefact, too.
	if record := lifecycle.RecordOf(obj); obj.Spec.ArtefactRef == nil || record.Own() && !record.Restored {
		return nil
	}
	return []string{obj.Spec.ArtefactRef.Name}
}

func byDevice(obj *v1alpha1.Deployment) []string {
	if obj.Status.DeviceID == "" || obj.Status.State == "" || obj.Status.Outcome != "" {
		return nil
	}
	return []string{obj.Status.DeviceID}
}

// byTarget names the devices to which a request of the Deployment may have deployed, whose answer
// was lost.
func byTarget(obj *v1alpha1.Deployment) []string {
	if lifecycle.RecordOf(obj).Own() {
		return nil
	}
	var targets []string
	for _, intent := range lifecycle.SentIntents(obj) {
		if device := parseNote(intent.Note).Device; device != "" {
			targets = append(targets, device)
		}
	}
	return targets
}

// target is the artefact that is deployed.
type target struct {
	id         string
	gone       bool // there is no such Artefact
	compatible *v1alpha1.Compatibility
}

// resolve finds the artefact and the device that the spec means, or says what is missing.
func (e *external) resolve(ctx context.Context) (*lifecycle.Outcome, error) {
	if missing, err := e.findArtefact(ctx); err != nil || missing != nil {
		return missing, err
	}
	if missing, err := e.findDevice(); err != nil || missing != nil {
		return missing, err
	}
	status := &e.obj.Status
	status.ArtefactID, status.DeviceID, status.DeviceName = e.artefact.id, e.device.ID, lifecycle.Text(e.device.Name)
	return nil, nil
}

// unresolved is the observation of a Deployment that waits for something; the zero one if it does
// not.
func unresolved(waits *lifecycle.Outcome) lifecycle.Observation {
	if waits == nil {
		return lifecycle.Observation{}
	}
	return lifecycle.NotKnown(*waits)
}

func waiting(reason, format string, args ...any) *lifecycle.Outcome {
	outcome := lifecycle.Waiting(reason, format, args...)
	return &outcome
}

func (e *external) findArtefact(ctx context.Context) (*lifecycle.Outcome, error) {
	ref := e.obj.Spec.ArtefactRef
	if ref == nil {
		e.artefact.id = e.obj.Spec.ArtefactID
		return nil, nil
	}
	var artefact v1alpha1.Artefact
	err := e.client.Get(ctx, types.NamespacedName{Namespace: e.obj.Namespace, Name: ref.Name}, &artefact)
	switch {
	case apierrors.IsNotFound(err):
		e.artefact.gone = true
		return waiting(v1alpha1.ReasonArtefactNotReady, "Waiting for the Artefact %q to be created.", ref.Name), nil
	case err != nil:
		return nil, err
	case !artefact.DeletionTimestamp.IsZero():
		return waiting(v1alpha1.ReasonArtefactNotReady, "The Artefact %q is being deleted: waiting for it to be created anew.", ref.Name), nil
	}
	if e.artefact.id = deployable(&artefact); e.artefact.id == "" {
		return waiting(v1alpha1.ReasonArtefactNotReady, "Waiting for the Artefact %q to be ready.", ref.Name), nil
	}
	e.artefact.compatible = artefact.Spec.CompatibleWith
	return nil, nil
}

// deployable is the id of an artefact that can be deployed; empty while it cannot.
func deployable(artefact *v1alpha1.Artefact) string {
	if !artefact.DeletionTimestamp.IsZero() || !meta.IsStatusConditionTrue(artefact.Status.Conditions, v1alpha1.ConditionReady) {
		return ""
	}
	return artefact.Status.ID
}

// waitingFor returns the Deployments that wait for an Artefact.
func (c *controller) waitingFor(ctx context.Context, artefact client.Object) []reconcile.Request {
	var list v1alpha1.DeploymentList
	if err := c.client.List(ctx, &list, client.InNamespace(artefact.GetNamespace()), client.MatchingFields{indexArtefact: artefact.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "list Deployments from the cache")
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = client.ObjectKeyFromObject(&list.Items[i])
	}
	return requests
}

// artefactPredicates let an Artefact wake its Deployments when it becomes deployable, or ceases to
// be, or fits other devices.
func artefactPredicates() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		was, isArtefact := e.ObjectOld.(*v1alpha1.Artefact)
		is, isArtefactToo := e.ObjectNew.(*v1alpha1.Artefact)
		return isArtefact && isArtefactToo && (deployable(was) != deployable(is) || was.Generation != is.Generation)
	}}
}

// findDevice finds the one device that the spec means, in a listing that is shared by all who ask
// the same. An id is believed until it has turned out that there is no such device; then it is
// waited for like a name. Names move from one device to another; an id never does, and neither does
// what the device is made of.
func (e *external) findDevice() (*lifecycle.Outcome, error) {
	wanted := e.obj.Spec.Device
	if wanted.ID != "" && !e.missing.is(e.conn.Waiter.Resource) {
		listed, known := e.devices.Known(e.conn.Token, wanted.ID)
		if known || e.artefact.compatible == nil {
			e.device = listed // its name, if a listing has shown it
			e.device.ID = wanted.ID
			return nil, nil
		}
	}
	matches, err := e.devices.Find(e.conn.Token, wanted, e.conn.NotBefore, e.conn.Waiter)
	if err != nil {
		return nil, lifecycle.FromListing(err)
	}
	switch len(matches) {
	case 0:
		return e.noDevice(), nil
	case 1:
		e.device = matches[0]
		return nil, nil
	default:
		ambiguous := lifecycle.Stalled(v1alpha1.ReasonDeviceAmbiguous, "%d devices match %s: make spec.device match one only, by its id for example.", len(matches), describe(wanted)).WithListing()
		return &ambiguous, nil
	}
}

func (e *external) noDevice() *lifecycle.Outcome {
	outcome := lifecycle.Waiting(v1alpha1.ReasonDeviceNotFound, "Waiting for a device with %s to sign in.", describe(e.obj.Spec.Device)).WithListing()
	return &outcome
}

// deviceGone is for a device that Connect does not know, although its id was given or a listing
// shows it: it is looked for in the listings, and asked about ever less often.
func (e *external) deviceGone() (lifecycle.Observation, error) {
	e.missing.add(e.conn.Waiter.Resource)
	if _, err := e.devices.Find(e.conn.Token, e.obj.Spec.Device, e.conn.NotBefore, e.conn.Waiter); err != nil && !lifecycle.IsTransient(err) {
		return lifecycle.Observation{}, lifecycle.FromListing(err)
	}
	return lifecycle.NotKnown(e.noDevice().WithBackoff()), nil
}

func describe(wanted v1alpha1.DeviceReference) string {
	switch {
	case wanted.Name != "":
		return fmt.Sprintf("the name %q", wanted.Name)
	case wanted.SerialNumber != "":
		return fmt.Sprintf("the serial number %q", wanted.SerialNumber)
	case wanted.Query != "":
		return fmt.Sprintf("the query %q", wanted.Query)
	default:
		return fmt.Sprintf("the id %q", wanted.ID)
	}
}

// incompatible tells why the artefact does not fit the device, if it says what it fits.
func (e *external) incompatible() *lifecycle.Outcome {
	if e.artefact.compatible == nil || e.obj.Spec.Force {
		return nil
	}
	why := devices.Misfit(*e.artefact.compatible, e.device.Filters)
	if why == "" {
		return nil
	}
	outcome := lifecycle.Stalled(v1alpha1.ReasonIncompatible,
		"The artefact does not fit the device: %s. Nothing was sent; to deploy it all the same, create a Deployment with spec.force: true.", why)
	return &outcome
}

// missing remembers which Deployments name a device by an id that Connect does not know.
type missing struct {
	mu  sync.Mutex
	set map[types.NamespacedName]bool
}

func newMissing() *missing { return &missing{set: map[types.NamespacedName]bool{}} }

func (m *missing) add(resource types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.set[resource] = true
}

func (m *missing) found(resource types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.set, resource)
}

func (m *missing) is(resource types.NamespacedName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.set[resource]
}
