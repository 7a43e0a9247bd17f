package engine

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/materialize"
)

// inferring lets the rig's collection say that there is more in its documents.
func (r *rig) inferring() {
	r.p.Collections["acme/things"].Schema = json.RawMessage(strings.Replace(fakeSchema, "{", `{"x-infer-schema":true,`, 1))
}

// A field that nobody announces is there before the first row that has it is stored; also when its document is so large that the log has
// it before its checkpoint.
func TestFieldsAreLearnedWhileRunning(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fake   string
		source fakeConfig
	}{
		"atomic": {"atomic", fakeConfig{Total: 400, Batch: 5, Keys: 20, AlterAt: 203}},
		"staged": {"staged", fakeConfig{Total: 400, Batch: 5, Keys: 20, AlterAt: 203}},
		"large":  {"atomic", fakeConfig{Total: 30, Batch: 5, Keys: 20, AlterAt: 21, Pad: 200 << 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.source.Paced, c.source.Silent = true, true
			r := newRig(t, frame.Proto, c.source)
			r.inferring()
			m := r.sink("one", c.fake, frame.Proto, fakeConfig{})
			m.Bindings[0].Fields.Exclude, m.Bindings[1].Fields.Exclude = []string{"pad"}, []string{"pad"}
			stop := r.start()
			r.wait("one")
			stop()
			r.same("one")
			r.altered("one")

			// What was learned is kept: a destination that begins later has the field from its start.
			r.sink("late", "atomic", frame.Proto, fakeConfig{}).Bindings[0].Fields.Exclude = []string{"pad"}
			before := strings.Count(r.log.String(), "opening again with the new schema")
			stop = r.start()
			r.wait("late")
			stop()
			r.same("late")
			require.Equal(t, before, strings.Count(r.log.String(), "opening again with the new schema"))
			require.NotContains(t, r.log.String(), "looked for fields in documents")
		})
	}
}

// Members that come one after another are taken into a destination's sessions together, unless there is much to store.
func TestMembersAreLearnedTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settle time.Duration
		bytes  int // of a transaction; 0 is plenty
	}{
		"little": {2 * time.Second, 0},
		"much":   {time.Hour, 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, frame.Proto, fakeConfig{Total: 450, Batch: 1, Keys: 20, AlterAt: 100, Members: 300, Silent: true, Paced: true})
			r.inferring()
			r.options.Materialize = materialize.Timeouts{Answer: 20 * time.Second, Stop: 5 * time.Second, Settle: c.settle}
			r.options.MaxTransactionBytes = c.bytes
			r.sink("one", "atomic", frame.Proto, fakeConfig{})
			began := time.Now()
			stop := r.start()
			r.wait("one")
			stop()
			r.same("one")
			db, err := readDB(filepath.Join(r.dir, "one"))
			require.NoError(t, err)
			require.False(t, db.Lost)
			require.Contains(t, db.Fields["things"], "m399")
			if c.bytes == 0 {
				require.LessOrEqual(t, strings.Count(r.log.String(), "opening again with the new schema"), int(time.Since(began)/c.settle)+1)
			}
		})
	}
}

// Documents that came before anybody learned from them are looked at once, when the schema begins to leave something open.
func TestFieldsOfOldDocumentsAreLearned(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 100, Batch: 5, Keys: 20, AlterAt: 40, Silent: true})
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	stop := r.start()
	r.wait("one")
	stop()
	db, err := readDB(filepath.Join(r.dir, "one"))
	require.NoError(t, err)
	require.True(t, db.Lost)
	require.NotContains(t, db.Fields["things"], "extra")

	r.inferring()
	r.sink("late", "atomic", frame.Proto, fakeConfig{})
	for range 2 { // the second time there is nothing to look at
		stop = r.start()
		r.wait("late")
		stop()
	}
	db, err = readDB(filepath.Join(r.dir, "late"))
	require.NoError(t, err)
	require.False(t, db.Lost)
	require.Contains(t, db.Fields["things"], "extra")
	require.Equal(t, 1, strings.Count(r.log.String(), "looked for fields in documents"))
}
