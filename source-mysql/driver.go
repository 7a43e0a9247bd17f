package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// driver is MySQL or MariaDB behind the change-capture core. Its methods may be called from many goroutines.
type driver struct {
	cfg      config
	log      *logrus.Entry
	location *time.Location
	dialer   *dialer
	conns    *pool
	server   serverInfo
	charsets charsets
	plans    planCache

	settling       settling
	warned         atomic.Int64  // when it was last said that the log is kept too short, in seconds since 1970
	byFile         atomic.Bool   // positions are places in the log
	behindPatience time.Duration // see the constant of this name
	rangeRows      int64         // see the constant of this name

	// live is the stream that is open, for those who ask how far it is.
	live atomic.Pointer[stream]
	// pass is the reading of a table without a key that is going on; nil if there is none.
	pass atomic.Pointer[pass]
}

// serverInfo is what does not change while we are connected.
type serverInfo struct {
	mariadb  bool
	version  string
	major    int
	minor    int
	identity identity
	// foldNames says that names of tables are compared without case.
	foldNames bool
}

// atLeast compares the version.
func (s serverInfo) atLeast(major, minor int) bool {
	return s.major > major || s.major == major && s.minor >= minor
}

// patch is the third number of the version, or 0.
func (s serverInfo) patch() int {
	parts := strings.SplitN(s.version, ".", 3)
	if len(parts) < 3 {
		return 0
	}
	digits := strings.IndexFunc(parts[2]+" ", func(r rune) bool { return r < '0' || r > '9' })
	n, _ := strconv.Atoi(parts[2][:digits]) // nothing but digits, or nothing
	return n
}

// identity says which server a position was taken from.
type identity struct {
	Flavor string `json:"flavor"`
	// Server is MySQL's server_uuid, or what MariaDB has that comes near to one: its number and its host's name.
	Server string `json:"server"`
	// Era counts the logs that the capture has gone on with: places in them, which are keys of documents of tables without one, are
	// told apart by it.
	Era uint64 `json:"era,omitempty"`
}

// same reports whether two identities are of one server.
func (i identity) same(o identity) bool { return i.Flavor == o.Flavor && i.Server == o.Server }

// since is the identity of the log that is captured from a position on.
func (i identity) since(from cdc.Position) identity {
	var stored identity
	if len(from.Identity) == 0 || json.Unmarshal(from.Identity, &stored) != nil {
		return i
	}
	if i.Era = stored.Era; from.Cursor == "" || !i.same(stored) {
		i.Era++
	}
	return i
}

func (i identity) encode() json.RawMessage {
	text, _ := json.Marshal(i) // texts always encode
	return text
}

// statusQuery is how the server is asked for its place in the log.
func (s serverInfo) statusQuery() string {
	if !s.mariadb && s.atLeast(8, 4) {
		return "SHOW BINARY LOG STATUS"
	}
	return "SHOW MASTER STATUS"
}

// connect opens the driver of one session. It is the whole of what package cdc needs to know about MySQL.
func connect(ctx context.Context, env capture.Env, cfg config) (cdc.Driver, cdc.Options, error) {
	d, err := newDriver(env, cfg)
	if err != nil {
		return nil, cdc.Options{}, err
	}
	options := cfg.options()
	options.Disconnected = isDisconnected
	if err := d.look(ctx); err != nil {
		_ = d.Close() // the first error counts: what closing says is no reason
		return nil, options, err
	}
	return d, options, nil
}

func newDriver(env capture.Env, cfg config) (*driver, error) {
	location, err := cfg.location()
	if err != nil {
		return nil, err
	}
	d := &driver{cfg: cfg, log: env.Log, location: location, dialer: newDialer(cfg, env.Log), behindPatience: behindPatience, rangeRows: rangeRows}
	d.conns = &pool{dial: d.session}
	return d, nil
}

// session opens a session for queries: its settings decide how values are printed.
func (d *driver) session(ctx context.Context) (*session, error) {
	s, err := d.dialer.open(ctx)
	if err != nil {
		return nil, err
	}
	timeout := duration(d.cfg.Advanced.StatementTimeout, defaultStatementTimeout)
	settings := "SET SESSION sql_mode = '', time_zone = '+00:00', net_write_timeout = 600, net_read_timeout = 600, wait_timeout = 28800, "
	version, err := s.row(ctx, "SELECT VERSION()")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("asking for the server's version: %w", err), s.close())
	}
	if strings.Contains(version[0], "MariaDB") {
		settings += fmt.Sprintf("max_statement_time = %g", timeout.Seconds())
	} else {
		settings += fmt.Sprintf("max_execution_time = %d", timeout.Milliseconds())
	}
	if !strings.Contains(version[0], "MariaDB") {
		// Servers may keep primary keys that they have made by themselves out of the catalog; older ones make none.
		if err := s.exec(ctx, "SET SESSION show_gipk_in_create_table_and_information_schema = ON"); err != nil && code(err) != errUnknownVariable {
			return nil, errors.Join(fmt.Errorf("preparing a connection: %w", err), s.close())
		}
	}
	// Values come in the character sets of their columns, as they are in the log.
	for _, sql := range []string{"SET NAMES utf8mb4", "SET character_set_results = NULL", settings, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"} {
		if err := s.exec(ctx, sql); err != nil {
			return nil, errors.Join(fmt.Errorf("preparing a connection: %w", err), s.close())
		}
	}
	return s, nil
}

// look finds out what answers.
func (d *driver) look(ctx context.Context) error {
	return d.conns.with(ctx, func(s *session) error {
		vars, err := s.variables(ctx, "version", "server_id", "server_uuid", "hostname", "server_uid", "lower_case_table_names")
		if err != nil {
			return err
		}
		d.server = serverInfo{version: vars["version"], mariadb: strings.Contains(vars["version"], "MariaDB")}
		d.server.foldNames = vars["lower_case_table_names"] != "0"
		parts := strings.SplitN(d.server.version, ".", 3)
		if len(parts) >= 2 {
			d.server.major, _ = strconv.Atoi(parts[0]) // zero if it is no number, which is too old
			d.server.minor, _ = strconv.Atoi(parts[1])
		}
		d.server.identity = identity{Flavor: "mysql", Server: vars["server_uuid"]}
		if d.server.mariadb {
			d.server.identity = identity{Flavor: "mariadb", Server: vars["server_id"] + "@" + vars["hostname"] + vars["server_uid"]}
			if !d.server.atLeast(10, 5) {
				return usererr.New(nil, "The server at %s is MariaDB %s. Version 10.5 or newer is needed.", d.cfg.Address, d.server.version)
			}
		} else if !d.server.atLeast(8, 0) || d.server.major == 8 && d.server.minor == 0 && d.server.patch() < 20 {
			// The log of versions before has no sign for a YEAR, so that of every column behind one would be another's.
			return usererr.New(nil, "The server at %s is MySQL %s. Version 8.0.20 or newer is needed.", d.cfg.Address, d.server.version)
		}
		return d.charsets.load(ctx, s, d.server.mariadb)
	})
}

// variables reads the server's own settings. Those it does not have are missing.
func (s *session) variables(ctx context.Context, names ...string) (map[string]string, error) {
	rows, err := s.texts(ctx, "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('"+strings.Join(names, "', '")+"')")
	if err != nil {
		return nil, fmt.Errorf("reading the server's settings: %w", err)
	}
	out := make(map[string]string, len(rows))
	for _, row := range rows {
		out[strings.ToLower(row[0])] = row[1]
	}
	return out, nil
}

// Close implements cdc.Driver.
func (d *driver) Close() error {
	d.dropPass()
	return errors.Join(d.conns.close(), d.dialer.close())
}

// planCache holds how the newest version of each table is scanned.
type planCache struct {
	mu    sync.Mutex
	plans map[cdc.TableID]*scanPlan
	large map[cdc.TableID]bool // tables that turned out to have rows of more than cdc.MaxRow
}
