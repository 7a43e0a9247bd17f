package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// errBehind says that the server does not have yet, or not any more, what was captured.
var errBehind = errors.New("the server lacks transactions that were captured")

// behindPatience is how long a replica that lags behind the position gets to catch up, before the session ends with that.
const behindPatience = 30 * time.Second

// locate finds out where the stream begins, and that the server has what follows.
func (d *driver) locate(ctx context.Context, st *stream, from cdc.Position) error {
	if err := d.conns.with(ctx, func(s *session) error { return d.logsWhatItReceives(ctx, s) }); err != nil {
		return err
	}
	find := d.locateMySQL
	if d.server.mariadb {
		find = d.locateMariaDB
	}
	files := byFile(from.Cursor)
	if from.Cursor == "" {
		err := d.conns.with(ctx, func(s *session) (err error) {
			files, err = d.wantsFile(ctx, s)
			return err
		})
		if err != nil {
			return err
		}
	}
	if d.byFile.Store(files); files {
		find = d.locateByFile
	}
	waiting := false
	patience, cancel := context.WithTimeout(ctx, d.behindPatience)
	defer cancel()
	err := retry.Backoff{Max: time.Second}.Do(patience, func(context.Context) error {
		err := d.conns.with(ctx, func(s *session) error { return find(ctx, s, st, from) })
		if errors.Is(err, errBehind) && !waiting {
			waiting = true
			d.log.WithField("cursor", string(from.Cursor)).Info("waiting for the server to have all transactions that were captured already")
		}
		return err
	}, func(err error) bool { return errors.Is(err, errBehind) })
	if err != nil {
		return err //nolint:wrapcheck // our own
	}
	return d.conns.with(ctx, func(s *session) error { return d.sayWhereItGoesOn(ctx, s, from) })
}

// sayWhereItGoesOn tells of a log that goes on at another server.
func (d *driver) sayWhereItGoesOn(ctx context.Context, s *session, from cdc.Position) error {
	var stored identity
	if from.Cursor == "" || json.Unmarshal(from.Identity, &stored) != nil || stored.same(d.server.identity) {
		return nil //nolint:nilerr // nothing is known of the server before
	}
	log := d.log.WithFields(logrus.Fields{"server": d.server.identity.Server, "before": stored.Server})
	log.Info("the log goes on at another server")
	if !d.server.mariadb {
		return nil
	}
	v, err := s.variables(ctx, "gtid_strict_mode")
	if err == nil && v["gtid_strict_mode"] != "ON" {
		log.Warn("gtid_strict_mode is OFF, so this server may have made transactions of its own while it was a replica; those that lie in its log before the position of the capture are not captured")
	}
	return err
}

// logsWhatItReceives refuses a replica whose log has only what was written to itself: nothing would arrive, without a word.
func (d *driver) logsWhatItReceives(ctx context.Context, s *session) error {
	v, err := s.variables(ctx, "log_slave_updates", "log_replica_updates")
	if err != nil || v["log_slave_updates"] != "OFF" && v["log_replica_updates"] != "OFF" {
		return err
	}
	replica, err := d.isReplica(ctx, s)
	if err != nil || !replica {
		return err
	}
	return errNoUpdates
}

var errNoUpdates = usererr.New(nil, "The server is a replica that does not log what it receives: log_slave_updates (log_replica_updates) is OFF. "+
	"Have an administrator set it in the server's configuration, and restart it; or capture the primary.")

func (d *driver) locateMySQL(ctx context.Context, s *session, st *stream, from cdc.Position) error {
	vars, err := s.variables(ctx, "gtid_executed", "gtid_purged", "gtid_mode")
	if err != nil {
		return err
	}
	if mode := vars["gtid_mode"]; mode != "ON" {
		var stored identity
		if err := json.Unmarshal(from.Identity, &stored); err == nil && from.Cursor != "" && stored.same(d.server.identity) {
			return usererr.New(cdc.ErrPositionLost, "The server's gtid_mode is %q, and the position of this capture is a set of GTIDs: which transactions were captured cannot be told any more.", mode)
		}
		return errGTIDMode(mode)
	}
	executed, err := gtid.Parse(vars["gtid_executed"])
	if err != nil {
		return err
	}
	if from.Cursor == "" {
		st.done.set = executed
		return nil
	}
	purged, err := gtid.Parse(vars["gtid_purged"])
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
		return usererr.New(errBehind, "The server at %s lacks transactions that were captured already (%s). If it is a replica that lags behind, wait until it has them; "+
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
	if err := json.Unmarshal(from.Identity, &stored); err != nil || stored.same(d.server.identity) {
		st.floor = here.place
		return nil //nolint:nilerr // without an identity, the transactions decide
	}
	seen, err := gtidAt(ctx, s, here.place)
	if err != nil {
		return err
	}
	if behind := seen.Behind(st.done.domain); len(behind) > 0 {
		return usererr.New(errBehind, "The server at %s has not applied all transactions that were captured already (%s). If it is a replica that lags behind, wait until it has them; "+
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
		return usererr.New(errBehind, "The server at %s lacks transactions that were captured already (%s; its log has %s). If it is a replica that lags behind, wait until it has them; "+
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
