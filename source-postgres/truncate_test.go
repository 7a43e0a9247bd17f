package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Hard case 22: a truncation says where in the log it was, and when; deletes of the rows are in no log.
func TestTruncateEvent(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	db.exec("TRUNCATE t")
	for {
		ev, err := s.Next(t.Context(), patience)
		require.NoError(t, err)
		if ev.Op != cdc.Truncate {
			require.NotEqual(t, cdc.Commit, ev.Op, "before the truncation")
			continue
		}
		_, err = parseLSN(string(ev.Mark))
		require.NoError(t, err)
		require.NotEmpty(t, ev.Txn)
		require.WithinDuration(t, time.Now(), ev.CommitTime, time.Minute)
		return
	}
}

// What follows a truncation is the user's choice.
func TestTruncatePolicies(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"ignore", "backfill", "stop"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.cfg.Advanced.OnTruncate = policy
			db.exec("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
			c := newCapture(t, db, frame.JSON)
			c.run(frame.JSON, func(*session.Transaction) bool { return strings.Contains(string(c.state), `"live"`) })
			db.exec("BEGIN; TRUNCATE t; INSERT INTO t VALUES (2), (3); COMMIT")
			if policy == "stop" {
				require.Equal(t, "Table public.t was truncated. The rows it had are still in the collection. To go on, set onTruncate to ignore or backfill, "+
					"or backfill all tables of the capture into empty collections.", usererr.Message(c.fails(frame.JSON)))
				return
			}
			var again []string
			c.run(frame.JSON, func(tx *session.Transaction) bool {
				if tx != nil {
					for _, doc := range tx.Documents {
						if strings.Contains(string(doc.Doc), `"snapshot":true`) {
							again = append(again, strings.SplitN(string(doc.Doc), ",", 2)[0])
						}
					}
				}
				if policy == "backfill" && len(again) < 2 {
					return false
				}
				return len(c.rows["t"]) == 3 && strings.Contains(string(c.state), `"live"`)
			})
			slices.Sort(again)
			if policy == "backfill" {
				require.Equal(t, []string{`{"id":2`, `{"id":3`}, again)
			} else {
				require.Empty(t, again)
			}
			require.Contains(t, c.rows["t"], "1|", "there is no delete for a row that was truncated")
		})
	}
}
