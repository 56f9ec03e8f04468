// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/test/cluster"
)

// bench is an organisation to measure against.
type bench struct {
	sim *connectsim.Server
	org *connectsim.Organisation
	url string
}

// connect starts the simulator, and puts the organisation's token into a Secret.
func connect(ctx context.Context, c *cluster.Cluster, options connectsim.Options) (*bench, error) {
	token := connectsim.NewSecret("rporg_")
	b := &bench{sim: connectsim.New(options)}
	b.org = b.sim.AddOrganisation(token)
	var err error
	if b.url, err = b.sim.Start(""); err != nil {
		return nil, err
	}
	return b, c.Client.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "connect-access-token"},
		StringData: map[string]string{"token": token},
	})
}
