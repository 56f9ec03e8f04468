// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
)

// object is one version of an object. It is never changed.
type object struct {
	*unstructured.Unstructured

	whole, metadata []byte // as JSON
}

func (o *object) ownedBy(owner types.UID) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner })
}

// event is one write.
type event struct {
	version int64
	kind    watch.EventType
	of      *resource
	object  *object
	visible time.Time // to those who watch
}

func (r *resource) conflict(name string, format string, args ...any) error {
	return apierrors.NewConflict(r.groupResource(), name, fmt.Errorf(format, args...))
}

func (s *Server) create(r *resource, obj *unstructured.Unstructured, dry bool) (*object, error) {
	key := keyOf(obj)
	if _, exists := r.objects[key]; exists {
		return nil, apierrors.NewAlreadyExists(r.groupResource(), key.Name)
	}
	if obj.GetName() == "" {
		return nil, apierrors.NewBadRequest("metadata.name is empty")
	}
	s.uids++
	obj.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", s.uids)))
	obj.SetCreationTimestamp(metav1.Time{Time: time.Now().UTC().Truncate(time.Second)})
	obj.SetDeletionTimestamp(nil)
	if r.schema != nil {
		obj.SetGeneration(1)
	}
	if r.status {
		delete(obj.Object, "status")
	}
	encodeStringData(r, obj)
	return s.store(r, watch.Added, obj, dry)
}

// update writes what has become of an object.
func (s *Server) update(r *resource, was *object, now *unstructured.Unstructured, subresource string, dry bool) (*object, error) {
	name := was.GetName()
	if version := now.GetResourceVersion(); version != "" && version != was.GetResourceVersion() {
		return nil, r.conflict(name, "the object has been modified; please apply your changes to the latest version and try again")
	}
	if uid := now.GetUID(); uid != "" && uid != was.GetUID() {
		return nil, r.conflict(name, "Precondition failed: UID in precondition: %s, UID in object meta: %s", uid, was.GetUID())
	}
	next := now.DeepCopy()
	if subresource == "status" {
		next = was.DeepCopy()
		setOrDelete(next.Object, "status", now.Object["status"])
	} else if r.status {
		setOrDelete(next.Object, "status", was.Object["status"])
	}
	next.SetUID(was.GetUID())
	next.SetCreationTimestamp(was.GetCreationTimestamp())
	next.SetDeletionTimestamp(was.GetDeletionTimestamp())
	next.SetGeneration(was.GetGeneration())
	next.SetResourceVersion(was.GetResourceVersion())
	encodeStringData(r, next)
	s.fillIn(r, next)
	if r.schema != nil && !equality.Semantic.DeepEqual(next.Object["spec"], was.Object["spec"]) {
		next.SetGeneration(was.GetGeneration() + 1)
	}
	if equality.Semantic.DeepEqual(next.Object, was.Object) {
		return was, nil
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
		return s.remove(r, next, dry)
	}
	return s.store(r, watch.Modified, next, dry)
}

// delete deletes an object, or marks it while something holds it.
func (s *Server) delete(r *resource, was *object, options *metav1.DeleteOptions) (*object, error) {
	if p := options.Preconditions; p != nil {
		if p.UID != nil && *p.UID != was.GetUID() {
			return nil, r.conflict(was.GetName(), "Precondition failed: UID in precondition: %s, UID in object meta: %s", *p.UID, was.GetUID())
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != was.GetResourceVersion() {
			return nil, r.conflict(was.GetName(), "Precondition failed: ResourceVersion in precondition: %s, ResourceVersion in object meta: %s", *p.ResourceVersion, was.GetResourceVersion())
		}
	}
	dry := len(options.DryRun) > 0
	next := was.DeepCopy()
	if len(next.GetFinalizers()) == 0 {
		return s.remove(r, next, dry)
	}
	if next.GetDeletionTimestamp() != nil {
		return was, nil
	}
	next.SetDeletionTimestamp(&metav1.Time{Time: time.Now().UTC().Truncate(time.Second)})
	if r.schema != nil {
		next.SetGeneration(next.GetGeneration() + 1)
	}
	return s.store(r, watch.Modified, next, dry)
}

func (s *Server) remove(r *resource, obj *unstructured.Unstructured, dry bool) (*object, error) {
	removed, err := s.store(r, watch.Deleted, obj, dry)
	if err != nil || dry {
		return removed, err
	}
	return removed, s.collect(obj.GetUID())
}

// collect deletes what the object that is gone has owned.
func (s *Server) collect(owner types.UID) error {
	for _, r := range s.resources {
		for _, key := range slices.Collect(maps.Keys(r.objects)) {
			held := r.objects[key]
			if held == nil || !held.ownedBy(owner) {
				continue
			}
			if _, err := s.delete(r, held, &metav1.DeleteOptions{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// fillIn puts in the defaults of the schema.
func (s *Server) fillIn(r *resource, obj *unstructured.Unstructured) {
	if r.schema != nil {
		defaulting.Default(obj.Object, r.schema)
	}
}

// store keeps a version of an object, and tells those who watch.
func (s *Server) store(r *resource, kind watch.EventType, obj *unstructured.Unstructured, dry bool) (*object, error) {
	s.fillIn(r, obj)
	obj.SetManagedFields(nil)
	obj.SetGroupVersionKind(r.GroupVersionKind)
	if !dry {
		s.version++
		obj.SetResourceVersion(strconv.FormatInt(s.version, 10))
	}
	stored, err := encode(obj)
	if err != nil || dry || r.volatile {
		return stored, err
	}
	s.writes++
	if kind == watch.Deleted {
		delete(r.objects, keyOf(obj))
	} else {
		r.objects[keyOf(obj)] = stored
	}
	s.log = append(s.log, event{s.version, kind, r, stored, time.Now().Add(s.lag)})
	close(s.changed)
	s.changed = make(chan struct{})
	return stored, nil
}

func encode(obj *unstructured.Unstructured) (*object, error) {
	whole, err := json.Marshal(obj.Object)
	if err != nil {
		return nil, err
	}
	metadata, err := json.Marshal(map[string]any{
		"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": obj.Object["metadata"],
	})
	return &object{obj, whole, metadata}, err
}

// encodeStringData does for a Secret what its conversion does.
func encodeStringData(r *resource, obj *unstructured.Unstructured) {
	if r.Kind != "Secret" {
		return
	}
	plain, _, _ := unstructured.NestedStringMap(obj.Object, "stringData")
	for name, value := range plain {
		_ = unstructured.SetNestedField(obj.Object, base64Of(value), "data", name)
	}
	delete(obj.Object, "stringData")
}

func setOrDelete(fields map[string]any, name string, value any) {
	if value == nil {
		delete(fields, name)
		return
	}
	fields[name] = value
}

func keyOf(obj *unstructured.Unstructured) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}
