// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// handler does the work of a route. The server's lock is held.
type handler func(*call) reply

// route is a row of the route table.
type route struct {
	method, path string
	// since is the revision that has the route; empty: both have it.
	since  Revision
	handle handler
}

// managementRoutes is the Management API: each resource has its routes in its file.
var managementRoutes = slices.Concat(artefactRoutes, authKeyRoutes, identityRoutes, deviceRoutes, deploymentRoutes)

// listings are its listings, by path, and what others can do to them meanwhile.
// Deployments belong to a device: only a Do can change them.
var listings = map[string]*rows{
	"/organisation/artefacts":                artefactRows,
	"/organisation/auth-keys":                authKeyRows,
	"/organisation/device-identities":        identityRows,
	"/organisation/devices":                  deviceRows,
	"/organisation/devices/{id}/deployments": nil,
}

// routes are all of them; the others are for devices.
var routes = slices.Concat(managementRoutes, deviceSideRoutes)

// managed tells whether a path belongs to the Management API.
func managed(path string) bool {
	return path == "/organisation" || strings.HasPrefix(path, "/organisation/")
}

// find returns the route of a request: its path as in the table and its handler.
// What no route has, and what the revision does not have, is not found; it counts
// and is journalled all the same.
//
// This is not http.ServeMux because that answers a path with a double slash
// itself, by a redirect, outside of tokens, limits and faults. Here slashes that
// say nothing are ignored, as the API's framework does.
func (s *Server) find(r *http.Request) (path string, handle handler) {
	parts := segments(r.URL.EscapedPath())
	for _, row := range routes {
		id, matches := row.match(r.Method, parts)
		if !matches {
			continue
		}
		r.SetPathValue("id", id)
		if row.since != "" && row.since != s.options.Revision {
			return row.path, (*call).notFound
		}
		return row.path, row.handle
	}
	return "/" + strings.Join(parts, "/"), (*call).notFound
}

// segments are the parts of a path, without their escapes.
func segments(path string) []string {
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	for i, part := range parts {
		if plain, err := url.PathUnescape(part); err == nil {
			parts[i] = plain
		}
	}
	return parts
}

// match tells whether a request is for the route, and the id that its path has.
func (row *route) match(method string, parts []string) (id string, matches bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if row.method != method {
		return "", false
	}
	n := 0
	for part := range strings.SplitSeq(row.path[1:], "/") {
		switch {
		case n == len(parts):
			return "", false
		case part == "{id}":
			id = parts[n]
		case part != parts[n]:
			return "", false
		}
		n++
	}
	return id, n == len(parts)
}

// checkPattern tells what is wrong with a pattern that requests are to be matched
// by: a method and a path as in the table, a method alone, or nothing.
func checkPattern(pattern string) error {
	if pattern == "" {
		return nil
	}
	method, path, hasPath := strings.Cut(pattern, " ")
	var methods, paths []string
	for _, row := range routes {
		if row.method == method && (row.path == path || !hasPath) {
			return nil
		}
		if row.path == path {
			methods = append(methods, row.method)
		}
		if row.method == method {
			paths = append(paths, row.path)
		}
	}
	switch {
	case methods != nil:
		return mistake("no route %q: %s has %s", pattern, path, strings.Join(methods, ", "))
	case paths != nil:
		return mistake("no route %q: %s has %s", pattern, method, strings.Join(paths, ", "))
	default:
		return mistake("no route %q: give a method and a path, such as \"GET /organisation/artefacts/{id}\"; a method alone; or nothing, for the whole Management API", pattern)
	}
}

// matches tells whether a request is one that the pattern means. A pattern without
// a path means the Management API alone.
func matches(pattern, method, path string) bool {
	wantMethod, wantPath, _ := strings.Cut(pattern, " ")
	if wantPath == "" && !managed(path) {
		return false
	}
	return (wantMethod == "" || wantMethod == method) && (wantPath == "" || wantPath == path)
}
