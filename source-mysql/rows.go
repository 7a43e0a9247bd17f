package main

import (
	"fmt"
	"slices"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// rowPlan is how rows of one version of a table become documents, decided once. It is immutable, but for scratch memory: it
// belongs to one goroutine at a time.
type rowPlan struct {
	shape   *rowjson.Shape[[]byte]
	keys    []keyColumn
	names   []string
	kept    []bool // the value is in documents
	source  []byte // "schema":…,"table":…
	scratch []byte
}

// keyColumn is where and how a key's value is found among the values of a row.
type keyColumn struct {
	index  int
	kind   kind
	logged bool
	encode encoder
}

// newRowPlan plans rows whose i-th value has the i-th name and codec. A value without a codec is left out of documents.
func newRowPlan(id cdc.TableID, key, names []string, codecs []*codec, logged bool) (*rowPlan, error) {
	p := &rowPlan{names: names, kept: make([]bool, len(names))}
	encoders := make([]encoder, len(names))
	for i, c := range codecs {
		p.kept[i] = c != nil
		switch {
		case c == nil:
		case logged:
			encoders[i] = c.logged()
		default:
			encoders[i] = c.scanned()
		}
	}
	p.shape = rowjson.New(names, encoders)
	for _, k := range key {
		i := slices.Index(names, k)
		if i < 0 || codecs[i] == nil {
			return nil, fmt.Errorf("planning rows of table %s: key column %q: %w", id, k, cdc.ErrReshaped)
		}
		p.keys = append(p.keys, keyColumn{index: i, kind: codecs[i].typ.kind, logged: logged, encode: encoders[i]})
	}
	p.source = rowjson.AppendText(append(p.source, `"schema":`...), id.Schema)
	p.source = rowjson.AppendText(append(p.source, `,"table":`...), id.Name)
	return p, nil
}

// appendKey appends the key's values as a tuple: integers as such, everything else as its JSON.
func (p *rowPlan) appendKey(dst []byte, vals [][]byte) ([]byte, error) {
	for _, k := range p.keys {
		v := vals[k.index]
		if v == nil {
			return dst, fmt.Errorf("the row has no value for key column %q", p.names[k.index])
		}
		if k.logged && k.kind == kindInt {
			dst = tuple.AppendInt(dst, signed(v))
			continue
		}
		if k.logged && k.kind == kindUint {
			dst = tuple.AppendUint(dst, unsigned(v))
			continue
		}
		var err error
		if p.scratch, err = k.encode(p.scratch[:0], v); err != nil {
			return dst, fmt.Errorf("encoding key column %q: %w", p.names[k.index], err)
		}
		switch k.kind {
		case kindInt, kindUint, kindBit, kindYear:
			if dst, err = appendInteger(dst, p.scratch); err != nil {
				return dst, err
			}
		default:
			dst = tuple.AppendStringBytes(dst, p.scratch)
		}
	}
	return dst, nil
}

// appendInteger appends an integer that was printed.
func appendInteger(dst, text []byte) ([]byte, error) {
	digits, negative := text, false
	if len(text) > 0 && text[0] == '-' {
		digits, negative = text[1:], true
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return dst, fmt.Errorf("reading a key: %w: %q", errValue, text)
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return tuple.AppendInt(dst, -int64(n)), nil //nolint:gosec // it came from an integer
	}
	return tuple.AppendUint(dst, n), nil
}

// scanRow is a row of a scan. It implements cdc.Row.
type scanRow struct {
	plan *rowPlan
	vals [][]byte
	pass *pass // of a table without a key
}

// AppendFields implements cdc.Row.
func (r *scanRow) AppendFields(dst []byte) ([]byte, error) {
	return r.plan.shape.AppendFields(dst, r.vals, nil)
}

// AppendKey implements cdc.Row.
func (r *scanRow) AppendKey(dst []byte) ([]byte, error) { return r.plan.appendKey(dst, r.vals) }

// AppendSource implements cdc.Row.
func (r *scanRow) AppendSource(dst []byte) ([]byte, error) {
	if r.pass != nil {
		dst = r.pass.appendLoc(dst)
	}
	return append(dst, r.plan.source...), nil
}

// Omitted implements cdc.Row: scans read whole rows.
func (r *scanRow) Omitted() []string { return nil }
