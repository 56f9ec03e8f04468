// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"regexp"
	"slices"
	"strings"

	"rpi-connect.dev/operator/internal/connectclient"
)

// query is a search in Connect's words that can be answered from a listing of all
// devices: "model:5 tag:lab". All of its words must match.
type query struct {
	tags              []string // sorted, each once
	model, memory, os string   // empty if it does not matter
}

// The values that qualifiers are known to have, as they are written in a device's tags
// and filters. What a quotation mark, a capital letter or an asterisk means in a query
// is not published.
var (
	tagValue    = regexp.MustCompile(`^[a-z0-9_-]{1,30}$`)
	filterValue = regexp.MustCompile(`^[a-z0-9][a-z0-9+._-]*$`)
)

// parse understands a query that consists of the four qualifiers only. It returns
// false for any other: what free text matches, and what is free text, only Connect
// knows.
func parse(text string) (query, bool) {
	var q query
	for word := range strings.FieldsSeq(text) {
		qualifier, value, _ := strings.Cut(word, ":")
		if qualifier == "tag" {
			if !tagValue.MatchString(value) {
				return query{}, false
			}
			q.tags = append(q.tags, value)
			continue
		}
		filter := filterOf(&q, qualifier)
		// Which of two values counts is not published either.
		if filter == nil || *filter != "" || !filterValue.MatchString(value) {
			return query{}, false
		}
		*filter = value
	}
	slices.Sort(q.tags)
	q.tags = slices.Compact(q.tags)
	return q, q.String() != ""
}

// filterOf is where a qualifier's value belongs; nil for what is no qualifier.
func filterOf(q *query, qualifier string) *string {
	switch qualifier {
	case "model":
		return &q.model
	case "memory":
		return &q.memory
	case "os":
		return &q.os
	default:
		return nil
	}
}

// matches tells whether Connect would find the device with the query. One that has
// no filters, because its client is too old to report what it runs on, is found by
// its tags only.
func (q query) matches(device connectclient.Device) bool {
	for _, tag := range q.tags {
		if !slices.Contains(device.Tags, tag) {
			return false
		}
	}
	return fits(q.model, device.Filters.Model) && fits(q.memory, device.Filters.Memory) && fits(q.os, device.Filters.OS)
}

func fits(wanted, value string) bool { return wanted == "" || strings.EqualFold(wanted, value) }

// String is the query in Connect's words, the same for all that mean the same.
func (q query) String() string {
	var words []string
	for _, w := range []struct{ qualifier, value string }{{"model:", q.model}, {"memory:", q.memory}, {"os:", q.os}} {
		if w.value != "" {
			words = append(words, w.qualifier+w.value)
		}
	}
	for _, tag := range q.tags {
		words = append(words, "tag:"+tag)
	}
	return strings.Join(words, " ")
}
