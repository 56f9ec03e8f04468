// SPDX-License-Identifier: Apache-2.0

package connectclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
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

func TestListing(t *testing.T) {
	for name, tt := range map[string]struct {
		replies []reply
		want    string // ids, in order
		asked   string // pages
		moved   bool
	}{
		"empty":                 {[]reply{pageOf(0)}, "", "1", false},
		"one page":              {[]reply{pageOf(2, "a", "b")}, "a b", "1", false},
		"several pages":         {[]reply{pageOf(5, "a", "b"), pageOf(5, "c", "d"), pageOf(5, "e")}, "a b c d e", "1 2 3", false},
		"a row repeats":         {[]reply{pageOf(4, "a", "b"), pageOf(4, "b", "c"), pageOf(4, "a", "b"), pageOf(4, "c", "d")}, "a b c d", "1 2 1 2", false},
		"a row moves forward":   {[]reply{pageOf(4, "a", "b"), pageOf(4, "d", "a"), pageOf(4, "b", "c"), pageOf(4, "d", "a")}, "a b d c", "1 2 1 2", false},
		"it grows":              {[]reply{pageOf(3, "b", "c"), pageOf(4, "c", "d"), pageOf(4, "a", "b"), pageOf(4, "c", "d")}, "b c d a", "1 2 1 2", false},
		"it shrinks":            {[]reply{pageOf(4, "a", "b"), pageOf(3, "d"), pageOf(3, "b", "c"), pageOf(3, "d")}, "a b d c", "1 2 1 2", false},
		"a page is gone, empty": {[]reply{pageOf(3, "a", "b"), pageOf(2), pageOf(2, "a", "b")}, "a b", "1 2 1", false},
		"a page is gone, 404":   {[]reply{pageOf(3, "a", "b"), {status: 404}, pageOf(2, "a", "b")}, "a b", "1 2 1", false},
		"a page is gone, 400":   {[]reply{pageOf(3, "a", "b"), {status: 400}, pageOf(2, "a", "b")}, "a b", "1 2 1", false},
		"the last page again":   {[]reply{pageOf(3, "a", "b"), pageOf(3, "a", "b"), pageOf(2, "a", "b")}, "a b", "1 2 1", false},
		"it never settles":      {[]reply{pageOf(3, "a", "b"), pageOf(3, "b"), pageOf(3, "a", "b"), pageOf(3, "a"), pageOf(3, "a", "b"), pageOf(3, "b")}, "a b", "1 2 1 2 1 2", true},
		"the total is a lie":    {[]reply{pageOf(9, "a", "b"), pageOf(9), pageOf(9, "a", "b"), pageOf(9), pageOf(9, "a", "b"), pageOf(9)}, "a b", "1 2 1 2 1 2", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := script(t, tt.replies...)
			got, err := collect(connect(t, s.URL).Artefacts.All(t.Context()))
			var ids []string
			for _, a := range got {
				ids = append(ids, a.ID)
			}
			if strings.Join(ids, " ") != tt.want {
				t.Errorf("got %q, want %q", ids, tt.want)
			}
			if pagesAsked(s) != tt.asked {
				t.Errorf("asked for pages %s, want %s", pagesAsked(s), tt.asked)
			}
			if tt.moved {
				mustBeOf(t, err, ErrListingMoved, ErrUnavailable)
			} else if err != nil {
				t.Error(err)
			}
		})
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
	if got, err := collect(client.AuthKeys.All(t.Context())); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if client.Revision() != RevisionCurrent {
		t.Errorf("the revision is %s", client.Revision())
	}
}

func TestListingCanBeReadAgain(t *testing.T) {
	s := script(t, pageOf(1, "a"))
	all := connect(t, s.URL).Artefacts.All(t.Context())
	for range 2 {
		if got, err := collect(all); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestListingStopsWithItsReader(t *testing.T) {
	s := script(t, pageOf(400, "a", "b"))
	for range connect(t, s.URL).Artefacts.All(t.Context()) {
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
		`{"artefacts":null,"meta":{"total_count":0}}`, `{"artefacts":{},"meta":{"total_count":0}}`, `{"artefacts":[{}],"meta":{"total_count":1}}`,
		`{"artefacts":[7],"meta":{"total_count":1}}`, `{"artefacts":[],"devices":[],"meta":{"total_count":0}}`,
		`{"artefacts":[{"id":"a"}],"meta":{"total_count":1}`,
	} {
		s := serve(t, always(reply{status: 200, body: body}))
		got, err := collect(connect(t, s.URL).Artefacts.All(t.Context()))
		if len(got) != 0 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func TestListingOfAWrongAddress(t *testing.T) {
	s := serve(t, always(announced(reply{status: 404, body: "<html>"})))
	client := connect(t, s.URL)
	_, artefacts := collect(client.Artefacts.All(t.Context()))
	_, identities := collect(client.DeviceIdentities.All(t.Context()))
	_, devices := collect(client.Devices.All(t.Context(), ""))
	for _, err := range []error{artefacts, identities, devices} {
		mustBeOf(t, err, ErrNotFound, ErrUnavailable)
	}
	_, err := collect(client.Deployments.AllOfDevice(t.Context(), "gone"))
	mustBeOf(t, err, ErrNotFound)
}

// Where the API announces no window, the budget allows ten requests at once. A
// longer listing waits between its pages: one that is broken off would begin anew
// each time, and never end.
func TestLongListingIsPacedNotBroken(t *testing.T) {
	const pages = 40
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		pageOf(pages, fmt.Sprintf("a%02d", page)).ServeHTTP(w, r)
	})
	clock := newClock()
	got, err := collect(connectAt(t, clock, s.URL, func(o *Options) { o.QPS = 10 }).Artefacts.All(t.Context()))
	if err != nil || len(got) != pages || len(s.requests()) != pages {
		t.Errorf("%d rows from %d requests, %v", len(got), len(s.requests()), err)
	}
	if clock.naps() == 0 {
		t.Error("it was not paced")
	}
}

// A listing that has not begun does not wait: that is for its caller to decide.
func TestListingDoesNotWaitToBegin(t *testing.T) {
	s := script(t, pageOf(0))
	clock := newClock()
	client := connectAt(t, clock, s.URL, func(o *Options) { o.QPS = 1 })
	if _, err := collect(client.Artefacts.All(t.Context())); err != nil {
		t.Fatal(err)
	}
	_, err := collect(client.Artefacts.All(t.Context()))
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
	got, err := collect(connect(t, s.URL).Artefacts.Find(t.Context(), "kiosk"))
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
	f.Add([]byte(`{"meta":{"total_count":1e3}}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, ok := decodePage(body, (*Device).normalise)
		if !ok {
			return
		}
		if len(p.rows) != len(p.ids) || p.total < 0 || slices.Contains(p.ids, "") {
			t.Fatalf("%+v", p)
		}
		for _, d := range p.rows {
			if d.Tags != nil && len(d.Tags) == 0 {
				t.Fatal("no tags in two ways")
			}
		}
		// However often it is repeated, a page brings a listing to an end.
		r := newRound()
		for n := 0; !r.over; n++ {
			if n > 1 {
				t.Fatalf("not over after %d times", n)
			}
			r.add(p.ids, p.total)
		}
	})
}
