// SPDX-License-Identifier: Apache-2.0

package connectsim

import (
	"fmt"
	"net/http"
	"slices"
	"time"
)

// pingEvery is how often a device that listens hears that the line is still up.
const pingEvery = 3 * time.Second

// subscription is a device that listens. It is under the server's lock.
type subscription struct {
	deviceID string
	events   []string
	signal   chan struct{} // there is something to look at
	over     bool
}

func (s *subscription) wake() {
	select {
	case s.signal <- struct{}{}:
	default: // it knows
	}
}

// tell tells the device, if it listens.
func (o *Organisation) tell(deviceID, event string) {
	for _, s := range o.subscriptions {
		if s.deviceID == deviceID {
			s.events = append(s.events, event)
			s.wake()
		}
	}
}

// endSubscriptions hangs up on a device that has been signed out.
func (o *Organisation) endSubscriptions(deviceID string) {
	for _, s := range o.subscriptions {
		if s.deviceID == deviceID {
			s.over = true
			s.wake()
		}
	}
}

// events are server-sent: a device that is online is told what to deploy.
func events(c *call) reply {
	switch {
	case !c.authenticated():
		return c.unauthorized()
	case c.URL.Query().Get("channel") != "DeviceChannel":
		return c.bad("There is no such channel")
	}
	o, id := c.org, c.device.ID
	c.out.Set("Cache-Control", "no-store")
	return reply{http.StatusOK, stream(func(w http.ResponseWriter, r *http.Request) { o.listen(w, r, id) })}
}

// subscribe lets a device hear of what is deployed to it from now on.
func (o *Organisation) subscribe(deviceID string) *subscription {
	s := &subscription{deviceID: deviceID, signal: make(chan struct{}, 1), events: []string{
		"event: welcome\ndata: " + jsonOf(object{"type": "welcome", "sid": NewSecret("")}),
		"event: confirm_subscription\ndata: " + jsonOf(object{"type": "confirm_subscription", "identifier": `{"channel":"DeviceChannel"}`}),
	}}
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	_, there := o.devices.byID[deviceID]
	s.over = !there // signed out a moment ago
	o.subscriptions = append(o.subscriptions, s)
	return s
}

func (o *Organisation) unsubscribe(s *subscription) {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	o.subscriptions = slices.DeleteFunc(o.subscriptions, func(other *subscription) bool { return other == s })
}

// listen sends events until the device has gone, or has been signed out.
func (o *Organisation) listen(w http.ResponseWriter, r *http.Request, deviceID string) {
	if r.Method == http.MethodHead {
		return
	}
	s := o.subscribe(deviceID)
	defer o.unsubscribe(s)
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for {
		o.server.mu.Lock()
		due, over := s.events, s.over
		s.events = nil
		o.server.mu.Unlock()
		for _, event := range due {
			_, _ = fmt.Fprintf(w, "%s\n\n", event)
		}
		_ = http.NewResponseController(w).Flush()
		if over {
			return
		}
		select {
		case <-s.signal:
		case <-ping.C:
			_, _ = fmt.Fprintf(w, "event: ping\ndata: %s\n\n", jsonOf(object{"type": "ping", "message": o.server.options.Now().Unix()}))
		case <-r.Context().Done():
			return
		}
	}
}
