// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// state is where a device is, or where one of its Deployments is.
type state int

const (
	waiting      state = iota // has not begun, or has to begin again
	pending                   // not picked up yet
	inProgress                // installing
	deferred                  // not picked up in time; stays queued
	succeeded                 // runs the artefact
	failed                    // after its retries
	overridden                // got another deployment, or somebody cancelled it
	incompatible              // the artefact is not made for it
	withdrawn                 // cancelled by the rollout itself: as if it had never been
)

// active tells whether a device in this state takes up one of spec.maxConcurrent.
func (s state) active() bool { return s == pending || s == inProgress }

// ended tells whether nothing more is expected of a device in this state.
func (s state) ended() bool {
	return s == succeeded || s == failed || s == overridden || s == incompatible
}

// child is a Deployment of the rollout, as the policies see it.
type child struct {
	obj      *v1alpha1.Deployment // the cache's own: nobody may change it
	device   string               // its id
	revision int64
	batch    string
	attempt  int
	state    state
	since    time.Time // when it came to an end, or began to wait for its device
	mirrored bool      // another Deployment delivers the same artefact to the same device
	by       string    // who has overridden it
}

// rollback tells whether the child brings its device back to the artefact before.
func (c *child) rollback() bool { return c.batch == v1alpha1.BatchRollback }

// cancelling tells whether the rollout has asked for the child to be cancelled.
func (c *child) cancelling() bool { return c.obj.Spec.Cancel }

// artefact is the name, or the id, of what the child deploys.
func (c *child) artefact() artefactRef { return refOf(c.obj.Spec.ArtefactRef, c.obj.Spec.ArtefactID) }

// deadlines bound how long a device is waited for.
type deadlines struct{ pending, inProgress time.Duration }

// The deadlines where the spec has none.
const (
	defaultPendingDeadline    = time.Hour
	defaultInProgressDeadline = 2 * time.Hour
)

func deadlinesOf(spec *v1alpha1.FleetRolloutSpec) deadlines {
	d := deadlines{defaultPendingDeadline, defaultInProgressDeadline}
	if given := spec.Deadlines; given != nil {
		d.pending = durationOr(given.Pending, d.pending)
		d.inProgress = durationOr(given.InProgress, d.inProgress)
	}
	return d
}

// claimPatience is how long a device is left alone on the word of a Deployment that is not to be found.
const claimPatience = time.Hour

func durationOr(given *metav1.Duration, otherwise time.Duration) time.Duration {
	if given == nil {
		return otherwise
	}
	return given.Duration
}

// neighbour finds another Deployment to the same device that is not one of the rollout's children:
// one of the same artefact if that is wanted, or else the newest one.
type neighbour func(c *v1alpha1.Deployment, sameArtefact bool) *v1alpha1.Deployment

// readChild reads a Deployment of the rollout; false if its labels are not the rollout's.
func readChild(obj *v1alpha1.Deployment, deadlines deadlines, neighbour neighbour, now time.Time) (*child, bool) {
	revision, err := strconv.ParseInt(obj.Labels[v1alpha1.LabelRevision], 10, 64)
	attempt, errToo := strconv.Atoi(obj.Labels[v1alpha1.LabelAttempt])
	if err != nil || errToo != nil || obj.Spec.Device.ID == "" {
		return nil, false
	}
	c := &child{obj: obj, device: obj.Spec.Device.ID, revision: revision, batch: obj.Labels[v1alpha1.LabelBatch], attempt: attempt}
	c.state, c.since = stateOf(obj, deadlines.pending, now)
	switch {
	case stalledBy(obj, v1alpha1.ReasonAlreadyClaimed) && !hasBegun(obj):
		c.mirror(neighbour(obj, true), deadlines.pending, now)
	case c.state == overridden:
		c.by = nameOf(neighbour(obj, false))
	}
	return c, true
}

// mirror takes over the state of the Deployment that already delivers the artefact to the device. When
// that one goes, the device has to begin again, in its turn: until the child is held, it may do so by
// itself.
func (c *child) mirror(other *v1alpha1.Deployment, pendingDeadline time.Duration, now time.Time) {
	c.mirrored = true
	switch {
	case other != nil:
		c.state, c.since = stateOf(other, pendingDeadline, now)
	case now.Before(endOf(c.obj).Add(claimPatience)):
		c.state, c.since = overridden, endOf(c.obj) // by one that cannot be made out, or is about to go
	default:
		c.state = withdrawn
	}
	if c.state == withdrawn && !c.held() {
		c.state, c.since = pending, time.Time{}
	}
}

// hasBegun tells whether a Deployment has asked for a deployment since its status was written.
func hasBegun(obj *v1alpha1.Deployment) bool {
	return len(lifecycle.SentIntents(obj)) > 0 || obj.Annotations[v1alpha1.AnnotationID] != "" && obj.Status.ID == ""
}

// held tells whether the rollout keeps the child from beginning.
func (c *child) held() bool { return c.obj.Annotations[v1alpha1.AnnotationWithdrawn] == "true" }

// waitsForAnother tells whether the child stands for a Deployment of somebody else that its device has
// not picked up, and may never.
func (c *child) waitsForAnother() bool {
	return c.mirrored && c.held() && (c.state == pending || c.state == deferred)
}

func nameOf(obj *v1alpha1.Deployment) string {
	switch {
	case obj == nil:
		return "somebody in Connect"
	case obj.Labels[v1alpha1.LabelRollout] != "":
		return "the FleetRollout " + obj.Labels[v1alpha1.LabelRollout]
	default:
		return "the Deployment " + obj.Name
	}
}

// stateOf reads where a Deployment is, and since when: when it came to an end, or began to wait for
// its device.
func stateOf(obj *v1alpha1.Deployment, pendingDeadline time.Duration, now time.Time) (state, time.Time) {
	switch obj.Status.Outcome {
	case v1alpha1.DeploymentSucceeded:
		return succeeded, endOf(obj)
	case v1alpha1.DeploymentFailed, v1alpha1.DeploymentDeadlineExceeded:
		return failed, endOf(obj)
	case v1alpha1.DeploymentSuperseded:
		return overridden, endOf(obj)
	case v1alpha1.DeploymentCancelled:
		if withdrawnByUs(obj) {
			return withdrawn, endOf(obj)
		}
		return overridden, endOf(obj)
	}
	switch {
	case withdrawnByUs(obj) && stalledBy(obj, v1alpha1.ReasonCancelled):
		return withdrawn, endOf(obj) // it was never made
	case stalledBy(obj, v1alpha1.ReasonCancelled):
		return overridden, endOf(obj)
	case stalledBy(obj, v1alpha1.ReasonIncompatible):
		return incompatible, endOf(obj)
	case stalledBy(obj, v1alpha1.ReasonNotFound), stalledBy(obj, v1alpha1.ReasonConflict), stalledBy(obj, v1alpha1.ReasonInvalid):
		return failed, endOf(obj)
	}
	switch connectclient.DeploymentState(obj.Status.State) {
	case connectclient.DeploymentInProgress:
		return inProgress, obj.CreationTimestamp.Time
	case connectclient.DeploymentPending:
		since := pendingSince(obj, now)
		if !now.Before(since.Add(pendingDeadline)) && !withdrawnByUs(obj) {
			return deferred, since
		}
		return pending, since
	default:
		return pending, time.Time{} // it waits to be made
	}
}

// pendingSince is when the deployment began to wait for its device: when it was made, or when the
// resource was that took it over.
func pendingSince(obj *v1alpha1.Deployment, now time.Time) time.Time {
	since := obj.CreationTimestamp.Time
	if made := obj.Status.CreatedAt; made != nil && made.After(since) && !made.After(now) {
		since = made.Time
	}
	return since
}

func withdrawnByUs(obj *v1alpha1.Deployment) bool {
	return obj.Spec.Cancel && obj.Annotations[v1alpha1.AnnotationWithdrawn] == "true"
}

// stalledBy tells whether a Deployment is stalled for the reason, by the spec that it has.
func stalledBy(obj *v1alpha1.Deployment, reason string) bool {
	ready := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status == metav1.ConditionFalse && ready.Reason == reason && ready.ObservedGeneration == obj.Generation
}

// endOf is when a Deployment was seen to have ended.
func endOf(obj *v1alpha1.Deployment) time.Time {
	if ready := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		return ready.LastTransitionTime.Time
	}
	return obj.CreationTimestamp.Time
}

// failureReason is what to say of a child that failed.
func (c *child) failureReason() string {
	if c.obj.Status.Outcome == v1alpha1.DeploymentDeadlineExceeded {
		return "did not report back within deadlines.inProgress"
	}
	if reason := c.obj.Status.StateReason; reason != "" {
		return reason
	}
	if ready := meta.FindStatusCondition(c.obj.Status.Conditions, v1alpha1.ConditionReady); ready != nil && c.obj.Status.Outcome == "" {
		return ready.Message
	}
	return "Connect gives no reason"
}

// order is a Deployment that is to be created.
type order struct {
	device   connectclient.Device
	revision int64
	batch    string
	attempt  int
	artefact artefactRef
	// force deploys even if an earlier attempt is unfinished at Connect.
	force bool
}

// name is a function of the rollout, the device, the revision and the attempt alone, so that neither
// a crash nor a stale cache makes a second Deployment.
func (o order) name(rollout string) string {
	suffix := strconv.Itoa(o.attempt)
	if o.batch == v1alpha1.BatchRollback {
		suffix = "back-" + suffix
	}
	return fmt.Sprintf("%s-%d-%s-%s", rollout, o.revision, deviceHash(o.device.ID), suffix)
}

// deviceHash stands for a device in a name: 50 bits in lower-case letters and digits.
func deviceHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:10])
}

// deployment is what the order asks for.
func (o order) deployment(rollout *v1alpha1.FleetRollout, deadlines deadlines) *v1alpha1.Deployment {
	obj := &v1alpha1.Deployment{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: rollout.Namespace,
			Name:      o.name(rollout.Name),
			Labels: map[string]string{
				v1alpha1.LabelRollout:  rollout.Name,
				v1alpha1.LabelRevision: strconv.FormatInt(o.revision, 10),
				v1alpha1.LabelBatch:    o.batch,
				v1alpha1.LabelAttempt:  strconv.Itoa(o.attempt),
			},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(rollout, v1alpha1.GroupVersion.WithKind("FleetRollout"))},
		},
		Spec: v1alpha1.DeploymentSpec{
			CommonSpec: v1alpha1.CommonSpec{
				AccessTokenSecretRef: rollout.Spec.AccessTokenSecretRef,
				DeletionPolicy:       childDeletionPolicy(rollout),
			},
			Device:             v1alpha1.DeviceReference{ID: o.device.ID},
			Force:              o.force,
			InProgressDeadline: &metav1.Duration{Duration: deadlines.inProgress},
		},
	}
	o.artefact.setOn(&obj.Spec)
	return obj
}

// childDeletionPolicy is what becomes of a pending deployment when its Deployment goes with the
// rollout. An adopted one is left by default, because others may have made it.
func childDeletionPolicy(rollout *v1alpha1.FleetRollout) v1alpha1.DeletionPolicy {
	if rollout.Spec.DeletionPolicy == v1alpha1.DeletionPolicyOrphan {
		return v1alpha1.DeletionPolicyOrphan
	}
	return ""
}

// artefactRef is the name of an Artefact, or an id in the organisation.
type artefactRef struct {
	name string
	byID bool
}

func refOf(ref *v1alpha1.ArtefactReference, id string) artefactRef {
	if ref != nil {
		return artefactRef{name: ref.Name}
	}
	return artefactRef{name: id, byID: true}
}

func (r artefactRef) setOn(spec *v1alpha1.DeploymentSpec) {
	if r.byID {
		spec.ArtefactID = r.name
		return
	}
	spec.ArtefactRef = &v1alpha1.ArtefactReference{Name: r.name}
}

// deviceName is how messages call a device.
func deviceName(d connectclient.Device) string {
	if name := lifecycle.Text(d.Name); name != "" {
		return name
	}
	return d.ID
}
