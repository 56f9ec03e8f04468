// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// judge says whether a request that changes something may be sent at all, at this moment.
func (w *world) judge(a act, of resource, token string, req *http.Request) {
	if of == (resource{}) {
		w.violatedf("%s %s is sent for no resource", req.Method, req.URL.Path)
		return
	}
	obj := w.lookUp(of)
	if obj != nil && obj.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true" && !w.recently(of) {
		w.violatedf("%s %s is sent for %s, which is suspended", req.Method, req.URL.Path, of)
	}
	switch {
	case a.method == http.MethodPost && a.kind == "Deployment":
		w.judgeDeployment(a, of, obj, req)
	case a.method == http.MethodPost:
		w.judgeCreation(a, of, obj)
	case a.method == http.MethodDelete:
		w.judgeDeletion(a, of, obj, token)
	default: // a change, or a cancellation
		if !w.has(obj, a.id) && !w.madeFor(of, a.id) {
			w.violatedf("%s %s is sent for %s, which does not have it", req.Method, req.URL.Path, of)
		}
	}
}

// has tells whether a resource has the object on record.
func (w *world) has(obj object, id string) bool {
	return obj != nil && (obj.GetCommonStatus().ID == id || obj.GetAnnotations()[v1alpha1.AnnotationID] == id)
}

// madeFor tells whether the operator has made the object for the resource.
func (w *world) madeFor(of resource, id string) bool {
	m, found := w.ledger.madeBy(id)
	return found && m.resource == of
}

// other returns a resource of the same kind that has the object on record, and is another one.
func (w *world) other(of resource, id string) object {
	var found object
	w.each(of.kind, func(obj object) {
		if obj.GetName() != of.name && obj.GetCommonStatus().ID == id && obj.GetDeletionTimestamp() == nil {
			found = obj
		}
	})
	return found
}

func (w *world) judgeCreation(a act, of resource, obj object) {
	if a.kind != of.kind {
		w.violatedf("an object of kind %s is made for %s", a.kind, of)
	}
	if obj != nil && strings.Contains(obj.GetAnnotations()[v1alpha1.AnnotationCreateIntent], `"unlooked":true`) {
		w.mayStay(of) // nobody can tell later whose it is
	}
	if obj != nil && obj.GetDeletionTimestamp() != nil && obj.GetAnnotations()[v1alpha1.AnnotationCreateIntent] == "" {
		w.violatedf("an object is made for %s, which is being deleted", of)
	}
}

// neverSent tells whether a process died between the note of a request and the request. The next one cannot
// know that.
func (w *world) neverSent(of resource, obj object) bool {
	return obj != nil && slices.ContainsFunc(lifecycle.SentIntents(obj), func(i lifecycle.Intent) bool {
		return !w.ledger.sentBetween(of, i.At, i.At.Add(time.Minute))
	})
}

func (w *world) judgeDeletion(a act, of resource, obj object, token string) {
	ours := w.madeFor(of, a.id)
	if other := w.other(of, a.id); other != nil {
		w.violatedf("%s %s is deleted for %s, although %s has it", a.kind, a.id, of, other.GetName())
		return
	}
	deleting := obj == nil || obj.GetDeletionTimestamp() != nil
	switch {
	case !w.isThere(w.organisationOf(token), a.id):
		return // it has gone already
	case a.kind == "AuthKey" && ours:
		return // a key of its own may always go: it is renewed, or nobody has it
	case a.kind == "AuthKey" && (w.ledger.mayHaveMade(of) || w.neverSent(of, obj) || w.madeUnseen(of, a.id)):
		return // it looks like one that may have been made
	case !deleting && !w.recently(of):
		w.violatedf("%s %s is deleted for %s, which is not being deleted", a.kind, a.id, of)
	case w.edited(of):
		return // by another policy, which the operator had not seen yet
	case ours:
		if policy := policyOf(obj); policy == v1alpha1.DeletionPolicyOrphan {
			w.violatedf("%s %s is deleted for %s, whose policy is Orphan", a.kind, a.id, of)
		}
	case policyOf(obj) != v1alpha1.DeletionPolicyDelete && !w.madeMeanwhile(of, a.id):
		w.violatedf("%s %s is deleted for %s, which has not made it", a.kind, a.id, of)
	}
}

// edited tells whether the spec of a resource was changed just now.
func (w *world) edited(of resource) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.edits[of]) < time.Minute
}

// noteTheirs notes that others have made an object.
func (w *world) noteTheirs(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.theirs[id] = time.Now()
}

// madeMeanwhile tells whether others made the object around the time of the operator's request
// to make the same, or before it could look again, so that nobody can tell whose it is if the answer was
// lost.
func (w *world) madeMeanwhile(of resource, id string) bool {
	w.mu.Lock()
	at, theirs := w.theirs[id]
	w.mu.Unlock()
	asked := w.ledger.askedAt(of)
	return theirs && !asked.IsZero() && (asked.Sub(at).Abs() < 15*time.Minute || at.After(asked) && !w.ledger.listedBetween(of.kind, asked, at))
}

// madeUnseen tells whether others made the key after the operator's request for one like it, and before the
// operator could find what that had made.
func (w *world) madeUnseen(of resource, id string) bool {
	w.mu.Lock()
	at, theirs := w.theirs[id]
	w.mu.Unlock()
	asked := w.ledger.askedAt(of)
	return theirs && !asked.IsZero() && at.After(asked) && !w.ledger.listedBetween(of.kind, asked.Add(lateness), at)
}

func policyOf(obj object) v1alpha1.DeletionPolicy {
	if obj == nil {
		return ""
	}
	return obj.GetCommonSpec().DeletionPolicy
}

// judgeDeployment is asked before a device is updated.
func (w *world) judgeDeployment(a act, of resource, obj object, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(err) // the body is in memory
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	var asked struct {
		ArtefactID string `json:"artefact_id"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		w.violatedf("%s asks with %q", of, body)
	}
	d, ok := obj.(*v1alpha1.Deployment)
	if !ok {
		if !w.recently(of) {
			w.violatedf("a device is updated for %s, which is no Deployment that there is", of)
		}
		return
	}
	if d.Spec.Force {
		return
	}
	for _, org := range w.orgs {
		if runs := org.Deployments(a.id); len(runs) > 0 && runs[0].ArtefactID == asked.ArtefactID && unfinishedOrSucceeded(runs[0].State) {
			w.violatedf("%s updates a device anew that has the artefact: its newest deployment is %s", of, runs[0].State)
		}
	}
}

func unfinishedOrSucceeded(state string) bool {
	return state == connectsim.Pending || state == connectsim.InProgress || state == connectsim.Succeeded
}
