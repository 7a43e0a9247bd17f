package cdc

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	simSeed  = flag.Uint64("seed", 0, "run the simulation of this seed only, with a transcript")
	simSeeds = flag.Uint64("seeds", 0, "how many seeds to simulate; by default ten thousand, or 300 with -short or -race")
	simFirst = flag.Uint64("first", 1, "the first seed")
)

// mutation is a way to break the algorithm on purpose.
type mutation int

const (
	noMutation mutation = iota
	mutateByLog
	mutateUnseen
	mutateNoFence
	mutateLowFence
	mutatePatch
	mutatePlanUnseen
	mutateHoles
	mutateStoredHoles
	mutateUnlogged
	mutateFixed
	mutateRescan
	mutateLoss
	mutateLossKeeps
	mutateWithheld
	mutateParts
	mutateOmitted
	mutateJoin
	mutateJoinDropped
	mutateOnce
)

// TestSimulation runs the core against the simulated database, ten thousand times.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		s := newSim(*simSeed, noMutation, true)
		err := s.run()
		fmt.Fprintln(os.Stderr, s.log.String())
		require.NoError(t, err)
		return
	}
	n := *simSeeds
	if n == 0 {
		n = 10_000
		if testing.Short() || underRace {
			n = 300
		}
	}
	seed, err := simulate(*simFirst, n, noMutation)
	if err != nil {
		s := newSim(seed, noMutation, true)
		_ = s.run()
		t.Fatalf("%s\nseed %d: %v\nrun it again: go test ./cdc -run TestSimulation -seed %d", tail(s.log.String(), 20_000), seed, err, seed)
	}
}

func tail(text string, n int) string {
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}

// simulate runs seeds on all cores, and returns the first one found that fails.
func simulate(first, n uint64, m mutation) (seed uint64, err error) {
	var next atomic.Uint64
	var mu sync.Mutex
	var wg sync.WaitGroup
	next.Store(first)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				one := next.Add(1) - 1
				if one >= first+n {
					return
				}
				if failed := newSim(one, m, false).run(); failed != nil {
					mu.Lock()
					if err == nil || one < seed {
						seed, err = one, failed
					}
					mu.Unlock()
					next.Store(first + n)
				}
			}
		})
	}
	wg.Wait()
	return seed, err
}

// TestMutations breaks the algorithm in the ways it must not be broken, and expects the simulation to notice.
func TestMutations(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("simulates thousands of seeds")
	}
	for name, m := range map[string]mutation{
		"the window is decided by log positions":               mutateByLog,
		"unseen transactions are not stored":                   mutateUnseen,
		"chunks are emitted before their fence":                mutateNoFence,
		"the fence is noted before the rows are read":          mutateLowFence,
		"dropped rows are not patched":                         mutatePatch,
		"plans do not say what was in progress":                mutatePlanUnseen,
		"rows that moved are not read by key":                  mutateHoles,
		"keys to be read are not stored":                       mutateStoredHoles,
		"a change of a value that is not logged is not told":   mutateUnlogged,
		"physical ranges pass for fixed ones":                  mutateFixed,
		"changes of rows that the log leaves out are not said": mutateRescan,
		"a new log is taken for the one that was lost":         mutateLoss,
		"tables keep what they had when the log is lost":       mutateLossKeeps,
		"what was left out before is not known":                mutateWithheld,
		"parts that come with rows are not noticed":            mutateParts,
		"what documents called omitted is not stored":          mutateOmitted,
		"tables without a key do not wait for who straddles":   mutateJoin,
		"nor for the changes of theirs that were left out":     mutateJoinDropped,
		"a pass is continued with another snapshot":            mutateOnce,
	} {
		t.Run(name, func(t *testing.T) {
			seed, err := simulate(1, 10_000, m)
			require.Error(t, err)
			t.Logf("noticed with seed %d: %v", seed, err)
		})
	}
}
