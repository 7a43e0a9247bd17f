package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// scanRange is a part of a table that is left to be read; cdc.Range is its JSON. It is either a range of pages of one
// relation, or a range of the key.
type scanRange struct {
	// Table is the quoted name to read from: the table, or one of its partitions.
	Table string `json:"table"`
	OID   uint32 `json:"oid"`
	// Node is the relation's file. Another one means that the rows have been written anew, at other places.
	Node uint32 `json:"node,omitempty"`

	// Pages says that From and To are pages: From the first one to read, To the first one not to.
	Pages bool   `json:"pages,omitempty"`
	From  uint64 `json:"from,omitempty"`
	To    uint64 `json:"to,omitempty"`
	// Item is the first one of page From to be read, where the page was too large for one chunk.
	Item uint64 `json:"item,omitempty"`
	// Open says that To is not known yet: it is the end of the relation when the range's first chunk is read.
	Open bool `json:"open,omitempty"`

	// After and UpTo are limits of the key, the first exclusive, the second inclusive, as the server prints the key's
	// columns. Empty means no limit.
	After []string `json:"after,omitempty"`
	UpTo  []string `json:"upTo,omitempty"`
}

func (r scanRange) encode() cdc.Range {
	text, _ := json.Marshal(r) // strings and numbers: cannot fail
	return cdc.Range(text)
}

func decodeRange(r cdc.Range) (scanRange, error) {
	var out scanRange
	if err := json.Unmarshal([]byte(r), &out); err != nil {
		return out, fmt.Errorf("reading the range %q: %w", r, err)
	}
	return out, nil
}

// relation is a table or a partition of one, as the planner needs to know it.
type relation struct {
	OID     uint32
	Schema  string
	Name    string
	Node    uint32
	Pages   uint64
	Toasted bool // has values out of line
	Allowed bool // may be read by us
}

// The relations that hold a table's rows: itself, or its partitions.
const queryRelations = `
	SELECT c.oid, n.nspname, c.relname, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint,
		(pg_catalog.pg_relation_size(c.oid) / $2)::bigint,
		c.reltoastrelid <> 0 AND pg_catalog.pg_relation_size(c.reltoastrelid) > 0,
		pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid)
	FROM pg_catalog.pg_partition_tree($1::oid::regclass) p JOIN pg_catalog.pg_class c ON c.oid = p.relid
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE p.isleaf AND c.relkind = 'r'
	UNION ALL
	SELECT c.oid, n.nspname, c.relname, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint,
		(pg_catalog.pg_relation_size(c.oid) / $2)::bigint,
		c.reltoastrelid <> 0 AND pg_catalog.pg_relation_size(c.reltoastrelid) > 0,
		pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT pg_catalog.row_security_active(c.oid)
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid = $1::oid AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree($1::oid::regclass))`

// Plan implements cdc.Driver.
func (d *driver) Plan(ctx context.Context, t *cdc.Table) (*cdc.Plan, error) {
	var plan *cdc.Plan
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		found, err := d.readTables(ctx, conn, []cdc.TableID{t.ID})
		if err != nil {
			return err
		}
		if len(found) == 0 || (t.Incarnation != "" && incarnation(found[0].oid) != t.Incarnation) {
			return fmt.Errorf("planning table %s: %w", t.ID, cdc.ErrRewritten)
		}
		plan, err = d.planTable(ctx, conn, t, found[0])
		return err
	})
	return plan, err
}

func (d *driver) planTable(ctx context.Context, conn *pgx.Conn, t *cdc.Table, now *table) (*cdc.Plan, error) {
	plan := &cdc.Plan{}
	unseen, err := d.unseen(ctx, conn, now)
	if err != nil {
		return nil, err
	}
	plan.Unseen = unseen
	rows, err := conn.Query(ctx, queryRelations, now.oid, d.server.blockSize)
	if err != nil {
		return nil, fmt.Errorf("reading the size of table %s: %w", t.ID, err)
	}
	relations, err := pgx.CollectRows(rows, pgx.RowToStructByPos[relation])
	if err != nil {
		return nil, fmt.Errorf("reading the size of table %s: %w", t.ID, err)
	}
	relations, all := asked(t, now, relations)
	if !all && len(t.Key) == 0 {
		if err := tellApart(ctx, conn, t, relations); err != nil {
			return nil, err
		}
	}
	if d.byPages(t, now, relations) {
		for _, r := range relations {
			plan.Ranges = append(plan.Ranges, pageRanges(r)...)
		}
		return plan, nil
	}
	plan.Fixed = true
	if all {
		plan.Ranges, err = d.keyRanges(ctx, conn, t, now)
	} else {
		plan.Ranges, err = d.partRanges(ctx, conn, t, now, relations)
	}
	return plan, err
}

// byPages chooses between ranges of pages and ranges of the key.
//
// Pages are faster, and any number of workers share them evenly. But an update moves its row to another page, which may
// be one that was read already; the stream then carries the row without its unchanged out-of-line values. So pages are
// for tables that have none of those (later ones come over the stream), or whose updates carry the whole row before. A
// server before version 14 reads the whole table for each range of pages, so there they are only for tables without a
// key, where no other way exists.
func (d *driver) byPages(t *cdc.Table, now *table, relations []relation) bool {
	if len(t.Key) == 0 {
		return true
	}
	if d.server.major() < 14 {
		return false
	}
	for _, r := range relations {
		if !r.Allowed || (r.Toasted && now.identity != 'f') {
			return false
		}
	}
	return true
}

const (
	// pagesPerRange is how much of a relation is worth a range of its own: 32 MiB.
	pagesPerRange = 4096
	// maxRanges bounds how many ranges one relation, or one table by key, is divided into, since they are all kept in
	// the state.
	maxRanges = 32
)

// pageRanges divides a relation evenly. Its last range is open.
func pageRanges(r relation) []cdc.Range {
	n := min(max(r.Pages/pagesPerRange, 1), maxRanges)
	var out []cdc.Range
	for i := range n {
		part := scanRange{
			Table: quoteTable(r.Schema, r.Name), OID: r.OID, Node: r.Node, Pages: true,
			From: r.Pages * i / n, To: r.Pages * (i + 1) / n, Open: i == n-1,
		}
		if part.Open {
			part.To = 0
		}
		out = append(out, part.encode())
	}
	return out
}

const (
	rowsPerKeyRange = 250_000
	sampleRows      = 20_000
)

// keyRanges divides a table by its key, at values found in a sample of its pages. The server sorts and compares the
// values, never we: a collation, a type's own order and a domain's base are its business (hard case 29).
func (d *driver) keyRanges(ctx context.Context, conn *pgx.Conn, t *cdc.Table, now *table) ([]cdc.Range, error) {
	whole := scanRange{Table: quoteTable(t.ID.Schema, t.ID.Name), OID: now.oid}
	n := min(now.rows/rowsPerKeyRange, maxRanges)
	if n < 2 {
		return []cdc.Range{whole.encode()}, nil
	}
	keys := quoteIdents(t.Key)
	percent := min(100, 100*float64(sampleRows)/float64(now.rows))
	sql := "SELECT " + keys + " FROM (SELECT " + keys + ", row_number() OVER (ORDER BY " + keys + ") AS \"sluice n\", count(*) OVER () AS \"sluice of\"" +
		" FROM " + only(now.root) + whole.Table + " TABLESAMPLE SYSTEM (" + strconv.FormatFloat(percent, 'f', 6, 64) + ")) s" +
		" WHERE \"sluice n\" % greatest(\"sluice of\" / " + strconv.FormatInt(n, 10) + ", 1) = 0 ORDER BY " + keys
	result := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("dividing table %s by its key: %w", t.ID, result.Err)
	}
	var out []cdc.Range
	for _, row := range result.Rows {
		bound := make([]string, len(row))
		for i, v := range row {
			bound[i] = strings.Clone(string(v))
		}
		part := whole
		part.UpTo = bound
		out = append(out, part.encode())
		whole.After = bound
	}
	return append(out, whole.encode()), nil
}

// only keeps tables that inherit from a table out of its rows: they are tables of their own. A partitioned table has
// no rows but those of its partitions.
func only(root bool) string {
	if root {
		return ""
	}
	return "ONLY "
}

// unseen are the transactions that chunks of the table must see: those that write to it now.
func (d *driver) unseen(ctx context.Context, conn *pgx.Conn, t *table) ([]cdc.TxnID, error) {
	if standby, err := d.recovering(ctx, conn); err != nil {
		return nil, err
	} else if standby {
		return d.standbyUnseen(ctx, conn)
	}
	s, err := d.takeSnapshot(ctx, conn)
	if err != nil {
		return nil, err
	}
	oids := []uint32{t.oid}
	if t.root {
		rows, err := conn.Query(ctx, "SELECT relid::oid FROM pg_catalog.pg_partition_tree($1::oid::regclass)", t.oid)
		if err != nil {
			return nil, fmt.Errorf("reading the partitions of %s: %w", t.id, err)
		}
		if oids, err = pgx.CollectRows(rows, pgx.RowTo[uint32]); err != nil {
			return nil, fmt.Errorf("reading the partitions of %s: %w", t.id, err)
		}
	}
	writing, err := d.writers(ctx, conn, s, oids)
	var out []cdc.TxnID
	for _, xid := range writing {
		out = append(out, txnID(xid))
	}
	return out, err
}
