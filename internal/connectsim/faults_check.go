// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// mistaken is an error of whoever describes something to the simulator.
type mistaken struct{ error }

func mistake(format string, values ...any) error {
	return mistaken{fmt.Errorf(format, values...)}
}

// Check tells what is wrong with a fault: a fault that no request can meet, or
// that cannot do all it says, would let a test succeed for nothing.
func (f Fault) Check() error {
	if err := checkPattern(f.Route); err != nil {
		return err
	}
	for _, rule := range []struct {
		broken bool
		why    string
	}{
		{f.Skip < 0 || f.Times < 0 || f.Oversize < 0 || f.Pieces < 0, "Skip, Times, Oversize and Pieces are not negative"},
		{f.Delay < 0 || f.Late < 0 || f.Drip < 0, "Delay, Late and Drip are not negative"},
		{f.Drop && f.Dead, "Drop closes the connection, Dead leaves it open: give one of them"},
		{f.breaks() && (f.replaces() || f.touchesAnswer()), "with Drop or Dead there is no answer: nothing else can be said about it"},
		{f.After && f.Late > 0, "After does the work before the answer, Late does it later: give one of them"},
		{(f.After || f.Late > 0) && !f.breaks() && !f.replaces(), "After and Late are about an answer that is lost or replaced: give Drop, Dead, Status, Body or Location as well"},
		{f.Status != 0 && (f.Status < 200 || f.Status > 599), fmt.Sprintf("Status %d is none that an answer has: give one from 200 to 599", f.Status)},
		{f.Body != "" && (f.Status == http.StatusNoContent || f.Status == http.StatusNotModified), fmt.Sprintf("an answer with Status %d has no body", f.Status)},
		{f.Location != "" && f.Status/100 != 3 && f.Status != 0, fmt.Sprintf("Location is a redirect, which Status %d is not", f.Status)},
		{f.Pieces > 0 && f.Drip == 0, "Pieces are those that Drip pauses between: give Drip as well"},
		{f.Page != nil && f.replaces(), "Page bends the API's answer, which Status, Body and Location replace: give one of them"},
	} {
		if rule.broken {
			return mistake("%s", rule.why)
		}
	}
	if err := f.Page.check(f.Route); err != nil {
		return err
	}
	return f.Change.check(f.Route)
}

// touchesAnswer tells whether the fault says anything about the answer.
func (f Fault) touchesAnswer() bool {
	return f.ContentType != "" || f.Header != nil || f.RateHeaders != nil || f.Page != nil || f.Truncate || f.Oversize > 0 || f.Drip > 0
}

// duration is one that is written as "1.5s" in JSON.
type duration time.Duration

func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		return json.Unmarshal(data, (*int64)(d))
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// bare is a Fault with the JSON of its fields; described has durations that can
// be read.
type (
	bare      Fault
	described struct {
		bare

		Delay duration `json:"Delay,omitempty"`
		Late  duration `json:"Late,omitempty"`
		Drip  duration `json:"Drip,omitempty"`
	}
)

// MarshalJSON writes what is set of a fault.
func (f Fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(described{bare(f), duration(f.Delay), duration(f.Late), duration(f.Drip)})
}

// UnmarshalJSON reads a fault. Unknown fields and mistakes are errors, see [Fault.Check].
func (f *Fault) UnmarshalJSON(data []byte) error {
	var d described
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			return mistake("%s of a fault cannot be a %s", strings.TrimPrefix(wrong.Field, "bare."), wrong.Value)
		}
		return mistake("a fault has %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	*f = Fault(d.bare)
	f.Delay, f.Late, f.Drip = time.Duration(d.Delay), time.Duration(d.Late), time.Duration(d.Drip)
	return f.Check()
}
