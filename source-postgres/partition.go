package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A partition that is attached brings rows of which the log says nothing, and takes them away when it is detached or dropped
// (hard case 18). The core compares the parts of a partitioned table (cdc.Table.Parts) at every discovery, and has one that
// has come read; the stream has it look sooner when it meets a partition that is not among them.

// The partitions that hold rows. Foreign ones are in no log, and are not read.
const queryParts = `
	SELECT r.oid, array_agg(p.relid::oid::text)
	FROM pg_catalog.unnest($1::oid[]) AS r(oid) CROSS JOIN LATERAL pg_catalog.pg_partition_tree(r.oid::regclass) p
		JOIN pg_catalog.pg_class c ON c.oid = p.relid
	WHERE p.isleaf AND c.relkind = 'r'
	GROUP BY r.oid`

// readParts adds to partitioned tables what they consist of.
func readParts(ctx context.Context, conn *pgx.Conn, tables []*table) error {
	byOID := map[uint32]*table{}
	var oids []uint32
	for _, t := range tables {
		if t.root {
			t.parts = []string{incarnation(t.oid)} // so that it is never empty
			byOID[t.oid] = t
			oids = append(oids, t.oid)
		}
	}
	if len(oids) == 0 {
		return nil
	}
	var (
		oid   uint32
		parts []string
	)
	rows, err := conn.Query(ctx, queryParts, oids)
	if err == nil {
		_, err = pgx.ForEachRow(rows, []any{&oid, &parts}, func() error {
			t := byOID[oid]
			t.parts = append(t.parts, parts...)
			slices.Sort(t.parts)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("reading partitions: %w", err)
	}
	return nil
}

// asked are those of a table's relations that are among the parts to be planned, and whether that is the whole table.
func asked(t *cdc.Table, now *table, relations []relation) (parts []relation, all bool) {
	if t.Parts == nil || !now.root {
		return relations, true
	}
	for _, r := range relations {
		if slices.Contains(t.Parts, incarnation(r.OID)) {
			parts = append(parts, r)
		}
	}
	return parts, slices.Contains(t.Parts, incarnation(now.oid))
}

// partRanges are the ranges of partitions that have come to a table which is read by its key: each is one range.
func (d *driver) partRanges(ctx context.Context, conn *pgx.Conn, t *cdc.Table, now *table, parts []relation) ([]cdc.Range, error) {
	var out []cdc.Range
	for _, r := range parts {
		if !r.Allowed {
			return d.keyRanges(ctx, conn, t, now) // only the whole table may be read
		}
		out = append(out, scanRange{Table: quoteTable(r.Schema, r.Name), OID: r.OID}.encode())
	}
	return out, nil
}

// Partitions that existed before they were attached: their row types are older than their inheritance.
const queryAttached = `
	SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_catalog.pg_type y ON y.oid = c.reltype JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
	WHERE c.oid = ANY ($1::oid[]) AND y.xmin <> i.xmin AND pg_catalog.pg_relation_size(c.oid) > 0`

// tellApart fails if rows of partitions that have come to a table without a key may be in the log or not: nothing tells. The
// rows of a partition that was made as one are all in the log, or older than the capture of the table.
func tellApart(ctx context.Context, conn *pgx.Conn, t *cdc.Table, parts []relation) error {
	var oids []uint32
	for _, r := range parts {
		oids = append(oids, r.OID)
	}
	rows, err := conn.Query(ctx, queryAttached, oids)
	if err != nil {
		return fmt.Errorf("looking at partitions of %s: %w", t.ID, err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking at partitions of %s: %w", t.ID, err)
	}
	if len(names) == 0 {
		return nil
	}
	return usererr.New(nil, "%s was attached to table %s, which has no key: the rows that it had before cannot be told from those that came over the log since. "+
		"Backfill the table into an empty collection.", strings.Join(names, ", "), t.ID)
}

// partOf has the core look at a table whose partition the log mentions, if the table does not have it yet.
func (s *stream) partOf(ctx context.Context, relation uint32) error {
	roots := false
	for _, t := range s.tables {
		if slices.Contains(t.table.Parts, incarnation(relation)) {
			return nil
		}
		roots = roots || t.table.Parts != nil
	}
	if !roots {
		return nil
	}
	var ids []cdc.TableID
	err := s.d.conns.with(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE c.oid = pg_catalog.pg_partition_root($1::oid::regclass)`, relation)
		if err == nil {
			ids, err = pgx.CollectRows(rows, pgx.RowToStructByPos[cdc.TableID])
		}
		return err
	})
	if sqlState(err) != "" {
		return nil // it is gone by now
	}
	if err != nil {
		return fmt.Errorf("looking for the table of a partition: %w", err)
	}
	for _, id := range ids {
		if t := s.tables[id]; t != nil {
			s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: id, Txn: s.txn, Shape: t.table, Look: true})
		}
	}
	return nil
}
