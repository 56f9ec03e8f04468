// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// patchStatus writes the status, if it differs, and then emits the events. It is the only place
// that writes status, and nothing else.
func (p *pass[O]) patchStatus(ctx context.Context, outcome Outcome) error {
	p.setConditions(outcome)
	if p.deleting() && !p.hasFinalizer() {
		// It is about to vanish: nobody would read its status any more.
		EmitEvents(ctx, p.Events, p.obj, p.events)
		return nil
	}
	version, err := PatchStatus(ctx, p.Client, p.stored, p.obj)
	if err != nil {
		return err
	}
	if version != "" {
		p.known.expectation.expect(version, wallClock())
	}
	EmitEvents(ctx, p.Events, p.obj, p.events)
	return nil
}

// PatchStatus writes what has changed of the status, and returns the new resource version, or
// nothing if nothing has. It fails with a conflict if the resource is another one by now, of the
// same name.
func PatchStatus(ctx context.Context, c client.Client, stored, obj Object) (version string, err error) {
	changes, err := client.MergeFrom(stored).Data(obj)
	if err != nil || string(changes) == "{}" {
		return "", err
	}
	patch := map[string]json.RawMessage{}
	if err := json.Unmarshal(changes, &patch); err != nil {
		return "", err
	}
	for field := range patch {
		if field != "status" {
			return "", fmt.Errorf("a pass changed %q, but may only change status", field)
		}
	}
	if patch["status"], err = withGeneration(patch["status"], obj); err != nil {
		return "", err
	}
	patch["metadata"] = json.RawMessage(marshalled(map[string]any{"uid": stored.GetUID()}))
	written, _ := obj.DeepCopyObject().(Object)
	if err := c.Status().Patch(ctx, written, client.RawPatch(types.MergePatchType, []byte(marshalled(patch))), fieldOwner); err != nil {
		return "", err
	}
	return written.GetResourceVersion(), nil
}

// withGeneration adds to a changed status which generation it is about, whether or not that has changed:
// somebody may have taken the status away meanwhile, and conditions say nothing without it.
func withGeneration(changes json.RawMessage, obj Object) (json.RawMessage, error) {
	status := map[string]json.RawMessage{}
	if err := json.Unmarshal(changes, &status); err != nil {
		return nil, err
	}
	if _, changed := status["conditions"]; changed {
		status["observedGeneration"] = json.RawMessage(marshalled(obj.GetCommonStatus().ObservedGeneration))
	}
	return json.RawMessage(marshalled(status)), nil
}

// setConditions brings the outcome of the pass into the status.
func (p *pass[O]) setConditions(outcome Outcome) {
	status := p.obj.GetCommonStatus()
	generation := p.obj.GetGeneration()
	if status.Conditions == nil {
		status.Conditions = []metav1.Condition{}
	}
	if p.suspended() {
		setCondition(&status.Conditions, generation, v1alpha1.ConditionSuspended, metav1.ConditionTrue, v1alpha1.ReasonSuspended, p.suspendedMessage())
		return
	}
	meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionSuspended)
	if outcome.Ready == "" || outcome.Transient && isKnown(*status, generation) {
		return
	}
	if !outcome.Transient && !outcome.Unanswered {
		if request := p.requested(); request != "" {
			status.LastHandledReconcileAt = request
		}
		p.known.freshness.met()
	}
	SetOutcome(p.obj, outcome)
}

func (p *pass[O]) suspendedMessage() string {
	if p.deleting() {
		return "The deletion waits, because the operator leaves this resource alone until the annotation " + v1alpha1.AnnotationSuspend + " is removed."
	}
	return "The operator leaves this resource alone until the annotation " + v1alpha1.AnnotationSuspend + " is removed."
}

// isKnown tells whether a pass has concluded something about this generation, that an outage does
// not change. A resource that is still being worked on is told about the outage; and one whose token
// was refused, because the token there is now has not been.
func isKnown(status v1alpha1.CommonStatus, generation int64) bool {
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status != metav1.ConditionUnknown && ready.ObservedGeneration == generation &&
		ready.Reason != v1alpha1.ReasonAccessTokenRejected
}

// SetOutcome sets Ready and its companions by the rules of kstatus: Reconciling while Ready is
// unknown, Stalled while it is false, never both, and neither when it is true.
func SetOutcome(obj Object, outcome Outcome) {
	status, generation := obj.GetCommonStatus(), obj.GetGeneration()
	companion := map[metav1.ConditionStatus]string{
		metav1.ConditionUnknown: v1alpha1.ConditionReconciling,
		metav1.ConditionFalse:   v1alpha1.ConditionStalled,
	}[outcome.Ready]
	for _, other := range []string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		if other != companion {
			meta.RemoveStatusCondition(&status.Conditions, other)
		}
	}
	status.ObservedGeneration = generation
	message := bounded(outcome.Message)
	setCondition(&status.Conditions, generation, v1alpha1.ConditionReady, outcome.Ready, outcome.Reason, message)
	if companion != "" {
		setCondition(&status.Conditions, generation, companion, metav1.ConditionTrue, outcome.Reason, message)
	}
}

func setCondition(conditions *[]metav1.Condition, generation int64, kind string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: generation,
	})
}
