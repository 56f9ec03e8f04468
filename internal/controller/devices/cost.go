// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"context"
	"maps"
	"time"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/reflector"
)

// The listing of all devices costs as many requests as it has pages, and answers any
// number of queries; a query's own listing costs one request or a few, and answers that
// query. So the listing of all is cheaper when more different queries wait for an
// answer than it has pages. How many it has is asked for with one request, as soon as
// there is more than one query.

// way is how a query is answered.
type way int

const (
	byItself way = iota
	fromAll
)

const (
	// remembered is how long a query counts that has no answer: a resource that
	// waits asks again at least every hour.
	remembered = 2 * time.Hour
	// counts is for how long the number of pages is believed.
	counts = time.Hour
	// perPage is the number of devices on a page.
	perPage = 100
)

// costs is what the ways of answering queries cost in one organisation.
type costs struct {
	pages   int // of the listing of all; 0 if that is not known
	counted time.Time
	// waiting are the queries that have no answer, and when they were last asked.
	waiting map[string]time.Time
	swept   time.Time // when those were last dropped that nobody asks any more
}

// of returns what is known of the token's organisation. The lock is held.
func (f *Finder) of(token connectclient.Secret) *costs {
	if f.costs[token] == nil {
		f.costs[token] = &costs{waiting: map[string]time.Time{}}
	}
	return f.costs[token]
}

// cheaper says in which way to answer the query. The error is one of
// [reflector.Store.Await], while it is being found out.
func (f *Finder) cheaper(token connectclient.Secret, q query, w reflector.Waiter) (way, error) {
	if queries, known := f.ask(token, q); queries > 1 && !known {
		if err := f.devices.Part(token, countScope).Await(time.Time{}, w); err != nil {
			return byItself, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.of(token); len(c.waiting) > max(c.pages, 1) {
		return fromAll, nil
	}
	return byItself, nil
}

// ask notes that the query waits for an answer. It returns how many do, and whether it
// is known how many pages all devices have.
func (f *Finder) ask(token connectclient.Secret, q query) (queries int, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, now := f.of(token), time.Now()
	if now.Sub(c.swept) > remembered/8 {
		c.swept = now
		maps.DeleteFunc(c.waiting, func(_ string, asked time.Time) bool { return now.Sub(asked) > remembered })
	}
	c.waiting[q.String()] = now
	return len(c.waiting), c.pages > 0 && now.Sub(c.counted) < counts
}

// answered notes that the query has its answer.
func (f *Finder) answered(token connectclient.Secret, q query) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of(token).waiting, q.String())
}

// learn notes how many devices there are.
func (f *Finder) learn(token connectclient.Secret, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.costs[token]; ok { // otherwise no query has been asked, or the token is retired
		c.pages, c.counted = max(1, (total+perPage-1)/perPage), time.Now()
	}
}

// counted is a listing that tells how many devices it says there are.
type counted struct {
	*connectclient.Listing[device]
	firstOnly bool // that is all that it is for
	total     func(int)
}

// Next implements [reflector.Pager].
func (c *counted) Next(ctx context.Context) ([]device, bool, error) {
	rows, more, err := c.Listing.Next(ctx)
	if err == nil {
		c.total(c.Total())
	}
	if err == nil && c.firstOnly {
		return nil, false, nil
	}
	return rows, more, err
}

// Whole implements [reflector.Pager].
func (c *counted) Whole() bool { return !c.firstOnly && c.Listing.Whole() }
