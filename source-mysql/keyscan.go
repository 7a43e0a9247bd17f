package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// ScanKeys implements cdc.KeyScanner.
func (d *driver) ScanKeys(ctx context.Context, c cdc.Chunk, keys [][]byte, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	var out *cdc.Scanned
	err := d.inScan(ctx, c.Table, c.Heavy, func(s *session, p *scanPlan) (err error) {
		where, err := p.anyOf(d, keys)
		if err != nil {
			return err
		}
		wanted := make(map[string]bool, len(keys))
		for _, k := range keys {
			wanted[string(k)] = true
		}
		out, err = d.snapshot(ctx, s, func(*cdc.Scanned) error {
			return p.readKeys(ctx, s, where, c, wanted, yield)
		})
		return err
	})
	return out, err
}

// readKeys reads rows by key. The server's idea of equality may be wider than ours.
func (p *scanPlan) readKeys(ctx context.Context, s *session, where string, c cdc.Chunk, wanted map[string]bool, yield func(cdc.Row) error) error {
	row := scanRow{plan: p.rows}
	var key []byte
	return s.query(ctx, "SELECT "+p.list+p.from()+" WHERE "+where, p.asPlanned, func(vals [][]byte) (err error) {
		row.vals = vals
		if key, err = row.AppendKey(key[:0]); err != nil || !wanted[string(key)] {
			return err
		}
		size := 0
		for _, v := range vals {
			size += len(v)
		}
		if size > cdc.HeavyRow && c.Heavy != nil {
			if err := c.Heavy(ctx); err != nil {
				return err //nolint:wrapcheck // the context's
			}
		}
		return yield(&row)
	})
}

// anyOf is the condition that a row has one of the keys.
func (p *scanPlan) anyOf(d *driver, keys [][]byte) (string, error) {
	alternatives := make([]string, len(keys))
	for i, key := range keys {
		values, err := tuple.Unpack(key)
		if err != nil || len(values) != len(p.key) {
			return "", fmt.Errorf("reading rows of table %s by key: %x is no key of %d columns: %w", p.table.ID, key, len(p.key), err)
		}
		terms := make([]string, len(values))
		for j, v := range values {
			if terms[j], err = d.equals(p.key[j], v); err != nil {
				return "", fmt.Errorf("reading rows of table %s by key: %w", p.table.ID, err)
			}
		}
		alternatives[i] = "(" + strings.Join(terms, " AND ") + ")"
	}
	return strings.Join(alternatives, " OR "), nil
}

// equals is the condition that a column of the key has a value, which is as appendKey writes it: an integer, or JSON.
func (d *driver) equals(k keyTerm, value any) (string, error) {
	encoded, ok := value.(string)
	if !ok {
		return k.name + " = " + fmt.Sprint(value), nil
	}
	var text string
	if err := json.Unmarshal([]byte(encoded), &text); err != nil {
		return "", fmt.Errorf("%w: %w", errValue, err)
	}
	switch k.kind {
	case kindDecimal:
		return k.name + " = " + k.literal([]byte(text)), nil
	case kindFloat, kindDouble:
		size := 64
		if k.kind == kindFloat {
			size = 32
		}
		f, err := strconv.ParseFloat(text, size)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errValue, err)
		}
		return "(" + k.name + " + 0e0) = " + strconv.FormatFloat(f, 'e', 17, 64), nil
	case kindBinary, kindBytes:
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errValue, err)
		}
		return k.name + " = " + k.literal(raw), nil
	case kindDatetime, kindTimestamp:
		if d.cfg.Advanced.ZeroDates != zeroText {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				return "", fmt.Errorf("%w: %w", errValue, err)
			}
			if k.kind == kindDatetime {
				at = at.In(d.location)
			}
			text = at.Format("2006-01-02 15:04:05.000000")
		}
	default:
	}
	return k.name + " = " + quoteText(text), nil
}
