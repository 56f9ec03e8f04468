// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

const artefactsPath = "/organisation/artefacts"

// Artefact is something that can be deployed to devices. It never changes: new
// content is a new artefact under a new name.
type Artefact struct {
	ID string `json:"id"`
	// Name is unique in the organisation.
	Name string `json:"name"`
	// URI is where devices fetch the content themselves. It may hold a
	// credential.
	URI string `json:"uri"`
	// Checksum is the content's SHA-256 in hex, in either case.
	Checksum string `json:"checksum"`
}

func (a *Artefact) normalise() string { return a.ID }

// ArtefactCreate is a new artefact.
type ArtefactCreate struct {
	Name     string `json:"name"`
	URI      string `json:"uri"`
	Checksum string `json:"checksum"`
}

// ArtefactClient calls the API about artefacts.
type ArtefactClient struct{ client *Client }

// Artefacts has the calls about artefacts.
func (c *Client) Artefacts() *ArtefactClient { return &ArtefactClient{c} }

// List opens a listing of the organisation's artefacts, sorted by name.
func (a *ArtefactClient) List() *Listing[Artefact] { return a.list(nil) }

// Find yields the artefacts of that name. It compares without regard to case,
// because whether two names that differ in case only are one to Connect is not
// published; the caller sees which it is. On the older revision it costs as much
// as [ArtefactClient.List].
func (a *ArtefactClient) Find(ctx context.Context, name string) iter.Seq2[Artefact, error] {
	return func(yield func(Artefact, error) bool) {
		// The filter is a prefix, and the older revision ignores it.
		for found, err := range a.list(url.Values{"name": {name}}).All(ctx) {
			if err == nil && !strings.EqualFold(found.Name, name) {
				continue
			}
			if !yield(found, err) {
				return
			}
		}
	}
}

func (a *ArtefactClient) list(query url.Values) *Listing[Artefact] {
	return &Listing[Artefact]{
		client:    a.client,
		operation: "list artefacts",
		path:      artefactsPath,
		plural:    "artefacts",
		query:     query,
		normalise: (*Artefact).normalise,
		refine:    noCollection,
	}
}

// Get reads one artefact: [ErrNotFound] if there is none, [ErrUnsupported] if the
// API is the older revision.
func (a *ArtefactClient) Get(ctx context.Context, id string) (*Artefact, error) {
	const operation = "get artefact"
	path, err := pathTo(operation, artefactsPath, id)
	if err != nil {
		return nil, err
	}
	found := &Artefact{}
	req := request{operation: operation, method: http.MethodGet, path: path, currentOnly: true}
	if err := a.client.doInto(ctx, req, found); err != nil {
		return nil, err
	}
	return found, nil
}

// Create makes an artefact. A name that is taken is [ErrInvalid], most likely:
// the answer is not published.
func (a *ArtefactClient) Create(ctx context.Context, create ArtefactCreate) (*Artefact, error) {
	made := &Artefact{}
	err := a.client.doInto(ctx, request{
		operation: "create artefact", method: http.MethodPost, path: artefactsPath, body: encode(create),
	}, made)
	if err != nil {
		return nil, err
	}
	return made, nil
}

// Delete removes an artefact. One that has been deployed, or was only tried to
// be, can never be deleted: [ErrArtefactDeployed].
func (a *ArtefactClient) Delete(ctx context.Context, id string) error {
	const operation = "delete artefact"
	path, err := pathTo(operation, artefactsPath, id)
	if err != nil {
		return err
	}
	err = a.client.do(ctx, request{operation: operation, method: http.MethodDelete, path: path})
	return classify(err, http.StatusUnprocessableEntity, "have been deployed", ErrArtefactDeployed)
}
