package main

import (
	"fmt"
	"sync"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A chunk is emitted once the stream has passed a place in the log behind the commits of all that its snapshot sees. The place
// is asked for in the query that takes the snapshot, so just after that.
//
// On a primary it is the insert position: a commit is in the log before anybody sees it, though perhaps not yet flushed.
//
// A standby sees a commit a little before it says that it has replayed it: files of dropped tables are removed in between,
// which may take long. What may be seen, and is not before the replayed position, is one record at most, the one that begins
// there. So the stream must have passed that position; unless the record cannot exist, because the standby streams (whatever
// it replays was received before) and had received no more. In that order: that it is receiving is asked before how much, and
// both before the replayed position, so that a record which came from an archive has been replayed if it now receives.
const (
	placeOfPrimary = ", pg_catalog.pg_current_wal_insert_lsn()::text"
	placeOfStandby = `, (SELECT pid FROM pg_catalog.pg_stat_get_wal_receiver()) IS NOT NULL, pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.pg_current_wal_insert_lsn()::text END`
	// What was replayed before the snapshot has to be asked before it, in a transaction of its own.
	replayedBefore = "BEGIN READ ONLY; SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(); COMMIT; "
)

// place reads the columns of the above. A standby may have been promoted a moment ago, and is then a primary.
func (d *driver) place(columns [][]byte) (cdc.Mark, error) {
	last := string(columns[len(columns)-1])
	if last != "" {
		at, err := parseLSN(last)
		return d.mark(at), err
	}
	at, err := parseLSN(string(columns[2]))
	if err != nil {
		return "", fmt.Errorf("reading the replayed position: %w", err)
	}
	received, err := parseLSN(string(columns[1]))
	if quiet := string(columns[0]) == "t" && err == nil && received <= at; !quiet {
		at++
	}
	return cdc.Mark(at.String()), nil
}

// mark is a log position that a fence can be satisfied at. A primary gives the position of the next byte to be inserted,
// which at the start of a page lies behind the page's header, of 24 bytes or, at the start of a segment, 40. A reader of
// the log that has read all there is stands before the header and stays there until something is inserted.
func (d *driver) mark(insert lsn) cdc.Mark {
	const longHeader, header = 40, 24
	switch {
	case uint64(insert)%d.server.segment == longHeader:
		insert -= longHeader
	case uint64(insert)%d.server.walPage == header && uint64(insert)%d.server.segment != header:
		insert -= header
	}
	return cdc.Mark(insert.String())
}

// quietPlace remembers the last snapshot of a primary and the place that was asked for with it. A later snapshot that is the
// same sees the same transactions, so that place does for it too, and the stream has mostly passed it: while nobody commits,
// no chunk waits for log that belongs to no commit and may stay unflushed.
type quietPlace struct {
	mu       sync.Mutex
	epoch    int
	snapshot string
	place    cdc.Mark
}

// begin forgets everything: the server may have crashed since, and have lost what it had not flushed.
func (q *quietPlace) begin() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.epoch++
	q.snapshot = ""
}

func (q *quietPlace) now() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epoch
}

// of is the place for a snapshot that was taken in an epoch, with the place that was asked for with it.
func (q *quietPlace) of(epoch int, snapshot string, place cdc.Mark) cdc.Mark {
	q.mu.Lock()
	defer q.mu.Unlock()
	if epoch != q.epoch {
		return place
	}
	if q.snapshot != snapshot {
		q.snapshot, q.place = snapshot, place
	}
	return q.place
}
