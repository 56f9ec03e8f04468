// SPDX-License-Identifier: Apache-2.0

package budget

import "time"

// Backoff is how long to leave a running deployment alone that has not changed for
// some time: first, for as long as patience lasts; then twice that, for twice as
// long, and so on up to longest. With a patience of first, each interval is used
// about once before it doubles.
//
// It looks at how long ago the last change was and not at how often was looked
// since, so it needs no memory and a restart does not begin anew. An interval is
// at least a millisecond, whatever first is.
func Backoff(first, patience, longest, unchanged time.Duration) time.Duration {
	first = max(first, time.Millisecond)
	every := first
	for spent := patience; every < longest && spent <= unchanged; spent = 2*spent + patience {
		every *= 2
	}
	return min(every, longest)
}
