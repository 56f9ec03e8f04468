// SPDX-License-Identifier: Apache-2.0

// Package invariants checks what holds for the status of every resource at every
// moment, so that every test can check it whenever it looks.
package invariants

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// Object is a resource of any of the operator's kinds.
type Object interface {
	metav1.Object
	GetCommonStatus() *v1alpha1.CommonStatus
}

// Ready is what a user sees of a resource: Ready, reason and message, "True
// Available: …"; empty while there is nothing to see of its newest spec.
func Ready(obj Object) string {
	ready := meta.FindStatusCondition(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != obj.GetGeneration() {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", ready.Status, ready.Reason, ready.Message)
}

// Check returns which invariants the status violates. They are those of kstatus,
// which Argo CD, Flux and kubectl wait rely on: Ready says whether, Reconciling is
// there while that is unknown, Stalled while it is not, and all are about the same
// generation.
func Check(obj Object) error {
	status := obj.GetCommonStatus()
	violated := func(format string, args ...any) error {
		return fmt.Errorf("%T %s: %s: %+v", obj, obj.GetName(), fmt.Sprintf(format, args...), status)
	}
	ready := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	var errs []error
	for companion, goesWith := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReconciling: metav1.ConditionUnknown,
		v1alpha1.ConditionStalled:     metav1.ConditionFalse,
	} {
		is := meta.FindStatusCondition(status.Conditions, companion)
		should := ready != nil && ready.Status == goesWith
		switch {
		case is == nil && should:
			errs = append(errs, violated("%s is missing", companion))
		case is != nil && !should:
			errs = append(errs, violated("%s is there", companion))
		case is != nil && (is.Status != metav1.ConditionTrue || is.Reason != ready.Reason ||
			is.Message != ready.Message || is.ObservedGeneration != ready.ObservedGeneration):
			errs = append(errs, violated("%s says something else than Ready", companion))
		}
	}
	if ready != nil && (ready.Reason == "" || ready.Message == "") {
		errs = append(errs, violated("Ready has no reason or no message"))
	}
	if ready != nil && status.ObservedGeneration != ready.ObservedGeneration {
		errs = append(errs, violated("Ready is about generation %d", ready.ObservedGeneration))
	}
	for _, condition := range status.Conditions {
		if condition.ObservedGeneration == 0 || condition.ObservedGeneration > obj.GetGeneration() {
			errs = append(errs, violated("%s is about no generation that there has been", condition.Type))
		}
	}
	return errors.Join(errs...)
}
