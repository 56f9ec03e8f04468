// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
)

// maxPerPage is the largest page, and the default one.
const maxPerPage = 100

// PastTheEnd is what the API answers to a page past the last one, which nobody
// has published.
type PastTheEnd string

// Plausible answers.
const (
	EmptyPage      PastTheEnd = "empty"       // 200 with no rows
	LastPage       PastTheEnd = "last"        // 200 with the last page again
	PageNotFound   PastTheEnd = "not-found"   // 404
	PageBadRequest PastTheEnd = "bad-request" // 400
)

// Page bends a page of a listing.
type Page struct {
	// TotalCount and TotalPages are said in the place of what is so; TotalOff
	// is added to the true total_count.
	TotalCount *int `json:"TotalCount,omitempty"`
	TotalPages *int `json:"TotalPages,omitempty"`
	TotalOff   int  `json:"TotalOff,omitempty"`
	// PerPage is how many rows a page has at most, whatever is asked for.
	PerPage int `json:"PerPage,omitempty"`
	// Endless makes every page full, of rows with ids that nobody has seen,
	// and announces one more.
	Endless bool `json:"Endless,omitempty"`
	// Rows come before the true ones, of whatever type they are.
	Rows []any `json:"Rows,omitempty"`
	// Keys are put beside the rows and "meta", or in their place.
	Keys map[string]any `json:"Keys,omitempty"`
}

func (p *Page) check(route string) error {
	if p == nil {
		return nil
	}
	method, path, _ := strings.Cut(route, " ")
	if _, lists := listings[path]; method != http.MethodGet || !lists {
		return mistake("Page bends a listing, which %q is not", route)
	}
	if p.PerPage < 0 || p.PerPage > maxPerPage {
		return mistake("PerPage is from 1 to %d", maxPerPage)
	}
	return nil
}

// page answers a page of a listing. A page before the first is the first, and so
// is a junk number; [Options.PastTheEnd] says what comes after the last. Nobody
// has published what they are.
func page[T any](c *call, plural string, all []*T, show func(*T) object) reply {
	bent := c.page
	if bent == nil {
		bent = &Page{}
	}
	most := maxPerPage
	if bent.PerPage > 0 {
		most = bent.PerPage
	}
	number := max(1, atoi(c.URL.Query().Get("page"), 1))
	size := min(max(1, atoi(c.URL.Query().Get("per_page"), most)), most)
	pages := (len(all) + size - 1) / size
	if number > max(1, pages) && !bent.Endless {
		switch c.server.options.PastTheEnd {
		case PageNotFound:
			return c.notFound()
		case PageBadRequest:
			return c.bad("There is no page " + strconv.Itoa(number))
		case LastPage:
			number = max(1, pages)
		}
	}
	from := min(min(number-1, pages)*size, len(all))
	meta := object{"page": number, "per_page": size, "total_count": len(all) + bent.TotalOff, "total_pages": pages}
	list := append([]any{}, bent.Rows...)
	for _, one := range all[from:min(from+size, len(all))] {
		list = append(list, show(one))
	}
	if bent.Endless {
		pattern := object{}
		if len(all) > 0 {
			pattern = show(all[0])
		}
		for i := len(list); i < size; i++ {
			row := maps.Clone(pattern)
			row["id"], row["name"] = newID(), fmt.Sprintf("endless-%d-%d", number, i)
			list = append(list, row)
		}
		meta["total_count"], meta["total_pages"] = (number+1)*size, number+1
	}
	if bent.TotalCount != nil {
		meta["total_count"] = *bent.TotalCount
	}
	if bent.TotalPages != nil {
		meta["total_pages"] = *bent.TotalPages
	}
	body := object{plural: list, "meta": meta}
	maps.Copy(body, bent.Keys)
	return ok(body)
}

func atoi(text string, fallback int) int {
	n, err := strconv.ParseInt(text, 10, 32) // what an int has on a Pi with 32 bits
	if err != nil {
		return fallback
	}
	return int(n)
}
