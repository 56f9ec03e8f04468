// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// perPage is the most that the API gives.
	perPage = 100
	// maxRounds is how often a listing is read before it is given up as moving.
	maxRounds = 3
	// maxPatience is how long a listing that has begun waits, in all, for the
	// budget to let its next pages go.
	maxPatience = time.Minute
)

// listing is one reading of a collection, page by page.
type listing[T any] struct {
	client    *Client
	operation string
	path      string
	query     url.Values
	normalise func(*T) (id string)
	// judge gives the outcome of reading a page, an error or nil, the meaning
	// it has for this collection; nil if it means what it says.
	judge func(error) error

	begun  bool          // a page has been read
	waited time.Duration // for the budget
}

// page is one page of a listing, with the id of every row.
type page[T any] struct {
	rows  []T
	ids   []string
	total int // of the whole listing
}

// all yields every row of the collection once, whatever moves while it is read.
//
// The API sorts by names that can change: between two pages a row can slip from
// one to the other, and be seen twice or not at all. So the listing is read
// until one round of it is settled, which is when every page told the same
// total and as many different rows were seen. Later rounds yield what the earlier
// ones missed. The last element is ErrListingMoved if no round settled.
func (l listing[T]) all(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		l := l // ranging over it a second time is another reading
		var none T
		yielded := map[string]bool{}
		for range maxRounds {
			r := newRound()
			for p, err := range l.pages(ctx, r) {
				if err != nil {
					yield(none, err)
					return
				}
				for i, id := range p.ids {
					if yielded[id] {
						continue
					}
					yielded[id] = true
					if !yield(p.rows[i], nil) {
						return
					}
				}
			}
			if r.settled() {
				return
			}
		}
		yield(none, &Error{
			Operation: l.operation,
			detail:    ErrListingMoved.Error(),
			kinds:     []error{ErrListingMoved, ErrUnavailable},
		})
	}
}

// pages reads one round.
func (l *listing[T]) pages(ctx context.Context, r *round) iter.Seq2[page[T], error] {
	return func(yield func(page[T], error) bool) {
		for number := 1; !r.over; number++ {
			p, err := l.patientPage(ctx, number)
			if number > 1 && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrInvalid)) {
				r.pastTheEnd()
				return
			}
			if err == nil {
				r.add(p.ids, p.total)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// patientPage waits for the budget in the middle of a listing: one that is
// broken off has spent its requests for nothing. To begin one, it does not wait.
func (l *listing[T]) patientPage(ctx context.Context, number int) (page[T], error) {
	for {
		p, err := l.page(ctx, number)
		at, known := RetryAt(err)
		if !l.begun || !errors.Is(err, ErrDeferred) || !known {
			l.begun = l.begun || err == nil
			return p, err
		}
		wait := max(at.Sub(l.client.options.Now()), 10*time.Millisecond)
		l.waited += wait
		if l.waited > maxPatience || l.client.options.Sleep(ctx, wait) != nil {
			return p, err
		}
	}
}

// page reads one page.
func (l *listing[T]) page(ctx context.Context, number int) (page[T], error) {
	query := url.Values{"page": {strconv.Itoa(number)}, "per_page": {strconv.Itoa(perPage)}}
	maps.Copy(query, l.query)
	req := request{operation: l.operation, method: http.MethodGet, path: l.path, query: query}
	ans, err := l.client.call(ctx, &req)
	if l.judge != nil && (err == nil || number == 1) { // a later page that is missing says nothing about the collection
		err = l.judge(err)
	}
	if err != nil {
		return page[T]{}, err
	}
	p, ok := decodePage(ans.body, l.normalise)
	if !ok {
		return page[T]{}, garbageError(&req, ans, "not with the page of a listing")
	}
	return p, nil
}

// decodePage reads {"<plural>": […], "meta": {"total_count": …}}. The rows are the
// page's only list, under whatever name: how the plural of two words is written
// is not published. What is not clearly a page is refused, because a listing
// taken for empty by mistake would look as if everything had been deleted.
func decodePage[T any](body []byte, normalise func(*T) string) (page[T], bool) {
	var p page[T]
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return p, false
	}
	var meta struct {
		TotalCount *int `json:"total_count"`
	}
	if json.Unmarshal(members["meta"], &meta) != nil || meta.TotalCount == nil || *meta.TotalCount < 0 {
		return p, false
	}
	p.total = *meta.TotalCount
	lists := 0
	for _, member := range members {
		if !bytes.HasPrefix(member, []byte("[")) {
			continue
		}
		lists++
		if json.Unmarshal(member, &p.rows) != nil {
			return p, false
		}
	}
	if lists != 1 {
		return p, false
	}
	for i := range p.rows {
		id := normalise(&p.rows[i])
		if id == "" {
			return p, false
		}
		p.ids = append(p.ids, id)
	}
	return p, true
}

// round tallies one reading of all pages.
type round struct {
	seen  map[string]bool
	rows  int // with repeats
	total int // -1 before the first page
	moved bool
	over  bool
}

func newRound() *round { return &round{seen: map[string]bool{}, total: -1} }

func (r *round) add(ids []string, total int) {
	before := len(r.seen)
	for _, id := range ids {
		r.seen[id] = true
	}
	r.rows += len(ids)
	r.moved = r.moved || r.total >= 0 && r.total != total
	r.total = total
	// A page with nothing new is the last one repeated, or an empty one
	// past the end: no further page will bring more.
	r.over = r.rows >= total || len(r.seen) == before
}

// pastTheEnd notes that a page that should exist does not: the listing has
// become shorter.
func (r *round) pastTheEnd() { r.moved, r.over = true, true }

// settled tells whether the round has seen the listing as it was at one moment,
// as far as one can tell.
func (r *round) settled() bool { return !r.moved && len(r.seen) == r.total }

// noCollection is for the collections that every organisation has: if one is
// not found, the address is not the API's, or something before it is broken.
func noCollection(err error) error { return also(err, http.StatusNotFound, "", ErrUnavailable) }
