// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
)

// target is what a request is about.
type target struct {
	*resource

	key         types.NamespacedName
	subresource string
	metadata    bool // is all that is asked for
	dry         bool
	labels      labels.Selector
	fields      fields.Selector
}

func (r *resource) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: r.Group, Resource: r.plural}
}

// find reads a path: /api/v1/… or /apis/group/version/…, then [namespaces/namespace/]plural[/name[/subresource]].
func (s *Server) find(req *http.Request) (*target, error) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	var gv schema.GroupVersion
	switch {
	case len(parts) > 2 && parts[0] == "api":
		gv, parts = schema.GroupVersion{Version: parts[1]}, parts[2:]
	case len(parts) > 3 && parts[0] == "apis":
		gv, parts = schema.GroupVersion{Group: parts[1], Version: parts[2]}, parts[3:]
	}
	t := &target{dry: req.URL.Query().Has("dryRun"), metadata: strings.Contains(req.Header.Get("Accept"), "as=PartialObjectMetadata")}
	if len(parts) > 2 && parts[0] == "namespaces" {
		t.key.Namespace, parts = parts[1], parts[2:]
	}
	if len(parts) == 0 || s.resources[gv.WithResource(parts[0])] == nil {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, req.Method, schema.GroupResource{Group: gv.Group}, req.URL.Path, "the server could not find the requested resource", 0, true)
	}
	t.resource = s.resources[gv.WithResource(parts[0])]
	if len(parts) > 1 {
		t.key.Name = parts[1]
	}
	if len(parts) > 2 {
		t.subresource = parts[2]
	}
	var labelErr, fieldErr error
	t.labels, labelErr = labels.Parse(req.URL.Query().Get("labelSelector"))
	t.fields, fieldErr = fields.ParseSelector(req.URL.Query().Get("fieldSelector"))
	if err := errors.Join(labelErr, fieldErr); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return t, nil
}

// wants tells whether an object is one of those that the request is about.
func (t *target) wants(obj *object) bool {
	return (t.key.Namespace == "" || obj.GetNamespace() == t.key.Namespace) &&
		t.labels.Matches(labels.Set(obj.GetLabels())) &&
		t.fields.Matches(fields.Set{"metadata.name": obj.GetName(), "metadata.namespace": obj.GetNamespace()})
}

func (t *target) encoded(obj *object) []byte {
	if t.metadata {
		return obj.metadata
	}
	return obj.whole
}

func (s *Server) serve(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code, text, err := s.answer(req)
	if err != nil {
		code, text = failed(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text)
}

func failed(err error) (int, []byte) {
	status := apierrors.NewInternalError(err).Status()
	if api := apierrors.APIStatus(nil); errors.As(err, &api) {
		status = api.Status()
	}
	status.Kind, status.APIVersion = "Status", "v1"
	text, err := json.Marshal(status)
	if err != nil {
		panic(err) // a Status can always be encoded
	}
	return int(status.Code), text
}

func (s *Server) answer(req *http.Request) (int, []byte, error) {
	t, err := s.find(req)
	if err != nil {
		return 0, nil, err
	}
	var body []byte
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return 0, nil, err
		}
	}
	if t.key.Name == "" && req.Method == http.MethodGet {
		return http.StatusOK, s.list(t), nil
	}
	if req.Method == http.MethodPost {
		obj, err := decode(body)
		if err != nil {
			return 0, nil, err
		}
		obj.SetNamespace(t.key.Namespace)
		created, err := s.create(t.resource, obj, t.dry)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusCreated, t.encoded(created), nil
	}
	was := t.objects[t.key]
	if was == nil {
		return 0, nil, apierrors.NewNotFound(t.groupResource(), t.key.Name)
	}
	now, err := s.change(t, was, req, body)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, t.encoded(now), nil
}

// change does what is asked of an object that there is.
func (s *Server) change(t *target, was *object, req *http.Request, body []byte) (*object, error) {
	switch req.Method {
	case http.MethodGet:
		return was, nil
	case http.MethodPut:
		obj, err := decode(body)
		if err != nil {
			return nil, err
		}
		return s.update(t.resource, was, obj, t.subresource, t.dry)
	case http.MethodPatch:
		if kind := req.Header.Get("Content-Type"); kind != string(types.MergePatchType) {
			return nil, apierrors.NewBadRequest("only merge patches are served, not " + kind)
		}
		patched, err := jsonpatch.MergePatch(was.whole, body)
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		obj, err := decode(patched)
		if err != nil {
			return nil, err
		}
		return s.update(t.resource, was, obj, t.subresource, t.dry)
	case http.MethodDelete:
		options := &metav1.DeleteOptions{}
		if len(body) > 0 {
			if err := json.Unmarshal(body, options); err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
		}
		return s.delete(t.resource, was, options)
	default:
		return nil, apierrors.NewMethodNotSupported(t.groupResource(), req.Method)
	}
}

func (s *Server) list(t *target) []byte {
	var items [][]byte
	for _, key := range sortedKeys(t.objects) {
		if obj := t.objects[key]; t.wants(obj) {
			items = append(items, t.encoded(obj))
		}
	}
	kind, apiVersion := t.Kind+"List", t.GroupVersion().String()
	if t.metadata {
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	return fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q},"items":[%s]}`,
		kind, apiVersion, strconv.FormatInt(s.version, 10), bytes.Join(items, []byte(",")))
}

func decode(body []byte) (*unstructured.Unstructured, error) {
	obj := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, &obj.Object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

func sortedKeys[V any](m map[types.NamespacedName]V) []types.NamespacedName {
	keys := make([]types.NamespacedName, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

func base64Of(value string) string { return base64.StdEncoding.EncodeToString([]byte(value)) }

// answered is the answer that the error stands for.
func answered(req *http.Request, err error) (*http.Response, error) {
	code, text := failed(err)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(text)), Request: req,
	}, nil
}
