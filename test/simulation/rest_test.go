// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/invariants"
)

// scanObject checks what must hold for a resource at every moment.
func (w *world) scanObject(item runtime.Object) {
	obj, ok := item.(object)
	if !ok {
		return
	}
	kind := obj.GetObjectKind().GroupVersionKind().Kind
	if err := invariants.Check(obj); err != nil && !w.recently(resource{kind, obj.GetName()}) {
		w.violatedf("%v", err)
	}
	text, err := json.Marshal([]any{obj.GetCommonStatus().Conditions, obj.GetAnnotations(), obj.GetLabels()})
	w.must(err)
	if found := secret.Find(text); found != nil {
		w.violatedf("a secret is in %T %s", obj, obj.GetName())
	}
}

// rest ends all faults, and lets the world come to rest.
func (w *world) rest() {
	w.setDown(false)
	w.running.disarm()
	w.sim.ClearFaults()
	w.putToken(w.token)
	w.pass(3 * time.Hour)
	for range 4 {
		w.finishDeployments()
		w.pass(time.Hour)
	}
}

// finishDeployments has every device do what it has to.
func (w *world) finishDeployments() {
	for range 2 {
		for _, org := range w.orgs {
			for _, d := range org.Deployments("") {
				switch d.State {
				case connectsim.Pending:
					org.MoveDeployment(d.ID, connectsim.InProgress, "")
				case connectsim.InProgress:
					org.MoveDeployment(d.ID, connectsim.Succeeded, "")
				}
			}
		}
		w.pass(10 * time.Minute)
	}
}

// atRest checks what must be true when all is over.
func (w *world) atRest() {
	referenced := map[string]bool{}
	for _, k := range kinds {
		w.each(k.name, func(obj object) {
			referenced[obj.GetCommonStatus().ID] = true
			referenced[obj.GetAnnotations()[v1alpha1.AnnotationID]] = true // of one that is suspended
			if err := w.resourceAtRest(k, obj); err != nil {
				status, reason, message := ready(obj)
				w.violatedf("%s %s, which says %s %s: %s: %v", k.name, obj.GetName(), status, reason, message, err)
			}
		})
	}
	w.keysAtRest()
	w.leftBehind(referenced)
	w.quiet()
}

func (w *world) resourceAtRest(k *kind, obj object) error {
	switch _, reason, _ := ready(obj); {
	case obj.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true":
		return nil
	case obj.GetDeletionTimestamp() != nil && reason != v1alpha1.ReasonOrganisationChanged && reason != v1alpha1.ReasonDeletionRefused:
		return fmt.Errorf("is still being deleted")
	case obj.GetDeletionTimestamp() != nil:
		return nil
	case obj.GetCommonStatus().ObservedGeneration != obj.GetGeneration():
		return fmt.Errorf("its status is about generation %d of %d", obj.GetCommonStatus().ObservedGeneration, obj.GetGeneration())
	}
	return k.atRest(w, obj)
}

// excused says whether what a resource of any kind says at rest is so.
func (w *world) excused(obj object) error {
	_, reason, _ := ready(obj)
	id := obj.GetCommonStatus().ID
	switch reason {
	case v1alpha1.ReasonOrganisationChanged:
		if w.isThere(w.organisation, id) && !isLost(obj) {
			return fmt.Errorf("what it has is in this organisation")
		}
		return nil
	case v1alpha1.ReasonNotFound:
		if w.isThere(w.organisation, id) {
			return fmt.Errorf("what it has is there")
		}
		return nil
	case v1alpha1.ReasonConflict:
		_, isKey := obj.(*v1alpha1.AuthKey) // is in conflict whether or not what it names is there
		if named := obj.GetAnnotations()[v1alpha1.AnnotationID]; !isKey && !w.isThere(w.organisation, named) {
			return fmt.Errorf("what it names is not there")
		}
		return nil
	case v1alpha1.ReasonAlreadyClaimed:
		return nil // whose it is, is checked with every request
	}
	return fmt.Errorf("is not at rest")
}

// isThere tells whether an organisation has an object.
func (w *world) isThere(organisation int, id string) bool {
	return slices.Contains(w.ids(organisation), id)
}

func (w *world) ids(organisation int) (all []string) {
	for _, k := range kinds {
		all = append(all, k.ids(w.orgs[organisation])...)
	}
	return all
}

// stays tells whether what the operator has made may stay behind.
func (w *world) stays(m made) bool {
	if obj := w.lookUp(m.resource); obj != nil && (isLost(obj) || obj.GetAnnotations()[v1alpha1.AnnotationSuspend] == "true") {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return !m.asked.After(w.letGo[m.resource])
}

// isLost tells whether a resource says that a request of it, whose answer was lost, was sent with a token
// that may have been another organisation's.
func isLost(obj object) bool {
	_, reason, message := ready(obj)
	open := strings.Contains(message, "whose answer was lost") || len(lifecycle.SentIntents(obj)) > 0
	return reason == v1alpha1.ReasonOrganisationChanged && open
}

// leftBehind checks that nothing is there that the operator has made, that no resource has, and that goes
// with its resource.
func (w *world) leftBehind(referenced map[string]bool) {
	for _, k := range kinds {
		if k.goes == nil {
			continue
		}
		for n, org := range w.orgs {
			for _, id := range k.goes(org) {
				if m, ours := w.ledger.madeBy(id); ours && !referenced[id] && !w.stays(m) {
					w.violatedf("%s %s of organisation %d is left behind by %s, which made it at %s", k.name, id, n, m.resource, m.at)
				}
			}
		}
	}
}

// quiet checks that nothing is written when nothing happens.
func (w *world) quiet() {
	due := 0
	w.each("Deployment", func(obj object) {
		// It tries, which is noted before and taken back, because an artefact is known by its id only.
		if _, reason, message := ready(obj); reason == v1alpha1.ReasonArtefactNotReady && strings.Contains(message, "with the id") {
			due += 2
		}
	})
	ids, reasons := map[string]string{}, map[string]string{}
	w.each("AuthKey", func(obj object) {
		_, reasons[obj.GetName()], _ = ready(obj)
		ids[obj.GetName()] = obj.GetCommonStatus().ID
	})
	before := w.api.Writes()
	w.pass(10 * time.Minute)
	w.each("AuthKey", func(obj object) {
		_, reason, _ := ready(obj)
		switch {
		case obj.GetCommonStatus().ID != ids[obj.GetName()]:
			due += 6 // it was time to renew the key
		case reason == v1alpha1.ReasonExpired && reasons[obj.GetName()] != reason:
			due += 2 // its time was up
		}
	})
	if n := w.api.Writes() - before; n > due {
		w.violatedf("%d writes to the API server at rest, %d were due", n, due)
	}
}

// populate puts in what is there in the beginning.
func (w *world) populate() {
	w.putPrivateKeys()
	for n := range w.orgs {
		for b := range boardsSignedIn {
			w.addBoard(n, b)
		}
		for i := range w.setup.theirs {
			w.orgs[n].AddArtefact(fmt.Sprintf("a%d-theirs", i), "https://example.com/theirs", fmt.Sprintf("%064d", i))
		}
	}
}
