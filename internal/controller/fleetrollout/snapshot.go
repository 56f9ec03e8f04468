// SPDX-License-Identifier: Apache-2.0

package fleetrollout

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// snapshot is what a ControllerRevision keeps of the devices that matched when a revision began: a
// hash of 64 bits of the id of each, so that ten thousand of them fit.
type snapshot struct {
	Devices []byte `json:"devices"`
}

// predecessorPatience is how long what a rollout of the same name has left is given until it is looked
// at again.
const predecessorPatience = 5 * time.Second

// restrict leaves those devices out that came to match after the revision began, if the spec says so. It
// says what that waits for.
func (p *pass) restrict(ctx context.Context, in *input) (*lifecycle.Outcome, error) {
	if p.obj.Spec.Membership != v1alpha1.MembershipSnapshot {
		return nil, nil
	}
	plans := planner{input: *in, was: &p.obj.Status, plan: plan{status: p.obj.Status}}
	revision, artefact := plans.lastRevision()
	if artefact != refOf(p.obj.Spec.ArtefactRef, p.obj.Spec.ArtefactID) {
		return nil, nil // the next revision has not begun
	}
	members, waits, err := p.snapshot(ctx, revision, in.devices)
	if err != nil || waits != nil {
		return waits, err
	}
	begun := map[string]bool{}
	for _, c := range in.children {
		if c.revision == revision {
			begun[c.device] = true
		}
	}
	in.devices = slices.DeleteFunc(slices.Clone(in.devices), func(d connectclient.Device) bool {
		return !begun[d.ID] && !members[hashOf(d.ID)]
	})
	return nil, nil
}

// snapshot returns the hashes of the devices that matched when the revision began. It is taken, and
// kept on the API server, by the first pass after that.
func (p *pass) snapshot(ctx context.Context, revision int64, devices []connectclient.Device) (map[uint64]bool, *lifecycle.Outcome, error) {
	own := p.ledger.entries(client.ObjectKeyFromObject(p.obj))
	if known, ok := own.members[revision]; ok {
		return known, nil, nil
	}
	kept := &appsv1.ControllerRevision{}
	name := fmt.Sprintf("%s-%d-devices", p.obj.Name, revision)
	err := p.Live.Get(ctx, client.ObjectKey{Namespace: p.obj.Namespace, Name: name}, kept)
	if apierrors.IsNotFound(err) {
		if kept, err = p.newSnapshot(name, revision, devices); err == nil {
			err = p.Client.Create(ctx, kept)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if owner := metav1.GetControllerOf(kept); owner != nil && owner.UID != p.obj.UID {
		waits := lifecycle.Waiting(v1alpha1.ReasonProgressing, "Waiting for ControllerRevision %q of the FleetRollout before to be removed.", name).
			WithRequeueAfter(predecessorPatience)
		return nil, &waits, nil
	}
	var content snapshot
	if err := json.Unmarshal(kept.Data.Raw, &content); err != nil {
		return nil, nil, fmt.Errorf("read ControllerRevision %s: %w", name, err)
	}
	members := make(map[uint64]bool, len(content.Devices)/8)
	for chunk := range slices.Chunk(content.Devices, 8) {
		if len(chunk) == 8 {
			members[binary.BigEndian.Uint64(chunk)] = true
		}
	}
	own.members[revision] = members
	return members, nil, nil
}

func (p *pass) newSnapshot(name string, revision int64, devices []connectclient.Device) (*appsv1.ControllerRevision, error) {
	var content snapshot
	for _, d := range devices {
		content.Devices = binary.BigEndian.AppendUint64(content.Devices, hashOf(d.ID))
	}
	raw, err := json.Marshal(content)
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.obj.Namespace, Name: name,
			Labels:          map[string]string{v1alpha1.LabelRollout: p.obj.Name},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(p.obj, v1alpha1.GroupVersion.WithKind("FleetRollout"))},
		},
		Revision: revision,
		Data:     runtime.RawExtension{Raw: raw},
	}, err
}

func hashOf(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return h.Sum64()
}
