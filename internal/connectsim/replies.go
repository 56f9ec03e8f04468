// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

type message struct {
	Message string `json:"message"`
}

func ok(body any) reply      { return reply{http.StatusOK, body} }
func created(body any) reply { return reply{http.StatusCreated, body} }

// deleted is 200 with the object, or 204 without in the older revision.
func (c *call) deleted(body any) reply {
	if c.older() {
		return reply{http.StatusNoContent, nil}
	}
	return ok(body)
}

func (c *call) older() bool { return c.server.options.Revision == Older }

// invalid is a refusal in the published form.
func invalid(text string) reply {
	return reply{http.StatusUnprocessableEntity, message{text}}
}

// validation is the form that most refusals have.
func validation(text string) reply { return invalid("Validation failed: " + text) }

func (c *call) notFound() reply     { return c.unpublished(http.StatusNotFound, "Not found") }
func (c *call) unauthorized() reply { return c.unpublished(http.StatusUnauthorized, "Unauthorized") }
func (c *call) bad(text string) reply {
	return c.unpublished(http.StatusBadRequest, text)
}

// unpublished is an error whose body has no published form.
func (c *call) unpublished(status int, text string) reply {
	switch c.server.options.ErrorBodies {
	case EmptyBodies:
		return reply{status, nil}
	case HTMLBodies:
		return reply{status, html("<!DOCTYPE html><html><body><h1>" + text + "</h1></body></html>")}
	case PlainBodies:
		return reply{status, plain(text)}
	case ErrorKey:
		return reply{status, map[string]string{"error": text}}
	default:
		return reply{status, message{text}}
	}
}

// params are what a body says: of JSON, or of a form with tags[]=a&tags[]=b.
type params map[string]json.RawMessage

// formType is the Content-Type of a form.
const formType = "application/x-www-form-urlencoded"

// params reads the body: JSON everywhere, and forms only where they are
// documented. What a body of another type would be is unpublished.
func (c *call) params(forms bool) (params, bool) {
	p := params{}
	if len(c.body) == 0 {
		return p, true
	}
	switch kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type")); {
	case kind == "application/json":
		return p, json.Unmarshal(c.body, &p) == nil && p != nil
	case kind == formType && forms:
		return c.form()
	default:
		return nil, false
	}
}

func (c *call) form() (params, bool) {
	values, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, false
	}
	p := params{}
	for key, all := range values {
		if name, isList := strings.CutSuffix(key, "[]"); isList {
			p[name], _ = json.Marshal(all) // strings always marshal
			continue
		}
		p[key], _ = json.Marshal(all[len(all)-1])
	}
	return p, true
}

// text returns a string parameter; null and absence are the same.
func (p params) text(name string) (value string, given bool) {
	raw, ok := p[name]
	if !ok || string(raw) == "null" {
		return "", false
	}
	if json.Unmarshal(raw, &value) != nil {
		return string(raw), true // a number, say: Connect's framework is lenient
	}
	return value, true
}

// number returns an integer parameter, which a form has as text.
func (p params) number(name string) (value int, given, valid bool) {
	text, given := p.text(name)
	if !given {
		return 0, false, true
	}
	value, err := strconv.Atoi(text)
	return value, true, err == nil
}

// tags returns the list of tags.
func (p params) tags() (values []string, given, valid bool) {
	raw, ok := p["tags"]
	if !ok || string(raw) == "null" {
		return nil, false, true
	}
	values = []string{}
	err := json.Unmarshal(raw, &values)
	return values, true, err == nil
}
