// SPDX-License-Identifier: Apache-2.0

// Package apiserver is a kube-apiserver in memory, for tests that need thousands of restarts, or
// simulated time: nothing in it listens or sleeps, so it can be used in a [testing/synctest] bubble.
//
// It serves what the operator asks for: get, list with selectors, watch, create, update, merge patch
// and delete of custom resources and of a few kinds of Kubernetes, with optimistic concurrency, the
// status subresource, generations, defaults of the CRDs, finalizers, garbage collection, and requests
// for metadata only. It validates nothing, and knows no server-side apply; what rests on that is tested
// against a real kube-apiserver.
package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Server is a kube-apiserver and its storage.
type Server struct {
	resources map[schema.GroupVersionResource]*resource
	mapper    *meta.DefaultRESTMapper

	mu      sync.Mutex
	version int64           // of the newest write
	log     []event         // the writes, oldest first
	changed chan struct{}   // closed with the next write
	lag     time.Duration   // after which a watch shows a write
	writes  int             // that changed something
	cut     context.Context //nolint:containedctx // of the watches, which are requests without end
	cutAll  context.CancelFunc
	uids    int
}

// resource is a kind, and its objects.
type resource struct {
	schema.GroupVersionKind

	plural   string
	status   bool                         // has a status subresource
	schema   *structuralschema.Structural // of custom resources
	objects  map[types.NamespacedName]*object
	volatile bool // is taken, and not kept
}

// New returns a server for the custom resources, and for the kinds of Kubernetes that the operator uses.
func New(crds []*apiextensionsv1.CustomResourceDefinition) (*Server, error) {
	s := &Server{
		resources: map[schema.GroupVersionResource]*resource{},
		mapper:    meta.NewDefaultRESTMapper(nil),
		changed:   make(chan struct{}),
	}
	s.cut, s.cutAll = context.WithCancel(context.Background())
	s.add(resource{GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, plural: "namespaces"}, meta.RESTScopeRoot)
	s.add(resource{GroupVersionKind: schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, plural: "secrets"}, meta.RESTScopeNamespace)
	s.add(resource{GroupVersionKind: schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "ControllerRevision"}, plural: "controllerrevisions"}, meta.RESTScopeNamespace)
	s.add(resource{GroupVersionKind: schema.GroupVersionKind{Group: "events.k8s.io", Version: "v1", Kind: "Event"}, plural: "events", volatile: true}, meta.RESTScopeNamespace)
	for _, crd := range crds {
		for _, version := range crd.Spec.Versions {
			internal := &apiextensions.JSONSchemaProps{}
			if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(version.Schema.OpenAPIV3Schema, internal, nil); err != nil {
				return nil, fmt.Errorf("CRD %s: %w", crd.Name, err)
			}
			structural, err := structuralschema.NewStructural(internal)
			if err != nil {
				return nil, fmt.Errorf("CRD %s: %w", crd.Name, err)
			}
			s.add(resource{
				GroupVersionKind: schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind},
				plural:           crd.Spec.Names.Plural,
				status:           version.Subresources != nil && version.Subresources.Status != nil,
				schema:           structural,
			}, meta.RESTScopeNamespace)
		}
	}
	return s, nil
}

func (s *Server) add(r resource, scope meta.RESTScope) {
	r.objects = map[types.NamespacedName]*object{}
	gvr := r.GroupVersion().WithResource(r.plural)
	s.resources[gvr] = &r
	s.mapper.AddSpecific(r.GroupVersionKind, gvr, gvr, scope)
}

// Mapper maps the kinds that the server has.
func (s *Server) Mapper() meta.RESTMapper { return s.mapper }

// Config reaches the server without a network.
func (s *Server) Config() *rest.Config {
	return &rest.Config{
		Host:          "http://apiserver.invalid",
		QPS:           -1,
		Transport:     s,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}
}

// SetLag makes watches show what is written so much later: the caches of the clients lag behind.
func (s *Server) SetLag(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = d
}

// Writes counts the writes that changed something, events aside.
func (s *Server) Writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// RoundTrip implements [http.RoundTripper].
func (s *Server) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if req.URL.Query().Get("watch") == "true" {
		return s.watch(req)
	}
	recorder := httptest.NewRecorder()
	s.serve(recorder, req)
	res := recorder.Result()
	res.Request = req
	return res, nil
}

// Fail answers a request as the server would with the error; see package apierrors.
func Fail(req *http.Request, err error) (*http.Response, error) { return answered(req, err) }

// Vanish takes an object, and all that it owns, out of the storage, as if they had never been there:
// no finalizer is waited for. It returns what there was; nil if there was nothing.
func (s *Server) Vanish(gvk schema.GroupVersionKind, key types.NamespacedName) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.resources {
		if r.GroupVersionKind != gvk || r.objects[key] == nil {
			continue
		}
		was := r.objects[key].DeepCopy()
		s.vanish(r, was.DeepCopy())
		return was
	}
	return nil
}

func (s *Server) vanish(r *resource, obj *unstructured.Unstructured) {
	if _, err := s.store(r, watch.Deleted, obj, false); err != nil {
		panic(err) // it came out of the storage
	}
	for _, r := range s.resources {
		for _, key := range sortedKeys(r.objects) {
			if held := r.objects[key]; held != nil && held.ownedBy(obj.GetUID()) {
				s.vanish(r, held.DeepCopy())
			}
		}
	}
}
