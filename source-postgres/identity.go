package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// identity says which log a cursor belongs to, and what is known of it. It is cdc.Position.Identity; every start compares it
// with what the server says (resume.go), and renews it.
type identity struct {
	System   string `json:"system"` // the cluster, made by initdb
	Timeline int    `json:"timeline"`
	Database string `json:"database"`
	Slot     string `json:"slot"`
	Created  string `json:"created"` // the log position at which the slot became usable
	// Address is where the server answered. A slot that is gone at another address may be gone because this is another copy
	// of the server. Empty in states of earlier versions.
	Address string `json:"address,omitempty"`
	// Restart is a position that the slot's restart_lsn has surely passed for good: it is written to disk before it moves.
	// A slot that is behind it is an older copy. Empty when unknown.
	Restart string `json:"restart,omitempty"`
	// Standby says that the slot was made on a standby, so that its promotion leaves the slot in place.
	Standby bool `json:"standby,omitempty"`
}

func (id identity) encode() (json.RawMessage, error) {
	text, err := json.Marshal(id)
	if err != nil {
		return nil, fmt.Errorf("writing the position: %w", err)
	}
	return text, nil
}

// decodeIdentity reads what a position says about its log; of a position without an identity, nothing.
func decodeIdentity(p cdc.Position) (identity, error) {
	var id identity
	if len(p.Identity) == 0 {
		return id, nil
	}
	if err := json.Unmarshal(p.Identity, &id); err != nil {
		return id, fmt.Errorf("reading the stored position: %w", err)
	}
	return id, nil
}

// system is the answer to IDENTIFY_SYSTEM.
type system struct {
	id       string
	timeline int
	position lsn
	forks    []fork // the timelines that this one descends from, oldest first; read only if it matters
}

func identifySystem(ctx context.Context, conn *pgconn.PgConn) (system, error) {
	results, err := conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
	if err != nil {
		return system{}, fmt.Errorf("identifying the server: %w", err)
	}
	row := results[0].Rows[0]
	s := system{id: string(row[0])}
	if _, err := fmt.Sscan(string(row[1]), &s.timeline); err != nil {
		return system{}, fmt.Errorf("identifying the server: reading its timeline: %w", err)
	}
	s.position, err = parseLSN(string(row[2]))
	return s, err
}

// slot is what the server says of a replication slot.
type slot struct {
	exists    bool
	plugin    string
	database  string
	temporary bool
	activePID int    // 0 if nobody reads it
	confirmed string // empty while it is being created
	restart   string // empty if the server has given it up
	status    string // wal_status; empty before version 13
	reason    string // why it was invalidated; "conflict" on a standby of version 16, which says no more
	failover  bool   // to be copied to standbys, from version 17 on
	synced    bool   // was copied from the primary when this server was a standby, from version 17 on
}

func (d *driver) readSlot(ctx context.Context, conn *pgx.Conn) (*slot, error) {
	status, reason, failover, synced := "''", "''", "false", "false"
	if d.server.major() >= 13 {
		status = "coalesce(wal_status, '')"
	}
	if d.server.major() == 16 {
		reason = "CASE WHEN conflicting AND pg_catalog.pg_is_in_recovery() THEN 'conflict' ELSE '' END" // it is set whatever the reason was
	}
	if d.server.major() >= 17 {
		reason, failover, synced = "coalesce(invalidation_reason, '')", "failover", "synced"
	}
	s := &slot{}
	err := conn.QueryRow(ctx, "SELECT true, coalesce(plugin, ''), coalesce(database, ''), temporary, coalesce(active_pid, 0), coalesce(confirmed_flush_lsn::text, ''), coalesce(restart_lsn::text, ''), "+
		status+", "+reason+", "+failover+", "+synced+" FROM pg_catalog.pg_replication_slots WHERE slot_name = $1", d.slot).
		Scan(&s.exists, &s.plugin, &s.database, &s.temporary, &s.activePID, &s.confirmed, &s.restart, &s.status, &s.reason, &s.failover, &s.synced)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("reading slot %q: %w", d.slot, err)
	}
	return s, nil
}
