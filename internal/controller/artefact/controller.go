// SPDX-License-Identifier: Apache-2.0

// Package artefact makes the organisation's artefacts what Artefacts say.
package artefact

import (
	"context"
	"errors"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=artefacts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=artefacts/status,verbs=patch

// Kind is what the loop knows of Artefacts. An artefact's name is unique in its organisation and
// its content never changes, so there is nothing to update: it is there, it has to be made, or its
// name belongs to something else.
func Kind(options reflector.Options) lifecycle.Kind[*v1alpha1.Artefact] {
	artefacts := reflector.New(options, reflector.Collection[connectclient.Artefact]{
		Name: "artefacts",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.Artefact] {
			return c.Artefacts().List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.Artefact, error) {
			return c.Artefacts().Get(ctx, id)
		},
		ID:   func(a connectclient.Artefact) string { return a.ID },
		Keys: func(a connectclient.Artefact) []string { return []string{strings.TrimSpace(a.Name)} },
	})
	return lifecycle.Kind[*v1alpha1.Artefact]{
		New:        func() *v1alpha1.Artefact { return &v1alpha1.Artefact{} },
		NewList:    func() client.ObjectList { return &v1alpha1.ArtefactList{} },
		Noun:       "artefact",
		NaturalKey: name,
		Source:     artefacts,
		Connect: func(obj *v1alpha1.Artefact, conn *lifecycle.Connection) lifecycle.Remote {
			return &external{obj: obj, conn: conn, store: artefacts.Of(conn.Token)}
		},
	}
}

// external is the remote object of one Artefact.
type external struct {
	obj   *v1alpha1.Artefact
	conn  *lifecycle.Connection
	store *reflector.Store[connectclient.Artefact]
}

// Observe implements [lifecycle.Remote].
func (e *external) Observe(context.Context) (lifecycle.Observation, error) {
	if err := lifecycle.Listed(e.conn, e.store); err != nil {
		return lifecycle.Observation{}, err
	}
	if record := e.conn.Record; record.ID != "" {
		found, ok, err := e.store.Lookup(record.ID, e.conn.Waiter)
		switch {
		case err != nil:
			return lifecycle.Observation{}, lifecycle.FromListing(err)
		case ok && !e.fits(found):
			return lifecycle.ForeignObject(found.ID, e.conflict(found)), nil
		case ok && record.Own():
			return available(lifecycle.Mine, found), nil
		case ok:
			return available(lifecycle.Adoptable, found), nil
		}
	}
	for _, found := range e.store.Find(name(e.obj)) {
		switch _, there, err := e.store.Lookup(found.ID, e.conn.Waiter); {
		case err != nil:
			return lifecycle.Observation{}, lifecycle.FromListing(err)
		case !there:
		case !e.fits(found):
			return lifecycle.ForeignObject(found.ID, e.conflict(found)), nil
		case len(e.conn.Sent) > 0:
			seen := available(lifecycle.Recovered, found)
			seen.Proof = "it has the name, the URI and the checksum of a request whose answer was lost"
			return seen, nil
		default:
			return available(lifecycle.Adoptable, found), nil
		}
	}
	return lifecycle.AbsentObject(), nil
}

// fits tells whether the artefact found is the one that the spec describes.
func (e *external) fits(found connectclient.Artefact) bool {
	spec := e.obj.Spec
	return strings.TrimSpace(found.Name) == name(e.obj) && found.URI == spec.URI && strings.EqualFold(found.Checksum, spec.Checksum)
}

func (e *external) conflict(found connectclient.Artefact) lifecycle.Outcome {
	spec := e.obj.Spec
	if strings.TrimSpace(found.Name) != name(e.obj) {
		return lifecycle.ImportConflict("The artefact %s has the name %q and not %q", found.ID, lifecycle.Text(found.Name), name(e.obj))
	}
	return lifecycle.Stalled(v1alpha1.ReasonConflict,
		"The organisation has the artefact %q from %s with the checksum %s, but the spec says %s with the checksum %s: an artefact never changes, so give this one another spec.name.",
		lifecycle.Text(found.Name), lifecycle.Text(found.URI), lifecycle.Text(found.Checksum), lifecycle.Text(spec.URI), spec.Checksum)
}

// Prepare implements [lifecycle.Creator].
func (e *external) Prepare(context.Context) (lifecycle.Preparation, error) {
	return lifecycle.Preparation{}, nil
}

// Create implements [lifecycle.Creator].
func (e *external) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := e.conn.Client.Artefacts().Create(ctx, connectclient.ArtefactCreate{
		Name: name(e.obj), URI: e.obj.Spec.URI, Checksum: e.obj.Spec.Checksum,
	})
	if err != nil {
		return lifecycle.Observation{}, err
	}
	e.store.Put(*made)
	return available(lifecycle.Mine, *made), nil
}

// Delete implements [lifecycle.Deleter].
func (e *external) Delete(ctx context.Context, id string) (lifecycle.Deletion, error) {
	deletion := lifecycle.Removed(v1alpha1.EventDeleted, "Deleted the artefact "+id+" in the organisation.")
	switch err := e.conn.Client.Artefacts().Delete(ctx, id); {
	case errors.Is(err, connectclient.ErrArtefactDeployed):
		return lifecycle.Retained(v1alpha1.EventArtefactRetained,
			"The artefact stays in the organisation: Connect never deletes one that has been deployed."), nil
	case errors.Is(err, connectclient.ErrNotFound):
		deletion = lifecycle.AlreadyGone()
	case err != nil:
		return lifecycle.Deletion{}, err
	}
	e.store.Remove(id)
	return deletion, nil
}

func available(relation lifecycle.Relation, a connectclient.Artefact) lifecycle.Observation {
	return lifecycle.Observation{
		Relation: relation, ID: a.ID, Name: a.Name,
		Outcome: lifecycle.Ready(v1alpha1.ReasonAvailable, "The artefact is in the organisation and can be deployed."),
	}
}

// name is the artefact's name in the organisation.
func name(obj *v1alpha1.Artefact) string {
	if own := strings.TrimSpace(obj.Spec.Name); own != "" {
		return own
	}
	return obj.Name
}
