// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Event is something worth telling the user once.
type Event struct {
	Warning bool
	// Reason and Action are in UpperCamelCase; Message is a sentence.
	Reason, Action, Message string
	// About is the object that the event is about. Default: the resource.
	About runtime.Object
	// OfStatus says that the event is about a change of the status: it is dropped if that is not
	// written. Other events tell what has happened already.
	OfStatus bool
}

// EmitEvents emits events about a resource, once what they announce is written. The log has them too:
// events are kept for an hour.
func EmitEvents(ctx context.Context, recorder events.EventRecorder, obj Object, all []Event) {
	for _, e := range all {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		about := e.About
		if about == nil {
			about = obj
		}
		note := eventNote(e.Message)
		log.FromContext(ctx).Info("Event", "type", kind, "reason", e.Reason, "message", note)
		recorder.Eventf(about, nil, kind, e.Reason, e.Action, "%s", note)
	}
}
