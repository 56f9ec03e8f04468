// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

const (
	pending    = connectclient.DeploymentPending
	inProgress = connectclient.DeploymentInProgress
	succeeded  = connectclient.DeploymentSucceeded
	failed     = connectclient.DeploymentFailed
	cancelled  = connectclient.DeploymentCancelled
)

// ended is a deployment that was made at noon and ended that much later.
func ended(state connectclient.DeploymentState, after time.Duration) *connectclient.Deployment {
	return &connectclient.Deployment{ID: "seen", State: state, CreatedAt: noon, UpdatedAt: noon.Add(after)}
}

func deadline(after time.Duration) *metav1.Duration { return &metav1.Duration{Duration: after} }

// Nobody looks at a deployment again that has ended, so its last words have to say all there is to
// say.
func TestEnding(t *testing.T) {
	const again = "To deploy again, create a new Deployment."
	because := func(reason string) *connectclient.Deployment {
		d := ended(failed, time.Hour)
		d.StateReason = reason
		return d
	}
	for name, test := range map[string]struct {
		spec                v1alpha1.DeploymentSpec
		seen                *connectclient.Deployment
		superseded, overdue bool
		reason              string
		says                []string
	}{
		"it failed, with a reason": {
			seen: because("no space left"), reason: v1alpha1.ReasonFailed, says: []string{"failed: no space left. ", again}},
		"it failed, with a reason that is a sentence": {
			seen: because("No space left."), reason: v1alpha1.ReasonFailed, says: []string{"failed: No space left. ", again}},
		"it failed, with a reason that looks like a format": {
			seen: because("100%d full"), reason: v1alpha1.ReasonFailed, says: []string{"failed: 100%d full. ", again}},
		"it failed, and nobody says why": {
			seen: because(""), reason: v1alpha1.ReasonFailed, says: []string{"Connect gives no reason. ", again}},
		"it failed although it was to be cancelled": {
			spec: v1alpha1.DeploymentSpec{Cancel: true},
			seen: because("no space left"), reason: v1alpha1.ReasonFailed, says: []string{"no space left"}},
		"it failed after its deadline, having been picked up in time": {
			spec: v1alpha1.DeploymentSpec{PendingDeadline: deadline(time.Minute)}, overdue: true,
			seen: because("no space left"), reason: v1alpha1.ReasonFailed, says: []string{"no space left"}},
		"it was superseded, which is called failed": {
			superseded: true, seen: because("superseded"), reason: v1alpha1.ReasonSuperseded, says: []string{"newer deployment"}},
		"it was superseded, which is called cancelled": {
			superseded: true, seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonSuperseded, says: []string{"newer deployment"}},
		"it was superseded after its deadline": {
			spec:       v1alpha1.DeploymentSpec{PendingDeadline: deadline(time.Minute)},
			superseded: true, overdue: true, seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonSuperseded},
		"it was cancelled, by whomever": {
			seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonCancelled, says: []string{"was cancelled", again}},
		"it was cancelled because the spec says so": {
			spec: v1alpha1.DeploymentSpec{Cancel: true},
			seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonCancelled},
		"it was cancelled because the spec says so, after its deadline": {
			spec: v1alpha1.DeploymentSpec{Cancel: true, PendingDeadline: deadline(time.Minute)}, overdue: true,
			seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonCancelled},
		"it was cancelled within its deadline": {
			spec: v1alpha1.DeploymentSpec{PendingDeadline: deadline(24 * time.Hour)},
			seen: ended(cancelled, time.Hour), reason: v1alpha1.ReasonCancelled},
		"no device picked it up in time": {
			spec: v1alpha1.DeploymentSpec{PendingDeadline: deadline(24 * time.Hour)}, overdue: true,
			seen: ended(cancelled, 24*time.Hour), reason: v1alpha1.ReasonDeadlineExceeded,
			says: []string{"spec.pendingDeadline, 24h", again}},
		"the device never reported back": {
			spec: v1alpha1.DeploymentSpec{InProgressDeadline: deadline(2 * time.Hour)},
			seen: &connectclient.Deployment{State: inProgress}, reason: v1alpha1.ReasonDeadlineExceeded,
			says: []string{"spec.inProgressDeadline, 120m", "cannot cancel", again}},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{Spec: test.spec}
			obj.Status.State, obj.Status.StateReason = string(test.seen.State), test.seen.StateReason
			obj.Status.Outcome = endOutcome(test.spec, test.seen, test.superseded, test.overdue)
			if test.seen.State == inProgress {
				obj.Status.Outcome = v1alpha1.DeploymentDeadlineExceeded
			}
			got, over := finished(obj)
			if !over || got.Reason != test.reason {
				t.Errorf("it is over: %t, and the reason is %s, want %s", over, got.Reason, test.reason)
			}
			for _, words := range test.says {
				if !strings.Contains(got.Message, words) {
					t.Errorf("the user is told %q, want %q", got.Message, words)
				}
			}
			if got.Ready != metav1.ConditionFalse || got.Transient || got.Backoff || got.RequeueAfter != 0 {
				t.Errorf("it is the end, but the outcome is %+v", got)
			}
		})
	}
}

func TestSuccess(t *testing.T) {
	obj := &v1alpha1.Deployment{}
	if _, over := finished(obj); over {
		t.Error("a new Deployment is over")
	}
	obj.Status.Outcome = v1alpha1.DeploymentSucceeded
	if got, over := finished(obj); !over || got.Ready != metav1.ConditionTrue || !strings.Contains(got.Message, "reports success") {
		t.Errorf("over: %t, %+v", over, got)
	}
	obj.Status.Adopted = true
	if got, _ := finished(obj); !strings.Contains(got.Message, "nothing was deployed") || !strings.Contains(got.Message, "spec.force: true") {
		t.Errorf("the user is told %q", got.Message)
	}
}

func TestOverdue(t *testing.T) {
	for name, test := range map[string]struct {
		deadline *metav1.Duration
		lasted   time.Duration
		want     bool
	}{
		"it has no deadline":       {nil, 24 * time.Hour, false},
		"it ended before":          {deadline(time.Hour), time.Hour - time.Second, false},
		"it ended at that moment":  {deadline(time.Hour), time.Hour, true},
		"it ended later":           {deadline(time.Hour), 2 * time.Hour, true},
		"it has not moved at all":  {deadline(time.Hour), 0, false},
		"its deadline is a second": {deadline(time.Second), time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			obj := &v1alpha1.Deployment{Spec: v1alpha1.DeploymentSpec{PendingDeadline: test.deadline}}
			obj.CreationTimestamp = metav1.NewTime(noon.Add(-time.Hour))
			if got := overdue(obj, ended(cancelled, test.lasted), noon.Add(48*time.Hour)); got != test.want {
				t.Errorf("overdue: %t", got)
			}
		})
	}
}

// The vendor's pages disagree on whether a deployment that was superseded has
// failed or is cancelled, so both are read alike.
func TestSupersededBy(t *testing.T) {
	const lasted = time.Hour
	made := func(id string, after time.Duration) connectclient.Deployment {
		return connectclient.Deployment{ID: id, State: pending, CreatedAt: noon.Add(after)}
	}
	for name, test := range map[string]struct {
		lasted time.Duration
		newer  []connectclient.Deployment // the newest first
		want   bool
	}{
		"its successor was made when it ended":                {lasted, []connectclient.Deployment{made("b", lasted)}, true},
		"its successor was made a moment before it ended":     {lasted, []connectclient.Deployment{made("b", lasted-2*time.Second)}, true},
		"its successor was made a moment after it ended":      {lasted, []connectclient.Deployment{made("b", lasted+2*time.Second)}, true},
		"its successor was made five seconds after it ended":  {lasted, []connectclient.Deployment{made("b", lasted+5*time.Second)}, true},
		"its successor was made six seconds after it ended":   {lasted, []connectclient.Deployment{made("b", lasted+6*time.Second)}, false},
		"its successor was made much later":                   {lasted, []connectclient.Deployment{made("b", lasted+time.Hour)}, false},
		"its successor was made long before it ended":         {lasted, []connectclient.Deployment{made("b", lasted-time.Minute)}, false},
		"it has no successor":                                 {lasted, nil, false},
		"it is the successor that counts, not the newest":     {lasted, []connectclient.Deployment{made("c", 48*time.Hour), made("b", lasted)}, true},
		"the newest does not count":                           {lasted, []connectclient.Deployment{made("c", lasted), made("b", 30*time.Minute)}, false},
		"nobody notes when it ended, and it has a successor":  {0, []connectclient.Deployment{made("b", time.Hour)}, true},
		"nobody notes when it ended, and it has no successor": {0, nil, false},
		"its end is before its beginning, with a successor":   {-time.Hour, []connectclient.Deployment{made("b", time.Hour)}, true},
	} {
		for _, state := range []connectclient.DeploymentState{failed, cancelled} {
			t.Run(name+", "+string(state), func(t *testing.T) {
				seen := ended(state, test.lasted)
				all := append(slices.Clone(test.newer), *seen, made("older", -time.Hour))
				if got := supersededBy(seen, all); got != test.want {
					t.Errorf("superseded: %t", got)
				}
			})
		}
	}
	for name, all := range map[string][]connectclient.Deployment{
		"it is not in the list":     {made("b", lasted), made("older", -time.Hour)},
		"there is nothing in there": nil,
	} {
		t.Run(name, func(t *testing.T) {
			if supersededBy(ended(cancelled, lasted), all) {
				t.Error("superseded")
			}
		})
	}
}

// of is a deployment of the artefact.
func of(artefact, id string, state connectclient.DeploymentState) connectclient.Deployment {
	return connectclient.Deployment{ID: id, ArtefactID: artefact, State: state}
}

func idsOf(all []connectclient.Deployment) string {
	var ids []string
	for i := range all {
		ids = append(ids, all[i].ID)
	}
	return strings.Join(ids, " ")
}

func TestChoose(t *testing.T) {
	const deploy = "deploy"
	made, taken := lifecycle.Owner{Created: true}, lifecycle.Owner{}
	made.Name, taken.Name = "made", "taken"
	owned := func(ids ...any) map[string]lifecycle.Owner {
		owners := map[string]lifecycle.Owner{}
		for i := 0; i < len(ids); i += 2 {
			owners[ids[i].(string)] = ids[i+1].(lifecycle.Owner)
		}
		return owners
	}
	for name, test := range map[string]struct {
		all    []connectclient.Deployment // the newest first
		owners map[string]lifecycle.Owner
		force  bool
		want   string // the id of what is taken, or of whose it is, or deploy
	}{
		"the device has never had any":        {nil, nil, false, deploy},
		"the newest waits for the device":     {[]connectclient.Deployment{of("a", "1", pending)}, nil, false, "1"},
		"the newest is being installed":       {[]connectclient.Deployment{of("a", "1", inProgress)}, nil, false, "1"},
		"the newest has succeeded":            {[]connectclient.Deployment{of("a", "1", succeeded)}, nil, false, "1"},
		"the newest is in a state unheard of": {[]connectclient.Deployment{of("a", "1", "paused")}, nil, false, "1"},
		"the newest has failed":               {[]connectclient.Deployment{of("a", "1", failed)}, nil, false, deploy},
		"the newest was cancelled":            {[]connectclient.Deployment{of("a", "1", cancelled)}, nil, false, deploy},
		"the newest is of something else":     {[]connectclient.Deployment{of("b", "1", succeeded)}, nil, false, deploy},
		"the newest is another resource's":    {[]connectclient.Deployment{of("a", "1", pending)}, owned("1", made), false, "made"},
		"the newest has succeeded, and is another resource's": {
			[]connectclient.Deployment{of("a", "1", succeeded)}, owned("1", taken), false, "taken"},
		"the newest has failed, and is another resource's": {
			[]connectclient.Deployment{of("a", "1", failed)}, owned("1", made), false, deploy},
		"only the newest of many": {[]connectclient.Deployment{of("a", "2", pending), of("a", "1", succeeded)}, nil, false, "2"},
		"the user insists":        {[]connectclient.Deployment{of("a", "1", succeeded)}, nil, true, deploy},

		"a history that is applied anew, of which this is the past": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", succeeded)}, nil, false, "1"},
		"a history that is applied anew, whose present was taken over": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", succeeded)}, owned("2", taken), false, "1"},
		"a step back, from what a resource here has deployed": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", succeeded)}, owned("2", made), false, deploy},
		"a step back that somebody else has on record": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", succeeded)}, owned("1", made), false, deploy},
		"a success that a failure followed": {
			[]connectclient.Deployment{of("a", "2", failed), of("a", "1", succeeded)}, nil, false, "1"},
		"a past that the user wants again": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", succeeded)}, nil, true, deploy},
		"a past that never succeeded": {
			[]connectclient.Deployment{of("b", "2", succeeded), of("a", "1", cancelled)}, nil, false, deploy},
	} {
		t.Run(name, func(t *testing.T) {
			choice, err := choose(test.all, "a", test.force, func(d *connectclient.Deployment) (lifecycle.Owner, bool, error) {
				owner, owned := test.owners[d.ID]
				return owner, owned, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got := deploy
			switch {
			case choice.owner != nil:
				got = choice.owner.Name
			case choice.take != nil:
				got = choice.take.ID
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What one Deployment of a FleetRollout has taken over is for the others of it as if it was made: none
// of them takes the past of its device for the present.
func TestOwnerOfARollout(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	run := func(name, rollout string) *v1alpha1.Deployment {
		obj := &v1alpha1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "lab", Name: name}}
		if rollout != "" {
			obj.OwnerReferences = []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "FleetRollout", Name: rollout, UID: types.UID(rollout), Controller: new(true)}}
		}
		return obj
	}
	cache := fake.NewClientBuilder().WithScheme(scheme).WithObjects(run("kiosk-1", "kiosk"), run("lobby-1", "lobby"), run("by-hand", "")).Build()
	for name, test := range map[string]struct {
		rollout, owner string
		owned, created bool
		want           bool
		state          connectclient.DeploymentState
	}{
		"what the same rollout has taken over":                          {"kiosk", "kiosk-1", true, false, true, succeeded},
		"what the same rollout has taken over, and cancelled":           {"kiosk", "kiosk-1", true, false, false, cancelled},
		"what the same rollout has made, and cancelled":                 {"kiosk", "kiosk-1", true, true, true, cancelled},
		"what the same rollout has made":                                {"kiosk", "kiosk-1", true, true, true, succeeded},
		"what another rollout has taken over":                           {"kiosk", "lobby-1", true, false, false, succeeded},
		"what another rollout has made":                                 {"kiosk", "lobby-1", true, true, true, succeeded},
		"what a Deployment without a rollout has taken over":            {"kiosk", "by-hand", true, false, false, succeeded},
		"what another one without a rollout has taken over":             {"", "by-hand", true, false, false, succeeded},
		"what a rollout has taken over, for a Deployment that has none": {"", "kiosk-1", true, false, false, succeeded},
		"what one has taken over that is gone":                          {"kiosk", "gone", true, false, false, succeeded},
		"what nobody has":                                               {"kiosk", "", false, false, false, succeeded},
	} {
		t.Run(name, func(t *testing.T) {
			e := &external{controller: &controller{client: cache}, obj: run("kiosk-2", test.rollout), conn: &lifecycle.Connection{
				Owner: func(context.Context, string) (lifecycle.Owner, bool, error) {
					return lifecycle.Owner{NamespacedName: types.NamespacedName{Namespace: "lab", Name: test.owner}, Created: test.created}, test.owned, nil
				},
			}}
			owner, owned, err := e.ownerOf(t.Context(), new(of("a", "1", test.state)))
			if err != nil || owned != test.owned || owner.Created != test.want {
				t.Errorf("it is owned: %t, want %t; it counts as made: %t, want %t; %v", owned, test.owned, owner.Created, test.want, err)
			}
		})
	}
}

func TestLost(t *testing.T) {
	for name, test := range map[string]struct {
		all    []connectclient.Deployment // the newest first
		newest string                     // before the POST
		want   string
	}{
		"nothing has been made":                    {nil, "", ""},
		"nothing has been made since":              {[]connectclient.Deployment{of("a", "1", succeeded)}, "1", ""},
		"the first of the device":                  {[]connectclient.Deployment{of("a", "1", pending)}, "", "1"},
		"one since":                                {[]connectclient.Deployment{of("a", "2", pending), of("a", "1", succeeded)}, "1", "2"},
		"one of something else since":              {[]connectclient.Deployment{of("b", "2", pending), of("a", "1", succeeded)}, "1", ""},
		"one since, and others by somebody else":   {[]connectclient.Deployment{of("b", "4", pending), of("a", "3", cancelled), of("b", "2", failed), of("a", "1", succeeded)}, "1", "3"},
		"it has ended meanwhile and is still ours": {[]connectclient.Deployment{of("a", "2", failed), of("a", "1", succeeded)}, "1", "2"},
		"two since: either can be ours":            {[]connectclient.Deployment{of("a", "3", pending), of("a", "2", cancelled), of("b", "1", succeeded)}, "1", "3 2"},
		"what it was compared with is gone":        {[]connectclient.Deployment{of("a", "2", pending), of("a", "1", succeeded)}, "0", ""},
		"what is older than the newest before it":  {[]connectclient.Deployment{of("b", "2", pending), of("a", "1", succeeded)}, "2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := idsOf(lost(test.all, note{Artefact: "a", Newest: test.newest})); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A note is read as it was written; what somebody has spoilt is as good as none.
func TestNote(t *testing.T) {
	for _, want := range []note{
		{Device: "d1", Artefact: "a1", Newest: "1"},
		{Device: "d1", Artefact: "a1"},
		{Device: `d"1`, Artefact: "<a&1>", Newest: "ü"},
		{},
	} {
		if got := parseNote(want.String()); got != want {
			t.Errorf("%+v became %+v", want, got)
		}
	}
	for _, junk := range []string{"", "null", "{}", "[]", `"d1"`, "d1", `{"device":"d1"`, `{"device":7}`} {
		if got := parseNote(junk); got != (note{}) {
			t.Errorf("%q became %+v", junk, got)
		}
	}
}

// Each way to name a device is told in the user's own words.
func TestWhatIsPendingForAnHourSaysTheUsualCauses(t *testing.T) {
	begin := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	obj := &v1alpha1.Deployment{}
	obj.CreationTimestamp = metav1.NewTime(begin)
	obj.Status.CreatedAt = new(metav1.NewTime(begin.Add(-72 * time.Hour))) // adopted: its wait begins with the resource
	obj.Status.State = string(connectclient.DeploymentPending)
	for after, told := range map[time.Duration]bool{time.Hour - time.Second: false, time.Hour: true, 50 * time.Hour: true} {
		got := runningOutcome(obj, begin.Add(after)).Message
		if strings.Contains(got, "is offline") != told || strings.Contains(got, "rpi-connect ota on") != told {
			t.Errorf("after %s: %s", after, got)
		}
	}
}

func TestDescribe(t *testing.T) {
	for want, wanted := range map[string]v1alpha1.DeviceReference{
		`the name "porch"`:           {Name: "porch"},
		`the serial number "1000ab"`: {SerialNumber: "1000ab"},
		`the query "model:5"`:        {Query: "model:5"},
		`the id "d1"`:                {ID: "d1"},
	} {
		if got := describe(wanted); got != want {
			t.Errorf("%+v is %s, want %s", wanted, got, want)
		}
	}
}
