// SPDX-License-Identifier: Apache-2.0

// Package connectclient speaks the Management API of Raspberry Pi Connect for
// Organisations. It knows HTTP and nothing of Kubernetes.
//
// An [API] is the way to the service; [API.ClientFor] opens one organisation
// with its access token. The calls of an organisation are grouped by resource:
//
//	api, err := connectclient.New(connectclient.Options{UserAgent: "example/1.0"})
//	client := api.ClientFor(connectclient.NewSecret(os.Getenv("TOKEN")))
//	for artefact, err := range client.Artefacts().List().All(ctx) { … }
//
// Five promises hold for every call:
//
//   - It never waits for the request budget, but in the middle of a [Listing]. A
//     request that may not be sent now fails with [ErrDeferred] or [ErrThrottled],
//     and [RetryAt] says until when.
//   - A POST is sent at most once, whatever becomes of the connection. When nobody
//     can know whether it was carried out, the error is also [ErrOutcomeUnknown].
//   - Nothing is concluded from an answer that does not show that it is the API's
//     own: one of a gateway is [ErrUnavailable], whatever its status.
//   - An error is one [Error]. Its text is one bounded line without secrets that
//     does not change while the cause does not, so it can be logged and stored.
//   - The vendor published two revisions of the API. Which one is spoken is
//     learnt from its answers (see [Client.Revision]); a call that only the
//     current one has fails with [ErrUnsupported] on the older.
package connectclient
