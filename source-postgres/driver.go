package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// driver is Postgres behind the change-capture core. Its methods may be called from many goroutines.
type driver struct {
	cfg         config
	log         *logrus.Entry
	task        string
	slot        string
	publication string
	ephemeral   bool          // nothing keeps this session's state, so nothing of it may stay on the server
	timeout     time.Duration // of one backfill query; 0 for none
	maxRow      int           // bytes of a row that are held: cdc.MaxRow, but for tests
	tempDir     string        // for transactions in progress
	server      serverInfo
	dialer      *dialer
	floor       floor      // of a standby
	quiet       quietPlace // of a primary
	conns       *pool
	types       *typeCatalog
	plans       planCache
	selections  selections

	guardTimes guardTimes

	// newest is the newest transaction that is known to have begun: what 32-bit identifiers are extended by.
	newest atomic.Uint64

	// For reports: the stream that is open, and the process of a connection on which a slot is being made.
	live    atomic.Pointer[stream]
	opening atomic.Uint32

	// madePublication is set when an ephemeral session made the publication, which Close then drops.
	madePublication atomic.Bool
}

// serverInfo is what does not change while we are connected.
type serverInfo struct {
	version   int // such as 150018
	blockSize uint64
	walPage   uint64 // of the write-ahead log, in bytes
	segment   uint64 // of the write-ahead log, in bytes
	walLevel  string
	standby   bool
	encoding  string // of the database
}

func (s serverInfo) major() int { return s.version / 10000 }

// forgetsPublications reports whether the server may go on leaving out a table that was added to a publication while a
// transaction that had written to it was in progress. Mended in 13.21, 14.18, 15.13, 16.9 and 17.5, by telling transactions
// in progress of the change.
func (s serverInfo) forgetsPublications() bool {
	mended := map[int]int{13: 21, 14: 18, 15: 13, 16: 9, 17: 5}
	minor, listed := mended[s.major()]
	return s.major() < 13 || (listed && s.version%10000 < minor)
}

const queryServer = `
	SELECT current_setting('server_version_num')::int, current_setting('block_size')::bigint, current_setting('wal_block_size')::bigint,
		(SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
		current_setting('wal_level'), pg_catalog.pg_is_in_recovery(), current_setting('server_encoding')`

// connect opens the driver of one session. It is the whole of what package cdc needs to know about Postgres.
func connect(ctx context.Context, env capture.Env, cfg config) (cdc.Driver, cdc.Options, error) {
	d := newDriver(env, cfg)
	options := cfg.options()
	if !d.ephemeral { // its slot ends with its connection
		options.Disconnected = isDisconnected
	}
	if err := d.look(ctx); err != nil {
		_ = d.Close() // the first error counts: what closing says is no reason
		return nil, options, err
	}
	return d, options, nil
}

// look finds out what answers.
func (d *driver) look(ctx context.Context) error {
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		s := &d.server
		return conn.QueryRow(ctx, queryServer).Scan(&s.version, &s.blockSize, &s.walPage, &s.segment, &s.walLevel, &s.standby, &s.encoding)
	})
	if err != nil {
		return err
	}
	if d.server.major() < 12 {
		return usererr.New(nil, "The server at %s is Postgres %d. Version 12 or newer is needed.", d.cfg.Address, d.server.major())
	}
	if d.server.encoding == "SQL_ASCII" {
		return usererr.New(nil, "The database %q has the encoding SQL_ASCII: the server does not know what its text means, and hands out bytes that may be no Unicode. "+
			"Make a database with ENCODING 'UTF8', fill it with pg_dump and pg_restore (with --encoding of what the text really is), and capture that one.", d.cfg.Database)
	}
	if d.server.standby && d.ephemeral {
		d.publication = d.cfg.publicationName(d.task) // nobody could make another one
	}
	return d.dialer.verifySharing(ctx, scanSettings())
}

func newDriver(env capture.Env, cfg config) *driver {
	timeout, err := parseDuration(cfg.Advanced.StatementTimeout, defaultStatementTimeout)
	if err != nil {
		timeout = defaultStatementTimeout
	}
	d := &driver{
		timeout: timeout, maxRow: cdc.MaxRow, tempDir: os.TempDir(),
		cfg: cfg, log: env.Log, task: env.Task, slot: cfg.slotName(env.Task), publication: cfg.publicationName(env.Task),
		ephemeral: env.Ephemeral, guardTimes: defaultGuardTimes(),
		types:  newTypeCatalog(cfg.Advanced.lossless()),
		dialer: newDialer(cfg, env.Log),
	}
	d.conns = &pool{dial: func(ctx context.Context) (*pgx.Conn, error) { return d.dialer.session(ctx, scanSettings()) }}
	if d.ephemeral {
		// Nobody comes back for these, and another such session may run beside this one.
		d.slot = fmt.Sprintf("sluice_once_%08x", rand.Uint32())
		if cfg.Advanced.PublicationName == "" {
			d.publication = d.slot
		}
	}
	return d
}

// options are the core's, from the configuration.
func (c config) options() cdc.Options {
	every, err := parseDuration(c.Advanced.RediscoverEvery, 0)
	if err != nil {
		every = 0
	}
	status, err := parseDuration(c.Advanced.StatusEvery, 0)
	if err != nil {
		status = 0
	}
	return cdc.Options{
		StatusEvery:        status,
		ReadTimeout:        c.readTimeout(),
		BackfillWorkers:    c.Advanced.BackfillWorkers,
		ChunkRows:          c.Advanced.BackfillChunkRows,
		SkipBackfills:      c.Advanced.SkipBackfills,
		Rediscovery:        every,
		OnTruncate:         cdc.TruncatePolicy(c.Advanced.OnTruncate),
		OnOversizedRow:     cdc.OversizePolicy(c.Advanced.OnOversizedRow),
		StopOnPositionLoss: c.Advanced.OnSlotLoss == onLossStop,
		SourceSchema: json.RawMessage(`{` +
			`"ts_ms":{"type":"integer","description":"When the transaction committed, in milliseconds since 1970; absent for rows that a backfill read."},` +
			`"schema":{"type":"string","description":"The table's schema."},` +
			`"table":{"type":"string","description":"The table's name."},` +
			`"loc":{"type":"array","items":{"type":"integer"},"minItems":3,"maxItems":3,"description":"Where the change is in the log: position of the commit, position of the change, number within the transaction; it orders the documents of a key. For rows that a backfill read: where the log was then, 0, 0; for those without a key: -1, place in the table, table."},` +
			`"txid":{"type":"string","description":"The transaction that made the change."}}`),
	}
}

// Close implements cdc.Driver.
func (d *driver) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if d.madePublication.Load() {
		err := d.conns.with(ctx, func(conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "DROP PUBLICATION IF EXISTS "+quoteIdent(d.publication))
			return err
		})
		if err != nil {
			d.log.WithError(err).WithField("publication", d.publication).Warn("could not drop the publication of this session")
		}
	}
	return errors.Join(d.conns.close(ctx), d.dialer.close())
}

// observe remembers the newest transaction identifier seen.
func (d *driver) observe(xid uint64) {
	for {
		old := d.newest.Load()
		if xid <= old || d.newest.CompareAndSwap(old, xid) {
			return
		}
	}
}

// pool keeps sessions that are not in use. It grows with how many are used at once, which the core bounds.
type pool struct {
	dial func(context.Context) (*pgx.Conn, error)

	mu     sync.Mutex
	idle   []*pgx.Conn
	busy   map[*pgx.Conn]bool
	closed bool
}

var errClosed = errors.New("the driver is closed")

// get takes a session, a used one if there is one.
func (p *pool) get(ctx context.Context) (conn *pgx.Conn, used bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, errClosed
	}
	if n := len(p.idle); n > 0 {
		conn, p.idle = p.idle[n-1], p.idle[:n-1]
		p.busy[conn] = true
		p.mu.Unlock()
		return conn, true, nil
	}
	p.mu.Unlock()
	conn, err = p.open(ctx)
	return conn, false, err
}

// open makes a new session, for use.
func (p *pool) open(ctx context.Context) (*pgx.Conn, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy == nil {
		p.busy = map[*pgx.Conn]bool{}
	}
	p.busy[conn] = true
	return conn, nil
}

// others lists the server's processes of the sessions that are in use, except for one.
func (p *pool) others(not *pgx.Conn) (pids []uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.busy {
		if conn != not {
			pids = append(pids, conn.PgConn().PID())
		}
	}
	return pids
}

// put gives a session back. One that broke, or was left inside a transaction, is closed instead.
func (p *pool) put(conn *pgx.Conn) {
	p.mu.Lock()
	delete(p.busy, conn)
	if !p.closed && !conn.IsClosed() && conn.PgConn().TxStatus() == 'I' {
		p.idle = append(p.idle, conn)
		conn = nil
	}
	p.mu.Unlock()
	if conn != nil {
		p.discard(conn)
	}
}

// drop gives up a session that is in use.
func (p *pool) drop(conn *pgx.Conn) {
	p.mu.Lock()
	delete(p.busy, conn)
	p.mu.Unlock()
	p.discard(conn)
}

func (p *pool) discard(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it is of no use any more, whatever closing says
}

// with runs f with a session. If a session that had lain idle turns out to be gone, f runs once more with a new one, so
// it must do all or nothing.
func (p *pool) with(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, used, err := p.get(ctx)
	if err != nil {
		return err
	}
	err = f(conn)
	if used && err != nil && isLost(conn, err) && ctx.Err() == nil {
		p.drop(conn)
		if conn, err = p.open(ctx); err != nil {
			return err
		}
		err = f(conn)
	}
	p.put(conn)
	return err
}

// isLost reports whether an error means that the session is gone, rather than that a statement failed.
func isLost(conn *pgx.Conn, err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return endsConnection(e)
	}
	return conn.IsClosed()
}

// endsConnection tells errors that end the connection they come on, or keep it from being made for now.
func endsConnection(e *pgconn.PgError) bool {
	// 57P01 to 57P03: terminated by an administrator, crash of another session, not ready to accept connections.
	return strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08")
}

// isDisconnected reports whether an error ends a session of which another one can go on.
func isDisconnected(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return endsConnection(e)
	}
	return endpoint.Lost(err)
}

func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	var errs []error
	for _, conn := range idle {
		if err := conn.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("closing a connection: %w", err))
		}
	}
	return errors.Join(errs...)
}
