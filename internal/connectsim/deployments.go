// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"time"
)

var deploymentRoutes = []route{
	{"POST", "/organisation/devices/{id}/deployments", "", createDeployment},
	{"GET", "/organisation/devices/{id}/deployments", "", listDeployments},
	{"GET", "/organisation/deployments/{id}", "", getDeployment},
	{"PUT", "/organisation/deployments/{id}/cancel", "", cancelDeployment},
}

// The states of a deployment.
const (
	Pending    = "pending"
	InProgress = "in_progress"
	Succeeded  = "succeeded"
	Failed     = "failed"
	Cancelled  = "cancelled"
)

// states are all of them.
var states = []string{Pending, InProgress, Succeeded, Failed, Cancelled}

// Deployment is one artefact on its way to one device.
type Deployment struct {
	ID, State, StateReason, DeviceID, ArtefactID string
	CreatedAt, UpdatedAt                         time.Time
	sequence                                     int
}

func showDeployment(d *Deployment) object {
	return object{
		"id": d.ID, "state": d.State, "state_reason": orNull(d.StateReason), "device_id": d.DeviceID,
		"artefact_id": d.ArtefactID, "created_at": stamp(d.CreatedAt), "updated_at": stamp(d.UpdatedAt),
	}
}

func createDeployment(c *call) reply {
	p, valid := c.params(true)
	artefactID, given := p.text("artefact_id")
	if !valid || !given {
		return c.bad("artefact_id is missing")
	}
	device, found := c.org.devices.byID[c.PathValue("id")]
	artefact, exists := c.org.artefacts.byID[artefactID]
	if !found || !exists {
		return c.notFound()
	}
	artefact.Deployed = true // a mere attempt is enough
	c.server.touch()
	if !c.server.billing {
		return reply{http.StatusForbidden, message{"Deployments are blocked until billing has been set up"}}
	}
	c.org.supersede(device.ID)
	return created(showDeployment(c.org.addDeployment(device.ID, artefact.ID)))
}

// supersede ends the deployment that is still pending for the device.
func (o *Organisation) supersede(deviceID string) {
	for _, d := range o.runs[deviceID] {
		if d.State != Pending {
			continue
		}
		if o.server.options.SupersededAsCancelled {
			o.move(d, Cancelled, "")
			continue
		}
		o.move(d, Failed, "Superseded by a newer deployment")
	}
}

func (o *Organisation) addDeployment(deviceID, artefactID string) *Deployment {
	now := o.server.now()
	o.sequence++
	d := &Deployment{
		ID: newID(), State: Pending, DeviceID: deviceID, ArtefactID: artefactID,
		CreatedAt: now, UpdatedAt: now, sequence: o.sequence,
	}
	o.deployments[d.ID] = d
	o.runs[deviceID] = append(o.runs[deviceID], d)
	o.tell(deviceID, "data: "+jsonOf(object{"command": "deploy", "data": object{"id": d.ID}}))
	o.server.touch()
	return d
}

func (o *Organisation) move(d *Deployment, state, reason string) {
	d.State, d.StateReason, d.UpdatedAt = state, reason, o.server.now()
	o.server.touch()
}

func listDeployments(c *call) reply {
	if _, found := c.org.devices.byID[c.PathValue("id")]; !found {
		return c.notFound()
	}
	state := c.URL.Query().Get("state")
	if c.older() {
		state = ""
	}
	if state != "" && !slices.Contains(states, state) {
		return reply{http.StatusBadRequest, message{`Unknown state "` + state + `"`}}
	}
	all := c.org.deploymentsOf(c.PathValue("id"))
	if state != "" {
		all = slices.DeleteFunc(all, func(d *Deployment) bool { return d.State != state })
	}
	return page(c, "deployments", all, showDeployment)
}

// deploymentsOf returns a device's deployments, the newest first.
func (o *Organisation) deploymentsOf(deviceID string) []*Deployment {
	all := slices.Clone(o.runs[deviceID])
	slices.Reverse(all)
	return all
}

func getDeployment(c *call) reply {
	d, found := c.org.deployments[c.PathValue("id")]
	if !found {
		return c.notFound()
	}
	return ok(showDeployment(d))
}

func cancelDeployment(c *call) reply {
	d, found := c.org.deployments[c.PathValue("id")]
	switch {
	case !found:
		return c.notFound()
	case d.State == Pending, d.State == InProgress && c.server.options.CancelsInProgress:
		c.org.move(d, Cancelled, "")
		return ok(showDeployment(d))
	default:
		return invalid(`Cannot cancel deployment in state "` + d.State + `"`)
	}
}

// Deployments returns a device's deployments, the newest first; all of the
// organisation's if the id is empty.
func (o *Organisation) Deployments(deviceID string) []Deployment {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if deviceID != "" {
		return copies(o.deploymentsOf(deviceID))
	}
	return copies(o.allDeployments())
}

// allDeployments are those of all devices, the newest first.
func (o *Organisation) allDeployments() []*Deployment {
	return slices.SortedFunc(maps.Values(o.deployments), func(a, b *Deployment) int { return cmp.Compare(b.sequence, a.sequence) })
}

// AddDeployment deploys an artefact to a device, as another person would.
func (o *Organisation) AddDeployment(deviceID, artefactID string) Deployment {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if a, found := o.artefacts.byID[artefactID]; found {
		a.Deployed = true
	}
	o.supersede(deviceID)
	return *o.addDeployment(deviceID, artefactID)
}

// MoveDeployment sets the state of a deployment, as its device would.
func (o *Organisation) MoveDeployment(id, state, reason string) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	if d, found := o.deployments[id]; found {
		o.move(d, state, reason)
	}
}
