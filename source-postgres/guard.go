package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// guard looks after the slot of a running stream, in a goroutine of its own and on sessions of the pool, because the stream's
// reader may be blocked downstream for as long as it takes. It warns when the slot holds back more of the server's log than
// the user wants, and does what the user chose; it sends heartbeats; and it notes how far the slot has come, so that an older
// copy of the server is recognised.
type guard struct {
	d   *driver
	cut func() // closes the stream's connection

	id   identity
	seen lsn // restart_lsn when it was looked at last

	warned time.Time // of the limit; zero while below it
	since  time.Time // since when the slot is above the limit and has not held back less
	least  int64     // what it held back at that time
	status string

	renewed atomic.Pointer[json.RawMessage] // the identity to be stored, when it changes
	failure atomic.Pointer[error]           // ends the stream
	cancel  context.CancelFunc
	done    chan struct{}
}

// guardTimes are how often a guard does what; tests have shorter ones.
type guardTimes struct {
	look  time.Duration // at the slot
	grace time.Duration // how long a slot above the limit may take to hold back less
	again time.Duration // until a warning is repeated
}

func defaultGuardTimes() guardTimes {
	return guardTimes{look: 10 * time.Second, grace: time.Minute, again: 10 * time.Minute}
}

// newGuard starts the goroutine. It ends with close.
func (d *driver) newGuard(id identity, cut func()) *guard {
	ctx, cancel := context.WithCancel(context.Background())
	g := &guard{d: d, cut: cut, id: id, cancel: cancel, done: make(chan struct{})}
	go g.run(ctx)
	return g
}

func (g *guard) close() {
	g.cancel()
	<-g.done
}

// failed is the error that ends the stream, if there is one.
func (g *guard) failed() error {
	if err := g.failure.Load(); err != nil {
		return *err
	}
	return nil
}

func (g *guard) run(ctx context.Context) {
	defer close(g.done)
	look := time.NewTicker(g.d.guardTimes.look)
	defer look.Stop()
	var beat <-chan time.Time
	if every := g.d.cfg.heartbeat(); every > 0 && !g.d.server.standby {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		beat = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat:
			g.heartbeat(ctx)
		case <-look.C:
			r, err := g.d.retention(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				g.d.log.WithError(err).Debug("could not look at the replication slot; trying again later")
			case err == nil && r.Exists:
				g.note(r)
				g.warnStatus(r)
				if g.limit(r, time.Now()) {
					g.act(ctx, r)
					return
				}
			}
		}
	}
}

// heartbeat commits a transaction that changes nothing but the log, so that the slot moves on where nothing else happens.
// (A message that is not transactional would be decoded too, but only what is acknowledged as a commit releases log.)
func (g *guard) heartbeat(ctx context.Context) {
	err := g.d.conns.with(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_catalog.pg_logical_emit_message(true, 'sluice', '')")
		return err
	})
	if err != nil && ctx.Err() == nil {
		g.d.log.WithError(err).Warn("could not send a heartbeat to the server")
	}
}

// note renews the identity with a position that the slot had reached when it was looked at before: by now it is on disk.
func (g *guard) note(r retention) {
	known, err := parseLSN(g.id.Restart)
	if err != nil {
		known = 0
	}
	if g.seen > known {
		g.id.Restart = g.seen.String()
		if text, err := g.id.encode(); err == nil {
			g.renewed.Store(&text)
		}
	}
	g.seen = r.Restart
}

// warnStatus says once that the server itself is about to give the slot up.
func (g *guard) warnStatus(r retention) {
	if r.Status == "unreserved" && g.status != r.Status {
		g.fields(r).Warnf("the server is about to give up the replication slot %q: it holds back more of the log than max_slot_wal_keep_size allows", g.d.slot)
	}
	g.status = r.Status
}

func (g *guard) fields(r retention) *logrus.Entry {
	return g.d.log.WithFields(logrus.Fields{
		"eventType": "slotLag", "slot": g.d.slot, "retained": r.Retained, "limit": g.d.cfg.Advanced.MaxSlotLagBytes, "walStatus": r.Status, "safeWalSize": r.Safe,
	})
}

// limit compares what the slot holds back with the limit, warns, and reports whether it is time to act: the slot is above
// the limit, and for a while has not come closer to it. A capture that is catching up is left alone.
func (g *guard) limit(r retention, now time.Time) bool {
	most := int64(g.d.cfg.Advanced.MaxSlotLagBytes)
	if most == 0 || r.Retained <= most {
		if !g.warned.IsZero() {
			g.fields(r).Info("the replication slot holds back less than the limit again")
		}
		g.warned = time.Time{}
		return false
	}
	first := g.warned.IsZero()
	if first || now.Sub(g.warned) >= g.d.guardTimes.again {
		g.warned = now
		g.fields(r).Warn(g.excess(r) + " " + g.consequence())
	}
	if first || r.Retained < g.least {
		g.since, g.least = now, r.Retained
	}
	return g.d.cfg.Advanced.OnSlotLag != "" && g.d.cfg.Advanced.OnSlotLag != onLagWarn && now.Sub(g.since) >= g.d.guardTimes.grace
}

func (g *guard) excess(r retention) string {
	return fmt.Sprintf("The replication slot %q holds back %d MiB of the server's log; advanced.maxSlotLagBytes allows %d MiB.", g.d.slot, r.Retained>>20, g.d.cfg.Advanced.MaxSlotLagBytes>>20)
}

func (g *guard) consequence() string {
	switch g.d.cfg.Advanced.OnSlotLag {
	case onLagStop:
		return "The capture stops if that does not become less."
	case onLagDrop:
		return "The slot is dropped if that does not become less."
	default:
		return "The server keeps that until it is captured, or until a transaction that is open ends."
	}
}

// act does what the user chose.
func (g *guard) act(ctx context.Context, r retention) {
	if g.d.cfg.Advanced.OnSlotLag == onLagStop {
		g.fail(usererr.New(nil, "%s The capture does not keep up: find out what holds it up (its destination, or a transaction that has been open for long). "+
			"To go on, raise the limit. To save the server's disk instead, drop the slot: SELECT pg_drop_replication_slot(%s);", g.excess(r), quoteLiteral(g.d.slot)))
		return
	}
	g.fail(lost("%s It was dropped to save the server's disk (advanced.onSlotLag).", g.excess(r)))
	g.cut()
	err := g.d.retryInUse(ctx, func() error {
		return g.d.conns.with(ctx, func(conn *pgx.Conn) error { return g.d.dropSlot(ctx, conn) })
	})
	if err != nil && ctx.Err() == nil { // else a new stream begins already, and drops it
		g.d.log.WithError(err).WithField("slot", g.d.slot).Warn("could not drop the replication slot; the next start of the capture does")
	}
}

func (g *guard) fail(err error) { g.failure.Store(&err) }
