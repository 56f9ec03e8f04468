// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"rpi-connect.dev/operator/api/v1alpha1"
)

// While what a lost request has made may still appear, any listing will do that is newer than the
// request: what it shows is taken at once. That nothing will come any more is concluded from one only
// that began when the time to settle was over.
func TestListingsWhileARequestSettles(t *testing.T) {
	const settle = time.Minute
	request := func(ago time.Duration) Intent { return Intent{At: noon.Add(-ago), UID: "mine"} }
	for name, test := range map[string]struct {
		intent     *Intent
		unanswered []Intent
		want       time.Time
	}{
		"nothing was sent":                {nil, nil, time.Time{}},
		"a request is settling":           {new(request(40 * time.Second)), nil, noon.Add(-40 * time.Second)},
		"a request has just settled":      {new(request(settle)), nil, noon},
		"a request settled some time ago": {new(request(2 * settle)), nil, noon.Add(-settle)},
		"an earlier one has settled too":  {new(request(40 * time.Second)), []Intent{request(70 * time.Second)}, noon.Add(-10 * time.Second)},
		"only an earlier one is open":     {nil, []Intent{request(90 * time.Second)}, noon.Add(-30 * time.Second)},
		// What another machine's clock has in the future was not before this process saw it.
		"a request from the future": {new(request(-time.Hour)), nil, noon.Add(time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			p := passOver(settlingLoop(settle), newArtefact())
			p.sent = sent{test.intent, test.unanswered}
			if got := p.notBefore(); !got.Equal(test.want) {
				t.Errorf("listings count from %v, want %v", got, test.want)
			}
		})
	}
}

// Where the API would make it twice, no request follows another before that has settled, also if that
// was for an object that the resource did not need in the end.
func TestNextRequestWaitsForTheOneBefore(t *testing.T) {
	const settle = time.Minute
	early, late := Intent{At: noon.Add(-30 * time.Second)}, Intent{At: noon.Add(-settle)}
	for name, test := range map[string]struct {
		intent     *Intent
		unanswered []Intent
		natural    bool
		want       bool
	}{
		"nothing was sent":                     {nil, nil, false, false},
		"it settles":                           {&early, nil, false, true},
		"it has settled":                       {&late, nil, false, false},
		"it settles, but another was recorded": {nil, []Intent{early, late}, false, true},
		"the API refuses a double":             {&early, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := settlingLoop(settle)
			if test.natural {
				r.kind.NaturalKey = func(*v1alpha1.Artefact) string { return "kiosk" }
			}
			p := passOver(r, newArtefact())
			p.sent = sent{test.intent, test.unanswered}
			if _, settling := p.settling(AbsentObject()); settling != test.want || p.unsettled() != test.want {
				t.Errorf("it waits: %t, want %t", settling, test.want)
			}
			if _, settling := p.settling(Observation{Relation: Absent, Settled: true}); settling {
				t.Error("it waits for what has been found")
			}
		})
	}
}

// Whoever takes off the resource which requests may have been carried out, while the operator runs, takes
// nothing from it: also if they were sent before it was started.
func TestRequestsThatAreTakenOff(t *testing.T) {
	newest, older := Intent{At: noon.Add(-time.Second), UID: "mine"}, Intent{At: noon.Add(-time.Minute), UID: "mine", Until: noon.Add(time.Hour)}
	noted := newArtefact()
	noted.UID = "mine"
	bare := noted.DeepCopy()
	for annotation, value := range (sent{&newest, []Intent{older}}).annotations() {
		noted.Annotations[annotation] = fmt.Sprint(value)
	}
	clock := clocktesting.NewFakePassiveClock(noon)
	r := settlingLoop(time.Minute)
	r.Clock = clock
	if p := passOver(r, noted); p.sentLost || len(p.sent.all()) != 2 {
		t.Errorf("found: %+v, lost: %t", p.sent, p.sentLost)
	}
	if !r.sentTakenOff(bare) || r.sentTakenOff(noted) {
		t.Error("it does not wake the resource")
	}
	if p := passOver(r, bare); !p.sentLost || !slices.EqualFunc(p.sent.all(), []Intent{newest, older}, same) {
		t.Errorf("recalled: %+v, lost: %t", p.sent, p.sentLost)
	}

	r.memory.noteSent("mine", sent{unanswered: []Intent{older}})
	clock.SetTime(older.Until.Add(time.Second))
	if p := passOver(r, bare); p.sentLost || len(p.sent.all()) > 0 || r.sentTakenOff(bare) {
		t.Errorf("what is of no consequence any more: %+v, lost: %t", p.sent, p.sentLost)
	}
}

// Either of the two annotations may be taken off by itself.
func TestTakenOff(t *testing.T) {
	newest, older := &Intent{At: noon, UID: "mine"}, []Intent{{At: noon.Add(-time.Minute), UID: "mine"}}
	for name, test := range map[string]struct {
		was, is sent
		want    bool
	}{
		"both":               {sent{newest, older}, sent{}, true},
		"the newest":         {sent{newest, older}, sent{nil, older}, true},
		"the newest alone":   {sent{newest, nil}, sent{}, true},
		"the older":          {sent{newest, older}, sent{newest, nil}, true},
		"the older alone":    {sent{nil, older}, sent{}, true},
		"nothing":            {sent{newest, older}, sent{newest, older}, false},
		"nothing of nothing": {sent{}, sent{}, false},
		"nothing that came":  {sent{}, sent{newest, older}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.was.takenOff(test.is); got != test.want {
				t.Errorf("taken off: %t", got)
			}
		})
	}
}

func settlingLoop(settle time.Duration) *Reconciler[*v1alpha1.Artefact] {
	r := newLoop()
	r.Clock, r.SettleTime = clocktesting.NewFakePassiveClock(noon), settle
	return r
}
