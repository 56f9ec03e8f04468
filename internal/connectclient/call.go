// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
)

// contentType is sent with every body, to the letter: the identity signature
// covers it.
const contentType = "application/json"

// object is a resource as the API answers it.
type object interface {
	// normalise makes equal what the API writes in several ways, and returns
	// the id.
	normalise() (id string)
}

// call makes a call and returns its answer if it is a success. The error is an
// *Error.
func (c *Client) call(ctx context.Context, req *request) (*answer, error) {
	if !sendable(c.token) {
		return nil, &Error{
			Operation: req.operation,
			detail:    "the access token is empty or has characters that no access token has",
			kinds:     []error{ErrUnauthorized},
		}
	}
	if req.currentOnly && c.Revision() == RevisionOlder {
		// Asking would cost a request.
		return nil, unsupported(req.operation)
	}
	ans, err := c.send(ctx, req)
	if err != nil {
		return nil, callError(req, ans, err)
	}
	if m := c.meaningOf(ctx, req, ans); m != accepted {
		return nil, answerError(req, ans, m, c.profile.knows())
	}
	return ans, nil
}

// doInto makes a call and decodes the object that it answers.
func (c *Client) doInto(ctx context.Context, req request, out object) error {
	ans, err := c.call(ctx, &req)
	if err != nil {
		return err
	}
	if !decode(ans.body, out) {
		return garbageError(&req, ans, "not with the JSON that was expected")
	}
	if out.normalise() == "" {
		return garbageError(&req, ans, "without an id")
	}
	return nil
}

// do makes a call whose answer says nothing but that it succeeded.
func (c *Client) do(ctx context.Context, req request) error {
	_, err := c.call(ctx, &req)
	return err
}

func unsupported(operation string) *Error {
	return &Error{Operation: operation, detail: ErrUnsupported.Error(), kinds: []error{ErrUnsupported}}
}

// pathTo joins a collection and an id, which comes from a user as often as not.
// What cannot be an id must not address something else: the collection itself,
// or its parent.
func pathTo(operation, collection, id string) (string, error) {
	switch id {
	case "", ".", "..":
		return "", &Error{Operation: operation, detail: "an id cannot be empty or dots only", kinds: []error{ErrInvalid}}
	}
	return collection + "/" + url.PathEscape(id), nil
}

// encode gives compact JSON with keys in the order of the struct's fields, and
// without Go's escapes for HTML, so that what is signed looks as other clients
// would write it.
func encode(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // strings, numbers and lists of strings can always be encoded
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// replaced turns the new value of a list into what says so on the wire: no
// elements are [], not null.
func replaced(list *[]string) *[]string {
	if list != nil && *list == nil {
		return &[]string{}
	}
	return list
}

// noneIsNil makes no tags equal, whether the API leaves them out, or says null or
// []: its two revisions and its several calls do not agree.
func noneIsNil(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	return tags
}
