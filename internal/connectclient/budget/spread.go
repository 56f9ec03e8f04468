// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// crowd is how many of those who come back have come when half of their time is over.
const crowd = 1000

// spread gives those who wait for the same instant successive times after it: first come, first
// served. Nobody knows how many they will be, so the first half of the span is for the first
// thousand, and however many come after, they fit into the rest.
type spread struct {
	from  time.Time
	given float64 // times after it
}

// next returns the next time in the span that begins with the instant; the first time is the instant
// itself.
func (s *spread) next(from time.Time, span time.Duration) time.Time {
	if !s.from.Equal(from) {
		*s = spread{from: from}
	}
	share := s.given / (s.given + crowd)
	s.given++
	return from.Add(time.Duration(share * float64(span)))
}

// spreadShare is the part of what was waited for over which those who were refused come back: 50
// seconds of an hour, less than a second of a minute. It is less than a minute so that a whole hour
// is still shown as the time that everybody waits for.
const spreadShare = 72

// shifts are the parts of that time in which the priorities come back: who goes first comes first.
var shifts = [...]struct{ begin, length float64 }{
	Urgent:     {0, 0.1},
	Write:      {0.1, 0.4},
	Poll:       {0.5, 0.5},
	Background: {0.5, 0.5},
}

// spreads has one spread a priority.
type spreads [Background + 1]spread

// next returns when somebody of this priority comes back, of all who wait for the same instant for
// as long as the length.
func (s *spreads) next(p Priority, from time.Time, length time.Duration) time.Time {
	span := float64(length) / spreadShare
	begin := from.Add(time.Duration(shifts[p].begin * span))
	return s[p].next(begin, time.Duration(shifts[p].length*span))
}
