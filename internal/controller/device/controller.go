// SPDX-License-Identifier: Apache-2.0

// Package device keeps the names and the tags of the organisation's devices as Devices say.
package device

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=devices,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=devices/status,verbs=patch

// Kind is what the loop knows of Devices. A device makes itself, by signing in: it is waited for,
// taken over, kept as the spec says, and removed only if the spec says so.
func Kind(finder *devices.Finder) lifecycle.Kind[*v1alpha1.Device] {
	return lifecycle.Kind[*v1alpha1.Device]{
		New:             func() *v1alpha1.Device { return &v1alpha1.Device{} },
		NewList:         func() client.ObjectList { return &v1alpha1.DeviceList{} },
		Noun:            "device",
		NaturalKey:      func(obj *v1alpha1.Device) string { return devices.Key(reference(obj)) },
		LooksFirst:      func(obj *v1alpha1.Device) bool { return obj.Spec.Device.Name != "" }, // names move
		OrphanByDefault: true,                                                                  // deleting a device signs it out
		Source:          finder,
		Reset: func(obj *v1alpha1.Device) {
			common := obj.Status.CommonStatus
			meta.RemoveStatusCondition(&common.Conditions, v1alpha1.ConditionSynced)
			obj.Status = v1alpha1.DeviceStatus{CommonStatus: common}
		},
		Connect: func(obj *v1alpha1.Device, conn *lifecycle.Connection) lifecycle.Remote {
			return &external{obj: obj, conn: conn, devices: finder}
		},
	}
}

// external is the remote object of one Device.
type external struct {
	obj     *v1alpha1.Device
	conn    *lifecycle.Connection
	devices *devices.Finder

	found connectclient.Device // by Observe
}

// reference is how the spec names the device.
func reference(obj *v1alpha1.Device) v1alpha1.DeviceReference {
	wanted := obj.Spec.Device
	return v1alpha1.DeviceReference{ID: wanted.ID, Name: wanted.Name, SerialNumber: wanted.SerialNumber}
}

// Observe implements [lifecycle.Remote]. The device that the resource has is known by its id: how
// the spec names it matters only until it is found.
func (e *external) Observe(context.Context) (lifecycle.Observation, error) {
	record := e.conn.Record
	if record.ID == "" {
		return e.search()
	}
	found, there, err := e.lookup(record.ID)
	switch {
	case err != nil:
		return lifecycle.Observation{}, err
	case there && record.Own() && !record.Restored:
		return e.inOrganisation(lifecycle.Mine, found), nil
	case there:
		return e.named(found)
	case record.Own():
		return e.follow()
	default:
		return lifecycle.NotCreated(lifecycle.Stalled(v1alpha1.ReasonNotFound,
			"There is no device with the id %q to take over: correct the annotation %s, or remove it to have the device found by spec.device.",
			lifecycle.Text(record.ID), v1alpha1.AnnotationID)), nil
	}
}

// lookup finds a device by its id.
func (e *external) lookup(id string) (found connectclient.Device, there bool, err error) {
	found, there, err = e.devices.Lookup(e.conn.Token, id, e.conn.NotBefore, e.conn.Waiter)
	return found, there, lifecycle.FromListing(err)
}

// search looks for the device that the spec names.
func (e *external) search() (lifecycle.Observation, error) {
	switch wanted := reference(e.obj); {
	case wanted.ID != "":
		found, there, err := e.lookup(wanted.ID)
		if err != nil {
			return lifecycle.Observation{}, err
		}
		if there {
			return e.inOrganisation(lifecycle.Adoptable, found), nil
		}
		return notFound("Waiting for a device with the id %q to sign in. One that is removed and signs in again has another id: to follow it, name it by its serial number, in a new Device.", lifecycle.Text(wanted.ID)), nil
	case wanted.Name != "":
		return e.single(wanted, fmt.Sprintf("the name %q", lifecycle.Text(wanted.Name)), "Waiting for a device with %s to sign in.")
	default:
		return e.single(wanted, fmt.Sprintf("the serial number %q", lifecycle.Text(wanted.SerialNumber)), "Waiting for a device with %s to sign in.")
	}
}

// single finds the one device that a name or a serial number stands for, or says that it is absent.
// More than one is for a person to clear up.
func (e *external) single(wanted v1alpha1.DeviceReference, what, absent string) (lifecycle.Observation, error) {
	matches, err := e.devices.Find(e.conn.Token, wanted, e.conn.NotBefore, e.conn.Waiter)
	switch {
	case err != nil:
		return lifecycle.Observation{}, lifecycle.FromListing(err)
	case len(matches) == 0:
		return notFound(absent, what), nil
	case len(matches) == 1:
		return e.inOrganisation(lifecycle.Adoptable, matches[0]), nil
	default:
		return lifecycle.NotKnown(lifecycle.Stalled(v1alpha1.ReasonDeviceAmbiguous,
			"%d devices have %s: nothing is done to any of them. Remove those from Connect that are not meant, or name the one that is by its id, in a new Device.",
			len(matches), what).WithListing()), nil
	}
}

// follow looks for the board of a device that is gone: if it has signed in again, it is another
// device now. Whoever has the name of the one that is gone is not taken for it.
func (e *external) follow() (lifecycle.Observation, error) {
	gone, serial := lifecycle.Text(e.conn.Record.ID), e.obj.Status.SerialNumber
	if wanted := e.obj.Spec.Device.SerialNumber; wanted != "" {
		serial = lifecycle.Text(wanted)
	}
	if serial == "" {
		return e.lost(), nil
	}
	seen, err := e.single(v1alpha1.DeviceReference{SerialNumber: serial}, fmt.Sprintf("the serial number %q", serial),
		"The device "+gone+" is no longer in the organisation: waiting for its board, with %s, to sign in again.")
	if seen.Relation == lifecycle.Adoptable {
		seen.Note = fmt.Sprintf("It takes the place of the device %s, which is gone: its board, with the serial number %q, has signed in again.", gone, serial)
	}
	return seen, err
}

// lost is the observation of a device that is gone, and of whose board nothing is known: it had no
// serial number, or the status that said so is lost.
func (e *external) lost() lifecycle.Observation {
	gone := lifecycle.Text(e.conn.Record.ID)
	if e.obj.Spec.Device.ID != "" {
		return notFound("The device %s is no longer in the organisation, and will not come back under this id: name it by its serial number, in a new Device.", gone)
	}
	return lifecycle.NotCreated(lifecycle.Stalled(v1alpha1.ReasonNotFound,
		"The device %s is no longer in the organisation, and it is not known which board it was: to take the device that spec.device names now, remove the annotation %s.",
		gone, v1alpha1.AnnotationID))
}

// notFound is the observation that the device is not there, which a listing has proven, and another
// one may change.
func notFound(format string, args ...any) lifecycle.Observation {
	return lifecycle.NotCreated(lifecycle.Waiting(v1alpha1.ReasonDeviceNotFound, format, args...).WithListing())
}

// named looks at a device whose id a user or a backup has written to the resource: it counts only if
// it is the one that the spec names.
func (e *external) named(found connectclient.Device) (lifecycle.Observation, error) {
	fits, err := e.fits(found)
	switch {
	case err != nil:
		return lifecycle.Observation{}, err
	case !fits:
		return lifecycle.ForeignObject(found.ID, lifecycle.ImportConflict("The device %s, with the name %q and the serial number %q, is not the one that spec.device names",
			found.ID, lifecycle.Text(found.Name), lifecycle.Text(found.SerialNumber))), nil
	case e.conn.Record.Own():
		return e.inOrganisation(lifecycle.Mine, found), nil
	default:
		return e.inOrganisation(lifecycle.Adoptable, found), nil
	}
}

// fits tells whether a device is the one that the spec names. It may have got the spec's own name
// since; and it may have taken the place of the one with the id, if that is gone.
func (e *external) fits(found connectclient.Device) (bool, error) {
	switch wanted := e.obj.Spec.Device; {
	case wanted.SerialNumber != "":
		return strings.EqualFold(found.SerialNumber, wanted.SerialNumber), nil
	case wanted.Name != "":
		return found.Name == wanted.Name || strings.TrimSpace(found.Name) == name(e.obj) && name(e.obj) != "", nil
	case found.ID == wanted.ID || !e.conn.Record.Own():
		return found.ID == wanted.ID, nil
	default:
		_, there, err := e.lookup(wanted.ID)
		return !there, err
	}
}

// inOrganisation mirrors the device into the status and says what is left to do.
func (e *external) inOrganisation(relation lifecycle.Relation, found connectclient.Device) lifecycle.Observation {
	e.found = found
	e.mirror()
	outdated := e.changes() != connectclient.DeviceUpdate{}
	switch revision := e.conn.Client.Revision(); {
	case !outdated || revision == connectclient.RevisionCurrent:
		meta.RemoveStatusCondition(&e.obj.Status.Conditions, v1alpha1.ConditionSynced)
	case revision == connectclient.RevisionOlder:
		e.notSupported()
		outdated = false
	}
	return lifecycle.Observation{
		Relation: relation, ID: found.ID, Name: found.Name, Outdated: outdated,
		Outcome: lifecycle.Ready(v1alpha1.ReasonAvailable, "The device is in the organisation."),
	}
}

// mirror shows in the status what Connect knows of the device.
func (e *external) mirror() {
	status, found := &e.obj.Status, &e.found
	status.Name, status.SerialNumber = lifecycle.Text(found.Name), lifecycle.Text(found.SerialNumber)
	status.KernelArchitecture = lifecycle.Text(found.KernelArchitecture)
	status.Tags = nil
	for _, tag := range lifecycle.Sorted(found.Tags) {
		status.Tags = append(status.Tags, lifecycle.Text(tag))
	}
	status.Board, status.OS = nil, nil
	if b := found.Board; b != nil {
		status.Board = &v1alpha1.DeviceBoard{Model: lifecycle.Text(b.Model), Revision: lifecycle.Text(b.Revision), Memory: lifecycle.Text(b.Memory)}
	}
	if os := found.OS; os != nil {
		status.OS = &v1alpha1.DeviceOS{Name: lifecycle.Text(os.Name), Version: lifecycle.Text(os.Version)}
	}
}

// notSupported says that the device is not as the spec says, and that the API cannot change it.
func (e *external) notSupported() {
	meta.SetStatusCondition(&e.obj.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSynced, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonNotSupported,
		Message:            "This revision of the Connect API cannot change devices: give the device its name and its tags in Connect itself.",
		ObservedGeneration: e.obj.Generation,
	})
}

// name is what the device has to be called; empty if that does not matter.
func name(obj *v1alpha1.Device) string { return strings.TrimSpace(obj.Spec.Name) }

// changes is what distinguishes the device found from the spec. What the spec leaves out stays as it
// is.
func (e *external) changes() connectclient.DeviceUpdate {
	var changes connectclient.DeviceUpdate
	if wanted := name(e.obj); wanted != "" && wanted != strings.TrimSpace(e.found.Name) {
		changes.Name = &wanted
	}
	if tags := e.obj.Spec.Tags; tags != nil && !lifecycle.SameSet(tags, e.found.Tags) {
		changes.Tags = &tags
	}
	return changes
}

// Update implements [lifecycle.Updater]: it changes what differs, and only that, with one request.
func (e *external) Update(ctx context.Context, id string) (lifecycle.Observation, error) {
	before, changes := e.found, e.changes()
	changed, err := e.conn.Client.Devices().Update(ctx, id, changes)
	switch {
	case errors.Is(err, connectclient.ErrUnsupported):
		return e.inOrganisation(lifecycle.Mine, before), nil // the revision is known now
	case errors.Is(err, connectclient.ErrInvalid):
		return e.refused(changes, connectclient.Message(err)), nil
	case err != nil:
		return lifecycle.Observation{}, err
	}
	e.devices.Put(e.conn.Token, *changed)
	seen := e.inOrganisation(lifecycle.Mine, *changed)
	left := e.changes()
	switch {
	case changes.Name != nil && left.Name != nil, changes.Tags != nil && left.Tags != nil:
		return e.refused(left, "it answers as if it had made the change, and has not"), nil
	case left != connectclient.DeviceUpdate{}:
		seen.Outcome = lifecycle.RequeueWithBackoff() // somebody has changed it since it was seen
	}
	e.conn.Event(lifecycle.Event{Reason: v1alpha1.EventUpdated, Action: "Update", Message: described(before, *changed)})
	return seen, nil
}

// refused is the observation of a device that Connect does not change as the spec says. If that is
// because somebody else has its name, giving the name up wakes the resource.
func (e *external) refused(changes connectclient.DeviceUpdate, words string) lifecycle.Observation {
	if changes.Name != nil {
		e.devices.AwaitName(e.conn.Token, *changes.Name, e.conn.Waiter)
	}
	seen := e.inOrganisation(lifecycle.Mine, e.found)
	seen.Outcome = lifecycle.Stalled(v1alpha1.ReasonInvalid, "Connect refuses the spec: %s.", words)
	return seen
}

// described says what was changed.
func described(before, after connectclient.Device) string {
	var done []string
	if before.Name != after.Name {
		done = append(done, fmt.Sprintf("renamed the device from %q to %q", lifecycle.Text(before.Name), lifecycle.Text(after.Name)))
	}
	if !lifecycle.SameSet(before.Tags, after.Tags) {
		done = append(done, fmt.Sprintf("changed its tags from [%s] to [%s]", tags(before), tags(after)))
	}
	text := strings.Join(done, " and ")
	if text == "" {
		return "The device was changed already."
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

func tags(d connectclient.Device) string {
	return lifecycle.Text(strings.Join(lifecycle.Sorted(d.Tags), ", "))
}

// Delete implements [lifecycle.Deleter]: it removes the device, which signs it out. A board that has
// signed in again meanwhile is another device, which nobody has asked to remove.
func (e *external) Delete(ctx context.Context, id string) (lifecycle.Deletion, error) {
	deletion := lifecycle.Removed(v1alpha1.EventDeleted, "Removed the device "+id+" from the organisation, which has signed it out.")
	switch err := e.conn.Client.Devices().Delete(ctx, id); {
	case errors.Is(err, connectclient.ErrNotFound):
		deletion = e.alreadyGone(id)
	case err != nil:
		return lifecycle.Deletion{}, err
	}
	e.devices.Remove(e.conn.Token, id)
	return deletion, nil
}

// alreadyGone warns of a board that stays in the organisation as another device, as far as that is
// known.
func (e *external) alreadyGone(id string) lifecycle.Deletion {
	if serial := e.obj.Status.SerialNumber; serial != "" {
		for _, other := range e.devices.BySerialNumber(e.conn.Token, serial) {
			if other.ID != id {
				return lifecycle.Retained(v1alpha1.EventOrphaned, fmt.Sprintf(
					"The device %s was gone already. Its board has signed in again as the device %s, which stays in the organisation.", id, other.ID))
			}
		}
	}
	return lifecycle.AlreadyGone()
}
