// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the kinds of the API group rpi-connect.dev. The comments
// of its types are the user's manual: `kubectl explain` shows them.
//
// +kubebuilder:object:generate=true
// +groupName=rpi-connect.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of every kind in this package.
	GroupVersion = schema.GroupVersion{Group: "rpi-connect.dev", Version: "v1alpha1"}

	// SchemeBuilder collects the kinds of this package; each file of types
	// registers its own.
	SchemeBuilder runtime.SchemeBuilder

	// AddToScheme makes the kinds known to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

// register adds a kind and its list to the scheme.
func register(kind, list runtime.Object) {
	SchemeBuilder.Register(func(scheme *runtime.Scheme) error {
		scheme.AddKnownTypes(GroupVersion, kind, list)
		metav1.AddToGroupVersion(scheme, GroupVersion)
		return nil
	})
}
