// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// resolve finds the artefact and the device that the spec means.
func (d *deployment) resolve(ctx context.Context) error {
	if err := d.findArtefact(ctx); err != nil {
		return err
	}
	if err := d.findDevice(); err != nil {
		return err
	}
	status := &d.obj.Status
	status.ArtefactID, status.DeviceID, status.DeviceName = d.artefactID, d.device.ID, d.device.Name
	return nil
}

func (d *deployment) findArtefact(ctx context.Context) error {
	ref := d.obj.Spec.ArtefactRef
	if ref == nil {
		d.artefactID = d.obj.Spec.ArtefactID
		return nil
	}
	var artefact v1alpha1.Artefact
	err := d.client.Get(ctx, types.NamespacedName{Namespace: d.obj.Namespace, Name: ref.Name}, &artefact)
	switch {
	case apierrors.IsNotFound(err):
		return lifecycle.Waiting(v1alpha1.ReasonArtefactNotReady, "Waiting for the Artefact %q to be created.", ref.Name)
	case err != nil:
		return err
	}
	ready := meta.FindStatusCondition(artefact.Status.Conditions, v1alpha1.ConditionReady)
	if artefact.Status.ID == "" || ready == nil || ready.Status != metav1.ConditionTrue {
		return lifecycle.Waiting(v1alpha1.ReasonArtefactNotReady, "Waiting for the Artefact %q to be ready.", ref.Name)
	}
	d.artefactID = artefact.Status.ID
	return nil
}

// findDevice finds the one device that the spec means, in a listing that all
// Deployments with the same question share. An id is believed until it has turned
// out that there is no such device; then it is waited for like a name.
func (d *deployment) findDevice() error {
	wanted := d.obj.Spec.Device
	if wanted.ID != "" && !d.awaitsDevice() {
		d.device, _ = d.devices.Known(d.conn.Token, wanted.ID) // its name, if a listing has shown it
		d.device.ID = wanted.ID
		return nil
	}
	matches, err := d.devices.Find(d.conn.Token, wanted, d.conn.NotBefore, d.conn.Waiter)
	if err != nil {
		return err
	}
	switch len(matches) {
	case 0:
		return d.noDevice(describe(wanted))
	case 1:
		d.device = matches[0]
		return nil
	default:
		return lifecycle.Stalled(v1alpha1.ReasonDeviceAmbiguous, "%d devices match %s: make spec.device match one only, by its id for example.", len(matches), describe(wanted))
	}
}

// awaitsDevice tells whether the device was not there when it was looked for last.
func (d *deployment) awaitsDevice() bool {
	ready := meta.FindStatusCondition(d.obj.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonDeviceNotFound
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

func (d *deployment) noDevice(which string) error {
	return lifecycle.Waiting(v1alpha1.ReasonDeviceNotFound, "Waiting for a device with %s to sign in.", which)
}

// deviceGone is for a device that Connect does not know, although its id was given
// or listed: the next listing shows whether it comes.
func (d *deployment) deviceGone() error {
	_, err := d.devices.Find(d.conn.Token, d.obj.Spec.Device, d.clock.Now(), d.conn.Waiter)
	if err != nil && !errors.Is(err, reflector.ErrPending) {
		return err
	}
	return d.noDevice(describe(d.obj.Spec.Device))
}
