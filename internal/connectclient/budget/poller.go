// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"container/list"
	"time"
)

// Poller says which running deployment to look at next.
//
// A timer for each deployment would not know of the others, and a thousand of
// them would spend a window together. So there is one queue for all: polls are
// handed out no faster than the budget lasts ([Budget.PollRate]), each to the
// deployment that is most overdue in proportion to its interval. While there is
// budget for all, everybody is looked at every interval; when there is not, all
// intervals stretch by the same factor and no more than they must, so A
// deployments over B requests are each seen once every A/B; and when the load
// goes, they shrink again at once, because nothing was scheduled ahead.
//
// It is not safe for concurrent use, and knows no clock but the one it is given.
type Poller struct {
	rate func() float64 // polls per second that may go now

	keys    map[string]*list.Element
	queues  map[time.Duration]*list.List // by interval; the longest unseen first
	credit  float64                      // polls that may go at once
	counted time.Time                    // when credit was last brought up to date
}

// poll is a deployment in its queue.
type poll struct {
	key   string
	every time.Duration
	seen  time.Time
}

// burstSeconds is how many seconds' worth of polls may go at once after a pause:
// enough for a handful of deployments to be seen promptly.
const burstSeconds = 2

// NewPoller returns a poller that hands out polls at the rate that is given,
// usually [Budget.PollRate].
func NewPoller(rate func() float64) *Poller {
	return &Poller{rate: rate, keys: map[string]*list.Element{}, queues: map[time.Duration]*list.List{}}
}

// Seen notes that the deployment was just looked at, and is to be looked at again
// after the interval, which must be positive. The first call adds it.
func (p *Poller) Seen(key string, every time.Duration, now time.Time) {
	p.Forget(key)
	queue, ok := p.queues[every]
	if !ok {
		queue = list.New()
		p.queues[every] = queue
	}
	p.keys[key] = queue.PushBack(poll{key: key, every: every, seen: now})
}

// Forget removes a deployment: it is finished, or gone.
func (p *Poller) Forget(key string) {
	element, ok := p.keys[key]
	if !ok {
		return
	}
	every := element.Value.(poll).every //nolint:forcetypeassert // the lists hold nothing else
	p.queues[every].Remove(element)
	if p.queues[every].Len() == 0 {
		delete(p.queues, every)
	}
	delete(p.keys, key)
}

// Len is the number of deployments that are being looked at.
func (p *Poller) Len() int { return len(p.keys) }

// Next returns the deployment to look at now. If there is none, it returns how
// long to wait before asking again; zero stands for until something is added.
// What it returns counts as seen, so that it is not returned again at once.
func (p *Poller) Next(now time.Time) (key string, ok bool, wait time.Duration) {
	rate := p.accrue(now)
	due, until := p.mostOverdue(now)
	switch {
	case due == nil:
		return "", false, until
	case p.credit < 1 && rate <= 0:
		return "", false, time.Second // nothing goes now; the budget may be back by then
	case p.credit < 1:
		return "", false, max(time.Duration((1-p.credit)/rate*float64(time.Second)), time.Millisecond)
	}
	p.credit--
	p.Seen(due.key, due.every, now)
	return due.key, true, 0
}

// accrue adds what the rate has brought since the last time.
func (p *Poller) accrue(now time.Time) float64 {
	rate := p.rate()
	if p.counted.IsZero() {
		p.credit = 1
	} else {
		p.credit += rate * now.Sub(p.counted).Seconds()
	}
	p.credit = min(p.credit, max(1, rate*burstSeconds))
	p.counted = now
	return rate
}

// mostOverdue returns the deployment that is most overdue in proportion to its
// interval, or how long it takes until one is. In a queue of one interval the
// first is the most overdue, so only the heads have to be compared.
func (p *Poller) mostOverdue(now time.Time) (*poll, time.Duration) {
	var most *poll
	var ratio float64
	var until time.Duration
	for every, queue := range p.queues {
		head := queue.Front().Value.(poll) //nolint:forcetypeassert // the lists hold nothing else
		if left := head.seen.Add(every).Sub(now); left > 0 {
			if until == 0 || left < until {
				until = left
			}
			continue
		}
		if r := float64(now.Sub(head.seen)) / float64(every); most == nil || r > ratio {
			most, ratio = &head, r
		}
	}
	return most, until
}
