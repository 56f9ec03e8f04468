// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"cmp"
	"container/heap"
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
// The pace is the one that lasts to the reset, not a faster one that would see
// the first deployments sooner and leave nothing for what begins later. A burst of
// two seconds' worth, at least one poll, is allowed after a pause: enough for a
// few deployments to be seen promptly.
//
// How overdue somebody is in proportion changes with time, and differently for
// different intervals, so no single order of all lasts. But those of one interval
// keep theirs, and there are only a handful of intervals: there is one heap for
// each, and Next compares their heads.
//
// It is not safe for concurrent use, and knows no clock but the one it is given.
// K is what names a deployment.
type Poller[K comparable] struct {
	rate func() float64 // polls per second that may go now

	entries map[K]*entry[K]
	queues  map[time.Duration]*queue[K] // by interval
	credit  float64                     // polls that may go at once
	counted time.Time                   // when credit was last brought up to date
}

// entry is a deployment in its queue.
type entry[K comparable] struct {
	key   K
	every time.Duration
	seen  time.Time
	index int
}

const (
	// burstSeconds is how many seconds' worth of polls may go at once after a
	// pause.
	burstSeconds = 2
	// recheck is how soon to ask again when the budget is what holds polls
	// up: it may change at any time, by what other calls learn.
	recheck = 2 * time.Second
)

// NewPoller returns a poller that hands out polls at the rate that is given,
// usually [Budget.PollRate]. A rate of 0 hands out none at all.
func NewPoller[K comparable](rate func() float64) *Poller[K] {
	return &Poller[K]{rate: rate, entries: map[K]*entry[K]{}, queues: map[time.Duration]*queue[K]{}}
}

// Seen notes when the deployment was last looked at, and that it is to be looked
// at again after the interval, which must be positive. The first call adds it; a
// time in the past makes it due the sooner.
func (p *Poller[K]) Seen(key K, every time.Duration, at time.Time) {
	if t, ok := p.entries[key]; ok && t.every == every {
		t.seen = at
		heap.Fix(p.queues[every], t.index)
		return
	}
	p.Forget(key)
	if p.queues[every] == nil {
		p.queues[every] = &queue[K]{}
	}
	t := &entry[K]{key: key, every: every, seen: at}
	p.entries[key] = t
	heap.Push(p.queues[every], t)
}

// Forget removes a deployment: it is finished, or gone.
func (p *Poller[K]) Forget(key K) {
	t, ok := p.entries[key]
	if !ok {
		return
	}
	delete(p.entries, key)
	heap.Remove(p.queues[t.every], t.index)
	if p.queues[t.every].Len() == 0 {
		delete(p.queues, t.every)
	}
}

// Len is the number of deployments that are being looked at.
func (p *Poller[K]) Len() int { return len(p.entries) }

// Next returns the deployment to look at now. If there is none, it returns how
// long to wait before asking again; zero stands for until something is added.
// What it returns counts as seen, so that it is not returned again at once.
func (p *Poller[K]) Next(now time.Time) (key K, ok bool, wait time.Duration) {
	rate := p.accrue(now)
	most, until := p.mostOverdue(now)
	switch {
	case most == nil:
		return key, false, until
	case rate > 0 && p.credit >= 1:
		p.credit--
		p.Seen(most.key, most.every, now)
		return most.key, true, 0
	case (1-p.credit)/recheck.Seconds() < rate:
		return key, false, max(time.Duration((1-p.credit)/rate*float64(time.Second)), time.Millisecond)
	default:
		return key, false, recheck
	}
}

// accrue adds what the rate has brought since the last time, and returns the rate.
func (p *Poller[K]) accrue(now time.Time) float64 {
	rate := p.rate()
	switch {
	case p.counted.IsZero():
		p.credit = 1
	case now.After(p.counted):
		p.credit += rate * now.Sub(p.counted).Seconds()
	}
	p.credit = min(p.credit, max(1, rate*burstSeconds))
	p.counted = now
	return rate
}

// mostOverdue returns the entry that is most overdue in proportion to its interval,
// or how long it takes until one is.
func (p *Poller[K]) mostOverdue(now time.Time) (most *entry[K], until time.Duration) {
	var highest float64
	for every, queue := range p.queues {
		head := (*queue)[0]
		if left := head.seen.Add(every).Sub(now); left > 0 {
			until = min(left, cmp.Or(until, left))
			continue
		}
		overdue := float64(now.Sub(head.seen)) / float64(every)
		if most == nil || overdue > highest || overdue == highest && every < most.every {
			most, highest = head, overdue
		}
	}
	return most, until
}

// queue is the entries of one interval, the longest unseen first. It is a heap for
// container/heap.
type queue[K comparable] []*entry[K]

func (q *queue[K]) Len() int           { return len(*q) }
func (q *queue[K]) Less(i, j int) bool { return (*q)[i].seen.Before((*q)[j].seen) }

func (q *queue[K]) Swap(i, j int) {
	entries := *q
	entries[i], entries[j] = entries[j], entries[i]
	entries[i].index, entries[j].index = i, j
}

func (q *queue[K]) Push(x any) {
	t := x.(*entry[K]) //nolint:forcetypeassert // it holds nothing else
	t.index = len(*q)
	*q = append(*q, t)
}

func (q *queue[K]) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return t
}
