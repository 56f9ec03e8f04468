// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/internal/connectsim"
)

// Connect is a simulated Connect with one organisation, and what opens it.
type Connect struct {
	Sim        *connectsim.Server
	Org        *connectsim.Organisation
	URL, Token string
}

// ServeConnect starts a simulated Connect. Its Sim has to be closed in the end.
func ServeConnect(options connectsim.Options) (Connect, error) {
	c := Connect{Sim: connectsim.New(options), Token: connectsim.NewSecret("rporg_")}
	c.Org = c.Sim.AddOrganisation(c.Token)
	var err error
	if c.URL, err = c.Sim.Start(""); err != nil {
		return c, fmt.Errorf("start the simulator: %w", err)
	}
	return c, nil
}

// PutToken writes an access token to the Secret of the namespace that resources
// use by default; the namespace is made if it is not there.
func (c *Cluster) PutToken(ctx context.Context, namespace, token string) error {
	err := c.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	// Tokens tend to arrive with a newline at the end.
	data := map[string]string{"token": token + "\n"}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "connect-access-token"}, StringData: data}
	if err := c.Client.Create(ctx, secret); !apierrors.IsAlreadyExists(err) {
		return err
	}
	if err := c.Client.Get(ctx, client.ObjectKeyFromObject(secret), secret); err != nil {
		return err
	}
	secret.StringData = data
	return c.Client.Update(ctx, secret)
}
