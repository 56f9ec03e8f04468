// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"rpi-connect.dev/operator/api/v1alpha1"
	"rpi-connect.dev/operator/internal/connectsim"
	"rpi-connect.dev/operator/internal/controller/lifecycle"
	"rpi-connect.dev/operator/test/cluster"
)

// keys measures device identities and auth keys, on both revisions.
func keys(ctx context.Context, n int) error {
	fmt.Println("\nDevice identities (signed by the operator) and auth keys, from the first apply to all Ready.")
	fmt.Println("\n| what | revision | POSTs | PATCHes | other requests | writes to resources each | other writes each (Secrets) | time | resident memory |")
	fmt.Println("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, revision := range []connectsim.Revision{connectsim.Current, connectsim.Older} {
		for _, what := range []struct {
			name, route string
			list        client.ObjectList
			make        func(ctx context.Context, c client.Client, namespace string, i int) error
		}{
			{"identities", "/organisation/device-identities", &v1alpha1.DeviceIdentityList{}, newIdentity},
			{"auth keys", "/organisation/auth-keys", &v1alpha1.AuthKeyList{}, newAuthKey},
		} {
			err := withCluster(ctx, func(c *cluster.Cluster, binary string) error {
				b, err := connect(ctx, c, connectsim.Options{Revision: revision})
				if err != nil {
					return err
				}
				defer b.Sim.Close()
				manager, err := c.StartManager(ctx, binary, "--connect-api-url="+b.URL, "--api-qps=1000")
				if err != nil {
					return err
				}
				defer manager.Stop()
				if err := manager.WaitReady(ctx); err != nil {
					return err
				}
				began := time.Now()
				if err := each(ctx, n, func(ctx context.Context, i int) error { return what.make(ctx, c.Client, metav1.NamespaceDefault, i) }); err != nil {
					return err
				}
				if err := until(ctx, func() (bool, error) { return countReady(ctx, c.Client, what.list, n) }); err != nil {
					return err
				}
				took := time.Since(began)
				resident, err := manager.ResidentBytes()
				if err != nil {
					return err
				}
				if err := pause(ctx, 2*time.Second); err != nil { // the audit log comes a little later
					return err
				}
				resources, _, others, err := c.OperatorWrites(began)
				if err != nil {
					return err
				}
				posts, patches := b.Sim.Count("POST "+what.route), b.Sim.Count("PATCH "+what.route+"/{id}")
				fmt.Printf("| %d %s | %s | %d | %d | %d | %.2f | %.2f | %.1f s | %d MiB |\n", n, what.name, revision, posts, patches,
					b.Sim.Count("")-posts-patches, float64(resources)/float64(n), float64(others)/float64(n), took.Seconds(), resident>>20)
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func newAuthKey(ctx context.Context, c client.Client, namespace string, i int) error {
	return c.Create(ctx, &v1alpha1.AuthKey{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("pi-%05d", i)}})
}

func newIdentity(ctx context.Context, c client.Client, namespace string, i int) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	named := metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("pi-%05d", i)}
	secret := &corev1.Secret{ObjectMeta: named, Data: map[string][]byte{"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}}
	if err := c.Create(ctx, secret); err != nil {
		return err
	}
	return c.Create(ctx, &v1alpha1.DeviceIdentity{ObjectMeta: named, Spec: v1alpha1.DeviceIdentitySpec{
		PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		Tags:      []string{"production"},
		Signing:   &v1alpha1.Signing{PrivateKeySecretRef: &v1alpha1.SecretKeyReference{Name: named.Name, Key: "key.pem"}},
	}})
}

// countReady tells whether n resources of the list are Ready.
func countReady(ctx context.Context, c client.Client, list client.ObjectList, n int) (bool, error) {
	if err := c.List(ctx, list); err != nil {
		return false, err
	}
	ready := 0
	err := meta.EachListItem(list, func(item runtime.Object) error {
		if obj, ok := item.(lifecycle.Object); ok && meta.IsStatusConditionTrue(obj.GetCommonStatus().Conditions, v1alpha1.ConditionReady) {
			ready++
		}
		return nil
	})
	return ready == n, err
}
