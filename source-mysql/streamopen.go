package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// Stream implements cdc.Driver.
func (d *driver) Stream(ctx context.Context, from cdc.Position, tables []*cdc.Table) (cdc.Stream, error) {
	st := &stream{d: d, tables: map[cdc.TableID]*streamed{}, mapped: map[uint64]*mapping{}, opened: time.Now(), cursorAt: time.Now()}
	for _, t := range tables {
		known, err := parseLayout(t.Layout)
		if err != nil {
			return nil, err
		}
		one := &streamed{id: t.ID, table: t, layout: known, owed: t.Layout == layoutOwed}
		if st.tables[t.ID] = one; one.owed {
			st.owed++
		}
	}
	if err := d.conns.with(ctx, func(s *session) error { return d.locate(ctx, s, st, from) }); err != nil {
		return nil, err
	}
	st.start = cdc.Position{Cursor: cdc.Cursor(st.done.append(nil, st.done.last)), Identity: d.server.identity.encode()}
	s, err := d.dialer.open(ctx)
	if err != nil {
		return nil, err
	}
	st.s = s
	if err := d.dump(ctx, st); err != nil {
		s.broken = true
		return nil, errors.Join(err, s.close())
	}
	st.heard.Store(int64(time.Since(st.opened)))
	d.live.Store(st)
	return st, nil
}

// locate finds out where the stream begins, and that the server has what follows.
func (d *driver) locate(ctx context.Context, s *session, st *stream, from cdc.Position) error {
	if d.server.mariadb {
		return d.locateMariaDB(ctx, s, st, from)
	}
	vars, err := s.variables(ctx, "gtid_executed", "gtid_purged", "gtid_mode")
	if err != nil {
		return err
	}
	if vars["gtid_mode"] != "ON" {
		return errGTIDMode(vars["gtid_mode"])
	}
	executed, err := parseGTIDSet(vars["gtid_executed"])
	if err != nil {
		return err
	}
	if from.Cursor == "" {
		st.done.set = executed
		return nil
	}
	purged, err := parseGTIDSet(vars["gtid_purged"])
	if err != nil {
		return err
	}
	if st.done.position, st.done.last, err = parseCursor(from.Cursor, false); err != nil {
		return err
	}
	set := st.done.set
	ahead := set.Minus(executed)
	switch missing := purged.Minus(set); {
	case !set.Empty() && !set.Meets(executed):
		return usererr.New(nil, "The server at %s is not the one that was captured, nor a replica of it: it knows none of the transactions that were (%s). "+
			"Enter the right address; or, if it is to be captured from now on, backfill all tables.", d.cfg.Address, short(set))
	case !ahead.Empty():
		return usererr.New(nil, "The server at %s lacks transactions that were captured already (%s). If it is a replica that lags behind, wait until it has them; "+
			"if it was restored from a backup, backfill all tables.", d.cfg.Address, short(ahead))
	case !missing.Empty():
		return usererr.New(cdc.ErrPositionLost, "The server at %s has thrown away a part of its binary log that was not captured yet: the transactions %s. "+
			"Have an administrator raise binlog_expire_logs_seconds, so that the log outlives any pause of the capture.", d.cfg.Address, short(missing))
	}
	return nil
}

func errGTIDMode(mode string) error {
	return usererr.New(nil, "The server gives its transactions no global identifiers: gtid_mode is %q. They are needed to tell what a backfill sees. Have an administrator run, one after the other and on every server of the group: "+
		"SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON; and put gtid_mode and enforce_gtid_consistency into the server's configuration.", mode)
}

// short is a set for people, not too long.
func short(set fmt.Stringer) string {
	const most = 300
	if text := set.String(); len(text) <= most {
		return text
	}
	return set.String()[:most] + "…"
}

// The server's error for a place in the log that it does not have.
const errNoPlaceMaria = 1236

func (d *driver) locateMariaDB(ctx context.Context, s *session, st *stream, from cdc.Position) error {
	// Begins where a snapshot sees all that came before, so that nothing that the stream leaves out is hidden from a backfill.
	visible, err := d.mariaSnapshot(ctx, s)
	if err != nil {
		return err
	}
	if err := s.exec(ctx, "COMMIT"); err != nil {
		return err
	}
	here, ok := visible.(*upTo)
	if !ok {
		return errNoSnapshot
	}
	if from.Cursor == "" {
		st.floor = here.place
		st.done.domain, err = gtidAt(ctx, s, here.place)
		return err
	}
	if st.done.position, st.done.last, err = parseCursor(from.Cursor, true); err != nil {
		return err
	}
	if err := d.stillThere(ctx, s, st.done.domain); err != nil {
		return err
	}
	var stored identity
	if err := json.Unmarshal(from.Identity, &stored); err != nil || stored == d.server.identity {
		st.floor = here.place
		return nil //nolint:nilerr // without an identity, the transactions decide
	}
	d.log.WithField("server", d.server.identity.Server).Info("the log goes on at another server")
	seen, err := gtidAt(ctx, s, here.place)
	if err != nil {
		return err
	}
	if behind := seen.Behind(st.done.domain); len(behind) > 0 {
		return usererr.New(nil, "The server at %s has not applied all transactions that were captured already (%s). If it is a replica that lags behind, wait until it has them; "+
			"if it was restored from a backup, backfill all tables.", d.cfg.Address, behind)
	}
	st.floor = here.place
	st.done.last = cdc.TxnID(stored.Server + " " + here.place.String())
	return nil
}

// gtidAt is MariaDB's position at a place in its log.
func gtidAt(ctx context.Context, s *session, at place) (gtid.Position, error) {
	row, err := s.row(ctx, "SELECT BINLOG_GTID_POS("+quoteText(at.file)+", "+strconv.FormatUint(at.at, 10)+")")
	if err != nil || len(row) == 0 {
		return nil, fmt.Errorf("asking for the GTID position at %s: %w", at, err)
	}
	return gtid.ParsePosition(row[0])
}

// stillThere checks that the server has the log from a position on.
func (d *driver) stillThere(ctx context.Context, s *session, from gtid.Position) error {
	row, err := s.row(ctx, "SELECT @@GLOBAL.gtid_binlog_state")
	if err != nil || len(row) == 0 {
		return fmt.Errorf("asking for the GTID position: %w", err)
	}
	state, err := gtid.ParseState(row[0])
	if err != nil {
		return err //nolint:wrapcheck // it says what it is
	}
	switch unknown, ahead := state.Compare(from); {
	case len(unknown) > 0:
		return usererr.New(nil, "The server at %s is not the one that was captured, nor a replica of it: its log (%s) has no transactions of the servers that were (%s). "+
			"Enter the right address; or, if it is to be captured from now on, backfill all tables.", d.cfg.Address, row[0], from)
	case len(ahead) > 0:
		return usererr.New(nil, "The server at %s lacks transactions that were captured already (%s; its log has %s). If it is a replica that lags behind, wait until it has them; "+
			"if it was restored from a backup, backfill all tables.", d.cfg.Address, ahead, row[0])
	}
	files, err := s.texts(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return d.statusAdvice(err)
	}
	if len(files) == 0 {
		return errNoLog
	}
	oldest, err := gtidAt(ctx, s, place{files[0][0], 4})
	if err != nil {
		return err
	}
	if gone := from.Behind(oldest); len(gone) > 0 {
		return usererr.New(cdc.ErrPositionLost, "The server at %s has thrown away a part of its binary log that was not captured yet: the transactions up to %s; the last captured is %s. "+
			"Have an administrator raise expire_logs_days, so that the log outlives any pause of the capture.", d.cfg.Address, gone, from)
	}
	return nil
}

// dump asks for the log. Every attempt has a server number and a UUID of its own: the server ends a connection for another one
// with the same (hard case 48).
func (d *driver) dump(ctx context.Context, st *stream) error {
	s := st.s
	row, err := s.row(ctx, "SELECT @@GLOBAL.binlog_checksum")
	if err != nil || len(row) == 0 {
		return fmt.Errorf("preparing the replication connection: %w", err)
	}
	st.checksums = row[0] != "NONE" // of the events before the log's own description, too
	period := strconv.FormatInt(heartbeatEvery.Nanoseconds(), 10)
	settings := []string{
		"SET @master_binlog_checksum = " + quoteText(row[0]) + ", @source_binlog_checksum = " + quoteText(row[0]),
		"SET @master_heartbeat_period = " + period + ", @source_heartbeat_period = " + period,
	}
	id := uuid.NewString()
	if d.server.mariadb {
		settings = append(settings, "SET @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0",
			"SET @slave_connect_state = "+quoteText(st.done.domain.String()))
	} else {
		settings = append(settings, "SET @slave_uuid = '"+id+"', @replica_uuid = '"+id+"'")
	}
	for _, sql := range append(settings, "SET SESSION net_write_timeout = 600, wait_timeout = 28800") {
		if err := s.exec(ctx, sql); err != nil {
			return fmt.Errorf("preparing the replication connection: %w", err)
		}
	}
	number := 1<<31 | rand.Uint32()
	command := byte(comBinlogDump)
	var body []byte
	le := binary.LittleEndian
	if d.server.mariadb {
		body = le.AppendUint32(nil, 4)
		body = le.AppendUint16(body, 0)
		body = le.AppendUint32(body, number)
	} else {
		const throughGTID = 4
		set := st.done.set.Encode()
		command = comBinlogDumpGTID
		body = le.AppendUint16(nil, throughGTID)
		body = le.AppendUint32(body, number)
		body = le.AppendUint32(body, 0) // no file's name
		body = le.AppendUint64(body, 4)
		body = le.AppendUint32(body, uint32(len(set))) //nolint:gosec // the server printed it
		body = append(body, set...)
	}
	s.wire.limit = maxEvent
	if err := s.wire.send(command, body); err != nil {
		return err
	}
	return nil
}

// maxEvent bounds an event: a transaction that was compressed as a whole is one.
const maxEvent = 1 << 30

// explain says in words for people why the log ended.
func (s *stream) explain(err error) error {
	e, ok := errors.AsType[*serverError](err)
	if !ok {
		return err
	}
	d := s.d
	switch {
	case e.code == errNoRight || e.code == errAccessDenied:
		return usererr.New(err, "User %q may not read the server's binary log. Have an administrator run: GRANT REPLICATION SLAVE ON *.* TO %s;", d.cfg.User, d.grantee())
	case e.code == errNoPlaceMaria && (strings.Contains(e.message, "purged") || strings.Contains(e.message, "Could not find GTID state")):
		return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server at %s has thrown away a part of its binary log that was not captured yet: %s", d.cfg.Address, e.message)
	case e.code == errNoPlaceMaria && strings.Contains(e.message, "max_allowed_packet"):
		return usererr.New(err, "The server at %s cannot send an event of its binary log, because that is larger than its max_allowed_packet. Have an administrator raise it: SET GLOBAL max_allowed_packet = 1073741824;", d.cfg.Address)
	}
	return usererr.New(err, "The server at %s ended the replication stream: %s.", d.cfg.Address, strings.TrimSuffix(e.message, "."))
}
