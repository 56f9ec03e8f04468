// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"time"
)

// auditPolicy has the API server note every write, and whatever the operator
// asks, without bodies.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  resources: [{group: coordination.k8s.io}]
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: Metadata
  users: ["system:serviceaccount:rpi-connect-system:rpi-connect-controller-manager"]
- level: None
`

// Request is one request to the API server.
type Request struct {
	Time                                                      time.Time
	User, Verb, Group, Resource, Subresource, Namespace, Name string
	Code                                                      int
}

// ByOperator tells whether the operator asked.
func (r Request) ByOperator() bool {
	return r.User == "system:serviceaccount:"+OperatorNamespace+":"+OperatorServiceAccount
}

// IsWrite tells whether the request changes something, or tries to.
func (r Request) IsWrite() bool {
	switch r.Verb {
	case "get", "list", "watch":
		return false
	default:
		return !strings.HasSuffix(r.Resource, "reviews") // those only ask
	}
}

// Requests returns every request that was noted so far.
func (c *Cluster) Requests() ([]Request, error) {
	file, err := os.Open(c.path("audit.log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var requests []Request
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
		requests = append(requests, Request{
			Time: entry.StageTimestamp, User: entry.User.Username, Verb: entry.Verb,
			Group: entry.ObjectRef.APIGroup, Resource: entry.ObjectRef.Resource, Subresource: entry.ObjectRef.Subresource,
			Namespace: entry.ObjectRef.Namespace, Name: entry.ObjectRef.Name, Code: entry.ResponseStatus.Code,
		})
	}
	return requests, lines.Err()
}

// OperatorWrites counts the operator's writes to its own kinds, and to Events,
// since a moment.
func (c *Cluster) OperatorWrites(since time.Time) (resources, events, others int, err error) {
	requests, err := c.Requests()
	for _, r := range requests {
		switch {
		case !r.ByOperator() || r.Time.Before(since) || !r.IsWrite():
		case r.Resource == "events":
			events++
		case r.Group == "rpi-connect.dev":
			resources++
		default:
			others++
		}
	}
	return resources, events, others, err
}
