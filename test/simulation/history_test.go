// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

var (
	steps = flag.Int("steps", 2000, "how many steps to play in all")
	seed  = flag.Uint64("seed", 0, "play the history of this seed alone")
	first = flag.Uint64("first", 1, "the seed of the first history")
	trace = flag.Bool("trace", false, "print the requests of the history")
	whole = flag.Bool("whole", false, "do not cut down what fails, and go on after it")
	play  = flag.String("play", "", "play these steps instead of drawn ones, with -seed")
)

// length is how many steps a history has.
const length = 200

func TestHistories(t *testing.T) {
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	// The other handler slows errors down by the time between two of them, which no two bubbles share.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1]
	crds := envtest.CRDInstallOptions{Paths: []string{"../../config/crd/bases"}, ErrorIfPathMissing: true}
	if err := envtest.ReadCRDFiles(&crds); err != nil {
		t.Fatal(err)
	}
	if *seed != 0 {
		h := drawHistory(*seed)
		if *play != "" {
			var err error
			if h.steps, err = parseSteps(*play); err != nil {
				t.Fatal(err)
			}
		}
		report(t, crds.CRDs, h)
		return
	}
	var next atomic.Uint64
	next.Store(*first)
	var played atomic.Int64
	began := time.Now()
	var players sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			for played.Add(length) <= int64(max(*steps, length)) && (*whole || !t.Failed()) {
				report(t, crds.CRDs, drawHistory(next.Add(1)-1))
			}
		})
	}
	players.Wait()
	t.Logf("%d histories of %d steps from seed %d on, in %s", next.Load()-*first, length, *first, time.Since(began).Round(time.Second))
}

// history is what happens to one world.
type history struct {
	seed  uint64
	steps []step
}

func drawHistory(seed uint64) history {
	random := rand.New(rand.NewPCG(seed, 1))
	h := history{seed: seed}
	for range length {
		h.steps = append(h.steps, draw(random))
	}
	return h
}

// report plays a history; if it breaks a promise, it is cut down and printed.
func report(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, h history) {
	t.Helper()
	began := time.Now()
	broken := run(t, crds, h)
	fmt.Fprintf(os.Stderr, "seed %d took %s %v\n", h.seed, time.Since(began).Round(time.Millisecond), strings.Join(broken, "\n\t"))
	if len(broken) == 0 {
		return
	}
	short, why := h, broken
	if *play == "" && !*whole {
		short, why = shrink(t, crds, h, broken)
	}
	if *whole {
		t.Errorf("seed %d: %s", h.seed, strings.Join(broken, "\n\t"))
		return
	}
	var texts []string
	for _, s := range short.steps {
		texts = append(texts, s.String())
	}
	t.Errorf("seed %d: %s\n\nIt takes %d steps:\n\tgo test ./test/simulation -args -seed %d -play %q\n\nThe whole history breaks:\n\t%s",
		h.seed, strings.Join(why, "\n\t"), len(short.steps), h.seed, strings.Join(texts, "; "), strings.Join(broken, "\n\t"))
}

// run plays a history, and returns the promises that it breaks.
func run(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, h history) (broken []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, crds, rand.New(rand.NewPCG(h.seed, 2)))
		defer w.stop()
		for n, s := range h.steps {
			if err := w.do(s); err != nil {
				w.violated("%v", err)
			}
			if broken = w.broken(); len(broken) > 0 {
				broken = append(broken, fmt.Sprintf("… after %d steps, with %+v", n+1, w.setup))
				return
			}
		}
		w.rest()
		w.atRest()
		if broken = w.broken(); len(broken) > 0 {
			broken = append(broken, fmt.Sprintf("… at rest, with %+v", w.setup))
		}
	})
	return broken
}

// shrink takes out steps as long as the history still breaks something.
func shrink(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, h history, broken []string) (history, []string) {
	t.Helper()
	for size := len(h.steps) / 2; size > 0; {
		cut := false
		for at := 0; at < len(h.steps); {
			less := history{h.seed, slices.Delete(slices.Clone(h.steps), at, min(at+size, len(h.steps)))}
			if again := run(t, crds, less); len(again) > 0 {
				h, broken, cut = less, again, true
			} else {
				at += size
			}
		}
		if size > 1 || !cut {
			size /= 2
		}
	}
	return h, broken
}
