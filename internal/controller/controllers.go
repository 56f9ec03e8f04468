// SPDX-License-Identifier: Apache-2.0

// Package controller holds the operator's kinds: one file a kind, each on top of
// the one loop in package lifecycle.
package controller

import (
	"errors"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/internal/reflector"
)

// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Options are what a user sets with the program's flags.
type Options struct {
	// API reaches Connect.
	API *connectclient.API
	// ResyncInterval is the time between two looks at a collection of an
	// organisation, to notice what others changed in it.
	ResyncInterval time.Duration
	// DeploymentPollMin and DeploymentPollMax bound the time between two looks
	// at a running deployment.
	DeploymentPollMin, DeploymentPollMax time.Duration
	// MaxConcurrentReconciles is how many resources of a kind are worked on
	// at the same time.
	MaxConcurrentReconciles int
	// Clock tells the time. Default: the real one.
	Clock clock.PassiveClock
}

// Add adds the controllers of all kinds to the manager.
func Add(mgr ctrl.Manager, options Options) error {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	env := lifecycle.Environment{
		Client:                  mgr.GetClient(),
		Live:                    mgr.GetAPIReader(),
		Tokens:                  accesstoken.NewSource(mgr.GetClient(), mgr.GetAPIReader()),
		API:                     options.API,
		Events:                  mgr.GetEventRecorder("rpi-connect-operator"),
		Clock:                   options.Clock,
		MaxConcurrentReconciles: options.MaxConcurrentReconciles,
	}
	shared := reflector.Options{API: options.API, Interval: options.ResyncInterval, Now: options.Clock.Now}

	return errors.Join(
		lifecycle.Add(mgr, env, artefactKind(shared)),
		lifecycle.Add(mgr, env, authKeyKind(shared, env.Client, env.Live, env.Clock)),
		lifecycle.Add(mgr, env, deviceIdentityKind(shared, env.Live)),
		lifecycle.Add(mgr, env, deploymentKind(shared, env.Client, env.Clock, options.DeploymentPollMin, options.DeploymentPollMax)),
	)
}
