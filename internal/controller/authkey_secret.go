// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// Annotations of the Secret that holds an auth key, beside the key's id. They
// arrive in the same write as the key, so the Secret alone says which key is in
// use, whatever became of the process that wrote it.
const (
	annotationExpiresAt  = "rpi-connect.dev/expires-at"
	annotationMintedFor  = "rpi-connect.dev/minted-for" // what of the spec is in the key
	annotationSupersedes = "rpi-connect.dev/supersedes" // the id of the key before, until it is revoked
	annotationEmptied    = "rpi-connect.dev/emptied"    // the key was dead and is not in the Secret any more
	annotationShape      = "rpi-connect.dev/shape"      // what of the spec is in the Secret's own metadata
)

// Field managers of the Secret: who brings a label or an annotation can take it
// away again without knowing of the key, and the other way round.
const (
	ownsShape = client.FieldOwner("rpi-connect-operator")
	ownsKey   = client.FieldOwner("rpi-connect-operator-key")
)

// keySecret is the Secret of one AuthKey. What is in it is known from its
// metadata, which is cached; its value is only written.
type keySecret struct {
	client client.Client
	owner  *v1alpha1.AuthKey
	meta   *metav1.PartialObjectMetadata // nil while there is no Secret
}

// openKeySecret looks at the Secret that the AuthKey names. One that belongs to
// something else ends the pass: it is never overwritten, and no key is made that
// would have no place.
func openKeySecret(ctx context.Context, c client.Client, owner *v1alpha1.AuthKey) (*keySecret, error) {
	s := &keySecret{client: c, owner: owner}
	meta := secretMetadata(s.name())
	switch err := c.Get(ctx, s.name(), meta); {
	case apierrors.IsNotFound(err):
		return s, nil
	case err != nil:
		return nil, fmt.Errorf("read Secret %s: %w", s.name(), err)
	}
	s.meta = meta
	if !s.ours() {
		return nil, lifecycle.Stalled(v1alpha1.ReasonSecretConflict,
			"Secret %q belongs to something else, so no key is made for it: choose another spec.secret.name, or delete that Secret.", meta.Name)
	}
	return s, nil
}

func secretMetadata(name types.NamespacedName) *metav1.PartialObjectMetadata {
	meta := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return meta
}

func (s *keySecret) name() types.NamespacedName {
	return types.NamespacedName{Namespace: s.owner.Namespace, Name: authKeySecretName(s.owner)}
}

func authKeySecretName(obj *v1alpha1.AuthKey) string {
	if obj.Spec.Secret.Name != "" {
		return obj.Spec.Secret.Name
	}
	return obj.Name
}

// ours tells whether the AuthKey controls the Secret, or did in the cluster that
// both were restored from: then it carries the id of a key, which only this
// operator writes, and no other controller.
func (s *keySecret) ours() bool {
	controller := metav1.GetControllerOf(s.meta)
	if controller == nil {
		return s.id() != ""
	}
	return controller.UID == s.owner.UID ||
		controller.Kind == "AuthKey" && controller.Name == s.owner.Name && s.id() != ""
}

func (s *keySecret) annotation(name string) string {
	if s.meta == nil {
		return ""
	}
	return s.meta.Annotations[name]
}

// id is the remote id of the key in the Secret; empty if there is none.
func (s *keySecret) id() string { return s.annotation(v1alpha1.AnnotationID) }

// expiresAt is when the key in the Secret expires; zero if that is not known.
func (s *keySecret) expiresAt() time.Time {
	at, err := time.Parse(time.RFC3339, s.annotation(annotationExpiresAt))
	if err != nil {
		return time.Time{}
	}
	return at
}

// claim makes the Secret the AuthKey's, still without a key, before one is made.
// One that is there has to be as the cache shows it: it may hold a key already that
// the cache does not know of.
func (s *keySecret) claim(ctx context.Context, live client.Reader) error {
	if s.meta != nil {
		return s.current(ctx, live)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace:       s.owner.Namespace,
		Name:            s.name().Name,
		Labels:          s.owner.Spec.Secret.Labels,
		Annotations:     s.annotations(),
		OwnerReferences: []metav1.OwnerReference{s.ownerReference()},
	}}
	switch err := s.client.Create(ctx, secret, ownsShape); {
	case apierrors.IsAlreadyExists(err):
		// The cache was behind: look again at whose it is.
		return apierrors.NewConflict(corev1.Resource("secrets"), secret.Name, err)
	case err != nil:
		return fmt.Errorf("create Secret %s: %w", s.name(), err)
	}
	s.meta = secretMetadata(s.name())
	s.meta.ObjectMeta = secret.ObjectMeta
	return nil
}

// current makes sure, with a read past the cache, that the Secret is what this pass
// has seen of it.
func (s *keySecret) current(ctx context.Context, live client.Reader) error {
	now := secretMetadata(s.name())
	if err := live.Get(ctx, s.name(), now); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read Secret %s: %w", s.name(), err)
	}
	if now.ResourceVersion != s.meta.ResourceVersion {
		return apierrors.NewConflict(corev1.Resource("secrets"), s.meta.Name, errors.New("the Secret has changed since it was read"))
	}
	return nil
}

// shapeOutdated tells whether labels, annotations or owner differ from what the
// AuthKey says.
func (s *keySecret) shapeOutdated() bool {
	controller := metav1.GetControllerOf(s.meta)
	return s.annotation(annotationShape) != s.shape() ||
		controller == nil || controller.UID != s.owner.UID ||
		!contains(s.meta.Labels, s.owner.Spec.Secret.Labels) ||
		!contains(s.meta.Annotations, s.owner.Spec.Secret.Annotations)
}

func contains(all, some map[string]string) bool {
	for k, v := range some {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// applyShape brings labels, annotations and owner to what the AuthKey says.
func (s *keySecret) applyShape(ctx context.Context) error {
	owner := s.ownerReference()
	secret := applycorev1.Secret(s.meta.Name, s.meta.Namespace).
		WithUID(s.meta.UID).
		WithLabels(s.owner.Spec.Secret.Labels).
		WithAnnotations(s.annotations()).
		WithOwnerReferences(applymetav1.OwnerReference().
			WithAPIVersion(owner.APIVersion).WithKind(owner.Kind).WithName(owner.Name).WithUID(owner.UID).
			WithController(true).WithBlockOwnerDeletion(true))
	return s.client.Apply(ctx, secret, ownsShape, client.ForceOwnership)
}

// hold puts a new key into the Secret, together with everything that is known of
// it. The Secret must still be the one that was claimed: one that was deleted
// and made anew by somebody else meanwhile is not written to.
func (s *keySecret) hold(ctx context.Context, key *connectclient.AuthKey, supersedes string) error {
	annotations := map[string]string{
		v1alpha1.AnnotationID: key.ID,
		annotationExpiresAt:   key.ExpiresAt.UTC().Format(time.RFC3339),
		annotationMintedFor:   mintedFor(s.owner),
	}
	if supersedes != "" {
		annotations[annotationSupersedes] = supersedes
	}
	secret := applycorev1.Secret(s.meta.Name, s.meta.Namespace).
		WithUID(s.meta.UID).
		WithAnnotations(annotations).
		WithData(map[string][]byte{s.owner.Spec.Secret.Key: []byte(key.Secret.Reveal())})
	return s.client.Apply(ctx, secret, ownsKey, client.ForceOwnership)
}

// discard deletes the Secret of another name that the key was in before.
func (s *keySecret) discard(ctx context.Context, name string) error {
	if name == "" || name == s.meta.Name {
		return nil
	}
	before := &keySecret{client: s.client, owner: s.owner, meta: secretMetadata(types.NamespacedName{Namespace: s.owner.Namespace, Name: name})}
	if err := s.client.Get(ctx, client.ObjectKeyFromObject(before.meta), before.meta); err != nil || !before.ours() {
		return client.IgnoreNotFound(err)
	}
	return client.IgnoreNotFound(s.client.Delete(ctx, before.meta, client.Preconditions{UID: &before.meta.UID}))
}

// note changes the operator's annotations; nil removes one.
func (s *keySecret) note(ctx context.Context, annotations map[string]any) error {
	return s.patch(ctx, map[string]any{"metadata": map[string]any{"annotations": annotations, "uid": s.meta.UID}})
}

// empty removes a dead key, and says so in the same write.
func (s *keySecret) empty(ctx context.Context) error {
	return s.patch(ctx, map[string]any{
		"data":     nil,
		"metadata": map[string]any{"annotations": map[string]any{annotationEmptied: "true"}, "uid": s.meta.UID},
	})
}

func (s *keySecret) patch(ctx context.Context, patch map[string]any) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	return s.client.Patch(ctx, s.meta.DeepCopy(), client.RawPatch(types.MergePatchType, data), ownsKey)
}

func (s *keySecret) ownerReference() metav1.OwnerReference {
	return *metav1.NewControllerRef(s.owner, v1alpha1.GroupVersion.WithKind("AuthKey"))
}

// annotations are those that the user wants, and the mark of what they are.
func (s *keySecret) annotations() map[string]string {
	all := map[string]string{annotationShape: s.shape()}
	maps.Copy(all, s.owner.Spec.Secret.Annotations)
	return all
}

func (s *keySecret) shape() string {
	return digest(s.owner.Spec.Secret.Labels, s.owner.Spec.Secret.Annotations)
}

// digest is a short mark of some values, to tell whether they have changed.
func digest(values ...any) string {
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings, lists and maps of them always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
