// SPDX-License-Identifier: Apache-2.0

package authkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
)

// Annotations of the Secret that holds an auth key, beside the key's id. They arrive in the same
// write as the key, so the Secret alone says which key is in use, whatever became of the process
// that wrote it.
const (
	annotationExpiresAt   = "rpi-connect.dev/expires-at"
	annotationIssuedAt    = "rpi-connect.dev/issued-at"       // by the operator's clock
	annotationKeySpecHash = "rpi-connect.dev/key-spec-hash"   // what of the spec is in the key
	annotationKeyHash     = "rpi-connect.dev/key-hash"        // a short hash of the key, to notice that it was changed
	annotationDataKey     = "rpi-connect.dev/data-key"        // under which it is in the Secret's data
	annotationSupersedes  = "rpi-connect.dev/supersedes"      // the ids of the keys before, until they are revoked
	annotationPrevious    = "rpi-connect.dev/previous-secret" // the Secret before, until it is deleted
	annotationCleared     = "rpi-connect.dev/cleared"         // the id of the dead key that was taken out of the Secret
	annotationTemplate    = "rpi-connect.dev/secret-template" // which labels and annotations stem from spec.secret
)

// owner is who writes the Secret: one field manager, so that whatever was set can be removed again.
const owner = client.FieldOwner("rpi-connect-operator")

// predecessorPatience is how long a Secret of an AuthKey that was deleted is left to the garbage
// collector.
const predecessorPatience = time.Minute

// secrets reads and writes the Secrets of all AuthKeys. Their metadata is cached; a value is read
// only to see whether somebody has changed it.
type secrets struct {
	client client.Client
	live   client.Reader

	mu       sync.Mutex
	versions map[types.NamespacedName]map[string]*versions // by AuthKey and the name of its Secret
}

// versions are what is known of a Secret. The work queue gives an AuthKey to one worker at a time,
// which alone touches them.
type versions struct {
	newest   string // that this process has written or read
	verified string // whose value is known to be the key
}

func newSecrets(c client.Client, live client.Reader) *secrets {
	return &secrets{client: c, live: live, versions: map[types.NamespacedName]map[string]*versions{}}
}

// forget drops what is known of the Secrets of an AuthKey that is gone.
func (s *secrets) forget(resource types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.versions, resource)
}

func (s *secrets) versionsOf(resource types.NamespacedName, secret string) *versions {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.versions[resource] == nil {
		s.versions[resource] = map[string]*versions{}
	}
	if s.versions[resource][secret] == nil {
		s.versions[resource][secret] = &versions{}
	}
	return s.versions[resource][secret]
}

// keySecret is the Secret of one AuthKey.
type keySecret struct {
	*secrets
	known *versions
	owner *v1alpha1.AuthKey
	meta  *metav1.PartialObjectMetadata // nil while there is no Secret
	// holds says that the key is in there: nobody has taken it out or changed it.
	holds bool
}

// belonging is whose a Secret is.
type belonging int

const (
	nobodys       belonging = iota // there is none
	ours                           // it is controlled by this AuthKey
	restored                       // it holds a key of this operator's, and nobody controls it
	predecessors                   // it is controlled by an AuthKey of this name that was deleted
	somebodyElses                  // it is something else
)

// open looks at the Secret that the AuthKey names.
func (s *secrets) open(ctx context.Context, obj *v1alpha1.AuthKey) (*keySecret, error) {
	k := &keySecret{secrets: s, owner: obj, known: s.versionsOf(client.ObjectKeyFromObject(obj), secretName(obj))}
	meta := secretMetadata(k.name())
	if err := s.client.Get(ctx, k.name(), meta); client.IgnoreNotFound(err) != nil {
		return nil, fmt.Errorf("read Secret %s: %w", k.name(), err)
	} else if err == nil {
		k.meta = meta
	}
	if k.behind() {
		if err := k.refresh(ctx); err != nil {
			return nil, err
		}
	}
	if belongs := k.belongs(); belongs != nobodys && belongs != somebodyElses {
		return k, k.verify(ctx)
	}
	return k, nil
}

// refresh reads the metadata past the cache.
func (k *keySecret) refresh(ctx context.Context) error {
	meta := secretMetadata(k.name())
	switch err := k.live.Get(ctx, k.name(), meta); {
	case apierrors.IsNotFound(err):
		k.meta, *k.known = nil, versions{}
	case err != nil:
		return fmt.Errorf("read Secret %s: %w", k.name(), err)
	default:
		k.meta, k.known.newest = meta, meta.ResourceVersion
	}
	return nil
}

// behind tells whether the cache shows an older version than the newest one that is known.
func (k *keySecret) behind() bool {
	if k.known.newest == "" {
		return false
	}
	if k.meta == nil {
		return true
	}
	order, err := resourceversion.CompareResourceVersion(k.version(), k.known.newest)
	return err == nil && order < 0
}

func (k *keySecret) version() string {
	if k.meta == nil {
		return ""
	}
	return k.meta.ResourceVersion
}

// verify looks into a version of the Secret that this process has not written: somebody may have
// taken the key out, or put something else there.
func (k *keySecret) verify(ctx context.Context) error {
	if k.id() == "" || k.annotation(annotationCleared) == k.id() {
		return nil
	}
	if k.holds = k.known.verified == k.version(); k.holds {
		return nil
	}
	secret := &corev1.Secret{}
	if err := k.live.Get(ctx, k.name(), secret); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read Secret %s: %w", k.name(), err)
	}
	value := strings.TrimSpace(string(secret.Data[k.dataKey()]))
	hash := secret.Annotations[annotationKeyHash]
	if k.holds = value != "" && (hash == "" || hash == shortHash(value)); k.holds && secret.ResourceVersion == k.version() {
		k.known.verified = k.version()
	}
	return nil
}

// dataKey is the key of the Secret's data that holds the auth key now. The spec may ask for another
// one, which takes a new auth key.
func (k *keySecret) dataKey() string {
	if used := k.annotation(annotationDataKey); used != "" {
		return used
	}
	return k.owner.Spec.Secret.Key
}

func secretMetadata(name types.NamespacedName) *metav1.PartialObjectMetadata {
	meta := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return meta
}

func (k *keySecret) name() types.NamespacedName {
	return types.NamespacedName{Namespace: k.owner.Namespace, Name: secretName(k.owner)}
}

func secretName(obj *v1alpha1.AuthKey) string {
	if obj.Spec.Secret.Name != "" {
		return obj.Spec.Secret.Name
	}
	return obj.Name
}

// belongs tells whose the Secret is. One without a controller that carries the id of a key, which
// only this operator writes, comes from a backup, or its AuthKey was deleted without it.
func (k *keySecret) belongs() belonging {
	if k.meta == nil {
		return nobodys
	}
	switch controller := metav1.GetControllerOf(k.meta); {
	case controller == nil && k.annotation(annotationTemplate)+k.id() == "":
		return somebodyElses
	case controller == nil:
		return restored
	case controller.UID == k.owner.UID:
		return ours
	case controller.Kind == "AuthKey" && controller.Name == k.owner.Name:
		return predecessors
	default:
		return somebodyElses
	}
}

// awaitsCollection tells whether the Secret is about to be removed, or should be: it is an AuthKey's
// that was deleted, and holds no key. After some time it is taken over all the same, because not
// every cluster collects garbage.
func (k *keySecret) awaitsCollection(now time.Time) bool {
	switch {
	case k.meta == nil:
		return false
	case !k.meta.DeletionTimestamp.IsZero():
		return true
	default:
		return k.belongs() == predecessors && !k.holds && now.Sub(k.owner.CreationTimestamp.Time) < predecessorPatience
	}
}

func (k *keySecret) annotation(name string) string {
	if k.meta == nil {
		return ""
	}
	return k.meta.Annotations[name]
}

// id is the remote id of the key that the Secret holds or held last; empty if there is none.
func (k *keySecret) id() string { return k.annotation(v1alpha1.AnnotationID) }

// expiresAt is when the key expires, as it was said when it was written.
func (k *keySecret) expiresAt() time.Time { return k.time(annotationExpiresAt) }

// previous is the name of the Secret that held the key before, until that is deleted.
func (k *keySecret) previous() string { return k.annotation(annotationPrevious) }

// cleared tells whether the key with the id was taken out of the Secret when it was dead.
func (k *keySecret) cleared(id string) bool { return k.annotation(annotationCleared) == id }

// matchesKeySpec tells whether the key was written for the spec as it is now.
func (k *keySecret) matchesKeySpec() bool {
	return k.annotation(annotationKeySpecHash) == keySpecHash(k.owner)
}

// supersedes are the ids of the keys before, which are to be revoked.
func (k *keySecret) supersedes() []string {
	return strings.Fields(strings.ReplaceAll(k.annotation(annotationSupersedes), ",", " "))
}

func (k *keySecret) time(name string) time.Time {
	at, err := time.Parse(time.RFC3339, k.annotation(name))
	if err != nil {
		return time.Time{}
	}
	return at
}

// claim makes the Secret the AuthKey's, still without a new key, before one is made. One that is
// there has to be as this pass has seen it: it may hold a key already that the cache does not know
// of.
func (k *keySecret) claim(ctx context.Context) error {
	if k.meta == nil {
		return k.create(ctx)
	}
	seen := k.version()
	if err := k.refresh(ctx); err != nil {
		return err
	}
	if k.version() != seen {
		return apierrors.NewConflict(corev1.Resource("secrets"), k.name().Name, errors.New("the Secret has changed since it was read"))
	}
	if k.templateOutdated() {
		return k.applyTemplate(ctx)
	}
	return nil
}

func (k *keySecret) create(ctx context.Context) error {
	annotations := maps.Clone(k.owner.Spec.Secret.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotationTemplate] = k.template().String()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: k.owner.Namespace, Name: k.name().Name,
		Labels: k.labels(), Annotations: annotations,
		OwnerReferences: []metav1.OwnerReference{k.ownerReference()},
	}}
	switch err := k.client.Create(ctx, secret, owner); {
	case apierrors.IsAlreadyExists(err):
		// The cache was behind: look again at whose it is.
		return apierrors.NewConflict(corev1.Resource("secrets"), secret.Name, err)
	case err != nil:
		return fmt.Errorf("create Secret %s: %w", k.name(), err)
	}
	k.meta = secretMetadata(k.name())
	k.meta.ObjectMeta = secret.ObjectMeta
	k.known.newest = secret.ResourceVersion
	return nil
}

// labels are those that the spec wants.
func (k *keySecret) labels() map[string]string {
	labels := map[string]string{}
	for name, value := range k.owner.Spec.Secret.Labels {
		labels[name] = string(value)
	}
	return labels
}

// template names the labels and annotations of the Secret that stem from spec.secret.
type template struct {
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
}

func (k *keySecret) template() template {
	return template{
		Labels:      slices.Sorted(maps.Keys(k.labels())),
		Annotations: slices.Sorted(maps.Keys(k.owner.Spec.Secret.Annotations)),
	}
}

// appliedTemplate is what was set by the last write.
func (k *keySecret) appliedTemplate() template {
	var t template
	if json.Unmarshal([]byte(k.annotation(annotationTemplate)), &t) != nil {
		return template{}
	}
	return t
}

func (t template) String() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // two lists of strings always marshal
	}
	return string(text)
}

// templateOutdated tells whether labels, annotations or owner differ from what the AuthKey says.
func (k *keySecret) templateOutdated() bool {
	return k.belongs() != ours || k.annotation(annotationTemplate) != k.template().String() ||
		!contains(k.meta.Labels, k.labels()) || !contains(k.meta.Annotations, k.owner.Spec.Secret.Annotations)
}

func contains(all, some map[string]string) bool {
	for k, v := range some {
		if got, ok := all[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// applyTemplate brings labels, annotations and owner to what the AuthKey says.
func (k *keySecret) applyTemplate(ctx context.Context) error {
	before := k.appliedTemplate()
	owners := slices.DeleteFunc(slices.Clone(k.meta.OwnerReferences), func(o metav1.OwnerReference) bool {
		return o.Kind == "AuthKey" && o.Name == k.owner.Name
	})
	return k.patch(ctx, map[string]any{"metadata": map[string]any{
		"labels":          changes(before.Labels, k.labels(), nil),
		"annotations":     changes(before.Annotations, k.owner.Spec.Secret.Annotations, map[string]any{annotationTemplate: k.template().String()}),
		"ownerReferences": append(owners, k.ownerReference()),
	}})
}

// changes is the merge patch from the keys that were set before to the values wanted.
func changes(before []string, wanted map[string]string, more map[string]any) map[string]any {
	patch := map[string]any{}
	for _, key := range before {
		patch[key] = nil
	}
	for key, value := range wanted {
		patch[key] = value
	}
	maps.Copy(patch, more)
	return patch
}

// tryToStore asks the API server whether it would take a key, without storing one: nothing is minted
// that would have no place.
func (k *keySecret) tryToStore(ctx context.Context) error {
	const placeholder = "rpoak-placeholder"
	patch := k.keyPatch(&connectclient.AuthKey{ID: "00000000-0000-0000-0000-000000000000"}, placeholder, nil, "", time.Time{})
	return k.send(ctx, patch, client.DryRunAll)
}

// store puts a new key into the Secret, together with everything that is known of it. It is tried
// for as long as the context lasts; and if the API server does not say whether it has taken the key,
// it is asked.
func (k *keySecret) store(ctx context.Context, key *connectclient.AuthKey, supersedes []string, previous string, now time.Time) error {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 9, Cap: 5 * time.Second}
	var stored error
	uid := k.meta.UID
	waitErr := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		stored = k.patch(ctx, k.keyPatch(key, key.Secret.Reveal(), supersedes, previous, now))
		if stored == nil {
			return true, nil
		}
		if err := k.refresh(ctx); err != nil {
			return false, nil //nolint:nilerr // it is asked again
		}
		switch {
		case k.id() == key.ID:
			stored = nil // it has taken the key, and the answer was lost
			return true, nil
		case k.meta == nil, k.meta.UID != uid:
			return true, nil // the Secret that was claimed is gone
		}
		_, refused := lifecycle.Refusal(stored)
		return refused, nil
	})
	if stored == nil && waitErr == nil {
		k.holds, k.known.verified = true, k.version()
		return nil
	}
	return fmt.Errorf("store the auth key in Secret %s: %w", k.name(), errors.Join(stored, waitErr))
}

func (k *keySecret) keyPatch(key *connectclient.AuthKey, value string, supersedes []string, previous string, now time.Time) map[string]any {
	data := map[string]any{k.owner.Spec.Secret.Key: []byte(value)}
	if before := k.annotation(annotationDataKey); before != "" && before != k.owner.Spec.Secret.Key {
		data[before] = nil
	}
	return map[string]any{
		"data": data,
		"metadata": map[string]any{"annotations": map[string]any{
			v1alpha1.AnnotationID: key.ID,
			annotationExpiresAt:   key.ExpiresAt.UTC().Format(time.RFC3339),
			annotationIssuedAt:    now.UTC().Format(time.RFC3339),
			annotationKeySpecHash: keySpecHash(k.owner),
			annotationKeyHash:     shortHash(value),
			annotationDataKey:     k.owner.Spec.Secret.Key,
			annotationSupersedes:  orNil(strings.Join(supersedes, ",")),
			annotationPrevious:    orNil(previous),
			annotationCleared:     nil,
		}},
	}
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// note changes the operator's annotations; nil removes one.
func (k *keySecret) note(ctx context.Context, annotations map[string]any) error {
	return k.patch(ctx, map[string]any{"metadata": map[string]any{"annotations": annotations}})
}

// clear removes a dead key, and says so in the same write.
func (k *keySecret) clear(ctx context.Context) error {
	return k.patch(ctx, map[string]any{
		"data":     nil,
		"metadata": map[string]any{"annotations": map[string]any{annotationCleared: k.id(), annotationKeyHash: nil}},
	})
}

// forgetKey removes a key that is no longer the AuthKey's, and everything that is said of it.
func (k *keySecret) forgetKey(ctx context.Context) error {
	return k.patch(ctx, map[string]any{
		"data": nil,
		"metadata": map[string]any{"annotations": map[string]any{
			v1alpha1.AnnotationID: nil, annotationSupersedes: nil, annotationKeyHash: nil, annotationExpiresAt: nil,
		}},
	})
}

// noteKeySpec says that the key is as the spec of the AuthKey is now.
func (k *keySecret) noteKeySpec(ctx context.Context) error {
	return k.note(ctx, map[string]any{annotationKeySpecHash: keySpecHash(k.owner)})
}

// forgetSuperseded says that the keys before are revoked.
func (k *keySecret) forgetSuperseded(ctx context.Context) error {
	return k.note(ctx, map[string]any{annotationSupersedes: nil})
}

// forgetPrevious says that the Secret before is deleted.
func (k *keySecret) forgetPrevious(ctx context.Context) error {
	return k.note(ctx, map[string]any{annotationPrevious: nil})
}

// patch writes to the version of the Secret that this pass has seen.
func (k *keySecret) patch(ctx context.Context, patch map[string]any) error { return k.send(ctx, patch) }

func (k *keySecret) send(ctx context.Context, patch map[string]any, options ...client.PatchOption) error {
	metadata, _ := patch["metadata"].(map[string]any)
	metadata["uid"], metadata["resourceVersion"] = k.meta.UID, k.meta.ResourceVersion
	text, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	written := k.meta.DeepCopy()
	if err := k.client.Patch(ctx, written, client.RawPatch(types.MergePatchType, text), append(options, owner)...); err != nil {
		return err
	}
	if len(options) > 0 {
		return nil // it was a dry run
	}
	if k.known.verified == k.version() {
		k.known.verified = written.ResourceVersion // what was known to be in there still is
	}
	k.meta, k.known.newest = written, written.ResourceVersion
	return nil
}

// discard deletes the Secret of another name that the key was in before.
func (k *keySecret) discard(ctx context.Context, name string) error {
	before := &keySecret{secrets: k.secrets, owner: k.owner, meta: secretMetadata(types.NamespacedName{Namespace: k.owner.Namespace, Name: name})}
	if err := k.live.Get(ctx, client.ObjectKeyFromObject(before.meta), before.meta); err != nil {
		return client.IgnoreNotFound(err)
	}
	if belongs := before.belongs(); belongs != ours && belongs != predecessors {
		return nil
	}
	return client.IgnoreNotFound(k.client.Delete(ctx, before.meta, client.Preconditions{UID: &before.meta.UID}))
}

func (k *keySecret) ownerReference() metav1.OwnerReference {
	return *metav1.NewControllerRef(k.owner, v1alpha1.GroupVersion.WithKind("AuthKey"))
}
