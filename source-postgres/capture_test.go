package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// captured is what a runtime makes of a capture: the committed state, and the documents of every table reduced by key.
type captured struct {
	t     testing.TB
	spec  *flowpb.CaptureSpec
	state json.RawMessage
	rows  map[string]map[string]map[string]json.RawMessage // table, key, row
	docs  int
	// schemas are those that were announced for each binding, where a test looks at them (untilAll).
	schemas map[int][]string

	ended     error // how the last session ended
	compared  time.Time
	connector func() capture.Connector
}

func connector() capture.Connector { return capture.New(cdc.New(spec(), connect)) }

// newCapture discovers all tables of a database.
func newCapture(t testing.TB, db *database, codec frame.Codec) *captured {
	t.Helper()
	s := session.Start(t, connector(), codec)
	spec := s.Task(db.cfg)
	s.CloseRequests()
	require.NoError(t, s.Wait())
	c := &captured{t: t, connector: connector, spec: spec, state: json.RawMessage(`{}`), rows: map[string]map[string]map[string]json.RawMessage{}, schemas: map[int][]string{}}
	for _, b := range spec.Bindings {
		c.rows[b.ResourcePath[1]] = map[string]map[string]json.RawMessage{}
	}
	return c
}

// commit applies a transaction: merges its documents by key, and the state.
func (c *captured) commit(tx *session.Transaction) {
	c.t.Helper()
	for _, doc := range tx.Documents {
		b := c.spec.Bindings[doc.Binding]
		var fields map[string]json.RawMessage
		require.NoError(c.t, json.Unmarshal(doc.Doc, &fields), "%s", doc.Doc)
		var meta struct{ Op string }
		require.NoError(c.t, json.Unmarshal(fields["_meta"], &meta))
		delete(fields, "_meta")
		key := ""
		for _, ptr := range b.Collection.Key {
			if strings.HasPrefix(ptr, "/_meta/") {
				key = string(doc.Doc) // the documents are a history
				break
			}
			value, ok := fields[strings.TrimPrefix(ptr, "/")]
			require.True(c.t, ok, "key %s is missing in %s", ptr, doc.Doc)
			key += string(value) + "|"
		}
		table := c.rows[b.ResourcePath[1]]
		if meta.Op == "d" {
			delete(table, key)
			continue
		}
		if table[key] == nil {
			table[key] = map[string]json.RawMessage{}
		}
		maps.Copy(table[key], fields)
		c.docs++
	}
	state, err := flowpb.MergePatch(c.state, tx.Patch)
	require.NoError(c.t, err)
	c.state = state
}

// run runs a session until stop, which is asked after every transaction and now and then (tx is nil then), says so, or
// the connector fails; what was not committed is forgotten.
func (c *captured) run(codec frame.Codec, stop func(tx *session.Transaction) bool) {
	c.t.Helper()
	s := session.Start(c.t, c.connector(), codec)
	s.Open(c.spec, c.state)
	transactions := make(chan *session.Transaction)
	var broken error // what kept transactions from coming
	go func() {
		defer close(transactions)
		for {
			tx, err := s.Transaction()
			if err != nil {
				broken = err
				return
			}
			transactions <- tx
		}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	cut := false
	for deadline := time.Now().Add(5 * time.Minute); ; {
		require.True(c.t, time.Now().Before(deadline), "the capture did not come to what is expected of it; it has this state: %s", c.state)
		select {
		case <-tick.C:
			if !stop(nil) {
				continue
			}
		case tx, ok := <-transactions:
			if ok {
				c.commit(tx)
				s.Ack(1)
				if !stop(tx) {
					continue
				}
			}
			cut = !ok
		}
		break
	}
	s.Cancel()
	for range transactions {
	}
	if c.ended = s.Wait(); c.ended == nil && cut {
		c.ended = broken
	}
}

// fails runs a session until the connector fails, and returns with what.
func (c *captured) fails(codec frame.Codec) error {
	c.t.Helper()
	s := session.Start(c.t, c.connector(), codec)
	s.Open(c.spec, c.state)
	for {
		tx, err := s.Transaction()
		if err != nil {
			return s.Wait()
		}
		c.commit(tx)
		s.Ack(1)
	}
}

// table is a table as the server has it, by key.
func (db *database) table(name string) map[string]map[string]json.RawMessage {
	db.t.Helper()
	text := db.exec("SELECT coalesce(json_object_agg(id || '|', row_to_json(t)), '{}') FROM " + name + " t")
	var out map[string]map[string]json.RawMessage
	require.NoError(db.t, json.Unmarshal([]byte(text), &out))
	return out
}

// equals reports whether the reduced documents are the table. To compare costs much, so it is not done after every
// transaction.
func (c *captured) equals(db *database, names ...string) bool {
	c.t.Helper()
	if time.Since(c.compared) < 100*time.Millisecond {
		return false
	}
	defer func() { c.compared = time.Now() }()
	for _, name := range names {
		if !c.equalsTable(db, name) {
			return false
		}
	}
	return true
}

func (c *captured) equalsTable(db *database, name string) bool {
	got, err := json.Marshal(c.rows[name])
	require.NoError(c.t, err)
	want, err := json.Marshal(db.table(name))
	require.NoError(c.t, err)
	return string(got) == string(want)
}

// A capture that is stopped and resumed again and again, from its last committed checkpoint, while a workload writes,
// ends with what the tables hold: in both codecs, with small chunks and several workers.
func TestCaptureWhileWriting(t *testing.T) {
	t.Parallel()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(fmt.Sprint(codec), func(t *testing.T) {
			db := newDatabase(t)
			db.cfg.Advanced.BackfillChunkRows, db.cfg.Advanced.BackfillWorkers = 200, 3
			db.exec("CREATE TABLE a (id int PRIMARY KEY, n int, big text)", "ALTER TABLE a ALTER big SET STORAGE EXTERNAL",
				"CREATE TABLE b (id int PRIMARY KEY, n int)",
				"INSERT INTO a SELECT g, 0, CASE WHEN g % 10 = 0 THEN repeat(g::text, 1000) END FROM generate_series(1, 5000) g",
				"INSERT INTO b SELECT g, 0 FROM generate_series(1, 20000) g")
			c := newCapture(t, db, codec)
			done := make(chan struct{})
			go func() {
				defer close(done)
				workload(t, db, 400)
			}()
			finished := false
			for seed := uint64(1); !finished; seed++ {
				rng := rand.New(rand.NewPCG(seed, 0))
				left := rng.IntN(30)
				c.run(codec, func(tx *session.Transaction) bool {
					if tx != nil {
						left--
					}
					return left < 0
				})
				select {
				case <-done:
					finished = true
				default:
				}
			}
			c.run(codec, func(*session.Transaction) bool { return c.equals(db, "a", "b") })
		})
	}
}

// workload changes the tables a and b in small transactions.
func workload(t testing.TB, db *database, transactions int) {
	conn := db.connect()
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range transactions {
		var sql []string
		for range 1 + rng.IntN(5) {
			table, id, other := []string{"a", "b"}[rng.IntN(2)], 1+rng.IntN(6000), 1+rng.IntN(6000)
			switch rng.IntN(6) {
			case 0:
				sql = append(sql, fmt.Sprintf("DELETE FROM %s WHERE id = %d", table, id))
			case 1:
				sql = append(sql, fmt.Sprintf("INSERT INTO %s (id, n) VALUES (%d, %d) ON CONFLICT DO NOTHING", table, id, i))
			case 2:
				sql = append(sql, fmt.Sprintf("UPDATE %s SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM %s WHERE id = %d)", table, other, id, table, other))
			case 3:
				sql = append(sql, fmt.Sprintf("UPDATE a SET big = repeat('%d', 2000) WHERE id = %d", i%10, id))
			default:
				sql = append(sql, fmt.Sprintf("UPDATE %s SET n = %d WHERE id BETWEEN %d AND %d", table, i, id, id+rng.IntN(20)))
			}
		}
		if _, err := conn.Exec(t.Context(), "BEGIN; "+strings.Join(sql, "; ")+"; COMMIT"); err != nil {
			t.Errorf("the workload failed: %v", err)
			return
		}
	}
}

// Hard case 65, through the whole connector: a commit that waits for a missing standby while its table is backfilled. The
// row's last document is the new one, once the commit has become visible, and after a crash in between as well.
func TestStalledCommitWhileBackfilling(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.cfg.Advanced.BackfillChunkRows = 100
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT g, 'old' FROM generate_series(1, 1000) g",
		"CREATE TABLE other (id int PRIMARY KEY)")
	c := newCapture(t, db, frame.Proto)
	c.spec.Bindings = slices.DeleteFunc(c.spec.Bindings, func(b *flowpb.CaptureSpec_Binding) bool { return b.ResourcePath[1] == "other" })
	c.run(frame.Proto, func(tx *session.Transaction) bool { return tx != nil }) // the slot exists, nothing is read yet
	update := stall(t, db, "UPDATE t SET a = 'new' WHERE id IN (1, 500)")

	// The update is delivered; whatever else is read and committed meanwhile must not have its old rows after it.
	started := time.Now()
	c.run(frame.Proto, func(*session.Transaction) bool {
		return string(c.rows["t"]["1|"]["a"]) == `"new"` && time.Since(started) > time.Second
	})
	require.Equal(t, `"new"`, string(c.rows["t"]["1|"]["a"]))
	started = time.Now()
	time.AfterFunc(2*time.Second, func() {
		db.pg.Exec(t, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
	})
	c.run(frame.Proto, func(*session.Transaction) bool {
		row := c.rows["t"]["500|"]
		require.True(t, row == nil || string(row["a"]) == `"new"`, "the old row came after the new one")
		return c.equals(db, "t")
	})
	require.NoError(t, <-update.done)
	require.True(t, c.equalsTable(db, "t"))
}

// A resource that came later is backfilled beside the stream; one that was removed and comes back is backfilled anew.
func TestTablesComeAndGo(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)", "INSERT INTO a VALUES (1)", "INSERT INTO b VALUES (1)")
	c := newCapture(t, db, frame.Proto)
	all := c.spec.Bindings
	c.spec.Bindings = all[:1]
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "a") })
	db.exec("INSERT INTO a VALUES (2)", "INSERT INTO b VALUES (2)")
	c.spec.Bindings = all
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "a", "b") })
	c.spec.Bindings = all[:1]
	db.exec("INSERT INTO b VALUES (3)", "DELETE FROM a")
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "a") })
	db.exec("DELETE FROM b WHERE id = 1")
	c.rows["b"] = map[string]map[string]json.RawMessage{} // a runtime begins a collection anew, or not: the rows are there
	c.spec.Bindings = all
	c.run(frame.Proto, func(*session.Transaction) bool { return c.equals(db, "b") })
}
