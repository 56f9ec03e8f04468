// SPDX-License-Identifier: Apache-2.0

package accesstoken_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"rpi-connect.dev/operator/internal/connectclient"
	"rpi-connect.dev/operator/internal/controller/accesstoken"
)

var tokenRef = accesstoken.Ref{Namespace: "lab", Name: "connect-access-token", Key: "token"}

// cluster is a handful of Secrets, a source that reads them, and what it did.
type cluster struct {
	*testing.T
	client.WithWatch
	*accesstoken.Source
	reads   atomic.Int32           // of values, past the cache
	broken  error                  // what a read of a value meets instead
	slow    map[string]*gate       // what a read of a Secret of this name waits for
	touched []connectclient.Secret // in this order

	mu      sync.Mutex
	retired []connectclient.Secret   // in this order
	named   map[accesstoken.Ref]bool // by some resource
}

// gate holds reads up until it is opened.
type gate struct{ arrived, open chan struct{} }

func newGate() *gate { return &gate{arrived: make(chan struct{}, 100), open: make(chan struct{})} }

func (g *gate) pass(ctx context.Context) error {
	g.arrived <- struct{}{}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-g.open:
		return nil
	}
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, slow: map[string]*gate{}, named: map[accesstoken.Ref]bool{}}
	c.WithWatch = fake.NewClientBuilder().WithScheme(secretsOnly(t)).Build()
	live := interceptor.NewClient(c.WithWatch, interceptor.Funcs{
		Get: func(ctx context.Context, inner client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			c.reads.Add(1)
			if gate := c.slow[key.Name]; gate != nil {
				if err := gate.pass(ctx); err != nil {
					return err
				}
			}
			if c.broken != nil {
				return c.broken
			}
			return inner.Get(ctx, key, obj, opts...)
		},
	})
	c.Source = accesstoken.NewSource(c.WithWatch, live)
	c.OnTouched(func(token connectclient.Secret) { c.touched = append(c.touched, token) })
	c.OnRetired(func(token connectclient.Secret) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.retired = append(c.retired, token)
	})
	return c
}

// secretsOnly is a scheme that is quick to work with.
func secretsOnly(t *testing.T) *runtime.Scheme {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// put makes the Secret hold the values, as a new version of it even if it holds
// them already.
func (c *cluster) put(name string, values map[string]string) {
	c.Helper()
	data := map[string][]byte{}
	for key, value := range values {
		data[key] = []byte(value)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tokenRef.Namespace, Name: name}, Data: data}
	err := c.Create(c.Context(), secret)
	if err != nil {
		secret.ResourceVersion = ""
		err = c.Update(c.Context(), secret)
	}
	if err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) remove(name string) {
	c.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tokenRef.Namespace, Name: name}}
	if err := c.Delete(c.Context(), secret); err != nil {
		c.Fatal(err)
	}
}

// holds asks for the token at ref and checks which it is.
func (c *cluster) holds(ref accesstoken.Ref, want string) {
	c.Helper()
	got, err := c.Token(c.Context(), ref)
	if err != nil {
		c.Fatalf("no token at %s: %v", ref, err)
	}
	if got != connectclient.NewSecret(want) {
		c.Errorf("the token at %s is not the expected one", ref)
	}
}

// misses asks for the token at ref, which must not be there.
func (c *cluster) misses(ref accesstoken.Ref) *accesstoken.MissingError {
	c.Helper()
	_, err := c.Token(c.Context(), ref)
	missing, ok := errors.AsType[*accesstoken.MissingError](err)
	if !ok {
		c.Fatalf("want a MissingError, got %v", err)
	}
	return missing
}

func (c *cluster) hasRead(want int32) {
	c.Helper()
	if got := c.reads.Load(); got != want {
		c.Errorf("%d values were read, want %d", got, want)
	}
}

func (c *cluster) hasTouched(want ...string) {
	c.Helper()
	var secrets []connectclient.Secret
	for _, token := range want {
		secrets = append(secrets, connectclient.NewSecret(token))
	}
	if !slices.Equal(c.touched, secrets) {
		c.Errorf("touched was called %d times, want %d", len(c.touched), len(want))
	}
}

func TestManyReadersShareOneRead(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})

	// As after a restart: every resource asks at the same time.
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			token, err := c.Token(t.Context(), tokenRef)
			if err != nil || token.Reveal() != "rporg_one" {
				t.Errorf("one of many got no token: %v", err)
			}
		})
	}
	all.Wait()
	c.hasRead(1)

	c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
	for range 100 {
		c.holds(tokenRef, "rporg_two")
	}
	c.hasRead(2)
}

// One Secret is slow to read, because an admission webhook or an encryption provider hangs. Resources
// that name another one go on; those that name this one wait for the one read.
func TestSlowReadHoldsUpNobodyElse(t *testing.T) {
	c := newCluster(t)
	slow := tokenRef
	slow.Name = "slow"
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	c.put(slow.Name, map[string]string{"token": "rporg_two"})
	c.slow[slow.Name] = newGate()

	var waiting sync.WaitGroup
	for range 50 {
		waiting.Go(func() {
			if token, err := c.Token(t.Context(), slow); err != nil || token.Reveal() != "rporg_two" {
				t.Errorf("one of those who waited got no token: %v", err)
			}
		})
	}
	<-c.slow[slow.Name].arrived
	c.holds(tokenRef, "rporg_one")
	if _, ok := c.LastGood(slow); ok {
		t.Error("there is a token before it was read")
	}
	close(c.slow[slow.Name].open)
	waiting.Wait()
	c.hasRead(2)
}

// Whoever reads for all gives up: the others read for themselves.
func TestWhoGivesUpFailsNobodyElse(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	gate := newGate()
	c.slow[tokenRef.Name] = gate

	ctx, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := c.Token(ctx, tokenRef)
		gaveUp <- err
	}()
	<-gate.arrived
	var waiting sync.WaitGroup
	for range 20 {
		waiting.Go(func() {
			if token, err := c.Token(t.Context(), tokenRef); err != nil || token.Reveal() != "rporg_one" {
				t.Errorf("one of those who waited got no token: %v", err)
			}
		})
	}
	giveUp()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("whoever gave up got %v", err)
	}
	<-gate.arrived
	close(gate.open)
	waiting.Wait()
	c.hasRead(2)
}

// Whoever waits for another's read may give up, too.
func TestWaitingEndsWithItsContext(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	gate := newGate()
	c.slow[tokenRef.Name] = gate
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = c.Token(t.Context(), tokenRef) })
	<-gate.arrived
	ctx, giveUp := context.WithCancel(t.Context())
	giveUp()
	if _, err := c.Token(ctx, tokenRef); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(gate.open)
	reading.Wait()
	c.hasRead(1)
}

func TestKeysOfOneSecretAreTokensOfTheirOwn(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one", "other": "rporg_two"})
	other := tokenRef
	other.Key = "other"
	c.holds(tokenRef, "rporg_one")
	c.holds(other, "rporg_two")
}

func TestWhiteSpaceAroundATokenIsIgnored(t *testing.T) {
	for name, value := range map[string]string{
		"none":                     "rporg_one",
		"a newline":                "rporg_one\n",
		"a newline of Windows":     "rporg_one\r\n",
		"spaces and tabs all over": " \t rporg_one \n\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.put(tokenRef.Name, map[string]string{"token": value})
			c.holds(tokenRef, "rporg_one")
		})
	}
}

func TestMissing(t *testing.T) {
	for name, test := range map[string]struct {
		values map[string]string // nil: there is no Secret
		secret bool
		advice string
	}{
		"the Secret":                {nil, true, `create it with the access token under the key "token"`},
		"the key":                   {map[string]string{"tokne": "rporg_one"}, false, `no value under the key "token"`},
		"everything in the Secret":  {map[string]string{}, false, `no value under the key "token"`},
		"the value under the key":   {map[string]string{"token": ""}, false, `no value under the key "token"`},
		"all but white space of it": {map[string]string{"token": " \n"}, false, `no value under the key "token"`},
		"the key in this spelling":  {map[string]string{"TOKEN": "rporg_one"}, false, `no value under the key "token"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			if test.values != nil {
				c.put(tokenRef.Name, test.values)
			}
			missing := c.misses(tokenRef)
			if missing.Ref != tokenRef || missing.Secret != test.secret {
				t.Errorf("it says that %+v is missing", missing)
			}
			if text := missing.Error(); !strings.Contains(text, test.advice) || !strings.Contains(text, `"connect-access-token"`) {
				t.Errorf("it tells the user %q", text)
			}
			// A resource that waits for its token does not make the API server
			// read the same version again.
			before := c.reads.Load()
			c.misses(tokenRef)
			c.hasRead(before)

			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
		})
	}
}

// The cache still shows a Secret that is gone: the user is told that it is gone,
// not that something is wrong with the operator.
func TestSecretGoneBehindTheCache(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	s := accesstoken.NewSource(c.WithWatch, fake.NewClientBuilder().Build())
	_, err := s.Token(t.Context(), tokenRef)
	if missing, ok := errors.AsType[*accesstoken.MissingError](err); !ok || !missing.Secret {
		t.Errorf("got %v", err)
	}
}

// A read that failed says nothing of the Secret and is made again.
func TestFailedRead(t *testing.T) {
	c := newCluster(t)
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	c.broken = errors.New("etcd is on holiday")
	_, err := c.Token(t.Context(), tokenRef)
	if _, missing := errors.AsType[*accesstoken.MissingError](err); missing || !errors.Is(err, c.broken) {
		t.Errorf("got %v", err)
	}
	c.broken = nil
	c.holds(tokenRef, "rporg_one")
	c.hasTouched()
}

func TestLastGood(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*cluster)
		want    string
	}{
		"nothing was ever read": {func(*cluster) {}, ""},
		"there never was a token": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "\n"})
			c.misses(tokenRef)
		}, ""},
		"the Secret is there": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
		}, "rporg_one"},
		"the Secret is gone": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.remove(tokenRef.Name)
			c.misses(tokenRef)
		}, "rporg_one"},
		"the Secret has lost its value": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{})
			c.misses(tokenRef)
		}, "rporg_one"},
		"the token was rotated before": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
			c.holds(tokenRef, "rporg_two")
			c.remove(tokenRef.Name)
			c.misses(tokenRef)
		}, "rporg_two"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			test.happens(c)
			got, ok := c.LastGood(tokenRef)
			if ok != (test.want != "") || got.Reveal() != test.want {
				t.Errorf("got %q, %t", got.Reveal(), ok)
			}
		})
	}
}

// Whoever shares an organisation is found by its token, wherever it is kept.
func TestRefsOf(t *testing.T) {
	c := newCluster(t)
	second, third := tokenRef, tokenRef
	second.Name, third.Name = "second", "third"
	c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
	c.put(second.Name, map[string]string{"token": "rporg_one\n"})
	c.put(third.Name, map[string]string{"token": "rporg_two"})
	for _, ref := range []accesstoken.Ref{tokenRef, second, third} {
		if _, err := c.Token(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	check := func(token string, want ...accesstoken.Ref) {
		t.Helper()
		got := c.RefsOf(connectclient.NewSecret(token))
		slices.SortFunc(got, func(a, b accesstoken.Ref) int { return cmp.Compare(a.Name, b.Name) })
		if !slices.Equal(got, want) {
			t.Errorf("%s is at %v, want %v", token, got, want)
		}
	}
	check("rporg_one", tokenRef, second)
	check("rporg_two", third)
	check("rporg_unheard_of")

	c.put(second.Name, map[string]string{"token": "rporg_two"})
	c.holds(second, "rporg_two")
	check("rporg_one", tokenRef)
	check("rporg_two", second, third)

	// What is deleted was last seen there, and its resources may still have to
	// be told that the token works again.
	c.remove(third.Name)
	c.misses(third)
	check("rporg_two", second, third)
}

// A Secret that changes although its token does not is a hint that somebody has
// seen to it that the token works again.
func TestTouched(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(*cluster)
		want    []string
	}{
		"not when a token is read first": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
		}, nil},
		"not when it is asked for again": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.holds(tokenRef, "rporg_one")
		}, nil},
		"not when the token changes": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_two"})
			c.holds(tokenRef, "rporg_two")
			c.holds(tokenRef, "rporg_two")
		}, nil},
		"not when the token disappears": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{})
			c.misses(tokenRef)
		}, nil},
		"not when the Secret disappears": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.remove(tokenRef.Name)
			c.misses(tokenRef)
		}, nil},
		"once for each change, however many ask": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			for range 2 {
				c.put(tokenRef.Name, map[string]string{"token": "rporg_one", "note": "paid the bill"})
				c.holds(tokenRef, "rporg_one")
				c.holds(tokenRef, "rporg_one")
			}
		}, []string{"rporg_one", "rporg_one"}},
		"when only white space changes": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one\n"})
			c.holds(tokenRef, "rporg_one")
		}, []string{"rporg_one"}},
		"when the token is put back": {func(c *cluster) {
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
			c.put(tokenRef.Name, map[string]string{})
			c.misses(tokenRef)
			c.put(tokenRef.Name, map[string]string{"token": "rporg_one"})
			c.holds(tokenRef, "rporg_one")
		}, []string{"rporg_one"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			test.happens(c)
			c.hasTouched(test.want...)
		})
	}
}
