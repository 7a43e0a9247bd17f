package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// snapshot says which transactions had ended when it was taken. Identifiers have 64 bits, so none repeats.
// It implements cdc.Visibility and is immutable.
type snapshot struct {
	xmin, xmax uint64   // everything below xmin had ended, nothing from xmax on had
	running    []uint64 // between them, ascending
}

// parseSnapshot reads the server's notation, "10:20:10,14,15".
func parseSnapshot(text string) (*snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("parsing snapshot %q: it is not of the form xmin:xmax:list", text)
	}
	s := &snapshot{}
	var err1, err2 error
	s.xmin, err1 = strconv.ParseUint(parts[0], 10, 64)
	s.xmax, err2 = strconv.ParseUint(parts[1], 10, 64)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("parsing snapshot %q: its limits are not numbers", text)
	}
	for item := range strings.SplitSeq(parts[2], ",") {
		if item == "" {
			continue
		}
		xid, err := strconv.ParseUint(item, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("parsing snapshot %q: %w", text, err)
		}
		s.running = append(s.running, xid)
	}
	slices.Sort(s.running)
	return s, nil
}

// String is the notation that parseSnapshot reads.
func (s *snapshot) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:%d:", s.xmin, s.xmax)
	for i, xid := range s.running {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(xid, 10))
	}
	return b.String()
}

func (s *snapshot) sees(xid uint64) bool {
	if xid < s.xmin {
		return true
	}
	if xid >= s.xmax {
		return false
	}
	_, running := slices.BinarySearch(s.running, xid)
	return !running
}

// fullXID extends the 32 bits that logs and rows have of a transaction's identifier to 64: of all identifiers with these
// bits, the nearest to one that is known. The server keeps all that are in use within two thousand million of each other.
func fullXID(near uint64, xid uint32) uint64 {
	return near + uint64(int64(int32(xid-uint32(near)))) //nolint:gosec // the wrap-around is meant
}

// snapshotFunction is what gives the snapshot of the present transaction.
func (d *driver) snapshotFunction() string {
	if d.server.major() >= 13 {
		return "pg_catalog.pg_current_snapshot()::text"
	}
	return "pg_catalog.txid_current_snapshot()::text"
}

// takeSnapshot asks for a snapshot.
func (d *driver) takeSnapshot(ctx context.Context, conn *pgx.Conn) (*snapshot, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT "+d.snapshotFunction()).Scan(&text); err != nil {
		return nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	s, err := parseSnapshot(text)
	if err == nil {
		d.observe(s.xmax)
	}
	return s, err
}

// Transactions that hold a lock for writing on one of the tables. A transaction keeps its locks until it has become
// visible, and holds one on its own identifier, so a commit that is stalled behind its flush is among them.
const queryWriters = `
	SELECT DISTINCT x.transactionid::text::bigint
	FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks x ON x.virtualtransaction = l.virtualtransaction
	WHERE l.locktype = 'relation' AND l.relation = ANY($1::oid[]) AND l.granted
		AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
		AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
		AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' AND x.granted`

// writers are the transactions that the snapshot does not see, and that have written to one of the tables.
//
// The snapshot must have been taken before this is called: a transaction that ends between the two is missing here, but
// then every later snapshot sees it.
func (d *driver) writers(ctx context.Context, conn *pgx.Conn, s *snapshot, oids []uint32) ([]uint64, error) {
	rows, err := conn.Query(ctx, queryWriters, oids)
	if err != nil {
		return nil, fmt.Errorf("reading the locks of writers: %w", err)
	}
	short, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("reading the locks of writers: %w", err)
	}
	var out []uint64
	for _, x := range short {
		if xid := fullXID(s.xmax, uint32(x)); !s.sees(xid) { //nolint:gosec // identifiers have 32 bits here
			out = append(out, xid)
		}
	}
	return out, nil
}
