// SPDX-License-Identifier: Apache-2.0

package simulation

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
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
	steps = flag.Int("steps", 10_000, "how many steps to play in all")
	seed  = flag.Uint64("seed", 0, "play the history of this seed alone")
	first = flag.Uint64("first", 1, "the seed of the first history")
	trace = flag.Bool("trace", false, "print the requests of the history")
	whole = flag.Bool("whole", false, "say how each history went, do not cut down what fails, and go on after it")
	play  = flag.String("play", "", "play these steps instead of drawn ones, with -seed")
)

// length is how many steps a history has.
const length = 200

// TestMain keeps what others log quiet: whatever the operator logs is read by a [logSink].
func TestMain(m *testing.M) {
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	// The other handler slows errors down by the time between two of them, which no two bubbles share.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] //nolint:reassign // it is made for that
	os.Exit(m.Run())
}

func crds(t *testing.T) []*apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	options := envtest.CRDInstallOptions{Paths: []string{"../../config/crd/bases"}, ErrorIfPathMissing: true}
	if err := envtest.ReadCRDFiles(&options); err != nil {
		t.Fatal(err)
	}
	return options.CRDs
}

func TestHistories(t *testing.T) {
	crds := crds(t)
	if *seed != 0 {
		h := drawHistory(*seed)
		if *play != "" {
			var err error
			if h.steps, err = parseSteps(*play); err != nil {
				t.Fatal(err)
			}
		}
		report(t, crds, h)
		return
	}
	var next atomic.Uint64
	next.Store(*first)
	began := time.Now()
	var players sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			for *whole || !t.Failed() {
				seed := next.Add(1) - 1
				if seed >= *first+uint64(max(1, *steps/length)) {
					return
				}
				report(t, crds, drawHistory(seed))
			}
		})
	}
	players.Wait()
	t.Logf("%d histories of %d steps, from seed %d on, took %s", max(1, *steps/length), length, *first, time.Since(began).Round(time.Second))
}

// TestHistoriesThatFailed plays what broke a promise once.
func TestHistoriesThatFailed(t *testing.T) {
	crds := crds(t)
	text, err := os.ReadFile("testdata/histories.txt")
	if err != nil {
		t.Fatal(err)
	}
	what := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		number, steps, isHistory := strings.Cut(line, ": ")
		seed, err := strconv.ParseUint(number, 10, 64)
		if !isHistory || err != nil {
			what = line
			continue
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := history{seed: seed}
			if h.steps, err = parseSteps(steps); err != nil {
				t.Fatal(err)
			}
			// Not everything that happens at the same moment happens in the same order each time.
			for range 3 {
				if broken, _ := run(t, crds, h); len(broken) > 0 {
					t.Fatalf("%s\n%s", what, strings.Join(broken, "\n"))
				}
			}
		})
	}
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
	hangs := time.AfterFunc(hung, func() { panic(fmt.Sprintf("the history of seed %d hangs", h.seed)) })
	broken, played := run(t, crds, h)
	hangs.Stop()
	if *whole {
		fmt.Fprintf(os.Stderr, "seed %d took %s %v\n", h.seed, time.Since(began).Round(time.Millisecond), strings.Join(broken, "\n\t"))
	}
	if len(broken) == 0 {
		return
	}
	if *whole {
		t.Errorf("seed %d: %s", h.seed, strings.Join(broken, "\n\t"))
		return
	}
	short, why := history{h.seed, h.steps[:played]}, broken
	if *play == "" {
		short, why = shrink(t, crds, short, broken)
	}
	var texts []string
	for _, s := range short.steps {
		texts = append(texts, s.String())
	}
	t.Errorf("seed %d: %s\n\nIt takes no more than these %d steps:\n\tgo test ./test/simulation -args -seed %d -play %q\n\nThe whole history breaks:\n\t%s",
		h.seed, strings.Join(why, "\n\t"), len(short.steps), h.seed, strings.Join(texts, "; "), strings.Join(broken, "\n\t"))
}

// run plays a history, and returns the promises that it breaks, and after how many steps.
func run(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, h history) (broken []string, played int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, crds, rand.New(rand.NewPCG(h.seed, 2)))
		defer w.stop()
		for _, s := range h.steps {
			if err := w.do(s); err != nil {
				w.violatedf("%v", err)
			}
			played++
			if broken = w.broken(); len(broken) > 0 {
				broken = append(broken, fmt.Sprintf("… after %d steps, with %+v", played, w.setup))
				return
			}
		}
		w.rest()
		w.atRest()
		if broken = w.broken(); len(broken) > 0 {
			broken = append(broken, fmt.Sprintf("… at rest, with %+v", w.setup))
		}
	})
	return broken, played
}

// hung is how long no history takes on any machine.
const hung = 15 * time.Minute

// patience is how long a history is cut down.
const patience = 3 * time.Minute

// shrink takes out steps as long as the history still breaks something.
func shrink(t *testing.T, crds []*apiextensionsv1.CustomResourceDefinition, h history, broken []string) (history, []string) {
	t.Helper()
	began := time.Now()
	for size := len(h.steps) / 2; size > 0 && time.Since(began) < patience; {
		cut := false
		for at := 0; at < len(h.steps) && time.Since(began) < patience; {
			less := history{h.seed, slices.Delete(slices.Clone(h.steps), at, min(at+size, len(h.steps)))}
			if again, played := run(t, crds, less); len(again) > 0 {
				less.steps = less.steps[:played]
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
