// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

const (
	// perPage is the most that the API gives.
	perPage = 100
	// maxPageRows bounds a page of an API that does not keep to that.
	maxPageRows = 10 * perPage
	// maxRows and maxBytes bound what one listing brings, whatever its pages
	// say: far more than an hour's budget could keep up with.
	maxRows  = 200_000
	maxBytes = 128 << 20
)

// Listing reads a collection page by page, every object once. It is one reading:
// to read the collection again, open another. It is not safe for concurrent use.
//
// The API sorts by names that can change, so rows move from page to page while
// one reads. A listing ends all the same, at about as many pages as there are.
// What it shows is there. What it does not show may be there too: an object that
// was moved forward between two pages, past the place that was read last, is
// missed. See [Listing.Whole] for what else speaks against concluding that
// something is gone.
//
// Reading is [budget.Background], whatever the context says: the part of the
// budget that is reserved for writing is never spent on a listing.
type Listing[T any] struct {
	client    *Client
	operation string
	path      string
	query     url.Values
	plural    string // what the rows are called in a page
	normalise func(*T) (id string)
	// refine gives the outcome of reading the first page, an error or nil, the
	// meaning it has for this collection; nil if it means what it says.
	refine func(error) error
	// invalid is why there is nothing to read at all.
	invalid error

	progress progress
	seen     map[string]struct{} // ids
	skipped  int
	bytes    int
}

// Next reads the next page. It returns those of its rows that no page before has
// shown, maybe none, and whether there are more pages. After an error, the next
// call goes on at the page that failed.
//
// In the middle of a listing it waits for as long as the budget only paces
// ([ErrDeferred]): a listing that is given up has spent its requests for nothing.
// To begin, it does not wait.
func (l *Listing[T]) Next(ctx context.Context) (rows []T, more bool, err error) {
	switch {
	case l.invalid != nil:
		return nil, false, l.invalid
	case l.progress.over:
		return nil, false, nil
	}
	number := l.progress.next()
	read, err := l.patientPage(WithPriority(ctx, budget.Background), number)
	switch {
	case number > 1 && pastTheEnd(err):
		l.progress.refused(number)
		return nil, !l.progress.over, nil
	case err != nil:
		return nil, true, err
	}
	rows = l.news(read)
	if number > l.progress.furthest { // a page that is read again is not counted again
		l.skipped += read.count - len(read.rows)
	}
	l.bytes += read.bytes
	l.progress.read(number, read.facts(len(rows)))
	if len(l.seen) >= maxRows || l.bytes >= maxBytes {
		l.progress.stop()
	}
	return rows, !l.progress.over, nil
}

// Total is how many objects the collection has, as the latest page told; 0 before
// the first.
func (l *Listing[T]) Total() int { return l.progress.total }

// Skipped is how many rows could not be understood, and were left out.
func (l *Listing[T]) Skipped() int { return l.skipped }

// Whole tells, at the end of the listing, whether it has shown all that was there
// throughout, as far as one can tell: no row was skipped, it came to the end that
// its pages told of, and as many objects were seen as were counted. It does not
// exclude that a single object slipped through while others came and went.
func (l *Listing[T]) Whole() bool {
	// A count may be off by one, and among thousands a few come and go at any
	// moment.
	fewest := l.progress.fewest
	return l.progress.over && !l.progress.cut && l.skipped == 0 && len(l.seen)+1+fewest/100 >= fewest
}

// All yields what Next returns, to the end of the listing. An error is the last
// element.
func (l *Listing[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for more := true; more; {
			var rows []T
			var err error
			rows, more, err = l.Next(ctx)
			if err != nil {
				yield(none, err)
				return
			}
			for i := range rows {
				if !yield(rows[i], nil) {
					return
				}
			}
		}
	}
}

// news returns the rows whose ids no page before has shown.
func (l *Listing[T]) news(read page[T]) []T {
	if l.seen == nil {
		l.seen = map[string]struct{}{}
	}
	fresh := make([]T, 0, len(read.rows))
	for i, id := range read.ids {
		if _, repeated := l.seen[id]; !repeated {
			l.seen[id] = struct{}{}
			fresh = append(fresh, read.rows[i])
		}
	}
	return fresh
}

// patientPage waits while the budget paces a listing that has begun.
func (l *Listing[T]) patientPage(ctx context.Context, number int) (page[T], error) {
	for {
		read, err := l.page(ctx, number)
		at, known := RetryAt(err)
		if !l.progress.begun() || !errors.Is(err, ErrDeferred) || !known {
			return read, err
		}
		wait := max(at.Sub(l.client.options.Now()), 10*time.Millisecond)
		if l.client.options.Sleep(ctx, wait) != nil {
			return read, err
		}
	}
}

// maxReaders is how many pages are read at the same time, of all organisations.
const maxReaders = 64

// pageTurns are the turns to read a page. Listings tend to be due at the same moment, all of them when
// the operator starts. No more would be answered in the same time, but what takes too long to connect or
// to be answered looks like an outage, which stops everybody. A turn comes before everything that has a
// timeout, or is counted.
type pageTurns chan struct{}

func newPageTurns() pageTurns { return make(pageTurns, maxReaders) }

// take waits for a turn, in the order of those who wait. It has to be given back.
func (t pageTurns) take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pastTheEnd tells whether the API refuses a page because there are not so many.
func pastTheEnd(err error) bool {
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrInvalid) {
		return false
	}
	switch e.StatusCode {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// page reads one page.
func (l *Listing[T]) page(ctx context.Context, number int) (page[T], error) {
	query := url.Values{"page": {strconv.Itoa(number)}, "per_page": {strconv.Itoa(perPage)}}
	maps.Copy(query, l.query)
	req := request{operation: l.operation, method: http.MethodGet, path: l.path, query: query}
	done, err := l.client.pages.take(ctx)
	if err != nil {
		return page[T]{}, callError(&req, nil, unsent(err))
	}
	defer done()
	ans, err := l.client.call(ctx, &req)
	if l.refine != nil && (err == nil || number == 1) { // a later page that is missing says nothing about the collection
		err = l.refine(err)
	}
	if err != nil {
		return page[T]{}, err
	}
	read, ok := decodePage(ans.body, l.plural, l.normalise)
	if !ok {
		return page[T]{}, garbageError(&req, ans, "not with the page of a listing")
	}
	return read, nil
}

// page is one page of a listing: the rows that could be understood, with their
// ids.
type page[T any] struct {
	rows  []T
	ids   []string
	count int // of all rows
	total int // of the whole listing
	pages int // of the whole listing; 0 if that is not told
	bytes int
}

func (p page[T]) facts(fresh int) pageFacts {
	return pageFacts{rows: p.count, fresh: fresh, total: p.total, pages: p.pages}
}

// decodePage reads {"<plural>": […], "meta": {"total_count": …}}. The rows are the
// list of that name or else, because how the plural of two words is written is
// not certain, the page's only list. What else there is, is ignored.
//
// What is not clearly a page is refused, because a listing taken for empty by
// mistake would look as if everything had been deleted. A row that is not as
// expected is left out: it may be one of a kind that is not known here yet.
func decodePage[T any](body []byte, plural string, normalise func(*T) string) (page[T], bool) {
	read := page[T]{bytes: len(body)}
	var meta struct {
		TotalCount *int            `json:"total_count"`
		TotalPages json.RawMessage `json:"total_pages"`
	}
	if !decode(member(body, "meta"), &meta) || meta.TotalCount == nil || *meta.TotalCount < 0 {
		return read, false
	}
	read.total = *meta.TotalCount
	_ = json.Unmarshal(meta.TotalPages, &read.pages) // what is no number tells nothing

	list, ok := theList(body, plural)
	if !ok {
		return read, false
	}
	for _, raw := range parts(list) {
		if read.count++; read.count > maxPageRows {
			return read, false
		}
		var row T
		if !decode(raw, &row) {
			continue
		}
		if id := normalise(&row); id != "" {
			read.rows, read.ids = append(read.rows, row), append(read.ids, id)
		}
	}
	return read, true
}

// theList finds the rows among the members of a page.
func theList(body []byte, plural string) (json.RawMessage, bool) {
	if named := member(body, plural); named != nil {
		return named, isList(named)
	}
	var list json.RawMessage
	for _, member := range parts(body) {
		switch {
		case !isList(member):
		case list != nil:
			return nil, false
		default:
			list = member
		}
	}
	return list, list != nil
}

// noCollection is for the collections that every organisation has: if one is
// not found, the address is not the API's, or something before it is broken.
func noCollection(err error) error { return classify(err, http.StatusNotFound, "", ErrUnavailable) }
