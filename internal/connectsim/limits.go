// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// rateHeaders is how the headers of the rate limit begin.
const rateHeaders = "X-Rate-Limit-"

// maxWindows is how many tokens are counted, also invalid ones, before those of
// windows that are over are forgotten.
const maxWindows = 10_000

// window counts one token's requests in the current window.
type window struct {
	began time.Time
	used  int
}

// count counts a request with the token and tells whether it is within the limit.
// The older revision has none. The lock is held.
func (s *Server) count(token string) (w *window, within bool) { return s.use(token, 1) }

// use counts n requests.
func (s *Server) use(token string, n int) (w *window, within bool) {
	if s.options.Revision == Older {
		return nil, true
	}
	began := s.options.Now().Truncate(s.options.Window)
	w, ok := s.windows[token]
	if !ok || !w.began.Equal(began) {
		if len(s.windows) >= maxWindows {
			maps.DeleteFunc(s.windows, func(_ string, w *window) bool { return !w.began.Equal(began) })
		}
		w = &window{began: began}
		s.windows[token] = w
	}
	w.used += n
	return w, w.used <= s.options.RateLimit
}

// announce writes the headers that an authenticated answer carries.
func (s *Server) announce(header http.Header, w *window) {
	if w == nil {
		return
	}
	left := w.began.Add(s.options.Window).Sub(s.options.Now())
	header.Set(rateHeaders+"Limit", strconv.Itoa(s.options.RateLimit))
	header.Set(rateHeaders+"Remaining", strconv.Itoa(max(0, s.options.RateLimit-w.used)))
	header.Set(rateHeaders+"Reset", strconv.Itoa(int(math.Ceil(left.Seconds()))))
}

// Spend uses up requests of the token's current window, as another program would
// that shares it.
func (s *Server) Spend(token string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(token, n)
}

// SpendAll uses up requests of the current window of every token that opens an
// organisation.
func (s *Server) SpendAll(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for token := range s.byToken {
		s.use(token, n)
	}
}
