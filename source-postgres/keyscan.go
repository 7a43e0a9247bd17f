package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// ScanKeys implements cdc.KeyScanner.
func (d *driver) ScanKeys(ctx context.Context, c cdc.Chunk, keys [][]byte, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	return d.inScan(ctx, c.Table, func(conn *pgx.Conn, p *scanPlan) (*cdc.Scanned, error) {
		c.MaxBytes = 1 << 40 // all the keys are read
		rng := scanRange{Table: quoteTable(c.Table.ID.Schema, c.Table.ID.Name), OID: p.now.oid}
		s := &scan{d: d, conn: conn.PgConn(), plan: p, chunk: c, rng: rng, yield: yield}
		s.row = scanRow{plan: p, oid: p.now.oid}
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
		sql, params, types, err := s.keysQuery(keys)
		if err != nil {
			return nil, err
		}
		if err := s.read(ctx, sql, params, types); err != nil {
			return nil, err
		}
		return &cdc.Scanned{Snapshot: s.sees, High: s.high}, nil
	})
}

// keysQuery is the SQL of the rows with the given keys. The parameters have the columns' own types, so that the server
// compares them as its index does.
func (s *scan) keysQuery(keys [][]byte) (sql string, params [][]byte, types []uint32, err error) {
	columns := s.chunk.Table.Key
	var list strings.Builder
	for i, key := range keys {
		values, err := keyText(key)
		if err != nil || len(values) != len(columns) {
			return "", nil, nil, fmt.Errorf("reading rows of table %s by key: %x is no key of %d columns: %w", s.chunk.Table.ID, key, len(columns), err)
		}
		if i > 0 {
			list.WriteString(", ")
		}
		list.WriteByte('(')
		for j, v := range values {
			if j > 0 {
				list.WriteString(", ")
			}
			params = append(params, []byte(v))
			types = append(types, s.plan.keyTypes[j])
			list.WriteString("$" + strconv.Itoa(len(params)))
		}
		list.WriteByte(')')
	}
	sql = "SELECT " + s.plan.list + " FROM " + only(s.plan.now.root) + s.rng.Table +
		" WHERE (" + s.plan.keyList + ") IN (" + list.String() + ")"
	for _, c := range s.plan.sent {
		sql += " AND " + c
	}
	return sql, params, types, nil
}

// keyText is a key's values as the server prints and reads them.
func keyText(key []byte) ([]string, error) {
	values, err := tuple.Unpack(key)
	if err != nil {
		return nil, fmt.Errorf("reading a key: %w", err)
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprint(v) // integers and strings
	}
	return out, nil
}
