// SPDX-License-Identifier: Apache-2.0

// Package informers has what the manager's cache is made of.
package informers

import (
	"context"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// CacheOptions are those of a cache of the namespaces, which are separated by commas; of all namespaces,
// if there is none.
func CacheOptions(namespaces string) cache.Options {
	options := cache.Options{DefaultTransform: withoutBaggage, NewInformer: newInformer}
	for name := range strings.SplitSeq(namespaces, ",") {
		if name = strings.TrimSpace(name); name != "" {
			if options.DefaultNamespaces == nil {
				options.DefaultNamespaces = map[string]cache.Config{}
			}
			options.DefaultNamespaces[name] = cache.Config{}
		}
	}
	return options
}

// withoutBaggage takes off objects, before they are cached, what nobody reads: of a Secret that was
// applied with kubectl, the annotation with the last applied configuration holds its values.
func withoutBaggage(obj any) (any, error) {
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return obj, nil //nolint:nilerr // a tombstone has nothing to take off
	}
	accessor.SetManagedFields(nil)
	if annotations := accessor.GetAnnotations(); annotations[corev1.LastAppliedConfigAnnotation] != "" {
		delete(annotations, corev1.LastAppliedConfigAnnotation)
		accessor.SetAnnotations(annotations)
	}
	return obj, nil
}

// newInformer makes an informer that goes on within seconds after the API server was away.
func newInformer(lw toolscache.ListerWatcher, example runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
	return toolscache.NewSharedIndexInformer(&persistent{toolscache.ToListerWatcherWithContext(lw)}, example, resync, indexers)
}

// persistent tries again soon where the API server cannot be reached. client-go waits up to a minute
// between two attempts, which is also how long a resource would wait after the server is back.
type persistent struct {
	lw toolscache.ListerWatcherWithContext
}

// reconnect is how soon to try again, doubling to five seconds.
var reconnect = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 64, Cap: 5 * time.Second}

// ListWithContext implements [toolscache.ListerWithContext].
func (p *persistent) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	return persist(ctx, func() (runtime.Object, error) { return p.lw.ListWithContext(ctx, options) })
}

// WatchWithContext implements [toolscache.WatcherWithContext].
func (p *persistent) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	watching, err := persist(ctx, func() (watch.Interface, error) { return p.lw.WatchWithContext(ctx, options) })
	if err != nil {
		return nil, err
	}
	return drained{watching}, nil
}

// List implements [toolscache.Lister].
func (p *persistent) List(options metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), options)
}

// Watch implements [toolscache.Watcher].
func (p *persistent) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), options)
}

// drained is a watch whose goroutines end when it is stopped. Those of watch.Filter, through which the
// metadata of Secrets comes, would wait for ever for somebody to take the event that they hold.
type drained struct{ watch.Interface }

// Stop implements [watch.Interface].
func (d drained) Stop() {
	d.Interface.Stop()
	go func() {
		for range d.ResultChan() { // what comes now interests nobody
		}
	}()
}

func persist[T any](ctx context.Context, attempt func() (T, error)) (T, error) {
	backoff := reconnect
	for {
		result, err := attempt()
		if err == nil || !unreachable(err) {
			return result, err
		}
		timer := time.NewTimer(backoff.Step())
		select {
		case <-ctx.Done():
			timer.Stop()
			return result, err
		case <-timer.C:
		}
	}
}

// unreachable tells whether the API server did not answer, or said that it cannot now. What it says
// about the request itself, such as that a version is too old, is for the caller.
func unreachable(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		return true
	}
	switch status.Status().Code {
	case http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusInternalServerError:
		return true
	default:
		return false
	}
}
