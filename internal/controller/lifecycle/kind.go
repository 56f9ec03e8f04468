// SPDX-License-Identifier: Apache-2.0

// Package lifecycle is the one reconcile loop of this operator.
//
// Every kind has a remote object, and the story is always the same: connect, observe, create or
// update, or let go. [Reconciler] runs that story. It alone knows finalizers, the record of what
// was created, ownership, conditions, events and when to look again; a kind knows its own remote
// object ([Remote]) and nothing of the above. A new kind is a new [Kind], and no edit here.
//
// Three rules hold it together:
//
//   - What is true is observed. A pass decides by what it observes in the organisation and by typed
//     fields of the status, never by the conditions that it wrote itself.
//   - An [Observation] is one word: Mine, Recovered, Adoptable, Foreign, Absent, or Unknown.
//     Creating, updating and deleting all switch on it, and only what is Mine is changed or removed.
//   - Nothing bypasses the pace: whatever clocks, caches and listings say, a resource that nobody
//     changed is not worked on more than about once a second, and ever less often.
package lifecycle

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// Object is a resource of this API group.
type Object interface {
	client.Object
	GetCommonSpec() *v1alpha1.CommonSpec
	GetCommonStatus() *v1alpha1.CommonStatus
}

// Kind says what the loop needs to know of one kind.
type Kind[O Object] struct {
	// New returns an empty resource, NewList an empty list of them.
	New     func() O
	NewList func() client.ObjectList

	// Noun is what messages and events call the remote object: "artefact".
	Noun string

	// Secrets names the Secrets, besides the access token's, whose change concerns the resource.
	// Optional.
	Secrets func(O) []string

	// NaturalKey is what identifies the remote object before its id is known, an artefact's name
	// for example. It promises two things: resources with the same natural key in one organisation
	// are about the same remote object, and the API refuses to create a second one. So a POST whose
	// outcome is unknown may be sent again. Nil where a kind has none, empty where a resource's
	// cannot be told.
	NaturalKey func(O) string

	// LooksFirst tells whether the pass that creates something, or takes it over, has to rest on a
	// listing that began after the resource was first seen, and after it last waited for anything
	// else than a listing or the budget: what an older one shows may have moved since. Optional.
	LooksFirst func(O) bool

	// OrphanByDefault leaves the remote object in place on deletion when the spec does not set a
	// deletionPolicy, even if the operator made it.
	OrphanByDefault bool

	// Done tells whether a resource has come to its end, and what to say of it: from then on
	// nothing is asked of the organisation any more. It MUST decide by the spec and typed fields of
	// the status. Nil for kinds that never end.
	Done func(O) (Outcome, bool)

	// Reset clears what the status says of the remote object, besides the common fields: the
	// resource begins anew in another organisation. Optional.
	Reset func(O)

	// Forget is told that a resource is gone. Optional.
	Forget func(types.NamespacedName)

	// Connect ties a resource to its organisation for one pass. It MUST NOT send anything.
	Connect func(O, *Connection) Remote

	// Source wakes the loop when an organisation changes behind the operator's back.
	Source Source

	// Indexes are cache indexes that the kind looks its resources up by. Optional.
	Indexes map[string]func(O) []string

	// Watch adds what else the kind has to be woken by. Optional.
	Watch func(*builder.Builder)
}

// Source watches organisations for one kind; mostly it is a [reflector.Reflector], which several
// kinds may share.
type Source interface {
	// Start watches until the context ends. A source that several kinds share is started by each
	// of them.
	Start(ctx context.Context) error
	// Subscribe says, before Start, whom to tell of changes, and who knows whether a token is
	// still in use.
	Subscribe(subscription reflector.Subscription)
	// Retry asks again what could not be asked because the token was refused.
	Retry(token connectclient.Secret)
	// Retire forgets a token that nothing uses any more.
	Retire(token connectclient.Secret)
	// Forget drops a waiter that is gone.
	Forget(waiter reflector.Waiter)
}

// Connection is what a pass knows of the organisation that its resource belongs to.
type Connection struct {
	// Waiter is who to wake when a listing that it waits for is there.
	Waiter reflector.Waiter
	// Token opens the organisation; Client calls it.
	Token  connectclient.Secret
	Client *connectclient.Client
	// NotBefore is how fresh the listings must be that this pass goes by; zero if any will do. It
	// is set after a response was lost, after a restart between intent and id, and when the user
	// asks for a look.
	NotBefore time.Time
	// Requested says that the user asks for a look now.
	Requested bool
	// Record is what the resource has noted of its remote object.
	Record Record
	// Moved says that the token is not the one with which the remote object was last seen. Unless
	// the object is found with it, it opens another organisation: a kind that would otherwise rely
	// on what the status says MUST look.
	Moved bool
	// Sent are the requests to create the remote object, with this token, that may have been carried
	// out although their answers were lost, the newest first.
	Sent []Intent
	// SentElsewhere are those that were sent with another access token. They prove nothing about what
	// is found with this one, unless a kind can tell that it opens the organisation that they went to
	// ([Observation.SameOrganisation]).
	SentElsewhere []Intent
	// Settling says that the newest of them may still be carried out: whatever is observed, nothing
	// is created by this pass.
	Settling bool
	// Answered notes that what one of the requests has made was found: what turns up when its time to
	// settle is over stems from somebody else.
	Answered func(ctx context.Context, request Intent) error
	// WentHere notes that one of SentElsewhere went to the organisation that Token opens.
	WentHere func(ctx context.Context, request Intent) error
	// Owner finds the resource that has the remote id on record, other than this one.
	Owner func(ctx context.Context, id string) (Owner, bool, error)
	// Claims are what resources hold while they work on something that others must leave alone.
	Claims *Claims
	// Holder is this resource, as Claims know it.
	Holder Holder
	// Event announces something to the user once the status that goes with it is written.
	Event func(Event)
}

// Owner is a resource that has a remote object.
type Owner struct {
	types.NamespacedName
	UID types.UID
	// Created says that the operator created the remote object for it.
	Created bool
}

// Remote is the remote object of one resource during one pass.
//
// A verb returns what it has found or done as a value that says what to tell the user and what
// comes next. An error is for what went wrong on the way; those of [connectclient], [reflector],
// [accesstoken] and of the Kubernetes API are understood by the loop.
//
// What a kind cannot do it leaves out: one that never creates does not implement [Creator], and says
// with [NotCreated] what it waits for where nothing is there.
type Remote interface {
	// Observe says what is there. It MUST NOT change anything remotely, because it also runs for
	// resources that turn out to belong to another owner. It MUST answer Absent only when absence
	// is proven ([reflector.Store.Lookup], or an answer of the API about the id). It may fill the
	// resource's own status fields.
	Observe(ctx context.Context) (Observation, error)
}

// Creator is a [Remote] that can be created.
type Creator interface {
	Remote

	// Prepare brings about everything that Create needs besides the POST, or says what is missing.
	// It runs before the intent is recorded, so that a resource that waits for something writes
	// nothing.
	Prepare(ctx context.Context) (Preparation, error)

	// Create makes the remote object. It MUST send exactly one POST, and MUST have kept everything
	// that is shown only once before it returns: after it the loop records the id. An object that
	// it cannot keep it MUST remove again. It answers Mine for what it made; another observation,
	// without an error, says that certainly nothing was made, and its Outcome why.
	Create(ctx context.Context) (Observation, error)
}

// Updater is a [Remote] that can be changed.
type Updater interface {
	Remote

	// Update makes the remote object under id, which is Mine, what the spec says.
	Update(ctx context.Context, id string) (Observation, error)
}

// Deleter is a [Remote] that can be removed.
type Deleter interface {
	Remote

	// Delete removes the remote object under id, which is Mine, and says what happened. It MUST
	// take one that is not there for removed, if the API itself says so.
	Delete(ctx context.Context, id string) (Deletion, error)
}

// Releaser is a [Remote] that holds something during a pass.
type Releaser interface {
	Remote

	// Release is called when the pass has ended and its status is written. Until the given time a
	// request to create the remote object may still be carried out; zero if there is none.
	Release(until time.Time)
}

// Preparation is what has to be known before a POST, or why it cannot be sent.
type Preparation struct {
	// Note is kept in the intent ([Intent.Note]): what it takes to recognise what the POST made.
	Note string
	// Matters is for how long what the POST made is of consequence, if its answer is lost: an auth
	// key is not after it has expired. 0 stands for always.
	Matters time.Duration
	// Missing ends the pass: something is not there yet, or wrong. Nil if everything is ready.
	Missing *Outcome
}

// Lacking is the preparation of a resource that cannot be created now.
func Lacking(outcome Outcome) Preparation { return Preparation{Missing: &outcome} }
