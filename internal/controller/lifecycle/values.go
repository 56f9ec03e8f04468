// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/internal/connectclient"
)

const (
	// maxConditionMessage is what the API server takes for the message of a condition.
	maxConditionMessage = 32768
	// maxEventNote is what the API server takes for the note of an event.
	maxEventNote = 1024
	// maxText bounds a name or a sentence of others within a message.
	maxText = 300
)

// Text makes a name or a text of others fit for a message: one bounded line without control
// characters and without secrets.
func Text(text string) string { return connectclient.Text(text, maxText) }

// Sentence is a text of others as a sentence of a message.
func Sentence(text string) string { return strings.TrimRight(Text(text), ". ") + "." }

func bounded(message string) string   { return cut(message, maxConditionMessage) }
func eventNote(message string) string { return cut(message, maxEventNote) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return connectclient.Text(text, most)
}

// Timestamp is a time for a status; zero stands for none.
func Timestamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	at := metav1.NewTime(t)
	return &at
}

// UTC is how times are shown in messages.
func UTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// SameSet tells whether two lists hold the same values, in whatever order.
func SameSet(a, b []string) bool { return slices.Equal(Sorted(a), Sorted(b)) }

// Sorted is a sorted copy.
func Sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// wallClock paces the loop. It is never the injected clock, which may stand still.
func wallClock() time.Time { return time.Now() }
