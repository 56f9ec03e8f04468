// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"fmt"
	"slices"
	"strings"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
)

var artefacts = &kind{
	name: "Artefact", prefix: "a", collection: "artefacts", names: 4,
	fresh: func(_ *world, name string, variant int) object {
		a := &v1alpha1.Artefact{}
		a.Spec.URI, a.Spec.Checksum = content(name, variant/4)
		a.Spec.DeletionPolicy = policy(variant)
		return a
	},
	same: func(anew, was object) { anew.(*v1alpha1.Artefact).Spec = was.(*v1alpha1.Artefact).Spec },
	change: func(_ *world, obj object, variant int) {
		obj.GetCommonSpec().DeletionPolicy = policy(variant)
	},
	add: func(w *world, n, variant int) {
		called := name("a", n)
		if slices.ContainsFunc(w.org().Artefacts(), func(a connectsim.Artefact) bool { return a.Name == called }) {
			return // names are unique
		}
		uri, checksum := content(called, variant)
		w.noteTheirs(w.org().AddArtefact(called, uri, checksum).ID)
	},
	alter: nothing, // Connect has no such thing
	remove: func(w *world, n, _ int) {
		if a, ok := pick(w.org().Artefacts(), n); ok {
			w.org().RemoveArtefact(a.ID)
		}
	},
	ids: func(org *connectsim.Organisation) []string {
		return idsOf(org.Artefacts(), func(a connectsim.Artefact) string { return a.ID })
	},
	goes: func(org *connectsim.Organisation) (ids []string) {
		for _, a := range org.Artefacts() {
			if !a.Deployed { // such a one can never be deleted again
				ids = append(ids, a.ID)
			}
		}
		return ids
	},
	atRest: func(w *world, obj object) error {
		a := obj.(*v1alpha1.Artefact)
		status, reason, message := ready(a)
		at := slices.IndexFunc(w.org().Artefacts(), func(r connectsim.Artefact) bool { return r.ID == a.Status.ID })
		switch {
		case status == "True" && reason == v1alpha1.ReasonAvailable:
			if at < 0 {
				return fmt.Errorf("is Available, and its artefact is not there")
			}
			if r := w.org().Artefacts()[at]; r.Name != a.Name || r.URI != a.Spec.URI || r.Checksum != a.Spec.Checksum {
				return fmt.Errorf("is Available, and its artefact is another one: %+v", r)
			}
			return nil
		case reason == v1alpha1.ReasonConflict && !strings.Contains(message, v1alpha1.AnnotationID):
			if !slices.ContainsFunc(w.org().Artefacts(), func(r connectsim.Artefact) bool {
				return r.Name == a.Name && (r.URI != a.Spec.URI || r.Checksum != a.Spec.Checksum)
			}) {
				return fmt.Errorf("nothing is in conflict with it")
			}
			return nil
		}
		return w.excused(a)
	},
}

// content is what an artefact has of that name; one variant in four is another one.
func content(name string, variant int) (uri, checksum string) {
	version := 1
	if variant%4 == 3 {
		version = 2
	}
	return fmt.Sprintf("https://updates.example.com/%s-%d.tar.zst?signature=%s", name, version, canary), fmt.Sprintf("%064d", version)
}
