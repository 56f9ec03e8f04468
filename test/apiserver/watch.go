// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// watch answers with what happens from a version on, until the request ends.
func (s *Server) watch(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(req)
	if err != nil {
		return nil, err
	}
	version := req.URL.Query().Get("resourceVersion")
	from, err := strconv.ParseInt("0"+version, 10, 64)
	if err != nil {
		return nil, err
	}
	var first [][]byte
	if req.URL.Query().Get("sendInitialEvents") == "true" {
		first, from = s.initial(t), s.version
	} else if len(s.log) > 0 && from < s.log[0].version-1 {
		return answered(req, apierrors.NewResourceExpired("too old resource version"))
	}
	ctx, cancel := context.WithCancel(req.Context())
	uncut := context.AfterFunc(s.cut, cancel)
	reader, writer := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = writer.Close() })
	go func() {
		defer cancel()
		defer uncut()
		defer stop()
		s.follow(ctx, t, from, first, writer)
	}()
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: reader, Request: req,
	}, nil
}

// initial is what there is, and the bookmark that says that this is all.
func (s *Server) initial(t *target) [][]byte {
	var events [][]byte
	for _, key := range sortedKeys(t.objects) {
		if obj := t.objects[key]; t.wants(obj) {
			events = append(events, frame(watch.Added, t.encoded(obj)))
		}
	}
	kind, apiVersion := t.Kind, t.GroupVersion().String()
	if t.metadata {
		kind, apiVersion = "PartialObjectMetadata", "meta.k8s.io/v1"
	}
	return append(events, frame(watch.Bookmark, fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q,"annotations":{%q:"true"}}}`,
		kind, apiVersion, strconv.FormatInt(s.version, 10), metav1.InitialEventsAnnotationKey)))
}

func frame(kind watch.EventType, object []byte) []byte {
	return fmt.Appendf(nil, `{"type":%q,"object":%s}`+"\n", string(kind), object)
}

// follow writes what happens.
func (s *Server) follow(ctx context.Context, t *target, from int64, first [][]byte, out *io.PipeWriter) {
	for _, text := range first {
		if _, err := out.Write(text); err != nil {
			return
		}
	}
	for {
		events, newest, due, changed, compacted := s.since(t, from)
		if compacted {
			_, text := failed(apierrors.NewResourceExpired("too old resource version"))
			_, _ = out.Write(frame(watch.Error, text))
			_ = out.Close()
			return
		}
		for _, text := range events {
			if _, err := out.Write(text); err != nil {
				return
			}
		}
		if from = newest; len(events) > 0 {
			continue
		}
		var later <-chan time.Time
		if due > 0 {
			later = time.After(due)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-later:
		}
	}
}

// since returns what can be seen of the writes after a version; the version up to which that is; when
// there is more to see, if that is known; and what is closed when something else is written.
func (s *Server) since(t *target, from int64) (events [][]byte, newest int64, due time.Duration, changed <-chan struct{}, compacted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest = from
	if len(s.log) > 0 && from < s.log[0].version-1 {
		return nil, from, 0, s.changed, true
	}
	for at := s.after(from); at < len(s.log); at++ {
		e := s.log[at]
		if due = time.Until(e.visible); due > 0 {
			break
		}
		newest = e.version
		if e.of == t.resource && t.wants(e.object) {
			events = append(events, frame(e.kind, t.encoded(e.object)))
		}
	}
	return events, newest, due, s.changed, false
}

// after finds the first write after a version.
func (s *Server) after(version int64) int {
	low, high := 0, len(s.log)
	for low < high {
		if middle := (low + high) / 2; s.log[middle].version <= version {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// CutWatches ends all watches, as a load balancer does, or a server that restarts.
func (s *Server) CutWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAll()
	s.cut, s.cutAll = context.WithCancel(context.Background())
}

// Compact forgets the writes before now: whoever watches from before has to list anew, as after a
// compaction of etcd.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) > 0 {
		s.log = s.log[len(s.log)-1:]
	}
}
