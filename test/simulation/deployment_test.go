// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var deployments = &kind{
	name: "Deployment", prefix: "p", collection: "deployments", names: 6,
	fresh: func(w *world, _ string, variant int) object {
		d := &v1alpha1.Deployment{}
		d.Spec.ArtefactRef = &v1alpha1.ArtefactReference{Name: name(artefacts.prefix, variant%3)}
		board := variant / 3 % 3
		switch variant % 4 {
		case 0, 1:
			d.Spec.Device.SerialNumber = serial(board)
		case 2:
			d.Spec.Device.Name = name("pi", board)
		case 3:
			d.Spec.Device.Query = serial(board)
		}
		d.Spec.Force = variant%8 == 7
		changeDeployment(w, d, variant/2)
		return d
	},
	same:   func(anew, was object) { anew.(*v1alpha1.Deployment).Spec = was.(*v1alpha1.Deployment).Spec },
	change: changeDeployment,
	add: func(w *world, n, variant int) {
		device, found := pick(w.org().Devices(), n)
		artefact, exists := pick(w.org().Artefacts(), variant)
		if found && exists {
			w.org().AddDeployment(device.ID, artefact.ID)
		}
	},
	alter: nothing,
	remove: func(w *world, n, _ int) {
		if d, ok := pick(w.org().Deployments(""), n); ok && d.State == connectsim.Pending {
			w.org().MoveDeployment(d.ID, connectsim.Cancelled, "")
		}
	},
	ids: func(org *connectsim.Organisation) []string {
		return idsOf(org.Deployments(""), func(d connectsim.Deployment) string { return d.ID })
	},
	atRest: func(w *world, obj object) error {
		d := obj.(*v1alpha1.Deployment)
		_, reason, _ := ready(d)
		switch reason {
		case v1alpha1.ReasonPending, v1alpha1.ReasonInProgress:
			return w.remoteState(d)
		case v1alpha1.ReasonSucceeded, v1alpha1.ReasonFailed, v1alpha1.ReasonCancelled, v1alpha1.ReasonSuperseded, v1alpha1.ReasonDeadlineExceeded:
			return nil
		case v1alpha1.ReasonArtefactNotReady:
			a := w.lookUp(resource{artefacts.name, d.Spec.ArtefactRef.Name})
			if a == nil || a.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true" {
				return nil // what a suspended one says may be about another organisation
			}
			if status, _, _ := ready(a); status == "True" && a.GetDeletionTimestamp() == nil {
				return fmt.Errorf("waits for its Artefact, which is Ready")
			}
			return nil
		case v1alpha1.ReasonDeviceNotFound, v1alpha1.ReasonDeviceAmbiguous, v1alpha1.ReasonIncompatible:
			return nil
		}
		return w.excused(d)
	},
}

func changeDeployment(_ *world, obj object, variant int) {
	d := obj.(*v1alpha1.Deployment)
	d.Spec.DeletionPolicy = policy(variant)
	d.Spec.Cancel = variant%6 == 5
	d.Spec.PendingDeadline = nil
	if variant%5 == 4 {
		d.Spec.PendingDeadline = &metav1.Duration{Duration: 2 * time.Hour}
	}
}

func (w *world) remoteState(d *v1alpha1.Deployment) error {
	at := slices.IndexFunc(w.org().Deployments(""), func(r connectsim.Deployment) bool { return r.ID == d.Status.ID })
	if at < 0 {
		return fmt.Errorf("is %s, and its deployment is not there", d.Status.State)
	}
	if r := w.org().Deployments("")[at]; r.State != d.Status.State {
		return fmt.Errorf("is %s, and its deployment is %s", d.Status.State, r.State)
	}
	return nil
}
