// SPDX-License-Identifier: Apache-2.0

package deployment

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/reflector"
)

// polls wakes running deployments when they are due to be looked at. The API has no list of them,
// so each costs a request: one queue per access token hands the polls out no faster than the
// token's budget lasts.
type polls struct {
	api      *connectclient.API
	clock    clock.PassiveClock
	min, max time.Duration
	notify   func(reflector.Notification)

	mu     sync.Mutex
	ctx    context.Context // set by start: the queues' goroutines live in it
	queues map[connectclient.Secret]*pollQueue
	of     map[types.NamespacedName]*pollQueue // where a deployment waits
}

// pollQueue holds the running deployments of one access token.
type pollQueue struct {
	token  connectclient.Secret
	poller *budget.Poller[types.NamespacedName]
	due    map[types.NamespacedName]bool // and not looked at yet
	kick   chan struct{}
	end    chan struct{}
}

func newPolls(api *connectclient.API, clk clock.PassiveClock, minimum, maximum time.Duration) *polls {
	return &polls{
		api: api, clock: clk, min: minimum, max: maximum, notify: func(reflector.Notification) {},
		queues: map[connectclient.Secret]*pollQueue{},
		of:     map[types.NamespacedName]*pollQueue{},
	}
}

// start hands out polls until the context ends.
func (p *polls) start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = ctx
	for _, queue := range p.queues {
		go p.run(ctx, queue)
	}
}

// retire ends the queue of a token that nothing uses any more. What is in it all the same, because
// the token has just come back, is woken to be put into another.
func (p *polls) retire(token connectclient.Secret) {
	var woken []types.NamespacedName
	defer func() {
		if len(woken) > 0 {
			p.notify(reflector.Notification{Token: token, Waiters: woken})
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.queues[token]
	if !ok {
		return
	}
	delete(p.queues, token)
	for deployment, in := range p.of {
		if in == queue {
			delete(p.of, deployment)
			woken = append(woken, deployment)
		}
	}
	close(queue.end)
}

// seen notes that the deployment was looked at and when it is due again. A change of the interval
// takes effect at once.
func (p *polls) seen(token connectclient.Secret, deployment types.NamespacedName, every time.Duration) {
	p.enter(token, deployment, every, p.clock.Now())
}

// due has the deployment looked at as soon as the budget allows: nothing is known of it, or
// something must have happened to it.
func (p *polls) due(token connectclient.Secret, deployment types.NamespacedName) {
	p.enter(token, deployment, p.min, p.clock.Now().Add(-p.max))
}

// ensure sees to it that the deployment is polled with the token. One that is not has just been
// found, by an operator that has just started, say.
func (p *polls) ensure(token connectclient.Secret, deployment types.NamespacedName) {
	p.mu.Lock()
	queue, ok := p.of[deployment]
	p.mu.Unlock()
	if !ok || queue.token != token {
		p.due(token, deployment)
	}
}

func (p *polls) enter(token connectclient.Secret, deployment types.NamespacedName, every time.Duration, last time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.queues[token]
	if !ok {
		queue = &pollQueue{
			token:  token,
			poller: budget.NewPoller[types.NamespacedName](p.api.ClientFor(token).PollRate),
			due:    map[types.NamespacedName]bool{},
			kick:   make(chan struct{}, 1),
			end:    make(chan struct{}),
		}
		p.queues[token] = queue
		if p.ctx != nil {
			go p.run(p.ctx, queue)
		}
	}
	p.leave(deployment)
	p.of[deployment] = queue
	queue.poller.Seen(deployment, every, last)
	select {
	case queue.kick <- struct{}{}:
	default: // a kick is waiting already
	}
}

// takeDue tells whether the deployment is due to be looked at, and takes it for looked at.
func (p *polls) takeDue(deployment types.NamespacedName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.of[deployment]
	if !ok || !queue.due[deployment] {
		return false
	}
	delete(queue.due, deployment)
	return true
}

// forget ends the polls of a deployment that is over or gone.
func (p *polls) forget(deployment types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leave(deployment)
}

func (p *polls) leave(deployment types.NamespacedName) {
	queue, ok := p.of[deployment]
	if !ok {
		return
	}
	queue.poller.Forget(deployment)
	delete(queue.due, deployment)
	delete(p.of, deployment)
}

// run hands out the polls of one token.
func (p *polls) run(ctx context.Context, queue *pollQueue) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-queue.end:
			return
		case <-timer.C:
		case <-queue.kick:
		}
		timer.Reset(p.handOut(queue))
	}
}

// idle is how long to wait for a poll when nobody waits for one; a kick ends it.
const idle = time.Hour

// handOut wakes every deployment that is due, and returns how long to wait for the next.
func (p *polls) handOut(queue *pollQueue) time.Duration {
	var woken []types.NamespacedName
	defer func() {
		if len(woken) > 0 {
			p.notify(reflector.Notification{Token: queue.token, Waiters: woken})
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		deployment, ok, wait := queue.poller.Next(p.clock.Now())
		if !ok && wait == 0 {
			return idle
		}
		if !ok {
			return wait
		}
		queue.due[deployment] = true
		woken = append(woken, deployment)
	}
}

// interval is how long a running deployment is left alone, by how long its state has not changed:
// from min for one that is in progress, from twice that for one that no device has picked up yet,
// doubling to max.
func (p *polls) interval(state connectclient.DeploymentState, unchanged time.Duration) time.Duration {
	if state == connectclient.DeploymentInProgress {
		return budget.Backoff(p.min, 4*p.min, p.max, unchanged)
	}
	return budget.Backoff(2*p.min, 2*p.min, p.max, unchanged)
}
