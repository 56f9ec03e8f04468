// SPDX-License-Identifier: Apache-2.0

// Package controller puts the operator's kinds together: one package a kind, each on top of the one
// loop in package lifecycle.
package controller

import (
	"errors"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/controller/artefact"
	"rpi-connect.dev/operator/internal/controller/authkey"
	"rpi-connect.dev/operator/internal/controller/deployment"
	"rpi-connect.dev/operator/internal/controller/device"
	"rpi-connect.dev/operator/internal/controller/deviceidentity"
	"rpi-connect.dev/operator/internal/controller/devices"
	"rpi-connect.dev/operator/internal/controller/fleetrollout"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/metrics"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Options are what a user sets with the program's flags.
type Options struct {
	// API reaches Connect.
	API *connectclient.API
	// ResyncInterval is the time between two looks at a collection of an organisation, to notice
	// what others changed in it.
	ResyncInterval time.Duration
	// DeploymentPollMin and DeploymentPollMax bound the time between two looks at a running
	// deployment.
	DeploymentPollMin, DeploymentPollMax time.Duration
	// PostSettleTime is how long after a POST whose outcome is unknown what it made may still
	// appear. Default: 90 seconds.
	PostSettleTime time.Duration
	// MaxConcurrentReconciles is how many resources of a kind are worked on at the same time.
	MaxConcurrentReconciles int
	// Clock tells the time. Default: the real one.
	Clock clock.PassiveClock
}

// DefaultPostSettleTime is longer than a request takes, and than a gateway holds one back.
const DefaultPostSettleTime = 90 * time.Second

// SetupWithManager adds the controllers of all kinds to the manager.
func SetupWithManager(mgr ctrl.Manager, options Options) error {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	if options.PostSettleTime <= 0 {
		options.PostSettleTime = DefaultPostSettleTime
	}
	tokens := accesstoken.NewSource(mgr.GetClient(), mgr.GetAPIReader())
	health := lifecycle.NewTokenHealth()
	tokens.OnRetired(options.API.Retire)
	tokens.OnRetired(health.Forget)
	tokens.OnRetired(func(token connectclient.Secret) { metrics.Forget(token.Fingerprint()) })
	env := lifecycle.Environment{
		Client:                  mgr.GetClient(),
		Live:                    mgr.GetAPIReader(),
		Tokens:                  tokens,
		API:                     options.API,
		Health:                  health,
		Events:                  mgr.GetEventRecorder("rpi-connect-operator"),
		Clock:                   options.Clock,
		SettleTime:              options.PostSettleTime,
		MaxConcurrentReconciles: options.MaxConcurrentReconciles,
	}
	shared := reflector.Options{API: options.API, Interval: options.ResyncInterval, Now: options.Clock.Now}
	finder := devices.New(shared)
	rollouts, err := fleetrollout.Kind(fleetrollout.Options{
		Client: env.Client, Live: env.Live, Indexer: mgr.GetFieldIndexer(), Clock: env.Clock, Devices: finder,
	})

	return errors.Join(err,
		mgr.Add(tokens),
		lifecycle.SetupWithManager(mgr, env, artefact.Kind(shared)),
		lifecycle.SetupWithManager(mgr, env, authkey.Kind(shared, env.Client, env.Live, env.Clock)),
		lifecycle.SetupWithManager(mgr, env, deviceidentity.Kind(shared, env.Live)),
		lifecycle.SetupWithManager(mgr, env, device.Kind(finder)),
		lifecycle.SetupWithManager(mgr, env, deployment.Kind(deployment.Options{
			API: options.API, Client: env.Client, Clock: env.Clock, Devices: finder,
			PollMin: options.DeploymentPollMin, PollMax: options.DeploymentPollMax, SettleTime: env.SettleTime,
		})),
		lifecycle.SetupWithManager(mgr, env, rollouts),
	)
}
