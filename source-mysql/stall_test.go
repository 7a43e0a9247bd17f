package main

import (
	"context"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	testsession "github.com/sluicedata/sluice/sdk/testkit/session"
)

// staller has commits wait, after they were written to the log, for a replica that is not there: they are sent to replicas,
// and no snapshot sees them (hard case 65).
type staller struct {
	db  *database
	set string // the setting that has them wait
}

func newStaller(db *database) staller {
	db.t.Helper()
	s := staller{db: db, set: "rpl_semi_sync_source_enabled"}
	settings := []string{"rpl_semi_sync_source_wait_no_replica = ON", "rpl_semi_sync_source_wait_point = AFTER_SYNC", "rpl_semi_sync_source_timeout = 3600000"}
	if db.server.Flavor() == mysqld.MariaDB {
		s.set = "rpl_semi_sync_master_enabled"
		settings = []string{"rpl_semi_sync_master_wait_no_slave = ON", "rpl_semi_sync_master_wait_point = AFTER_SYNC", "rpl_semi_sync_master_timeout = 3600000"}
	} else {
		db.exec("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
	}
	for _, setting := range settings {
		db.exec("SET GLOBAL " + setting)
	}
	return s
}

// begin has commits wait from now on, and returns how to let them go on.
func (s staller) begin() (release func()) {
	s.db.t.Helper()
	conn := s.db.session("") // a session that is open already needs no commit
	require.NoError(s.db.t, conn.exec(s.db.t.Context(), "SET GLOBAL "+s.set+" = ON"))
	return func() {
		require.NoError(s.db.t, conn.exec(context.WithoutCancel(s.db.t.Context()), "SET GLOBAL "+s.set+" = OFF"))
		require.NoError(s.db.t, conn.close())
	}
}

// stall has commits wait for a while. It returns when they go on.
func (s staller) stall(d time.Duration) {
	s.db.t.Helper()
	defer s.begin()()
	<-time.After(d)
}

// A transaction that is in the log, and emitted, but not visible: no chunk may bring the old row behind it (hard case 65).
func TestStalledCommit(t *testing.T) {
	t.Parallel()
	positions(t, func(t *testing.T, flavor string, byFile bool) {
		db := positionDatabase(t, flavor, byFile)
		db.exec("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
			"CREATE TABLE first (id INT PRIMARY KEY)", "INSERT INTO first VALUES (1)")
		stalls := newStaller(db)
		cfg := db.cfg
		cfg.Advanced.BackfillWorkers = 1
		d := db.driver()
		tables := db.tables(d, "a")
		s := db.open(d, tables...)
		writer := db.session(db.name)
		release := stalls.begin()
		done := make(chan error, 1)
		go func() { done <- writer.exec(t.Context(), "UPDATE a SET v = v + 10 WHERE id = 2") }()
		var txn cdc.TxnID
		for deadline := time.Now().Add(patience); txn == ""; {
			require.True(t, time.Now().Before(deadline), "the stalled transaction is not sent")
			ev, err := s.Next(t.Context(), 50*time.Millisecond)
			require.NoError(t, err)
			if ev.Op == cdc.Update {
				require.Equal(t, `u a {"id":2,"v":12} before {"id":2,"v":2}`, s.text(ev))
				txn = ev.Txn
			}
		}
		rows, seen := db.scanOnce(d, tables[0])
		require.Contains(t, rows, `{"id":2,"v":2}`, "the snapshot does not see what was emitted")
		require.False(t, seen.Sees(txn), "and says so")
		require.Regexp(t, `^1 commits that a semi-synchronous replica has to acknowledge: the longest is process \d+ of user admin, since \d+ seconds$`, d.Explain(t.Context(), txn))
		s.fence()
		plan, err := d.Plan(t.Context(), tables[0])
		require.NoError(t, err)
		require.NotEmpty(t, plan.Unseen)
		require.True(t, unseenBy(plan, seen), "a plan that is made now demands chunks that see it")

		// The same with the whole connector, which is started while the commit is stalled.
		c := testsession.Start(t, suiteDatabase{db}.Connector(), frame.Proto)
		c.Open(c.Task(cfg), nil)
		last := map[string]int{} // of each table and key
		emitted := func(key string) {
			for _, known := last[key]; !known; _, known = last[key] {
				tx, err := c.Transaction()
				require.NoError(t, err)
				for _, d := range tx.Documents {
					var doc struct {
						ID, V int
						Meta  struct{ Source struct{ Table string } } `json:"_meta"`
					}
					require.NoError(t, json.Unmarshal(d.Doc, &doc))
					last[doc.Meta.Source.Table+strconv.Itoa(doc.ID)] = doc.V
				}
				c.Ack(1)
			}
		}
		if byFile && flavor == mysqld.MySQL {
			// It begins behind the stalled transaction, so it has to wait for it.
			timer := time.AfterFunc(time.Second, release)
			defer timer.Stop()
			emitted("a2")
		} else {
			emitted("a2")
			require.Equal(t, 12, last["a2"], "only the log may bring it")
			release()
		}
		require.NoError(t, <-done)
		emitted("first1")
		emitted("a1")
		require.Equal(t, map[string]int{"a1": 1, "a2": 12, "a3": 3, "first1": 0}, last)
		require.NoError(t, c.Stop())
		rows, seen = db.scanOnce(d, tables[0])
		require.Contains(t, rows, `{"id":2,"v":12}`)
		require.True(t, seen.Sees(txn))
		require.False(t, unseenBy(plan, seen))
	})
}

// unseenBy reports whether a snapshot does not see all that the plan demands.
func unseenBy(p *cdc.Plan, v cdc.Visibility) bool {
	for _, txn := range p.Unseen {
		if !v.Sees(txn) {
			return true
		}
	}
	return false
}

// scanOnce reads a small table with one snapshot.
func (db *database) scanOnce(d *driver, t *cdc.Table) (rows []string, seen cdc.Visibility) {
	db.t.Helper()
	plan, err := d.Plan(db.t.Context(), t)
	require.NoError(db.t, err)
	require.Len(db.t, plan.Ranges, 1)
	scanned, err := d.Scan(db.t.Context(), cdc.Chunk{Table: t, Range: plan.Ranges[0], MaxRows: 1000, MaxBytes: 1 << 20}, func(row cdc.Row) error {
		rows = append(rows, cdctest.Fields(db.t, row))
		return nil
	})
	require.NoError(db.t, err)
	return rows, scanned.Snapshot
}
