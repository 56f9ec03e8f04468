// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"time"
)

// auditPolicy has the API server note every write, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  resources: [{group: coordination.k8s.io}]
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: None
`

// Write is one write to the API server.
type Write struct {
	Time                                                      time.Time
	User, Verb, Group, Resource, Subresource, Namespace, Name string
	Code                                                      int
}

// ByOperator tells whether the operator wrote.
func (w Write) ByOperator() bool {
	return w.User == "system:serviceaccount:"+OperatorNamespace+":"+OperatorServiceAccount
}

// Writes returns every write so far.
func (c *Cluster) Writes() ([]Write, error) {
	file, err := os.Open(c.path("audit.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var writes []Write
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Verb           string `json:"verb"`
			User           struct{ Username string }
			StageTimestamp time.Time `json:"stageTimestamp"`
			ObjectRef      struct{ APIGroup, Resource, Subresource, Namespace, Name string }
			ResponseStatus struct{ Code int }
		}
		if json.Unmarshal(lines.Bytes(), &entry) != nil {
			continue // the line that is being written
		}
		writes = append(writes, Write{
			Time: entry.StageTimestamp, User: entry.User.Username, Verb: entry.Verb,
			Group: entry.ObjectRef.APIGroup, Resource: entry.ObjectRef.Resource, Subresource: entry.ObjectRef.Subresource,
			Namespace: entry.ObjectRef.Namespace, Name: entry.ObjectRef.Name, Code: entry.ResponseStatus.Code,
		})
	}
	return writes, lines.Err()
}

// OperatorWrites counts the operator's writes to its own kinds, and to Events,
// since a moment.
func (c *Cluster) OperatorWrites(since time.Time) (resources, events, others int, err error) {
	writes, err := c.Writes()
	for _, w := range writes {
		switch {
		case !w.ByOperator() || w.Time.Before(since) || isReview(w):
		case w.Resource == "events":
			events++
		case w.Group == "rpi-connect.dev":
			resources++
		default:
			others++
		}
	}
	return resources, events, others, err
}

// isReview tells whether a write only asks something.
func isReview(w Write) bool { return strings.HasSuffix(w.Resource, "reviews") }
