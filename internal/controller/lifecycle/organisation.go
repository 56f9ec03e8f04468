// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// moved tells whether the token is not the one with which the remote object was last seen. Such a
// token may be a new one of the same organisation, or one of another: only the object itself can
// tell.
func (p *pass[O]) moved() bool {
	was := cmp.Or(p.record.TokenHash, p.obj.GetCommonStatus().AccessTokenHash)
	return was != "" && was != p.token.Fingerprint() && p.record.Own()
}

// organisationChanged decides about a resource whose remote object is not to be found with another
// token than before. Nothing is made and nothing is called deleted, because the object may well be
// where it was, in the organisation that the token before opens.
func (p *pass[O]) organisationChanged(seen Observation) (Outcome, bool) {
	elsewhere := seen.Relation == Absent || seen.Relation == Foreign || seen.Relation == Adoptable
	switch {
	case !elsewhere:
		return Outcome{}, false
	case p.moved() && seen.ID != p.record.ID:
		return p.otherOrganisation("the organisation that it opens does not have the %s %s", p.kind.Noun, p.record.ID), true
	case seen.Relation == Absent && p.kind.NaturalKey == nil && !seen.SameOrganisation && len(p.sentElsewhere()) > 0:
		return p.otherOrganisation("what a request has made whose answer was lost may be in another organisation than it opens"), true
	default:
		return Outcome{}, false
	}
}

// sentHere are the requests that were sent with the token of this pass. Those of another one prove
// nothing about what is found with this one; nor do those that nobody has looked before.
func (p *pass[O]) sentHere() []Intent {
	return slices.DeleteFunc(slices.Clone(p.sent.all()), func(i Intent) bool { return i.Unlooked || p.elsewhere(i) })
}

func (p *pass[O]) sentElsewhere() []Intent {
	return slices.DeleteFunc(slices.Clone(p.sent.all()), func(i Intent) bool { return !p.elsewhere(i) })
}

func (p *pass[O]) elsewhere(i Intent) bool {
	return i.TokenHash != "" && i.TokenHash != p.token.Fingerprint()
}

func (p *pass[O]) otherOrganisation(format string, args ...any) Outcome {
	message := fmt.Sprintf("The access token has changed, and "+format+": put the token before back. ", args...)
	if p.deleting() {
		return Stalled(v1alpha1.ReasonOrganisationChanged, "%s", message+orphanHint)
	}
	return Stalled(v1alpha1.ReasonOrganisationChanged,
		"%sTo begin anew in this organisation, and leave behind what is in the other, set the annotation %s to %q.",
		message, v1alpha1.AnnotationConfirmOrganisation, p.token.Fingerprint())
}

// moveConfirmed tells whether the user has confirmed that the resource moves to the organisation
// that the token opens.
func (p *pass[O]) moveConfirmed() bool {
	return p.obj.GetAnnotations()[v1alpha1.AnnotationConfirmOrganisation] == p.token.Fingerprint()
}

// beginAnew takes everything off the resource that is about the organisation before.
func (p *pass[O]) beginAnew(ctx context.Context) error {
	if err := p.noteSent(ctx, exactVersion, leaveFinalizer, sent{}, map[string]any{v1alpha1.AnnotationID: nil, v1alpha1.AnnotationOrigin: nil}); err != nil {
		return err
	}
	p.Claims.ReleaseAll(p.obj.GetUID())
	status := p.obj.GetCommonStatus()
	status.ID, status.Adopted, status.AccessTokenHash = "", false, ""
	if p.kind.Reset != nil {
		p.kind.Reset(p.obj)
	}
	return nil
}

// noteOrganisation remembers with which token the remote object was seen.
func (p *pass[O]) noteOrganisation(seen Observation) {
	if seen.exists() && !seen.Unseen {
		p.obj.GetCommonStatus().AccessTokenHash = p.token.Fingerprint()
	}
}
