package engine

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
)

// history are the numbers of the documents in the delta table, in its order.
func (r *rig) history(name string) []int {
	db, err := readDB(filepath.Join(r.dir, name))
	require.NoError(r.t, err)
	numbers := []int{}
	for _, doc := range db.Deltas["history"] {
		var v struct{ N int }
		require.NoError(r.t, json.Unmarshal(doc, &v))
		numbers = append(numbers, v.N)
	}
	return numbers
}

// TestHistoryIsStreamed: where all bindings are delta updates, documents go straight from the log to the connector, in
// transactions of any size. Each is there once and in the order of the log, wherever the connector crashes.
func TestHistoryIsStreamed(t *testing.T) { onBoth(t, testHistoryIsStreamed) }

func testHistoryIsStreamed(t *testing.T) {
	t.Parallel()
	places := map[string][]string{
		"atomic": {"", "acknowledge", "flush", "store", "startcommit", "committing", "committed", "startedcommit"},
		"staged": {"", "acknowledge", "flush", "store", "startcommit", "staged", "applied"},
	}
	for fake, list := range places {
		for i, place := range list {
			if onKafka(t) && i%2 == 1 {
				continue // half of them: what is Kafka's is the same
			}
			codec := []frame.Codec{frame.Proto, frame.JSON}[i%2]
			t.Run(fmt.Sprintf("%s at %s", fake, place), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, frame.Proto, fakeConfig{Total: 500, Batch: 5, Keys: 20, Deletes: true, Paced: true})
				r.options.MaxTransactionBytes = 100 // so that transactions end in the middle of what the log has
				r.sinkOf("one", fake, codec, fakeConfig{Crash: place, CrashAt: 3}, historyTable)
				stop := r.start()
				want := make([]int, r.source.Total)
				for n := range want {
					want[n] = n
				}
				require.Eventually(t, func() bool { return len(r.history("one")) >= len(want) }, time.Minute, 10*time.Millisecond)
				stop()
				if onKafka(t) { // which has an order within a key
					require.Equal(t, r.byKey(want), r.byKey(r.history("one")))
				} else {
					require.Equal(t, want, r.history("one"))
				}
				if place != "" {
					require.FileExists(t, filepath.Join(r.dir, "one", "crashed-"+place), "the crash happened")
				}
			})
		}
	}
}

// byKey are the numbers of documents, in their order, by key.
func (r *rig) byKey(numbers []int) map[int][]int {
	keys := map[int][]int{}
	for _, n := range numbers {
		var doc struct{ ID int }
		require.NoError(r.t, json.Unmarshal(fakeDoc(&r.source, n), &doc))
		keys[doc.ID] = append(keys[doc.ID], n)
	}
	return keys
}
