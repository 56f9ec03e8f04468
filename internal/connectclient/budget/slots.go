// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// slots paces requests where the API announces no window: a token bucket that
// holds a second's worth. Those it refuses are given successive times to come
// back, so that hundreds of them do not come back together.
type slots struct {
	qps    float64
	tokens float64
	filled time.Time
	next   time.Time // the last time that was given to somebody
}

// take returns true, or when to come back.
func (s *slots) take(now time.Time) (time.Time, bool) {
	burst := max(1, s.qps)
	if s.filled.IsZero() {
		s.tokens = burst
	} else {
		s.tokens = min(burst, s.tokens+now.Sub(s.filled).Seconds()*s.qps)
	}
	s.filled = now
	if s.tokens >= 1 {
		s.tokens--
		return time.Time{}, true
	}
	step := time.Duration(float64(time.Second) / s.qps)
	if s.next.Before(now) {
		s.next = now
	}
	s.next = s.next.Add(step)
	return s.next, false
}
