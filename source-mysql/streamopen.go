package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Stream implements cdc.Driver.
func (d *driver) Stream(ctx context.Context, from cdc.Position, tables []*cdc.Table) (cdc.Stream, error) {
	st := &stream{d: d, tables: map[cdc.TableID]*streamed{}, mapped: map[uint64]*mapping{}, opened: time.Now(), cursorAt: time.Now(), holds: heldBytes}
	for _, t := range tables {
		known, err := parseLayout(t.Layout)
		if err != nil {
			return nil, err
		}
		one := &streamed{id: t.ID, table: t, layout: known, derived: parseDerived(t.Layout), owed: t.Layout == layoutOwed}
		if st.tables[t.ID] = one; one.owed {
			st.owed++
		}
	}
	err := d.conns.with(ctx, func(s *session) error { return d.unlogged(ctx, s, slices.Collect(maps.Keys(st.tables))) })
	if err != nil {
		return nil, err
	}
	if err := d.locate(ctx, st, from); err != nil {
		return nil, err
	}
	here := d.server.identity.since(from)
	st.era = here.Era
	st.start = cdc.Position{Cursor: cdc.Cursor(st.done.text(st.done.last)), Identity: here.encode()}
	if err := st.learn(ctx); err != nil {
		st.closeAhead()
		return nil, err
	}
	s, err := d.dialer.replication(ctx)
	if err != nil {
		st.closeAhead()
		return nil, err
	}
	st.s = s
	if err := d.dump(ctx, st); err != nil {
		st.closeAhead()
		s.broken = true
		return nil, errors.Join(err, s.close())
	}
	d.dropPass()
	for _, one := range st.tables {
		if one.table.Origin == "" {
			st.joinAgain(one)
		}
	}
	st.heard.Store(int64(time.Since(st.opened)))
	d.live.Store(st)
	return st, nil
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
		settings = append(settings, "SET @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0")
		if !st.done.byFile {
			settings = append(settings, "SET @slave_connect_state = "+quoteText(st.done.domain.String()))
		}
	} else {
		settings = append(settings, "SET @slave_uuid = '"+id+"', @replica_uuid = '"+id+"'")
	}
	for _, sql := range append(settings, "SET SESSION net_write_timeout = 600, wait_timeout = 28800") {
		if err := s.exec(ctx, sql); err != nil {
			return fmt.Errorf("preparing the replication connection: %w", err)
		}
	}
	command, body := d.request(st, 1<<31|rand.Uint32())
	s.wire.limit = maxEvent
	if err := s.wire.send(command, body); err != nil {
		return err
	}
	return nil
}

// request is the command that asks for the log.
func (d *driver) request(st *stream, number uint32) (command byte, body []byte) {
	le := binary.LittleEndian
	if d.server.mariadb || st.done.byFile {
		at := place{at: 4} // the settings say where, and the file is the server's to find
		if st.done.byFile {
			at = st.from()
		}
		body = le.AppendUint32(nil, uint32(at.at)) //nolint:gosec // see maxPlace
		body = le.AppendUint16(body, 0)
		body = le.AppendUint32(body, number)
		return comBinlogDump, append(body, at.file...)
	}
	const throughGTID = 4
	set := st.done.set.Encode()
	body = le.AppendUint16(nil, throughGTID)
	body = le.AppendUint32(body, number)
	body = le.AppendUint32(body, 0) // no file's name
	body = le.AppendUint64(body, 4)
	body = le.AppendUint32(body, uint32(len(set))) //nolint:gosec // the server printed it
	return comBinlogDumpGTID, append(body, set...)
}

// maxEvent bounds an event: a transaction that was compressed as a whole is one.
const maxEvent = 1 << 30

// explain says in words for people why the log ended.
func (s *stream) explain(err error) error {
	d := s.d
	if lost, ok := errors.AsType[*lostError](err); ok {
		return usererr.New(err, "The connection to the server at %s on which the log comes was lost (%s). The capture goes on behind its last checkpoint when it is started again.", d.cfg.Address, lost.err)
	}
	e, ok := errors.AsType[*serverError](err)
	if !ok {
		return err
	}
	switch {
	case e.code == errNoRight || e.code == errAccessDenied:
		return usererr.New(err, "User %q may not read the server's binary log. Have an administrator run: GRANT REPLICATION SLAVE ON *.* TO %s;", d.cfg.User, d.grantee())
	case e.code == errNoPlaceMaria && isLostPlace(e.message):
		return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server at %s has thrown away a part of its binary log that was not captured yet: %s", d.cfg.Address, e.message)
	case e.code == errNoPlaceMaria && isNoEvent(e.message) && s.done.byFile && s.at == s.asked:
		return usererr.New(errors.Join(cdc.ErrPositionLost, err), "The server at %s can read no event of its binary log at %s, up to which the log was captured. It has begun its binary log anew (RESET), or was restored from a backup, or its log is damaged there: %s",
			d.cfg.Address, s.at, e.message)
	case e.code == errNoPlaceMaria && strings.Contains(e.message, "max_allowed_packet"):
		return usererr.New(err, "The server at %s cannot send an event of its binary log, because that is larger than its max_allowed_packet. Have an administrator raise it: SET GLOBAL max_allowed_packet = 1073741824;", d.cfg.Address)
	}
	return usererr.New(err, "The server at %s ended the replication stream: %s.", d.cfg.Address, strings.TrimSuffix(e.message, "."))
}
