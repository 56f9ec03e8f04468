// SPDX-License-Identifier: Apache-2.0

package lifecycle

// Relation is what a remote object is to a resource.
type Relation int

const (
	// Unknown says that it cannot be told yet, or does not matter any more; the Outcome says why.
	Unknown Relation = iota
	// Absent says that nothing is there, which is proven. With an Outcome, nothing is to be created
	// either.
	Absent
	// Mine is the object that the resource has on record as its own, and it fits the spec.
	Mine
	// Recovered is an object that a POST made for this resource, which did not live to record it.
	Recovered
	// Adoptable is an object that fits the spec, and that the resource may take over.
	Adoptable
	// Foreign is something else, which the resource names or which stands in the place of its own. It
	// is neither changed nor removed.
	Foreign
)

// String is for logs.
func (r Relation) String() string {
	return [...]string{"Unknown", "Absent", "Mine", "Recovered", "Adoptable", "Foreign"}[r]
}

// Observation is what a pass knows of the remote object.
type Observation struct {
	// Relation says what it is to the resource.
	Relation Relation
	// ID of the remote object; empty if there is none.
	ID string
	// Name is what events call it, besides its kind; optional.
	Name string
	// Proof says, for Recovered, by what it was recognised.
	Proof string
	// Request is, for Recovered, the one that made it; nil if it must have been the newest.
	Request *Intent
	// Note is added to the event of an adoption; optional.
	Note string
	// Outdated says that Update has something to do.
	Outdated bool
	// Unseen says that the status is believed instead of looking: the object is not known to be in
	// the organisation that the token opens.
	Unseen bool
	// Settled says, for Absent, that there is no point in waiting for the effect of an earlier
	// request: it has been found, or can never be seen.
	Settled bool
	// SameOrganisation says, for Absent, that the requests that were sent with another access token
	// went to the organisation that this one opens, and were looked for.
	SameOrganisation bool
	// Outcome is what to tell the user if nothing more has to be done.
	Outcome Outcome
}

// AbsentObject is the observation that nothing is there, and that this is proven.
func AbsentObject() Observation { return Observation{Relation: Absent} }

// NotCreated is the observation that nothing is there, and that nothing is to be created.
func NotCreated(outcome Outcome) Observation {
	return Observation{Relation: Absent, Outcome: outcome}
}

// NotKnown is the observation of a pass that cannot tell yet.
func NotKnown(outcome Outcome) Observation { return Observation{Outcome: outcome} }

// ForeignObject is the observation of something else in the place of the remote object.
func ForeignObject(id string, conflict Outcome) Observation {
	return Observation{Relation: Foreign, ID: id, Outcome: conflict}
}

// exists tells whether there is an object that the resource has or may have.
func (o Observation) exists() bool {
	return o.Relation == Mine || o.Relation == Recovered || o.Relation == Adoptable
}

// Deletion is what became of a remote object that was to be removed.
type Deletion struct {
	// Event tells the user what happened; nil if nothing did, because the object was gone or over.
	Event *Event
	// Pending keeps the resource: the removal has not ended. Nil if it has.
	Pending *Outcome
}

// Removed is the deletion of an object that was removed just now.
func Removed(reason, message string) Deletion {
	return Deletion{Event: &Event{Reason: reason, Action: "Delete", Message: message}}
}

// AlreadyGone is the deletion of an object that was not there any more.
func AlreadyGone() Deletion { return Deletion{} }

// Retained is the deletion that the vendor refuses for ever: there is nothing to wait for, so the
// resource is let go with a warning.
func Retained(reason, message string) Deletion {
	return Deletion{Event: &Event{Warning: true, Reason: reason, Action: "Delete", Message: message}}
}
