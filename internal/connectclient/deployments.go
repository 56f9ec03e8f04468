// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"net/http"
	"time"
)

const deploymentsPath = "/organisation/deployments"

// DeploymentState is how far a deployment has come, in the API's words.
type DeploymentState string

// The states. A device that is offline leaves its deployment pending for as long
// as it takes. A deployment that a newer one superseded is failed or cancelled:
// the vendor's pages disagree.
const (
	DeploymentPending    DeploymentState = "pending"
	DeploymentInProgress DeploymentState = "in_progress"
	DeploymentSucceeded  DeploymentState = "succeeded" // after the device's reboot
	DeploymentFailed     DeploymentState = "failed"
	DeploymentCancelled  DeploymentState = "cancelled"
)

// Terminal tells whether the state is never left. A state that the API is not
// known to have is not.
func (s DeploymentState) Terminal() bool {
	switch s {
	case DeploymentSucceeded, DeploymentFailed, DeploymentCancelled:
		return true
	default:
		return false
	}
}

// Deployment is one artefact on its way to one device.
type Deployment struct {
	ID    string          `json:"id"`
	State DeploymentState `json:"state"`
	// StateReason says why it failed; empty otherwise. Devices write it: it is
	// cut to [MaxStateReason] and cleaned as by [Text].
	StateReason string    `json:"state_reason"`
	DeviceID    string    `json:"device_id"`
	ArtefactID  string    `json:"artefact_id"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func (d *Deployment) normalise() string {
	d.StateReason = Text(d.StateReason, MaxStateReason)
	return d.ID
}

// DeploymentClient calls the API about deployments.
type DeploymentClient struct{ client *Client }

// Deployments has the calls about deployments.
func (c *Client) Deployments() *DeploymentClient { return &DeploymentClient{c} }

// ListOfDevice opens a listing of the device's deployments, the newest first. It
// is [ErrNotFound] if there is no such device.
func (d *DeploymentClient) ListOfDevice(deviceID string) *Listing[Deployment] {
	const operation = "list deployments"
	path, err := deploymentsOf(operation, deviceID)
	return &Listing[Deployment]{
		client:    d.client,
		operation: operation,
		path:      path,
		plural:    "deployments",
		normalise: (*Deployment).normalise,
		invalid:   err,
	}
}

// History returns all of the device's deployments, the newest first. Few devices
// have had more than one request gives; the pages after the first are read as any
// listing, out of the part of the budget that is for those. [ErrNotFound] if there
// is no such device. Who asks decides by it whether to deploy, so it is an error
// here if the listing was not whole, or a row could not be understood.
func (d *DeploymentClient) History(ctx context.Context, deviceID string) ([]Deployment, error) {
	all := d.ListOfDevice(deviceID)
	if all.invalid != nil {
		return nil, all.invalid
	}
	first, err := all.page(ctx, 1)
	if err != nil {
		return nil, err
	}
	history, understood, whole := first.rows, len(first.rows) == first.count, first.pages <= 1 && first.total <= first.count
	if understood && !whole {
		history = nil
		for deployment, err := range all.All(ctx) {
			if err != nil {
				return nil, err
			}
			history = append(history, deployment)
		}
		understood, whole = all.Skipped() == 0, all.Whole()
	}
	req := request{operation: all.operation, method: http.MethodGet}
	switch {
	case !understood:
		return nil, garbageError(&req, &answer{status: http.StatusOK}, "with a deployment that cannot be understood")
	case !whole:
		return nil, garbageError(&req, &answer{status: http.StatusOK}, "with fewer deployments than it counts")
	}
	return history, nil
}

// Get reads one deployment.
func (d *DeploymentClient) Get(ctx context.Context, id string) (*Deployment, error) {
	return d.one(ctx, request{operation: "get deployment", method: http.MethodGet}, id, "")
}

// Create deploys the artefact to the device. It supersedes a deployment that is
// pending there. [ErrNotFound] if there is no such device or artefact,
// [ErrBilling] if the organisation has to set up billing first.
func (d *DeploymentClient) Create(ctx context.Context, deviceID, artefactID string) (*Deployment, error) {
	const operation = "create deployment"
	path, err := deploymentsOf(operation, deviceID)
	if err != nil {
		return nil, err
	}
	body := encode(struct {
		ArtefactID string `json:"artefact_id"`
	}{artefactID})
	made := &Deployment{}
	if err := d.client.doInto(ctx, request{operation: operation, method: http.MethodPost, path: path, body: body}, made); err != nil {
		return nil, err
	}
	return made, nil
}

// Cancel cancels a deployment and returns what it is then. One that has come to
// its end is [ErrNotCancellable]; whether one in progress can be cancelled is not
// published.
func (d *DeploymentClient) Cancel(ctx context.Context, id string) (*Deployment, error) {
	cancelled, err := d.one(ctx, request{operation: "cancel deployment", method: http.MethodPut}, id, "/cancel")
	// There is nothing else in the request that could be refused.
	return cancelled, classify(err, http.StatusUnprocessableEntity, "", ErrNotCancellable)
}

func (d *DeploymentClient) one(ctx context.Context, req request, id, verb string) (*Deployment, error) {
	path, err := pathTo(req.operation, deploymentsPath, id)
	if err != nil {
		return nil, err
	}
	req.path = path + verb
	found := &Deployment{}
	if err := d.client.doInto(ctx, req, found); err != nil {
		return nil, err
	}
	return found, nil
}

func deploymentsOf(operation, deviceID string) (string, error) {
	path, err := pathTo(operation, devicesPath, deviceID)
	return path + "/deployments", err
}
