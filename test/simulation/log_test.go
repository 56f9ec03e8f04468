// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/go-logr/logr"
)

// secret is what must never be seen: access tokens, auth keys, the signatures of presigned URLs, and what
// devices write that looks like one of these.
var secret = regexp.MustCompile(`rp(org|oak|dev)_[A-Za-z0-9]{8,}|canary[a-z0-9]{8,}`)

// canary stands for a secret that is part of something else.
const canary = "canary0123456789"

// logSink reads what the operator logs, for secrets, and remembers which resource a logger is of.
type logSink struct {
	violated func(format string, args ...any)
	values   []any
}

// Init implements [logr.LogSink].
func (s *logSink) Init(logr.RuntimeInfo) {}

// Enabled implements [logr.LogSink].
func (s *logSink) Enabled(level int) bool { return level <= 1 }

// Info implements [logr.LogSink].
func (s *logSink) Info(_ int, message string, values ...any) { s.read(message, nil, values) }

// Error implements [logr.LogSink].
func (s *logSink) Error(err error, message string, values ...any) { s.read(message, err, values) }

func (s *logSink) read(message string, err error, values []any) {
	if line := fmt.Sprint(message, err, values); secret.MatchString(line) {
		s.violated("a secret is in the log: %s", line)
	}
}

// WithValues implements [logr.LogSink].
func (s *logSink) WithValues(values ...any) logr.LogSink {
	if line := fmt.Sprint(values...); secret.MatchString(line) {
		s.violated("a secret is in the values of a logger: %s", line)
	}
	return &logSink{s.violated, append(slices.Clip(s.values), values...)}
}

// WithName implements [logr.LogSink].
func (s *logSink) WithName(string) logr.LogSink { return s }

// resource is a resource of the operator's kinds.
type resource struct{ kind, name string }

func (r resource) String() string { return r.kind + " " + r.name }

// workedOn is the resource that is reconciled in the context; of work for several, none.
func workedOn(ctx context.Context) (r resource) {
	logger, err := logr.FromContext(ctx)
	if err != nil {
		return r
	}
	sink, ok := logger.GetSink().(*logSink)
	if !ok {
		return r
	}
	for i := 0; i+1 < len(sink.values); i += 2 {
		switch sink.values[i] {
		case "controllerKind":
			r.kind, _ = sink.values[i+1].(string)
		case "name":
			r.name, _ = sink.values[i+1].(string)
		}
	}
	return r
}
