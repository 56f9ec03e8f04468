// SPDX-License-Identifier: Apache-2.0

package connectclient

// maxPages is the most requests that a listing costs, however many pages it says
// it has.
const maxPages = 2000

// progress says which page of a listing to read next, and when to stop.
//
// It thinks in places: row 0 is the first of the first page. While one reads,
// rows that are inserted push others to later places, which costs nothing but
// repeats. Rows that are removed pull others to earlier ones, maybe to a page
// that has been read already; the total shrinks by as much, and so far back one
// has to look again. Mostly that is the page before.
type progress struct {
	size  int // how many rows a page has, as the first one showed
	total int // rows, as the latest page told
	// upTo is the place before which everything has been seen: what was there
	// from the beginning, and was not seen, is at that place or a later one.
	upTo int
	// ahead are places beyond upTo that have been seen too.
	ahead span
	// end is a place at which there was nothing; 0 if none is known.
	end int

	fewest   int // the smallest total of all pages
	furthest int // the last page that was read
	reads    int
	limit    int // of reads
	over     bool
	cut      bool // by the limit: not all was read that should have been
}

// span is the places from one to before another.
type span struct{ from, to int }

// pageFacts is what matters of a page.
type pageFacts struct {
	rows  int // on it
	fresh int // of those, seen for the first time
	total int // of the whole listing
	pages int // of the whole listing; 0 if that was not told
}

func (p *progress) begun() bool { return p.reads > 0 }

// next is the page to read: the one with the first place that has not been seen.
func (p *progress) next() int {
	if !p.begun() {
		return 1
	}
	return p.upTo/p.size + 1
}

// read takes over what a page has shown.
func (p *progress) read(number int, f pageFacts) {
	if !p.begun() {
		p.begin(f)
	}
	p.reads++
	again, steady := number <= p.furthest, f.total == p.total
	p.furthest = max(p.furthest, number)
	p.fewest = min(p.fewest, f.total)
	p.becomes(f.total)

	shown := span{(number - 1) * p.size, number * p.size}
	if shown.from <= p.upTo {
		p.upTo = max(p.upTo, shown.to)
	} else {
		p.ahead = shown
	}
	if p.ahead.from <= p.upTo {
		p.upTo = max(p.upTo, p.ahead.to)
	}

	// A full page is not the last one if it holds more rows than there are
	// said to be, or if there are said to be more pages.
	tooLow := !again && f.rows >= perPage && (shown.from+f.rows > f.total || number < f.pages)
	nothing := f.rows == 0 && shown.from < f.total // although there should be something
	repeats := f.rows > 0 && f.fresh == 0 && steady && !again
	p.over = p.upTo >= p.last() && !tooLow || nothing || repeats
	p.keepToTheLimit()
}

func (p *progress) begin(f pageFacts) {
	p.size, p.total, p.fewest = max(f.rows, 1), f.total, f.total
	pages := (f.total-1)/p.size + 1
	p.limit = min(pages+pages/4+4, maxPages)
}

// becomes takes over a new total. By how much it is smaller, by so much may what
// has not been seen have come forward; by how much it is larger, by so much may it
// have been pushed into what was seen ahead.
func (p *progress) becomes(total int) {
	if gone := p.total - total; gone > 0 {
		p.upTo = max(0, p.upTo-gone)
		p.ahead.to -= gone
	} else {
		p.ahead.from -= gone
	}
	p.total = total
}

// refused takes over that there is no such page. If there should be, then rows
// were removed since the page before it was read, and that one is read again.
func (p *progress) refused(number int) {
	p.reads++
	before := p.end
	p.end = (number - 1) * p.size
	p.over = before > 0 || p.total <= p.end
	if !p.over {
		p.upTo = max(0, p.end-min(p.total-p.end, p.size))
		p.ahead = span{}
		p.total = p.end
	}
	p.keepToTheLimit()
}

// last is the place before which all rows are, as far as is known.
func (p *progress) last() int {
	if p.end > 0 {
		return min(p.total, p.end)
	}
	return p.total
}

// keepToTheLimit looks back no more often than leaves enough to come to the end,
// and stops a listing that has cost more than its pages can explain.
func (p *progress) keepToTheLimit() {
	if p.over {
		return
	}
	read := p.furthest * p.size
	if toCome := (max(p.last()-read, 0) + p.size - 1) / p.size; p.upTo < read && p.reads+1+toCome > p.limit {
		p.upTo, p.cut = read, true
		p.over = p.upTo >= p.last()
	}
	if p.reads >= p.limit {
		p.stop()
	}
}

// stop ends the listing before its end.
func (p *progress) stop() {
	p.cut = p.cut || !p.over
	p.over = true
}
