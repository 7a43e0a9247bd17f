package peer

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const items = `CREATE TABLE items (id int PRIMARY KEY, name text, n int);
	INSERT INTO items SELECT i, 'name ' || i, i FROM generate_series(1, 60) i`

// changes are what the table sees while it is captured: every kind of change, a key's change, and a transaction that takes itself back.
var changes = []string{
	`UPDATE items SET n = n + 100 WHERE id % 7 = 0`,
	`DELETE FROM items WHERE id % 10 = 3`,
	`INSERT INTO items SELECT i, 'late', i FROM generate_series(100, 110) i`,
	`UPDATE items SET id = 500 WHERE id = 50`,
	`DELETE FROM items WHERE id = 101`,
	`INSERT INTO items VALUES (101, 'again', 1)`,
	`UPDATE items SET name = 'ünïcode " \ ' || chr(10) WHERE id = 102`,
}

// A moment is a checkpoint of a capture: the state to resume from, and the rows that the documents up to it make.
type moment struct {
	state string
	rows  rows
}

type rows map[string]map[string]any

// apply reduces one document by its key.
func (r rows) apply(t *testing.T, body json.RawMessage) {
	t.Helper()
	var m struct {
		Doc map[string]any `json:"doc"`
	}
	require.NoError(t, json.Unmarshal(body, &m))
	meta, _ := m.Doc["_meta"].(map[string]any)
	require.Contains(t, []any{"c", "u", "d"}, meta["op"], "%s", body)
	id := fmt.Sprint(m.Doc["id"])
	if meta["op"] == "d" {
		delete(r, id)
		return
	}
	row := map[string]any{"name": m.Doc["name"], "n": m.Doc["n"]}
	require.Contains(t, m.Doc, "name")
	r[id] = row
}

// table is what the database holds now.
func table(t *testing.T, d db) rows {
	t.Helper()
	var out rows
	text := d.exec(t, `SELECT coalesce(json_object_agg(id, json_build_object('name', name, 'n', n)), '{}') FROM items`)
	require.NoError(t, json.Unmarshal([]byte(text), &out))
	return out
}

// follow reads documents and checkpoints until the rows at a checkpoint are the wanted ones. It gives all checkpoints.
func (k *talk) follow(from, want rows) []moment {
	k.t.Helper()
	have, moments := maps.Clone(from), []moment(nil)
	deadline := time.Now().Add(patience)
	for {
		l, ok := k.next()
		require.True(k.t, ok, "the peer ended")
		switch l.name {
		case "captured":
			have.apply(k.t, l.body)
		case "checkpoint":
			var c struct {
				Reduced json.RawMessage `json:"reduced"`
			}
			require.NoError(k.t, json.Unmarshal(l.body, &c))
			moments = append(moments, moment{state: string(c.Reduced), rows: maps.Clone(have)})
			if equal(have, want) {
				return moments
			}
		case "exit", "violation":
			require.Fail(k.t, "the capture ended", "%s", l.body)
		}
		if time.Now().After(deadline) {
			require.Equal(k.t, want, have)
		}
	}
}

func equal(a, b rows) bool {
	return maps.EqualFunc(a, b, func(x, y map[string]any) bool { return maps.Equal(x, y) })
}

// small makes many checkpoints of a small table.
var small = map[string]any{"advanced": map[string]any{"backfillChunkRows": 20, "backfillWorkers": 1}}

// TestCaptureResumesFromEveryCheckpoint takes one uninterrupted run that is never acknowledged, and begins anew from each of
// its checkpoints, in the other codec every second time: what was there up to the checkpoint and what comes then is the table.
func TestCaptureResumesFromEveryCheckpoint(t *testing.T) {
	t.Parallel()
	binary := connector(t, "source-postgres")
	for i, codec := range []string{"proto", "json"} {
		t.Run(codec, func(t *testing.T) {
			t.Parallel()
			d := newDB(t, items)
			args := []string{"capture", "--binary", binary, "--config", d.config(t, small), "--task", "peer/" + d.name, "--acks", "never"}
			k := start(t, append(args, "--codec", codec)...)
			spec := file(t, k.until("built"))
			require.JSONEq(t, `{"explicitAcknowledgements":true}`, string(k.until("opened")))
			moments := k.follow(rows{}, table(t, d))
			backfilled := len(moments)
			require.Greater(t, backfilled, 2, "a backfill in chunks has several checkpoints")
			flushed := d.exec(t, confirmed)
			for _, sql := range changes {
				d.exec(t, sql)
			}
			want := table(t, d)
			moments = append(moments, k.follow(moments[backfilled-1].rows, want)...)
			require.Greater(t, len(moments), backfilled)
			require.Equal(t, flushed, d.exec(t, confirmed), "nothing was acknowledged: the slot must not move")
			k.control("term")
			require.Equal(t, 0, k.end().Code, "SIGTERM is a clean end")

			for n, m := range moments {
				other := []string{"proto", "json"}[(i+n)%2]
				k := start(t, append(args, "--codec", other, "--spec", spec, "--state", m.state)...)
				marker := strconv.Itoa(1000 + n) // also the last checkpoints have something to come
				d.exec(t, "INSERT INTO items VALUES ("+marker+", 'marker', 1)")
				k.follow(m.rows, table(t, d))
				k.control("term")
				require.Equal(t, 0, k.end().Code)
			}
		})
	}
}

const confirmed = `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()`

// TestCaptureForms speaks to the source as other senders do.
func TestCaptureForms(t *testing.T) {
	t.Parallel()
	binary := connector(t, "source-postgres")
	for _, codec := range []string{"proto", "json"} {
		for _, form := range []string{"legacy", "indirect"} {
			t.Run(codec+"/"+form, func(t *testing.T) {
				t.Parallel()
				d := newDB(t, items)
				args := []string{
					"capture", "--binary", binary, "--config", d.config(t, small), "--task", "peer/" + d.name,
					"--codec", codec, "--form", form,
				}
				k := start(t, args...)
				spec := file(t, k.until("built"))
				k.follow(rows{}, table(t, d))
				position := d.exec(t, "INSERT INTO items VALUES (900, 'last', 1)", "SELECT pg_current_wal_lsn()")
				k.follow(table(t, d), table(t, d))
				require.Eventually(t, func() bool {
					d.exec(t, "INSERT INTO items VALUES (901, 'x', 1) ON CONFLICT (id) DO UPDATE SET n = items.n + 1")
					return d.exec(t, "SELECT confirmed_flush_lsn >= '"+position+"' FROM pg_replication_slots WHERE database = current_database()") == "t"
				}, patience, 100*time.Millisecond, "what is acknowledged must move the slot")
				k.control("term")
				require.Equal(t, 0, k.end().Code)

				// A new version of the task: the last one comes along in its wrapper, and the input ends after Open.
				k = start(t, append(args, "--last", spec, "--acks", "close")...)
				k.follow(rows{}, table(t, d))
				d.exec(t, "INSERT INTO items VALUES (902, 'after the input ended', 1)")
				k.follow(rows{}, rows{"902": {"name": "after the input ended", "n": 1.0}})
				k.control("term")
				require.Equal(t, 0, k.end().Code)
			})
		}
	}
}

// TestSpecAndDiscoverAreTheSameInBothCodecs compares what the two codecs carry.
func TestSpecAndDiscoverAreTheSameInBothCodecs(t *testing.T) {
	t.Parallel()
	source, sink := connector(t, "source-postgres"), connector(t, "materialize-postgres")
	d := newDB(t, items)
	same := func(name string, args ...string) json.RawMessage {
		proto := start(t, append(args, "--codec", "proto")...).until(name)
		require.JSONEq(t, string(proto), string(start(t, append(args, "--codec", "json")...).until(name)))
		return proto
	}
	same("spec", "spec", "--binary", source)
	same("spec", "spec", "--kind", "materialize", "--binary", sink)
	var found []struct {
		Key  []string `json:"key"`
		Path []string `json:"path"`
	}
	require.NoError(t, json.Unmarshal(same("discover", "discover", "--binary", source, "--config", d.config(t, nil)), &found))
	require.Len(t, found, 1)
	require.Equal(t, []string{"/id"}, found[0].Key)
	require.Equal(t, []string{"public", "items"}, found[0].Path)
}
