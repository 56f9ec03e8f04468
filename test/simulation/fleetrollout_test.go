// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

// maxConcurrent is that of every rollout.
const maxConcurrent = 2

var rollouts = &kind{
	name: "FleetRollout", prefix: "r", names: 2,
	fresh: func(w *world, called string, variant int) object {
		r := &v1alpha1.FleetRollout{}
		r.Spec.Devices.Query = "tag:fleet"
		r.Spec.MaxConcurrent = new(intstr.FromInt32(maxConcurrent))
		r.Spec.Deadlines = &v1alpha1.FleetDeadlines{Pending: &metav1.Duration{Duration: time.Hour}}
		if variant%3 == 0 {
			r.Spec.Batches = []v1alpha1.FleetBatch{{Name: "canary", Size: new(intstr.FromInt32(1))}}
		}
		if variant%5 == 0 {
			r.Spec.Membership = v1alpha1.MembershipSnapshot
		}
		changeRollout(w, r, variant)
		return r
	},
	same:   func(anew, was object) { anew.(*v1alpha1.FleetRollout).Spec = was.(*v1alpha1.FleetRollout).Spec },
	change: changeRollout,
	add:    nothing, alter: nothing, remove: nothing, // Connect has no such thing
	ids: func(_ *connectsim.Organisation) []string { return nil },
	atRest: func(w *world, obj object) error {
		switch _, reason, _ := ready(obj); reason {
		case v1alpha1.ReasonComplete, v1alpha1.ReasonPaused, v1alpha1.ReasonFailuresExceeded, v1alpha1.ReasonRolledBack,
			v1alpha1.ReasonProgressing, v1alpha1.ReasonRollingBack, v1alpha1.ReasonArtefactNotReady:
			return nil
		}
		return w.excused(obj)
	},
}

func changeRollout(_ *world, obj object, variant int) {
	r := obj.(*v1alpha1.FleetRollout)
	r.Spec.ArtefactRef = &v1alpha1.ArtefactReference{Name: name(artefacts.prefix, 2+variant%2)}
	r.Spec.Paused = variant%7 == 6
	r.Spec.DeletionPolicy = policy(variant / 2)
	r.Spec.FailurePolicy = &v1alpha1.FleetFailurePolicy{
		MaxFailures: new(intstr.FromInt32(int32(variant % 3))),
		Action:      []v1alpha1.FleetFailureAction{v1alpha1.FailureActionPause, v1alpha1.FailureActionRollback, v1alpha1.FailureActionContinue}[variant/3%3],
	}
}

// scanRollouts checks that no rollout has more devices at work than it may.
func (w *world) scanRollouts() {
	active := map[string]int{}
	for _, org := range w.orgs {
		for _, d := range org.Deployments("") {
			m, ours := w.ledger.madeBy(d.ID)
			if !ours || m.rollout == "" {
				continue
			}
			// What has been pending for long is deferred: it blocks nobody.
			if d.State == connectsim.InProgress && time.Since(d.CreatedAt) < time.Hour || d.State == connectsim.Pending && time.Since(d.CreatedAt) < time.Hour {
				active[m.rollout]++
			}
		}
	}
	for rollout, n := range active {
		if n > maxConcurrent {
			w.violatedf("%d devices of FleetRollout %s are at work, %d may be", n, rollout, maxConcurrent)
		}
	}
}
