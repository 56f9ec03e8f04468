// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups=rpi-connect.dev,resources=artefacts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=rpi-connect.dev,resources=artefacts/status,verbs=patch

// artefactKind makes the organisation's artefacts what Artefacts say. An
// artefact's name is unique in its organisation and its content never changes,
// so there is nothing to update: it is there, it has to be made, or its name
// belongs to something else.
func artefactKind(options reflector.Options) lifecycle.Kind[*v1alpha1.Artefact] {
	artefacts := reflector.New(options, reflector.Collection[connectclient.Artefact]{
		Name: "artefacts",
		List: func(c *connectclient.Client, _ string) reflector.Pager[connectclient.Artefact] {
			return c.Artefacts.List()
		},
		Get: func(ctx context.Context, c *connectclient.Client, id string) (*connectclient.Artefact, error) {
			return c.Artefacts.Get(ctx, id)
		},
		ID:   func(a connectclient.Artefact) string { return a.ID },
		Keys: func(a connectclient.Artefact) []string { return []string{a.Name} },
	})
	return lifecycle.Kind[*v1alpha1.Artefact]{
		New:          func() *v1alpha1.Artefact { return &v1alpha1.Artefact{} },
		NewList:      func() client.ObjectList { return &v1alpha1.ArtefactList{} },
		NaturalKey:   artefactName,
		Organisation: artefacts,
		Connect: func(obj *v1alpha1.Artefact, conn *lifecycle.Connection) lifecycle.Remote {
			return &artefact{obj: obj, conn: conn, store: artefacts.Of(conn.Token)}
		},
	}
}

// artefact is the remote twin of one Artefact.
type artefact struct {
	obj   *v1alpha1.Artefact
	conn  *lifecycle.Connection
	store *reflector.Store[connectclient.Artefact]
}

func (a *artefact) Observe(context.Context) (lifecycle.Observation, error) {
	if err := a.store.Await(a.conn.NotBefore, a.conn.Waiter); err != nil {
		return lifecycle.Observation{}, err
	}
	found, ok, err := a.store.Lookup(a.conn.ID, a.conn.Waiter)
	if err != nil {
		return lifecycle.Observation{}, err
	}
	if named := a.store.Find(artefactName(a.obj)); !ok && len(named) > 0 {
		found, ok = named[0], true
	}
	if !ok {
		return lifecycle.Observation{}, nil
	}
	if err := a.sameContent(found); err != nil {
		return lifecycle.Observation{}, err
	}
	seen := available(found)
	seen.Ours = a.conn.Intent != nil
	return seen, nil
}

// sameContent makes sure that the artefact found is the one the spec describes.
func (a *artefact) sameContent(found connectclient.Artefact) error {
	spec := a.obj.Spec
	if found.Name == artefactName(a.obj) && found.URI == spec.URI && strings.EqualFold(found.Checksum, spec.Checksum) {
		return nil
	}
	return lifecycle.Stalled(v1alpha1.ReasonConflict,
		"The organisation has the artefact %q from %s with the checksum %s, but the spec says %q from %s with the checksum %s: an artefact never changes, so give this one another spec.name.",
		found.Name, withoutSecrets(found.URI), found.Checksum, artefactName(a.obj), withoutSecrets(spec.URI), spec.Checksum)
}

func (a *artefact) Prepare(context.Context) (string, error) { return "", nil }

func (a *artefact) Create(ctx context.Context) (lifecycle.Observation, error) {
	made, err := a.conn.Client.Artefacts.Create(ctx, connectclient.ArtefactCreate{
		Name: artefactName(a.obj), URI: a.obj.Spec.URI, Checksum: a.obj.Spec.Checksum,
	})
	if err != nil {
		return lifecycle.Observation{}, err
	}
	a.store.Put(*made)
	return available(*made), nil
}

// Update is never asked for: Observe finds an artefact as it should be, or not
// at all.
func (a *artefact) Update(context.Context, string) (lifecycle.Observation, error) {
	return lifecycle.Observation{}, errors.New("an artefact cannot be updated")
}

func (a *artefact) Delete(ctx context.Context, id string) error {
	err := a.conn.Client.Artefacts.Delete(ctx, id)
	switch {
	case errors.Is(err, connectclient.ErrArtefactDeployed):
		return lifecycle.Retained{
			Reason:  v1alpha1.EventArtefactRetained,
			Message: "The artefact stays in the organisation: Connect never deletes one that has been deployed.",
		}
	case err != nil && !errors.Is(err, connectclient.ErrNotFound):
		return err
	}
	a.store.Remove(id)
	return nil
}

func available(a connectclient.Artefact) lifecycle.Observation {
	return lifecycle.Observation{
		Exists: true, ID: a.ID,
		Verdict: lifecycle.Ready(v1alpha1.ReasonAvailable, "The artefact is in the organisation and can be deployed."),
	}
}

// artefactName is the artefact's name in the organisation.
func artefactName(obj *v1alpha1.Artefact) string {
	if obj.Spec.Name != "" {
		return obj.Spec.Name
	}
	return obj.Name
}

// withoutSecrets returns the URI without what often carries a credential: the
// user and the query.
func withoutSecrets(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return "(a URI that cannot be parsed)"
	}
	u.User, u.RawQuery, u.Fragment, u.ForceQuery = nil, "", "", false
	return u.String()
}
