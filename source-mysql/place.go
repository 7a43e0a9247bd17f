package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// place is a place in one server's log: a file, which all have one name but for their number, and how far into it.
type place struct {
	file string
	at   uint64
}

// number is the file's.
func (p place) number() uint64 {
	_, digits, _ := cutLast(p.file, '.')
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0 // the server names no file so
	}
	return n
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// before reports whether the place lies before another one of the same server.
func (p place) before(o place) bool {
	if a, b := p.number(), o.number(); a != b {
		return a < b
	}
	return p.at < o.at
}

func (p place) String() string { return p.file + ":" + strconv.FormatUint(p.at, 10) }

func parsePlace(text string) (place, error) {
	file, at, ok := cutLast(text, ':')
	n, err := strconv.ParseUint(at, 10, 64)
	if !ok || err != nil {
		return place{}, fmt.Errorf("parsing the place %q: it is not of the form file:position", text)
	}
	return place{file, n}, nil
}

// end asks for the place where the log ends now.
func (d *driver) end(ctx context.Context, s *session) (place, error) {
	row, err := s.row(ctx, d.server.statusQuery())
	if err != nil {
		return place{}, d.statusAdvice(err)
	}
	if len(row) < 2 {
		return place{}, errNoLog
	}
	at, err := strconv.ParseUint(row[1], 10, 64)
	if err != nil {
		return place{}, fmt.Errorf("reading the place in the log: %w", err)
	}
	return place{row[0], at}, nil
}

var errNoLog = usererr.New(nil, "The server writes no binary log: log_bin is OFF. Have an administrator set log_bin in the server's configuration, and restart it.")

// The server's errors for missing rights.
const (
	errNoDatabaseRight = 1044
	errNoTableRight    = 1142
	errNoColumnRight   = 1143
	errNoRight         = 1227
)

func (d *driver) statusAdvice(err error) error {
	if code(err) != errNoRight {
		return fmt.Errorf("reading the place in the log: %w", err)
	}
	right := "REPLICATION CLIENT"
	if d.server.mariadb {
		right = "BINLOG MONITOR"
	}
	return usererr.New(err, "User %q may not see where the server's binary log ends. Have an administrator run: GRANT %s ON *.* TO %s;", d.cfg.User, right, d.grantee())
}

// grantee is the user as a GRANT has it.
func (d *driver) grantee() string { return "'" + strings.ReplaceAll(d.cfg.User, "'", "''") + "'@'%'" }

// A chunk's snapshot and the transactions it sees.
//
// MySQL writes a transaction to its binary log before the engine commits it, so there are moments, as long as a replica takes to
// acknowledge, in which the log has a transaction that nobody sees. But gtid_executed has it only once the engine has committed:
// what was in gtid_executed before a snapshot was taken is visible to it.
//
// MariaDB has no such set. It takes a consistent snapshot under the lock under which commits become visible, in the order of the
// log, and says which place in the log that is (binlog_snapshot_file, binlog_snapshot_position): all transactions that end there
// or before are visible, no other is.

// executed is the visibility of a snapshot of MySQL. It implements cdc.Visibility and is immutable.
type executed struct{ set gtidSet }

// Sees implements cdc.Visibility.
func (e *executed) Sees(txn cdc.TxnID) bool { return e.set.sees(txn) }

// upTo is the visibility of a snapshot of MariaDB. It implements cdc.Visibility and is immutable.
type upTo struct {
	server string
	place  place
	floor  place // where the log of this server ended when the stream was opened
}

// Sees implements cdc.Visibility. A transaction is named by its server and a place inside of it; one of another server was
// captured before the stream was opened here, so it lies before where the log of this one ended then.
func (u *upTo) Sees(txn cdc.TxnID) bool {
	server, at, ok := cutLast(string(txn), ' ')
	if !ok {
		return false
	}
	if server != u.server {
		return u.floor.file != "" && !u.place.before(u.floor)
	}
	p, err := parsePlace(at)
	return err == nil && p.before(u.place)
}

var errNoSnapshot = errors.New("the server does not say which place in its log the snapshot is of")

// mariaSnapshot begins a transaction with a snapshot and asks which place in the log it is of.
func (d *driver) mariaSnapshot(ctx context.Context, s *session) (cdc.Visibility, error) {
	if err := s.exec(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
		return nil, fmt.Errorf("taking a snapshot: %w", err)
	}
	rows, err := s.texts(ctx, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return nil, fmt.Errorf("asking for the snapshot's place: %w", err)
	}
	out := &upTo{server: d.server.identity.Server}
	for _, row := range rows {
		switch strings.ToLower(row[0]) {
		case "binlog_snapshot_file":
			out.place.file = row[1]
		case "binlog_snapshot_position":
			if out.place.at, err = strconv.ParseUint(row[1], 10, 64); err != nil {
				return nil, fmt.Errorf("asking for the snapshot's place: %w", err)
			}
		}
	}
	if out.place.file == "" {
		return nil, errNoSnapshot
	}
	if live := d.live.Load(); live != nil {
		out.floor = live.floor
	}
	return out, nil
}

// mysqlSnapshot asks which transactions every snapshot that is taken from now on sees.
func (d *driver) mysqlSnapshot(ctx context.Context, s *session) (cdc.Visibility, error) {
	if d.byFile.Load() {
		return d.mysqlSettled(ctx, s)
	}
	row, err := s.row(ctx, "SELECT @@GLOBAL.gtid_executed")
	if err != nil || len(row) == 0 {
		return nil, fmt.Errorf("asking which transactions are visible: %w", err)
	}
	set, err := gtid.Parse(row[0])
	if err != nil {
		return nil, err
	}
	return &executed{gtidSet{set}}, nil
}
