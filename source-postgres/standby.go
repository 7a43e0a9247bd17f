package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A standby as the source. Nothing can be written on it, so what has to be written is written on the primary, by somebody
// else: the publication, and the record of running transactions that the creation of a slot waits for. What it shows is what
// it has replayed, in the order of the log (see replayed, and place.go for fences).
//
// A standby may be promoted at any moment, also while we read from it: then stream and sessions go on, and it is a primary.
// So every query asks anew. That a server was a standby when we connected only says that the question must be asked.

// standbyVersion is the first that can decode its log on a standby.
const standbyVersion = 16

// recovering reports whether the server is a standby now.
func (d *driver) recovering(ctx context.Context, conn *pgx.Conn) (bool, error) {
	if !d.server.standby {
		return false, nil
	}
	var still bool
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&still); err != nil {
		return false, fmt.Errorf("asking whether the server is a standby: %w", err)
	}
	return still, nil
}

// floor is what a standby had surely replayed. A standby that crashed begins again where it last wrote its state, so for a
// while it may show less than was captured already; a chunk from then would be taken for newer than what it is.
type floor struct{ at atomic.Uint64 }

var errWentBack = errors.New("the standby shows less than before: it was restarted and replays its log again")

func (f *floor) get() lsn { return lsn(f.at.Load()) }

func (f *floor) raise(to lsn) {
	for old := f.at.Load(); uint64(to) > old && !f.at.CompareAndSwap(old, uint64(to)); {
		old = f.at.Load()
	}
}

const (
	standbyPoll = 100 * time.Millisecond
	standbyLog  = 30 * time.Second
)

// onStandby prepares for a stream from a standby: it warns of what endangers its slot, and waits until the standby has replayed
// the position to resume from. Then it describes the server again.
func (d *driver) onStandby(ctx context.Context, conn *pgconn.PgConn, sys system, from cdc.Position) (system, error) {
	if err := d.adviseStandby(ctx); err != nil || from.Cursor == "" {
		return sys, err
	}
	id, err := decodeIdentity(from)
	if err != nil || id.System != sys.id {
		return sys, err // another server, which resume says
	}
	cursor, err := parseLSN(string(from.Cursor))
	if err != nil {
		return sys, err
	}
	err = d.waitStandby(ctx, func(conn *pgx.Conn) (string, error) {
		var behind bool
		var at string
		err := conn.QueryRow(ctx, `SELECT pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_last_wal_replay_lsn() < $1::pg_catalog.pg_lsn,
			coalesce(pg_catalog.pg_last_wal_replay_lsn()::text, '')`, cursor.String()).Scan(&behind, &at)
		if err != nil || !behind {
			return "", err
		}
		return fmt.Sprintf("waiting for the standby to replay its log up to %s, where the capture goes on; it is at %s", cursor, at), nil
	})
	if err != nil {
		return system{}, fmt.Errorf("waiting for the standby: %w", err)
	}
	return identifySystem(ctx, conn)
}

// waitStandby asks until the answer is empty. What it waits for gets into the log.
func (d *driver) waitStandby(ctx context.Context, ask func(*pgx.Conn) (string, error)) error {
	for waited := time.Duration(0); ; waited += standbyPoll {
		var what string
		err := d.conns.with(ctx, func(conn *pgx.Conn) (err error) {
			what, err = ask(conn)
			return err
		})
		if err != nil || what == "" {
			return err
		}
		if waited%standbyLog == standbyPoll {
			d.log.WithField("slot", d.slot).Warn(what)
		}
		if err := capture.Sleep(ctx, standbyPoll); err != nil {
			return err
		}
	}
}

// queryNext gives the next transaction identifier, of 32 bits, without taking one: its distance from the first normal one.
const queryNext = "SELECT pg_catalog.age('3'::pg_catalog.xid), pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_last_wal_replay_lsn()::text"

// nextTransaction is a limit of all transactions that have begun, as far as the standby knows, and the snapshot.
func (d *driver) nextTransaction(ctx context.Context, conn *pgx.Conn) (next uint64, s *snapshot, err error) {
	var age int32
	var text, at string
	if err := conn.QueryRow(ctx, queryNext).Scan(&age, &text, &at); err != nil {
		return 0, nil, fmt.Errorf("reading the snapshot: %w", err)
	}
	if replayed, err := parseLSN(at); err != nil || replayed < d.floor.get() {
		return 0, nil, fmt.Errorf("reading the snapshot: %w: %w", errWentBack, errors.Join(cdc.ErrInterrupted, err))
	}
	if s, err = parseSnapshot(text); err != nil {
		return 0, nil, err
	}
	d.observe(s.xmax)
	return fullXID(s.xmax, uint32(age)+3), s, nil //nolint:gosec // the bits are meant
}

// standbyUnseen is what every chunk of a table must see: all that is in progress on the primary, since it cannot be told who
// writes to the table.
func (d *driver) standbyUnseen(ctx context.Context, conn *pgx.Conn) ([]cdc.TxnID, error) {
	next, _, err := d.nextTransaction(ctx, conn)
	return []cdc.TxnID{transaction{xid: next, below: true}.id()}, err
}

// checkStandby is about what only an administrator can change.
func (d *driver) checkStandby() error {
	switch {
	case d.server.major() < standbyVersion:
		return usererr.New(nil, "The server at %s is a standby of Postgres %d. A standby can be captured from with version %d or newer; connect to the primary.", d.cfg.Address, d.server.major(), standbyVersion)
	case d.server.forgetsPublications():
		return usererr.New(nil, "The server at %s is a standby of Postgres %d.%d, which may leave out tables that are published later. Update it to the latest %d, or connect to the primary.",
			d.cfg.Address, d.server.major(), d.server.version%10000, d.server.major())
	}
	return nil
}

// adviseStandby says in the log what endangers a slot on a standby.
func (d *driver) adviseStandby(ctx context.Context) error {
	return d.conns.with(ctx, func(conn *pgx.Conn) error {
		var feedback bool
		var slot string
		err := conn.QueryRow(ctx, "SELECT current_setting('hot_standby_feedback')::bool, current_setting('primary_slot_name')").Scan(&feedback, &slot)
		if err != nil {
			return fmt.Errorf("reading the standby's settings: %w", err)
		}
		if !feedback || slot == "" {
			d.log.WithField("slot", d.slot).Warn("the standby may lose the replication slot when the primary removes old rows of its catalog: set hot_standby_feedback = on and primary_slot_name on the standby")
		}
		return nil
	})
}

// publishedElsewhere tells what has to be run on the primary.
func (d *driver) publishedElsewhere(p *publication, missing []cdc.TableID, lists map[cdc.TableID][]string) error {
	if !p.exists {
		return usererr.New(nil, "There is no publication %q, and a standby cannot make one. Have an administrator run on the primary:\n%s;", d.publication, d.createSQL(missing, lists))
	}
	return usererr.New(nil, "The publication %q lacks tables, and a standby cannot add them. Have an administrator run on the primary:\n%s;", d.publication, d.addSQL(missing, lists))
}
