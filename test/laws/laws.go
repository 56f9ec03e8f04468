// SPDX-License-Identifier: Apache-2.0

// Package laws says what holds for the status of every resource at every moment,
// so that every story can check it whenever it looks.
package laws

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// Ready is what a user sees of a resource: Ready, reason and message, "True
// Available: …"; empty while there is nothing to see of its newest spec.
func Ready(obj lifecycle.Object) string {
	ready := meta.FindStatusCondition(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.ObservedGeneration != obj.GetGeneration() {
		return ""
	}
	return fmt.Sprintf("%s %s: %s", ready.Status, ready.Reason, ready.Message)
}

// Check returns which laws the status breaks. They are those of kstatus: Ready
// says whether, Reconciling is there while that is unknown, Stalled while it is
// not, and all are about the same generation.
func Check(obj lifecycle.Object) error {
	status := obj.GetCommonStatus()
	broken := func(format string, args ...any) error {
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
			errs = append(errs, broken("%s is missing", companion))
		case is != nil && !should:
			errs = append(errs, broken("%s is there", companion))
		case is != nil && (is.Status != metav1.ConditionTrue || is.Reason != ready.Reason || is.Message != ready.Message):
			errs = append(errs, broken("%s says something else than Ready", companion))
		}
	}
	if ready != nil && ready.Message == "" {
		errs = append(errs, broken("Ready has no message"))
	}
	if ready != nil && status.ObservedGeneration != ready.ObservedGeneration {
		errs = append(errs, broken("Ready is about generation %d", ready.ObservedGeneration))
	}
	for _, condition := range status.Conditions {
		if condition.ObservedGeneration == 0 {
			errs = append(errs, broken("%s is about no generation", condition.Type))
		}
	}
	return errors.Join(errs...)
}
