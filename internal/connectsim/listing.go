// SPDX-License-Identifier: Apache-2.0

package connectsim

import "strconv"

// maxPerPage is the largest page, and the default one.
const maxPerPage = 100

// page answers a page of a listing. A page before the first is the first, a junk
// number too, and a page past the end is empty: nobody has published what they
// are.
func page[T any](c *call, plural string, all []*T, show func(*T) object) reply {
	number := max(1, atoi(c.URL.Query().Get("page"), 1))
	size := min(max(1, atoi(c.URL.Query().Get("per_page"), maxPerPage)), maxPerPage)
	from := min((number-1)*size, len(all))
	rows := make([]object, 0, size)
	for _, one := range all[from:min(from+size, len(all))] {
		rows = append(rows, show(one))
	}
	return ok(object{
		plural: rows,
		"meta": object{
			"page": number, "per_page": size,
			"total_count": len(all), "total_pages": (len(all) + size - 1) / size,
		},
	})
}

func atoi(text string, fallback int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n > 1<<31 {
		return fallback
	}
	return n
}
