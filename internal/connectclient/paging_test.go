// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rpi-connect.dev/operator/internal/connectclient/budget"
)

// pageOf writes one page of a listing of artefacts.
func pageOf(total int, ids ...string) reply {
	rows := []Artefact{}
	for _, id := range ids {
		rows = append(rows, Artefact{ID: id, Name: "name of " + id})
	}
	body, err := json.Marshal(map[string]any{
		"artefacts": rows,
		"meta":      map[string]int{"page": 1, "per_page": 100, "total_count": total, "total_pages": 9},
	})
	if err != nil {
		panic(err)
	}
	return reply{status: 200, body: string(body)}
}

// script answers each request with the next of the replies, and repeats the last.
func script(t *testing.T, replies ...reply) *service {
	t.Helper()
	var s *service
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		replies[min(len(s.requests()), len(replies))-1].ServeHTTP(w, r)
	})
	return s
}

func pagesAsked(s *service) string {
	var pages []string
	for _, r := range s.requests() {
		page := strings.TrimPrefix(r.URI, "/organisation/artefacts?")
		page = strings.TrimSuffix(page, "&per_page=100")
		pages = append(pages, strings.TrimPrefix(page, "page="))
	}
	return strings.Join(pages, " ")
}

func idsOf(rows []Artefact) string {
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	return strings.Join(ids, " ")
}

func TestListing(t *testing.T) {
	for name, tt := range map[string]struct {
		replies []reply
		want    string // ids, in order
		asked   string // pages
		whole   bool
	}{
		"empty":         {[]reply{pageOf(0)}, "", "1", true},
		"one page":      {[]reply{pageOf(2, "a", "b")}, "a b", "1", true},
		"several pages": {[]reply{pageOf(5, "a", "b"), pageOf(5, "c", "d"), pageOf(5, "e")}, "a b c d e", "1 2 3", true},

		// What moves while it is read.
		"a row repeats":                     {[]reply{pageOf(5, "a", "b"), pageOf(5, "b", "c"), pageOf(5, "d")}, "a b c d", "1 2 3", true},
		"a row is inserted before":          {[]reply{pageOf(3, "b", "c"), pageOf(4, "c", "d")}, "b c d", "1 2", true},
		"a page of rows is inserted":        {[]reply{pageOf(4, "c", "d"), pageOf(6, "c", "d"), pageOf(6, "e", "f")}, "c d e f", "1 2 3", true},
		"a row is removed before":           {[]reply{pageOf(5, "a", "b"), pageOf(4, "d", "e"), pageOf(4, "b", "c")}, "a b d e c", "1 2 1", true},
		"a row is removed behind":           {[]reply{pageOf(5, "a", "b"), pageOf(4, "c", "d"), pageOf(4, "a", "b")}, "a b c d", "1 2 1", true},
		"… and one while looking back":      {[]reply{pageOf(6, "a", "b"), pageOf(5, "d", "e"), pageOf(4, "c", "d"), pageOf(4, "e", "f")}, "a b d e c f", "1 2 1 2", true},
		"… and the listing goes on":         {[]reply{pageOf(7, "a", "b"), pageOf(6, "d", "e"), pageOf(6, "b", "c"), pageOf(6, "f", "g")}, "a b d e c f g", "1 2 1 3", true},
		"more rows than a page are removed": {[]reply{pageOf(8, "a", "b"), pageOf(8, "c", "d"), pageOf(5, "h"), pageOf(5, "d", "e"), pageOf(5, "f", "g")}, "a b c d h e f g", "1 2 3 1 2", true},
		"the last page is gone, empty":      {[]reply{pageOf(3, "a", "b"), pageOf(2), pageOf(2, "a", "c")}, "a b c", "1 2 1", true},
		"the last page is gone, 404":        {[]reply{pageOf(3, "a", "b"), {status: 404, header: rateHeaders}, pageOf(2, "a", "c")}, "a b c", "1 2 1", true},
		"the last page is gone, 400":        {[]reply{pageOf(3, "a", "b"), {status: 400, header: rateHeaders}, pageOf(2, "a", "c")}, "a b c", "1 2 1", true},

		// What is a lie.
		"the last page again":         {[]reply{pageOf(3, "a", "b"), pageOf(3, "a", "b")}, "a b", "1 2", true},
		"the total is one too high":   {[]reply{pageOf(5, "a", "b"), pageOf(5, "c", "d"), pageOf(5)}, "a b c d", "1 2 3", true},
		"… and there is no such page": {[]reply{pageOf(5, "a", "b"), pageOf(5, "c", "d"), {status: 404, header: rateHeaders}, pageOf(5, "c", "d")}, "a b c d", "1 2 3 2", true},
		"the total is far too high":   {[]reply{pageOf(90, "a", "b"), pageOf(90)}, "a b", "1 2", false},
		"… and there is no such page either": {
			[]reply{pageOf(90, "a", "b"), {status: 404, header: rateHeaders}, pageOf(90, "a", "b")}, "a b", "1 2 1", false},
		"an empty page of many": {[]reply{pageOf(90)}, "", "1", false},
		"a row is taken away each time": {
			[]reply{pageOf(9, "a", "b"), pageOf(8, "d", "e"), pageOf(7, "d", "e"), pageOf(6, "d", "e"), pageOf(5, "d", "e"), pageOf(4, "d", "e"), pageOf(3, "d", "e"), pageOf(2, "d", "e")},
			"a b d e", "1 2 1 2 3 2", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t, tt.replies...)
			listing := connect(t, s.URL).Artefacts().List()
			got, err := collect(listing.All(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			if idsOf(got) != tt.want {
				t.Errorf("got %q, want %q", idsOf(got), tt.want)
			}
			if pagesAsked(s) != tt.asked {
				t.Errorf("asked for pages %s, want %s", pagesAsked(s), tt.asked)
			}
			if listing.Whole() != tt.whole {
				t.Errorf("it is whole: %t", listing.Whole())
			}
		})
	}
}

// organisation answers listings of artefacts out of a sorted collection that
// changes while it is read.
type organisation struct {
	names   []string
	perPage int
	asked   int
	// between happens before the page is answered.
	between func(page int)
	// lie changes what the page says of itself.
	lie func(meta map[string]any)
}

func (o *organisation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.asked++
	number, _ := strconv.Atoi(r.URL.Query().Get("page"))
	if o.between != nil {
		o.between(number)
	}
	from := min((number-1)*o.perPage, len(o.names))
	rows := []Artefact{}
	for _, name := range o.names[from:min(from+o.perPage, len(o.names))] {
		rows = append(rows, Artefact{ID: name, Name: name})
	}
	meta := map[string]any{
		"page": number, "per_page": o.perPage,
		"total_count": len(o.names), "total_pages": (len(o.names) + o.perPage - 1) / o.perPage,
	}
	if o.lie != nil {
		o.lie(meta)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"artefacts": rows, "meta": meta})
}

func (o *organisation) insert(name string) {
	at, _ := slices.BinarySearch(o.names, name)
	o.names = slices.Insert(o.names, at, name)
}

func named(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("m%05d", i)
	}
	return names
}

func TestListingCostsAsMuchAsItHasPages(t *testing.T) {
	for objects, pages := range map[int]int{0: 1, 1: 1, 99: 1, 100: 1, 101: 2, 200: 2, 300: 3, 1001: 11} {
		o := &organisation{names: named(objects), perPage: 100}
		s := serve(t, o.ServeHTTP)
		listing := connect(t, s.URL).Artefacts().List()
		got, err := collect(listing.All(t.Context()))
		if err != nil || len(got) != objects || !listing.Whole() || listing.Total() != objects {
			t.Errorf("%d of %d objects, %v", len(got), objects, err)
		}
		if o.asked != pages {
			t.Errorf("%d objects cost %d requests, want %d", objects, o.asked, pages)
		}
	}
}

// A server that lies about how many there are shows all the same what there is.
func TestListingDoesNotBelieveItsPages(t *testing.T) {
	for name, tt := range map[string]struct {
		perPage int
		lie     func(map[string]any)
		most    int // requests
	}{
		"fewer rows a page than asked for": {40, nil, 8},
		"… without saying so":              {40, func(meta map[string]any) { meta["per_page"] = 100 }, 8},
		"too many pages":                   {100, func(meta map[string]any) { meta["total_pages"] = 99 }, 4},
		"too few pages":                    {100, func(meta map[string]any) { meta["total_pages"] = 1 }, 4},
		"pages that are no number":         {100, func(meta map[string]any) { meta["total_pages"] = "three" }, 4},
		"a total that is one too high":     {100, func(meta map[string]any) { meta["total_count"] = 302 }, 4},
		"a total that is one too low":      {100, func(meta map[string]any) { meta["total_count"] = 300 }, 4},
		"a total that is far too low":      {100, func(meta map[string]any) { meta["total_count"] = 50; meta["total_pages"] = 1 }, 4},
		"a total that is far too high":     {100, func(meta map[string]any) { meta["total_count"] = 1 << 31 }, 5},
		"a total that is different each time": {100, func(meta map[string]any) {
			page, _ := meta["page"].(int)
			meta["total_count"] = 301 + 2*(page%2)
		}, 9},
		"no other meta at all": {100, func(meta map[string]any) {
			maps.DeleteFunc(meta, func(key string, _ any) bool { return key != "total_count" })
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			o := &organisation{names: named(301), perPage: tt.perPage, lie: tt.lie}
			s := serve(t, o.ServeHTTP)
			got, err := collect(connect(t, s.URL).Artefacts().List().All(t.Context()))
			if err != nil || len(got) != 301 {
				t.Errorf("%d objects, %v", len(got), err)
			}
			if o.asked > tt.most {
				t.Errorf("%d requests, at most %d are needed", o.asked, tt.most)
			}
		})
	}
}

// Pages that never end, with objects that nobody has seen before.
func TestEndlessListingEnds(t *testing.T) {
	for name, total := range map[string]func(page int) int{
		"one more each time": func(page int) int { return 100*page + 1 },
		"a steady total":     func(int) int { return 1000 },
		"too many to count":  func(int) int { return 1 << 31 },
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				ids := make([]string, 100)
				for i := range ids {
					ids[i] = fmt.Sprintf("%d-%d", asked, i)
				}
				pageOf(total(asked), ids...).ServeHTTP(w, nil)
			})
			listing := connect(t, s.URL).Artefacts().List()
			got, err := collect(listing.All(t.Context()))
			if err != nil || len(got) == 0 || len(got) > maxRows {
				t.Errorf("%d objects, %v", len(got), err)
			}
			if first := (total(1) + 99) / 100; asked > min(first+first/4+5, maxPages) {
				t.Errorf("%d requests", asked)
			}
			if listing.Whole() && name != "a steady total" {
				t.Error("it claims to be whole")
			}
		})
	}
}

// While an organisation is read, one object comes or goes between any two pages.
// Whatever stays where it is, is seen, and the cost is about that of the pages.
func TestListingOfAnOrganisationThatMoves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		o := &organisation{names: named(1000 + random.IntN(2000)), perPage: 100}
		stays := map[string]bool{}
		for _, name := range o.names {
			stays[name] = true
		}
		removes := func() bool { return random.IntN(2) == 0 }
		switch round % 3 {
		case 1:
			removes = func() bool { return true }
		case 2:
			removes = func() bool { return false }
		}
		o.between = func(int) {
			if random.IntN(3) > 0 {
				return
			}
			if at := random.IntN(len(o.names)); removes() {
				delete(stays, o.names[at])
				o.names = slices.Delete(o.names, at, at+1)
			} else {
				o.insert(fmt.Sprintf("%s-new%d", o.names[at], o.asked))
			}
		}
		pages := len(o.names)/100 + 1
		s := serve(t, o.ServeHTTP)
		listing := connect(t, s.URL).Artefacts().List()
		got, err := collect(listing.All(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			delete(stays, got[i].ID)
		}
		if len(stays) > 0 && listing.Whole() {
			t.Errorf("round %d: %d objects were there throughout and were not seen", round, len(stays))
		}
		if len(stays) > 0 && round%3 != 1 { // removals alone, one in three pages, may reach the limit
			t.Errorf("round %d: the listing was cut", round)
		}
		if o.asked > pages+pages/4+5 {
			t.Errorf("round %d: %d requests for %d pages", round, o.asked, pages)
		}
	}
}

// An hour's budget is spent, or the API is away, in the middle of a listing: it
// goes on where it was.
func TestListingGoesOnAtThePageThatFailed(t *testing.T) {
	for name, trouble := range map[string]reply{
		"the hour is spent": {status: 429, body: "Throttled", header: map[string]string{
			"X-Rate-Limit-Limit": "5000", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "600",
		}},
		"an outage":        {status: 503},
		"no page at all":   {status: 200, body: "<html>"},
		"no rows":          {status: 200, body: `{"meta":{"total_count":5}}`},
		"another answer":   {status: 418, header: rateHeaders},
		"an empty success": {status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			replies := []reply{pageOf(5, "a", "b"), trouble, pageOf(5, "c", "d"), pageOf(5, "e")}
			if trouble.status == 503 {
				replies = []reply{pageOf(5, "a", "b"), trouble, trouble, trouble, pageOf(5, "c", "d"), pageOf(5, "e")} // a GET is repeated
			}
			s := script(t, replies...)
			clock := newClock()
			listing := connectAt(t, clock, s.URL).Artefacts().List()
			var got []Artefact
			failures := 0
			for more := true; more && failures < 9; {
				var rows []Artefact
				var err error
				rows, more, err = listing.Next(t.Context())
				got = append(got, rows...)
				if err != nil {
					failures++
					_ = clock.Sleep(t.Context(), time.Hour)
				}
			}
			if idsOf(got) != "a b c d e" || failures != 1 {
				t.Errorf("%s, after %d failures", idsOf(got), failures)
			}
			if rows, more, err := listing.Next(t.Context()); len(rows) > 0 || more || err != nil {
				t.Errorf("after the end: %v, %t, %v", rows, more, err)
			}
		})
	}
}

// What cannot be understood costs a row and not the listing, and it is known that
// something was left out.
func TestListingSkipsWhatIsNoRow(t *testing.T) {
	for name, row := range map[string]string{
		"a string": `"b"`, "a number": `7`, "null": `null`, "a list": `[]`, "an object without an id": `{"name":"b"}`,
		"an empty id": `{"id":""}`, "an id that is none": `{"id":7}`, "a field of another type": `{"id":"b","name":["b"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t, reply{status: 200, body: `{"artefacts":[{"id":"a"},` + row + `,{"id":"c"}],"meta":{"total_count":3}}`})
			listing := connect(t, s.URL).Artefacts().List()
			got, err := collect(listing.All(t.Context()))
			if err != nil || idsOf(got) != "a c" || listing.Skipped() != 1 || listing.Whole() {
				t.Errorf("%s, %v, %d skipped, whole: %t", idsOf(got), err, listing.Skipped(), listing.Whole())
			}
		})
	}
}

// Who asks for a device's history deploys by what is not in it: it has to be whole, however
// few rows the API puts onto a page.
func TestHistoryIsWhole(t *testing.T) {
	page := func(total, pages int, ids ...string) reply {
		rows := make([]string, len(ids))
		for i, id := range ids {
			rows[i] = fmt.Sprintf(`{"id":%q}`, id)
		}
		return reply{status: 200, body: fmt.Sprintf(`{"deployments":[%s],"meta":{"total_count":%d,"total_pages":%d}}`, strings.Join(rows, ","), total, pages)}
	}
	garbled := reply{status: 200, body: `{"deployments":[{"id":"d1","state":{}}],"meta":{"total_count":3,"total_pages":2}}`}
	for name, test := range map[string]struct {
		pages    []reply
		want     string
		requests int
	}{
		"nothing was deployed yet":          {[]reply{page(0, 1)}, "", 1},
		"it fits onto a page":               {[]reply{page(2, 1, "d2", "d1")}, "d2 d1", 1},
		"pages are smaller than asked for":  {[]reply{page(3, 2, "d3", "d2"), page(3, 2, "d3", "d2"), page(3, 2, "d1")}, "d3 d2 d1", 3},
		"one is made meanwhile":             {[]reply{page(3, 2, "d3", "d2"), page(3, 2, "d3", "d2"), page(4, 2, "d2", "d1")}, "d3 d2 d1", 3},
		"a row further back is no row":      {[]reply{page(3, 2, "d3", "d2"), page(3, 2, "d3", "d2"), garbled}, "", 3},
		"there are fewer than it counts":    {[]reply{page(9, 2, "d3", "d2"), page(9, 2, "d3", "d2"), page(9, 2, "d1")}, "", 4},
		"a page after the first is refused": {[]reply{page(3, 2, "d3", "d2"), page(3, 2, "d3", "d2"), {status: 403, body: `{"message":"no"}`}}, "", 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t, test.pages...)
			got, err := connect(t, s.URL).Deployments().History(t.Context(), "p1")
			ids := make([]string, len(got))
			for i := range got {
				ids[i] = got[i].ID
			}
			failed := test.want == "" && len(test.pages) > 1
			if strings.Join(ids, " ") != test.want || (err != nil) != failed {
				t.Errorf("got %v, %v, want %q", ids, err, test.want)
			}
			if n := len(s.requests()); n != test.requests {
				t.Errorf("%d requests, want %d", n, test.requests)
			}
		})
	}
}

// A row of it that cannot be understood is no row that can be left out.
func TestHistoryMustBeUnderstood(t *testing.T) {
	s := script(t, reply{status: 200, body: `{"deployments":[{"id":"d2","state":{}},{"id":"d1"}],"meta":{"total_count":2}}`})
	client := connect(t, s.URL)
	_, err := client.Deployments().History(t.Context(), "p1")
	mustBeOf(t, err, ErrUnavailable)
	if got, err := collect(client.Deployments().ListOfDevice("p1").All(t.Context())); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	_, err = collect(client.Deployments().ListOfDevice("..").All(t.Context()))
	mustBeOf(t, err, ErrInvalid)
}

// The rows are the list under the name that is documented, or else the only list.
func TestListingFindsItsRows(t *testing.T) {
	for body, want := range map[string]string{
		`{"artefacts":[{"id":"a"}],"meta":{"total_count":1}}`:                                          "a",
		`{"artefacts":[{"id":"a"}],"warnings":["x"],"links":{},"meta":{"total_count":1,"tags":[1,2]}}`: "a",
		`{"artefacts":[],"devices":[{"id":"b"}],"meta":{"total_count":0}}`:                             "",
		`{"items":[{"id":"a"}],"next":null,"meta":{"total_count":1}}`:                                  "a",
	} {
		s := script(t, reply{status: 200, body: body})
		got, err := collect(connect(t, s.URL).Artefacts().List().All(t.Context()))
		if err != nil || idsOf(got) != want {
			t.Errorf("%s: %q, %v", body, idsOf(got), err)
		}
	}
}

// Auth keys are listed to tell the revisions apart; a page that is missing because
// keys were deleted meanwhile must not be taken for the older revision.
func TestShrunkListingOfAuthKeys(t *testing.T) {
	s := script(t,
		reply{status: 200, body: `{"auth_keys":[{"id":"a"}],"meta":{"total_count":2}}`},
		reply{status: 404},
		reply{status: 200, body: `{"auth_keys":[{"id":"a"}],"meta":{"total_count":1}}`})
	client := connect(t, s.URL)
	if got, err := collect(client.AuthKeys().List().All(t.Context())); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if client.Revision() != RevisionCurrent {
		t.Errorf("the revision is %s", client.Revision())
	}
}

func TestListingStopsWithItsReader(t *testing.T) {
	s := script(t, pageOf(400, "a", "b"))
	for range connect(t, s.URL).Artefacts().List().All(t.Context()) {
		break
	}
	if n := len(s.requests()); n != 1 {
		t.Errorf("%d pages were read for one row", n)
	}
}

// What is not clearly a page must never look like an empty organisation.
func TestListingRefusesWhatIsNoPage(t *testing.T) {
	for _, body := range []string{
		``, `null`, `[]`, `{}`, `<html>`, `{"artefacts":[]}`, `{"artefacts":[],"meta":{}}`, `{"artefacts":[],"meta":{"total_count":null}}`,
		`{"artefacts":[],"meta":{"total_count":-1}}`, `{"artefacts":[],"meta":{"total_count":"0"}}`, `{"meta":{"total_count":0}}`,
		`{"artefacts":null,"meta":{"total_count":0}}`, `{"artefacts":{},"meta":{"total_count":0}}`, `{"artefacts":null,"others":[],"meta":{"total_count":0}}`,
		`{"one":[],"another":[],"meta":{"total_count":0}}`, `{"artefacts":[` + strings.Repeat("7,", maxPageRows) + `7],"meta":{"total_count":1}}`,
		`{"artefacts":[{"id":"a"}],"meta":{"total_count":1}`,
	} {
		s := serve(t, always(reply{status: 200, body: body}))
		got, err := collect(connect(t, s.URL).Artefacts().List().All(t.Context()))
		if len(got) != 0 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func TestListingOfAWrongAddress(t *testing.T) {
	s := serve(t, always(announced(reply{status: 404, body: "<html>"})))
	client := connect(t, s.URL)
	_, artefacts := collect(client.Artefacts().List().All(t.Context()))
	_, identities := collect(client.DeviceIdentities().List().All(t.Context()))
	_, devices := collect(client.Devices().List("").All(t.Context()))
	for _, err := range []error{artefacts, identities, devices} {
		mustBeOf(t, err, ErrNotFound, ErrUnavailable)
	}
	_, err := collect(client.Deployments().ListOfDevice("gone").All(t.Context()))
	mustBeOf(t, err, ErrNotFound)
}

// Where the API announces no window, the budget allows ten requests at once. A
// longer listing waits between its pages, for as long as it takes: one that is
// broken off would begin anew each time, and never end.
func TestLongListingIsPacedNotBroken(t *testing.T) {
	const pages = 40
	for _, qps := range []float64{10, 0.05} {
		o := &organisation{names: named(100 * pages), perPage: 100}
		s := serve(t, o.ServeHTTP)
		clock := newClock()
		listing := connectAt(t, clock, s.URL, func(o *Options) { o.QPS = qps }).Artefacts().List()
		got, err := collect(listing.All(t.Context()))
		if err != nil || len(got) != 100*pages || o.asked != pages {
			t.Errorf("at %g a second: %d rows from %d requests, %v", qps, len(got), o.asked, err)
		}
		if clock.naps() == 0 {
			t.Errorf("at %g a second: it was not paced", qps)
		}
	}
}

// The reserve is for writing, whoever waits for the listing.
func TestListingNeverSpendsTheReserve(t *testing.T) {
	page := pageOf(0)
	page.header = map[string]string{"X-Rate-Limit-Limit": "5000", "X-Rate-Limit-Remaining": "400", "X-Rate-Limit-Reset": "600"}
	s := script(t, page)
	client := connect(t, s.URL)
	ctx := WithPriority(t.Context(), budget.Urgent)
	_, err := collect(client.Artefacts().List().All(ctx)) // nothing is known of the window yet
	if err != nil {
		t.Fatal(err)
	}
	_, err = collect(client.Artefacts().List().All(ctx))
	mustBeOf(t, err, ErrThrottled)
}

// A listing that has not begun does not wait: that is for its caller to decide.
func TestListingDoesNotWaitToBegin(t *testing.T) {
	s := script(t, pageOf(0))
	clock := newClock()
	client := connectAt(t, clock, s.URL, func(o *Options) { o.QPS = 1 })
	if _, err := collect(client.Artefacts().List().All(t.Context())); err != nil {
		t.Fatal(err)
	}
	_, err := collect(client.Artefacts().List().All(t.Context()))
	mustBeOf(t, err, ErrDeferred)
	if at, ok := RetryAt(err); !ok || !at.After(clock.Now()) {
		t.Errorf("retry at %v", at)
	}
	if clock.naps() != 0 {
		t.Error("it waited")
	}
}

func TestFindArtefact(t *testing.T) {
	// The older revision ignores the filter, the current one takes it for a
	// prefix: both give more than was asked for.
	s := serve(t, always(reply{status: 200, body: `{"artefacts":[
		{"id":"1","name":"kiosk"},{"id":"2","name":"Kiosk"},{"id":"3","name":"kiosk-v2"},{"id":"4","name":"lamp"}],"meta":{"total_count":4}}`}))
	got, err := collect(connect(t, s.URL).Artefacts().Find(t.Context(), "kiosk"))
	if err != nil || len(got) != 2 || got[0].ID != "1" || got[1].ID != "2" {
		t.Errorf("%v, %v", got, err)
	}
	if uri := s.requests()[0].URI; uri != "/organisation/artefacts?name=kiosk&page=1&per_page=100" {
		t.Error(uri)
	}
}

func FuzzDecodePage(f *testing.F) {
	for _, a := range []reply{pageOf(0), pageOf(2, "a", "b")} {
		f.Add([]byte(a.body))
	}
	f.Add([]byte(`{"devices":[{"id":"1","board":{"memory":8},"os":null,"tags":null}],"meta":{"total_count":1}}`))
	f.Add([]byte(`{"devices":[{"id":"1","board":"?","filters":[]}],"meta":{"total_count":1}}`))
	f.Add([]byte(`{"devices":[null,7,{"id":"1","tags":{}}],"devices":null,"meta":{"total_count":1,"total_pages":{}}}`))
	f.Add([]byte(`{"meta":{"total_count":1e3}}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, ok := decodePage(body, "devices", (*Device).normalise)
		if !ok {
			return
		}
		if len(p.rows) != len(p.ids) || len(p.rows) > p.count || p.count > maxPageRows || p.total < 0 || slices.Contains(p.ids, "") {
			t.Fatalf("%+v", p)
		}
		for _, d := range p.rows {
			if d.Tags != nil && len(d.Tags) == 0 {
				t.Fatal("no tags in two ways")
			}
		}
		// However often it is repeated, a page brings a listing to an end.
		l := Listing[Device]{}
		for n := 0; !l.progress.over; n++ {
			if n > 1 {
				t.Fatalf("not over after %d times", n)
			}
			l.progress.read(l.progress.next(), p.facts(len(l.news(p))))
		}
	})
}

// Whatever the pages say of themselves, a listing ends within the bound that its
// first page gives, and asks for pages that can be.
func FuzzProgress(f *testing.F) {
	f.Add([]byte{100, 100, 3, 3, 100, 100, 3, 3, 100, 100, 3, 3})
	f.Add([]byte{2, 2, 200, 0, 2, 2, 199, 0, 2, 2, 198, 0, 255, 0, 0, 0})
	f.Add([]byte{0, 0, 255, 255})
	f.Fuzz(func(t *testing.T, told []byte) {
		var p progress
		first := 0
		for reads := 0; !p.over; reads++ {
			facts := [4]int{1, 1, 250, 250} // when nothing more is told
			for i := range min(4, len(told)) {
				facts[i] = int(told[i])
			}
			told = told[min(4, len(told)):]
			number := p.next()
			if number < 1 || reads > 0 && number > p.furthest+1 {
				t.Fatalf("page %d after page %d", number, p.furthest)
			}
			if facts[0] == 255 && number > 1 {
				p.refused(number)
			} else {
				p.read(number, pageFacts{rows: facts[0], fresh: min(facts[1], facts[0]), total: facts[2] * facts[3], pages: facts[3]})
			}
			if reads == 0 {
				first = facts[2]*facts[3]/max(facts[0], 1) + 1
			}
			if reads > min(first+first/4+4, maxPages) {
				t.Fatalf("%d reads, although the first page told of %d", reads, first)
			}
		}
	})
}

// held is a way to the API on which every request waits until it may go on.
type held struct{ arrived, release chan struct{} }

// RoundTrip implements [http.RoundTripper].
func (h held) RoundTrip(*http.Request) (*http.Response, error) {
	h.arrived <- struct{}{}
	<-h.release
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"X-Rate-Limit-Limit": {"5000"}},
		Body: io.NopCloser(strings.NewReader(pageOf(0).body)),
	}, nil
}

// All organisations are listed when the operator starts. That must not be taken for an outage, however
// many they are and however slow the API is.
func TestManyListingsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const listings = 3*maxReaders + 1
		way := held{make(chan struct{}, listings), make(chan struct{})}
		api, err := New(Options{Transport: way})
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, listings)
		for i := range listings {
			go func() {
				_, _, err := api.ClientFor(NewSecret(fmt.Sprint("rporg_", i))).Artefacts().List().Next(t.Context())
				failed <- err
			}()
		}
		for answered := 0; answered < listings; {
			synctest.Wait()
			under := len(way.arrived) - answered
			if most := min(maxReaders, listings-answered); under != most {
				t.Fatalf("%d requests are on their way, not %d", under, most)
			}
			time.Sleep(20 * time.Second) // simulated: the last ones wait for longer than any timeout
			for range under {
				way.release <- struct{}{}
			}
			answered += under
		}
		for range listings {
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestWaitForATurnEnds(t *testing.T) {
	api, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range maxReaders {
		if _, err := api.pages.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = api.ClientFor(NewSecret(testToken)).Artefacts().List().Next(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
