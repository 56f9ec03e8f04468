// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/connectclient/budget"
	"rpi-connect.dev/operator/internal/reflector"
)

// polls wakes running deployments when it is their turn to be looked at. The API
// has no list of them, so each costs a request: one queue per access token hands
// the turns out no faster than the token's budget lasts.
type polls struct {
	api      *connectclient.API
	clock    clock.PassiveClock
	min, max time.Duration
	wake     func(reflector.Notification)

	mu     sync.Mutex
	ctx    context.Context // set by Start
	queues map[connectclient.Secret]*pollQueue
	of     map[types.NamespacedName]*pollQueue // where a deployment waits for its turn
}

// pollQueue is the turns of one access token.
type pollQueue struct {
	token  connectclient.Secret
	poller *budget.Poller[types.NamespacedName]
	turn   map[types.NamespacedName]bool // has come, and was not used yet
	kick   chan struct{}
	ended  chan struct{} // closed when the token is retired
}

func newPolls(api *connectclient.API, clk clock.PassiveClock, minimum, maximum time.Duration) *polls {
	return &polls{
		api: api, clock: clk, min: minimum, max: maximum,
		queues: map[connectclient.Secret]*pollQueue{},
		of:     map[types.NamespacedName]*pollQueue{},
	}
}

// start hands out turns until the context ends.
func (p *polls) start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = ctx
	for _, queue := range p.queues {
		go p.run(ctx, queue)
	}
}

// seen notes that the deployment was looked at and when its next turn is due. A
// change of the interval takes effect at once.
func (p *polls) seen(token connectclient.Secret, deployment types.NamespacedName, every time.Duration) {
	p.enter(token, deployment, every, p.clock.Now())
}

// due gives the deployment the next turn there is: nothing is known of it, or
// something must have happened to it.
func (p *polls) due(token connectclient.Secret, deployment types.NamespacedName) {
	p.enter(token, deployment, p.min, p.clock.Now().Add(-p.max))
}

func (p *polls) enter(token connectclient.Secret, deployment types.NamespacedName, every time.Duration, last time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.queues[token]
	if !ok {
		queue = &pollQueue{
			token:  token,
			poller: budget.NewPoller[types.NamespacedName](p.api.Organisation(token).PollRate),
			turn:   map[types.NamespacedName]bool{},
			kick:   make(chan struct{}, 1),
			ended:  make(chan struct{}),
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
	default:
	}
}

// takeTurn tells whether the deployment's turn has come, and uses it up.
func (p *polls) takeTurn(deployment types.NamespacedName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.of[deployment]
	if !ok || !queue.turn[deployment] {
		return false
	}
	delete(queue.turn, deployment)
	return true
}

// waits tells whether the deployment is waiting for its turn.
func (p *polls) waits(token connectclient.Secret, deployment types.NamespacedName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.of[deployment]
	return ok && queue.token == token
}

// forget ends the turns of a deployment that is finished or gone.
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
	delete(queue.turn, deployment)
	delete(p.of, deployment)
}

// retire ends the queue of a token that nothing uses any more. Deployments that waited in it enter
// the queue of the token that they use now with their next pass.
func (p *polls) retire(token connectclient.Secret) {
	p.mu.Lock()
	defer p.mu.Unlock()
	queue, ok := p.queues[token]
	if !ok {
		return
	}
	delete(p.queues, token)
	maps.DeleteFunc(p.of, func(_ types.NamespacedName, of *pollQueue) bool { return of == queue })
	close(queue.ended)
}

// run hands out the turns of one token.
func (p *polls) run(ctx context.Context, queue *pollQueue) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-queue.ended:
			return
		case <-timer.C:
		case <-queue.kick:
		}
		timer.Reset(p.handOut(queue))
	}
}

// idle is how long to wait for a turn when nobody waits for one; a kick ends it.
const idle = time.Hour

// handOut wakes every deployment whose turn it is, and returns how long to wait
// for the next.
func (p *polls) handOut(queue *pollQueue) time.Duration {
	var woken []types.NamespacedName
	defer func() {
		if len(woken) > 0 {
			p.wake(reflector.Notification{Token: queue.token, Waiters: woken})
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
		queue.turn[deployment] = true
		woken = append(woken, deployment)
	}
}

// interval is how long a running deployment is left alone, by how long its state
// has not changed: from min for one that is in progress, from twice that for one
// that no device has picked up yet, doubling to max.
func (p *polls) interval(state connectclient.DeploymentState, unchanged time.Duration) time.Duration {
	if state == connectclient.DeploymentInProgress {
		return budget.Backoff(p.min, 4*p.min, p.max, unchanged)
	}
	return budget.Backoff(2*p.min, 2*p.min, p.max, unchanged)
}
