package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Positions that are a place in one server's log: of MySQL where gtid_mode is not ON, of MariaDB where that was chosen. They mean
// nothing on another server, so none is continued there (hard case 33).

// wantsFile reports whether a capture that begins now has places for positions.
func (d *driver) wantsFile(ctx context.Context, s *session) (bool, error) {
	if d.cfg.Advanced.Position != "" {
		return d.cfg.Advanced.Position == positionFile, nil
	}
	if d.server.mariadb {
		return false, nil
	}
	v, err := s.variables(ctx, "gtid_mode")
	return v["gtid_mode"] != "ON", err
}

// locateByFile finds out where a stream begins that has places for positions.
func (d *driver) locateByFile(ctx context.Context, s *session, st *stream, from cdc.Position) error {
	end, err := d.end(ctx, s)
	if err != nil {
		return err
	}
	if from.Cursor == "" {
		st.done.position = position{byFile: true, place: end}
		if d.server.mariadb {
			// Begins where a snapshot sees all that came before, so that nothing that the stream leaves out is hidden from a backfill.
			visible, err := d.mariaSnapshot(ctx, s)
			if err != nil {
				return err
			}
			if here, ok := visible.(*upTo); ok {
				st.done.place = here.place
			}
			return s.exec(ctx, "COMMIT")
		}
		st.done.last = d.txnBefore(end)
		return nil
	}
	var stored identity
	if err := json.Unmarshal(from.Identity, &stored); err != nil || !stored.same(d.server.identity) {
		return usererr.New(err, "The server at %s (%s) is not the one that was captured (%s), and the position of this capture is a place in that one's log (%s), which means nothing here. "+
			"Enter the address of the server that was captured; or, if this one is to be captured from now on, backfill all tables. (With GTIDs a capture can go on at another server: set gtid_mode to ON.)",
			d.cfg.Address, d.server.identity.Server, stored.Server, from.Cursor)
	}
	if st.done.position, _, err = parseCursor(from.Cursor, d.server.mariadb); err != nil {
		return err
	}
	at := st.done.place
	st.done.last = d.txnBefore(at)
	files, err := s.texts(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return d.statusAdvice(err)
	}
	return d.holds(files, at)
}

// holds checks that the server's files have a place.
func (d *driver) holds(files [][]string, at place) error {
	lost := func(format string, args ...any) error {
		return usererr.New(cdc.ErrPositionLost, "The server at %s "+format, append([]any{d.cfg.Address}, args...)...)
	}
	if len(files) == 0 {
		return errNoLog
	}
	i := slices.IndexFunc(files, func(f []string) bool { return f[0] == at.file })
	if i < 0 {
		first, last := files[0][0], files[len(files)-1][0]
		if at.number() < (place{file: first}).number() {
			return lost("has thrown away a part of its binary log that was not captured yet: from %s on; its first file is %s. "+
				"Have an administrator raise binlog_expire_logs_seconds, so that the log outlives any pause of the capture.", at, first)
		}
		return lost("has begun its binary log anew (RESET), or was restored from a backup: the capture has read up to %s, and its last file is %s.", at, last)
	}
	size, err := strconv.ParseUint(files[i][1], 10, 64)
	if err != nil {
		return fmt.Errorf("reading the size of file %s: %w", at.file, err)
	}
	if at.at > size {
		return lost("has less of its binary log than was captured: the capture has read up to %s, and that file ends at %d. It crashed and lost the end of its log (sync_binlog was not 1), or was restored from a backup.", at, size)
	}
	return nil
}

// txnBefore names all transactions before a place.
func (d *driver) txnBefore(at place) cdc.TxnID {
	at.at--
	return cdc.TxnID(d.server.identity.Server + " " + at.String())
}

// hereAsTxn names the transaction at hand by the place where it is.
func (s *stream) hereAsTxn() cdc.TxnID {
	return cdc.TxnID(s.d.server.identity.Server + " " + s.at.String())
}

// mysqlGTID reads who a transaction is. One without an identifier has the number 0.
func (s *stream) mysqlGTID(typ binlog.Type, body []byte) (binlog.MySQLGTID, error) {
	if typ == binlog.GTIDTagged {
		return binlog.ParseTaggedGTID(body) //nolint:wrapcheck // it says what it is
	}
	g, err := binlog.ParseGTID(body)
	if typ == binlog.AnonymousGTID {
		g.Number = 0
		if !s.done.byFile {
			return g, usererr.New(cdc.ErrPositionLost, "The log has a transaction without a GTID (at %s): gtid_mode was not ON, so what follows cannot be told from what came before.", s.at)
		}
	}
	return g, err //nolint:wrapcheck // it says what it is
}

// maxPlace is the last place in a file that the server can be asked for.
const maxPlace = 1<<32 - 1

// from is where the server is asked to begin, by file and place. Of a file that is larger than what can be asked for, that is the
// beginning, and what was captured of it is passed over.
func (s *stream) from() place {
	at := s.done.place
	if at.at > maxPlace {
		s.skip = at
		at.at = 4
	}
	s.asked = at
	return at
}

// pass passes over an event that was captured already.
func (s *stream) pass(h binlog.Header, body []byte) error {
	switch h.Type {
	case binlog.Rotate, binlog.FormatDescription, binlog.HeartbeatV2:
		if err := s.rareEvent(h, body); err != nil {
			return err
		}
	default:
		s.moveTo(h)
	}
	switch {
	case s.at.before(s.skip):
		return nil
	case s.at != s.skip:
		return usererr.New(cdc.ErrPositionLost, "The place %s up to which the log was captured is none where an event ends: the log was replaced.", s.skip)
	}
	s.skip = place{}
	return nil
}

// sameFile notes when the file was made that comes now, and checks that it is the one that was captured: after RESET, another one
// has its name.
func (s *stream) sameFile(h binlog.Header) error {
	if h.Timestamp == 0 {
		return nil
	}
	s.made = h.Timestamp
	d := &s.done
	if d.byFile && d.place.file == s.at.file && d.made != 0 && d.made != h.Timestamp {
		return usererr.New(cdc.ErrPositionLost, "The server at %s has begun its binary log anew (RESET): the file %s is another one than was captured.", s.d.cfg.Address, s.at.file)
	}
	return nil
}

// settling finds out up to which place in MySQL's log every transaction has become visible, where there are no GTIDs to ask for.
// A transaction is in the log before the engine commits it, and in the engine's list of transactions until it has. So what was in
// the log when the list was read has become visible once all of that list have ended.
type settling struct {
	mu      sync.Mutex
	settled place // all before it is visible
	end     place // where the log ended when open was read
	open    []string
}

// take takes the engine's list, read after the log ended at a place, and gives the place before which all is visible to every
// snapshot that is taken from now on.
func (x *settling) take(end place, open []string) place {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.ContainsFunc(x.open, func(id string) bool { return slices.Contains(open, id) }) {
		if x.settled.before(x.end) {
			x.settled = x.end
		}
		x.end, x.open = end, open
	}
	if len(open) == 0 && x.settled.before(end) {
		x.settled = end
	}
	return x.settled
}

var errStale = errors.New("the server's list of transactions is not up to date")

// mysqlSettled asks up to which place all is visible.
func (d *driver) mysqlSettled(ctx context.Context, s *session) (cdc.Visibility, error) {
	end, err := d.end(ctx, s)
	if err != nil {
		return nil, err
	}
	open, err := openTransactions(ctx, s)
	switch {
	case code(err) == errNoRight:
		return nil, d.errNoProcess(err)
	case errors.Is(err, errStale):
		return nil, fmt.Errorf("%w: %w", cdc.ErrInterrupted, err)
	case err != nil:
		return nil, fmt.Errorf("asking which transactions are open: %w", err)
	}
	return &upTo{server: d.server.identity.Server, place: d.settling.take(end, open)}, nil
}

func (d *driver) errNoProcess(err error) error {
	return usererr.New(err, "User %q may not see which transactions are open, which tells what a backfill sees where gtid_mode is not ON. Have an administrator run: GRANT PROCESS ON *.* TO %s;", d.cfg.User, d.grantee())
}

// openTransactions lists the engine's transactions that may have written something, by their numbers. The server makes the list anew only
// now and then, so it has to show a transaction of our own, with a setting that the one before did not have.
func openTransactions(ctx context.Context, s *session) ([]string, error) {
	for range 20 {
		s.mark = !s.mark
		mark := map[bool]string{true: "1", false: "0"}[s.mark]
		for _, sql := range []string{"SET SESSION unique_checks = " + mark, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"} {
			if err := s.exec(ctx, sql); err != nil {
				return nil, err
			}
		}
		rows, err := s.texts(ctx, "SELECT trx_id, trx_mysql_thread_id, trx_unique_checks FROM information_schema.INNODB_TRX")
		if err != nil {
			return nil, err
		}
		if err := s.exec(ctx, "COMMIT"); err != nil {
			return nil, err
		}
		if open, fresh := pick(rows, strconv.FormatUint(uint64(s.id), 10), mark); fresh {
			return open, nil
		}
		if err := s.exec(ctx, "DO SLEEP(0.11)"); err != nil { // the list is kept for a tenth of a second
			return nil, err
		}
	}
	return nil, errStale
}

// pick takes the transactions out of the engine's list that have numbers of their own, and reports whether ours is there.
func pick(rows [][]string, me, mark string) (open []string, fresh bool) {
	const onlyRead = 1 << 48 // transactions that have written nothing have numbers from here on
	for _, row := range rows {
		if row[1] == me && row[2] == mark {
			fresh = true
		}
		if n, err := strconv.ParseUint(row[0], 10, 64); err != nil || n < onlyRead {
			open = append(open, row[0])
		}
	}
	return open, fresh
}

// The choices of advanced.position.
const (
	positionGTID = "gtid"
	positionFile = "file"
)

// isLostPlace reports whether a server's error is about a place that its log does not have.
func isLostPlace(message string) bool {
	return slices.ContainsFunc([]string{"purged", "Could not find GTID state", "Could not find first log file name", "position > file size"}, func(part string) bool {
		return strings.Contains(message, part)
	})
}

// isNoEvent reports whether a server's error is about bytes in its log that are no event, as it has them where none begins. What it
// takes for the event's length may be anything, so "too large" is one of these errors.
func isNoEvent(message string) bool {
	return slices.ContainsFunc([]string{"max_allowed_packet", "bogus data", "truncated in the middle of event", "corrupted data", "crc check"}, func(part string) bool {
		return strings.Contains(message, part)
	})
}
