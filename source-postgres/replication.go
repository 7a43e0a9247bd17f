package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Stream implements cdc.Driver.
func (d *driver) Stream(ctx context.Context, from cdc.Position, tables []*cdc.Table) (cdc.Stream, error) {
	conn, socket, err := d.dialer.replication(ctx)
	if err != nil {
		return nil, err
	}
	s, err := d.stream(ctx, conn, socket, from, tables)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the first error counts
		return nil, err
	}
	return s, nil
}

func (d *driver) stream(ctx context.Context, conn *pgconn.PgConn, socket *endpoint.LowWater, from cdc.Position, tables []*cdc.Table) (*stream, error) {
	sys, err := identifySystem(ctx, conn)
	if err != nil {
		return nil, err
	}
	s := &stream{
		d: d, socket: socket, pid: conn.PID(), cursorAt: time.Now(), opened: time.Now(), describeAgain: describeAgain,
		tables: map[cdc.TableID]*streamed{}, relations: map[uint32]*streamed{}, latest: map[uint32][]byte{}, pieces: map[uint32]*inProgress{},
	}
	if d.server.standby {
		if sys, err = d.onStandby(ctx, conn, sys, from); err != nil {
			return nil, err
		}
	}
	d.quiet.begin()
	var origin *snapshot
	if err := d.checkFailover(); err != nil {
		return nil, err
	}
	was, err := decodeIdentity(from)
	if err != nil {
		return nil, err
	}
	if from.Cursor == "" {
		from, origin, err = d.begin(ctx, conn, sys, was, tables)
	} else {
		from, err = d.resume(ctx, conn, sys, was, from, tables)
	}
	if err != nil {
		return nil, err
	}
	id, err := decodeIdentity(from)
	if err != nil {
		return nil, err
	}
	if s.passed, err = parseLSN(string(from.Cursor)); err != nil {
		return nil, err
	}
	s.start, s.cursor = from, s.passed
	d.floor.raise(s.passed)
	if err := s.bind(ctx, tables, origin); err != nil {
		return nil, err
	}
	if err := s.run(ctx, conn, id); err != nil {
		return nil, err
	}
	return s, nil
}

// run has the server send the log, takes the connection over, and starts what runs beside the reader.
func (s *stream) run(ctx context.Context, conn *pgconn.PgConn, id identity) error {
	if err := s.prepareSpool(ctx, conn); err != nil {
		return err
	}
	if err := s.takeOver(ctx, conn); err != nil {
		if s.spool != nil {
			_ = s.spool.close() // the first error counts
		}
		return err
	}
	s.received.Store(uint64(s.passed))
	s.heard.Store(int64(time.Since(s.opened)))
	s.d.live.Store(s)
	s.feedback = startFeedback(s.conn, s.passed, s.d.cfg.askEvery())
	s.guard = s.d.newGuard(id, func() { _ = s.conn.Close() })
	return nil
}

func (s *stream) takeOver(ctx context.Context, conn *pgconn.PgConn) error {
	if err := s.d.startReplication(ctx, conn, s.passed, s.spool != nil); err != nil {
		return err
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return fmt.Errorf("taking over the replication connection: %w", err)
	}
	reader, ok := hijacked.CustomData[customReader].(io.Reader)
	if !ok {
		return errors.New("taking over the replication connection: its reader is unknown")
	}
	s.conn = takenConn{hijacked.Conn, reader}
	s.wire = newWire(s.conn, s.d.maxRow, s.large)
	return nil
}

// decodingMemory is how much of all transactions in progress the server holds before it sends pieces of the largest one. With
// little, others wait less for a piece to be decoded (docs/decisions/0011-giant-transactions.md).
const (
	decodingMemory        = "1MB"
	decodingMemorySetting = "logical_decoding_work_mem"
)

// prepareSpool makes the stream one that gets pieces of transactions in progress, if the server can send them, the user wants
// them, and there is a place to keep them.
func (s *stream) prepareSpool(ctx context.Context, conn *pgconn.PgConn) error {
	advanced := s.d.cfg.Advanced
	if s.d.server.major() < 14 || advanced.StreamTransactions == streamOff {
		return nil
	}
	spool, err := newSpool(s.d.tempDir)
	if err != nil {
		s.d.log.WithError(err).Warn("there is no folder for temporary files, so the server has to keep large transactions on its own disk until they commit; the environment variable TMPDIR may name one, and a container gets one by --tmpfs /tmp, or by a volume at /tmp")
		return nil
	}
	for name := range advanced.Options {
		if strings.EqualFold(name, decodingMemorySetting) {
			s.spool = spool
			return nil
		}
	}
	if _, err := conn.Exec(ctx, "SET "+decodingMemorySetting+" = '"+decodingMemory+"'").ReadAll(); err != nil {
		return errors.Join(fmt.Errorf("preparing the replication connection: %w", err), spool.close())
	}
	s.spool = spool
	return nil
}

func isKeyless(t *cdc.Table) bool { return len(t.Key) == 0 }

// begin makes publication and slot, for a capture without a position. If a log was lost, was is its identity.
func (d *driver) begin(ctx context.Context, conn *pgconn.PgConn, sys system, was identity, tables []*cdc.Table) (cdc.Position, *snapshot, error) {
	before, err := d.publish(ctx, tables)
	if err != nil {
		return cdc.Position{}, nil, err
	}
	if err := d.dropOld(ctx, sys, before, was); err != nil {
		return cdc.Position{}, nil, err
	}
	start, origin, err := d.createSlot(ctx, conn, slices.ContainsFunc(tables, isKeyless))
	if err != nil {
		return cdc.Position{}, nil, err
	}
	d.log.WithField("slot", d.slot).WithField("cursor", start.String()).Info("created replication slot")
	id, err := identity{
		System: sys.id, Timeline: sys.timeline, Database: d.cfg.Database, Slot: d.slot, Created: start.String(),
		Address: d.cfg.Address, Standby: d.server.standby,
	}.encode()
	return cdc.Position{Cursor: cdc.Cursor(start.String()), Identity: id}, origin, err
}

// startReplication has the server send the log from a position on, if wanted with pieces of large transactions that are still
// open. From here on the connection carries nothing else.
func (d *driver) startReplication(ctx context.Context, conn *pgconn.PgConn, from lsn, pieces bool) error {
	protocol := "proto_version '1'"
	if pieces {
		protocol = "proto_version '2', streaming 'on'"
	}
	sql := "START_REPLICATION SLOT " + quoteIdent(d.slot) + " LOGICAL " + from.String() +
		" (" + protocol + ", publication_names " + quoteLiteral(quoteIdent(d.publication)) + ")"
	err := d.retryInUse(ctx, func() error {
		conn.Frontend().SendQuery(&pgproto3.Query{String: sql})
		if err := conn.Frontend().Flush(); err != nil {
			return fmt.Errorf("starting replication: %w", err)
		}
		return untilCopying(ctx, conn)
	})
	switch {
	case err == nil:
		return nil
	case sqlState(err) == stateUndefinedObject, sqlState(err) == stateNotReady: // dropped or given up just now
		return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server cannot start replication from slot %q: %s.", d.slot, serverMessage(err))
	case sqlState(err) != "" && sqlState(err) != stateInUse:
		return usererr.New(err, "The server cannot start replication from slot %q: %s.", d.slot, serverMessage(err))
	}
	return err
}

// untilCopying waits for the answer to START_REPLICATION. After an error the connection can be used again.
func untilCopying(ctx context.Context, conn *pgconn.PgConn) error {
	var refused error
	for {
		m, err := conn.ReceiveMessage(ctx)
		if err != nil && sqlState(err) == "" {
			return fmt.Errorf("starting replication: %w", err)
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			refused = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if refused != nil {
				return fmt.Errorf("starting replication: %w", refused)
			}
		}
	}
}
