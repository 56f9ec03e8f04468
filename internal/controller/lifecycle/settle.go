// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Event is something worth telling the user once.
type Event struct {
	Warning bool
	// Reason and Action are in UpperCamelCase; Message is a sentence.
	Reason, Action, Message string
}

// settle writes the status, if it differs, and then tells the events. It is the
// only place that writes status, and nothing else.
func (p *pass[O]) settle(ctx context.Context, verdict Verdict) error {
	p.conclude(verdict)
	patch := client.MergeFrom(p.stored)
	changes, err := patch.Data(p.obj)
	if err != nil {
		return err
	}
	if string(changes) != "{}" && !p.released() {
		if err := statusOnly(changes); err != nil {
			return err
		}
		if err := p.Client.Status().Patch(ctx, p.obj, client.RawPatch(patch.Type(), changes)); err != nil {
			return err
		}
		p.written.note(p.req.NamespacedName, p.obj.GetResourceVersion(), p.Clock.Now())
	}
	p.tell()
	return nil
}

// released tells whether the resource is about to vanish: nobody would read its
// status any more.
func (p *pass[O]) released() bool { return p.deleting() && !p.hasFinalizer() }

// conclude brings the verdict into the status.
func (p *pass[O]) conclude(verdict Verdict) {
	status := p.obj.GetCommonStatus()
	if status.Conditions == nil {
		status.Conditions = []metav1.Condition{}
	}
	generation := p.obj.GetGeneration()
	conditions := &status.Conditions
	if p.suspended() {
		setCondition(conditions, generation, v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended,
			"The operator leaves this resource alone until the annotation "+v1alpha1.AnnotationSuspend+" is removed.")
		return
	}
	meta.RemoveStatusCondition(conditions, v1alpha1.ConditionSuspended)
	if verdict.Ready == "" || verdict.Passing && known(*status, generation) {
		return
	}
	if !verdict.Passing {
		if request := p.requested(); request != "" {
			status.LastHandledReconcileAt = request
		}
		p.demands.forget(p.req.NamespacedName)
	}
	status.ObservedGeneration = generation
	conclude(conditions, generation, verdict)
}

// known tells whether a pass has concluded something about this generation, that
// an outage does not change. A resource that is still being worked on is told
// about the outage.
func known(status v1alpha1.CommonStatus, generation int64) bool {
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status != metav1.ConditionUnknown && ready.ObservedGeneration == generation
}

// conclude sets Ready and its companions by the rules of kstatus: Reconciling
// while Ready is unknown, Stalled while it is false, never both, and neither
// when it is true.
func conclude(conditions *[]metav1.Condition, generation int64, verdict Verdict) {
	companion := map[metav1.ConditionStatus]string{
		metav1.ConditionUnknown: v1alpha1.ConditionReconciling,
		metav1.ConditionFalse:   v1alpha1.ConditionStalled,
	}[verdict.Ready]
	for _, other := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		if other != companion {
			meta.RemoveStatusCondition(conditions, other)
		}
	}
	setCondition(conditions, generation, v1alpha1.ConditionReady, verdict.Ready, verdict.Reason, verdict.Message)
	if companion != "" {
		setCondition(conditions, generation, companion, metav1.ConditionTrue, verdict.Reason, verdict.Message)
	}
}

func setCondition(conditions *[]metav1.Condition, generation int64, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation,
	})
}

// statusOnly guards the promise that the operator never writes a spec.
func statusOnly(patch []byte) error {
	var changed map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changed); err != nil {
		return err
	}
	for field := range changed {
		if field != "status" {
			return fmt.Errorf("a pass changed %q, but may only change status", field)
		}
	}
	return nil
}

// tell emits the events of the pass, now that what they announce is written.
func (p *pass[O]) tell() {
	for _, e := range p.events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		p.Events.Eventf(p.obj, nil, kind, e.Reason, e.Action, "%s", e.Message)
	}
}
