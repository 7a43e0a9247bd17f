package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/rowjson"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// rowPlan is how rows of one version of a table become documents, decided once. It is immutable.
type rowPlan struct {
	shape  *rowjson.Shape[[]byte]
	keys   []keyColumn
	names  []string // of the columns, in the order of the values
	hidden []bool   // by value, whether it is left out; nil if none is
	bytea  []int16  // by value, the format of bytea, or notBytea
	source []byte   // "schema":…,"table":…
}

// keyColumn is where and how a key's value is found among the values of a row.
type keyColumn struct {
	index   int
	integer bool // an integer is packed as one, everything else as the server prints it
	binary  bool
}

// newRowPlan plans rows whose i-th value has the i-th name, type and format. A value without a type is left out of documents.
func newRowPlan(id cdc.TableID, key, names []string, types []*dataType, scanned bool) *rowPlan {
	p := &rowPlan{names: names, bytea: make([]int16, len(names))}
	encoders := make([]encoder, len(names))
	formats := make([]int16, len(names))
	for i, t := range types {
		p.bytea[i] = notBytea
		if t == nil {
			if p.hidden == nil {
				p.hidden = make([]bool, len(names))
			}
			p.hidden[i] = true
			continue
		}
		asKey := slices.Contains(key, names[i])
		if scanned {
			formats[i], encoders[i] = t.scanEncoder(asKey)
		} else {
			encoders[i] = t.textEncoder(asKey)
		}
		if asKey && t.kind.isTime() {
			encoders[i] = explainBeyond(id, names[i], encoders[i])
		}
		if t.kind == kindBytea {
			p.bytea[i] = formats[i]
		}
	}
	p.shape = rowjson.New(names, encoders)
	for _, k := range key {
		if i := slices.Index(names, k); i >= 0 {
			p.keys = append(p.keys, keyColumn{index: i, integer: types[i].kind == kindInt, binary: formats[i] == formatBinary})
		}
	}
	p.source = append(p.source, `"schema":`...)
	p.source = rowjson.AppendString(p.source, []byte(id.Schema))
	p.source = append(p.source, `,"table":`...)
	p.source = rowjson.AppendString(p.source, []byte(id.Name))
	return p
}

// explainBeyond gives an encoder of a key's values the words for one that it refuses.
func explainBeyond(id cdc.TableID, column string, enc encoder) encoder {
	return func(dst, v []byte) ([]byte, error) {
		dst, err := enc(dst, v)
		if errors.Is(err, errBeyond) {
			err = usererr.New(err, "A row of the table %s has %q in the column %q of its key. RFC 3339 cannot hold that, and the nearest value that it can "+
				"hold may be another row's key. Add %q to advanced.lossless, so that such values are kept as the server prints them, and discover again; "+
				"the column is plain text then.", id, v, column, losslessTimes)
		}
		return dst, err
	}
}

const notBytea int16 = -1

// inDocument is about how many bytes of a document a value takes of which the server sends n: bytea is base64 there.
func (p *rowPlan) inDocument(column, n int) int {
	if p.hidden != nil && p.hidden[column] {
		return cdc.MaxRow + 1 // nobody needs any of it
	}
	return 4 * p.valueBytes(column, n) / p.ofBase64(column)
}

// valueBytes is how many bytes a value has of which the server sends n.
func (p *rowPlan) valueBytes(column, n int) int {
	if p.bytea[column] == formatText {
		return max(n-len(`\x`), 0) / 2
	}
	return n
}

// ofBase64 is what of four bytes in a document is one of the value's.
func (p *rowPlan) ofBase64(column int) int {
	if p.bytea[column] == notBytea {
		return 4
	}
	return 3
}

// large lists the values that were left out of a row.
func (p *rowPlan) large(dst []cdc.LargeValue, column, n int) []cdc.LargeValue {
	if p.hidden != nil && p.hidden[column] {
		return dst
	}
	return append(dst, cdc.LargeValue{Column: p.names[column], Bytes: int64(p.valueBytes(column, n))})
}

// text is the value as the server prints it.
func (k keyColumn) text(v []byte) string {
	if k.binary {
		return strconv.FormatInt(binaryInt(v), 10)
	}
	return string(v)
}

// binaryInt reads an integer of 2, 4 or 8 bytes.
func binaryInt(v []byte) int64 {
	switch len(v) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(v)))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(v)))
	case 8:
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// appendKey appends the key's values as a tuple. Only integers are ever scanned in binary.
func (p *rowPlan) appendKey(dst []byte, vals [][]byte) ([]byte, error) {
	for _, k := range p.keys {
		if k.index >= len(vals) || vals[k.index] == nil || pgoutput.TooLarge(vals[k.index]) {
			return dst, fmt.Errorf("the row has no value for key column %q", p.names[k.index])
		}
		v := vals[k.index]
		switch {
		case k.binary:
			dst = tuple.AppendInt(dst, binaryInt(v))
		case k.integer:
			n, err := parseInt(v)
			if err != nil {
				return dst, err
			}
			dst = tuple.AppendInt(dst, n)
		default:
			dst = tuple.AppendStringBytes(dst, v)
		}
	}
	return dst, nil
}

// parseInt is strconv.ParseInt for bytes that the server printed.
func parseInt(v []byte) (int64, error) {
	digits, negative := v, false
	if len(v) > 0 && v[0] == '-' {
		digits, negative = v[1:], true
	}
	if len(digits) == 0 || len(digits) > 18 {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading a key: %w", err)
		}
		return n, nil
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("reading a key: %w: %q", errValue, v)
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, nil
}

// scanPlan is how one version of a table is scanned: its columns, their formats, and the SQL around them.
type scanPlan struct {
	rows       *rowPlan
	table      *cdc.Table
	now        *table
	list       string   // the columns, quoted
	types      []uint32 // as results call them
	formats    []int16  // hidden columns first
	hidden     int      // how many columns come before the table's own: ctid and xmin, or none
	keyList    string   // the key's columns, as they are compared
	asRecords  bool     // they are compared as records: an operator has another name (hstore's is #>#), which records know
	keyTypes   []uint32
	where      []string  // conditions that a backfill's rows fulfil
	sent       []string  // those of them that rows read by key fulfil
	searchPath string    // schemas with the operators of the key's types, quoted
	origin     *snapshot // of a table without a key
	size       *sizer
}

// planCache holds the scan plan of the newest version of each table.
type planCache struct {
	mu    sync.Mutex
	plans map[cdc.TableID]*scanPlan
}

// scanPlanOf is the plan for scanning a version of a table. It fails with cdc.ErrReshaped or cdc.ErrRewritten if the
// server's table is not that version any more.
func (d *driver) scanPlanOf(ctx context.Context, conn *pgx.Conn, t *cdc.Table) (*scanPlan, error) {
	d.plans.mu.Lock()
	known := d.plans.plans[t.ID]
	d.plans.mu.Unlock()
	if known != nil && known.table == t {
		return known, nil
	}
	found, err := d.readTables(ctx, conn, []cdc.TableID{t.ID})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 || (t.Incarnation != "" && t.Incarnation != incarnation(found[0].oid)) {
		return nil, fmt.Errorf("preparing to scan table %s: %w", t.ID, cdc.ErrRewritten)
	}
	p, err := d.newScanPlan(t, found[0])
	if err == nil {
		err = d.checkFilter(ctx, conn, t, found[0])
	}
	if err != nil {
		return nil, err
	}
	d.plans.mu.Lock()
	defer d.plans.mu.Unlock()
	if d.plans.plans == nil {
		d.plans.plans = make(map[cdc.TableID]*scanPlan)
	}
	d.plans.plans[t.ID] = p
	return p, nil
}

func (d *driver) newScanPlan(t *cdc.Table, now *table) (*scanPlan, error) {
	p := &scanPlan{table: t, now: now, size: &sizer{}}
	var (
		names []string
		types []*dataType
	)
	if len(t.Key) == 0 {
		p.hidden, p.formats = 2, []int16{formatBinary, formatBinary}
		origin, err := parseSnapshot(t.Origin)
		if err != nil {
			return nil, fmt.Errorf("preparing to scan table %s: %w", t.ID, err)
		}
		p.origin = origin
	}
	for _, want := range t.Columns {
		c := now.column(want.Name)
		if c == nil || c.typeText != want.Type {
			return nil, fmt.Errorf("preparing to scan table %s: column %q: %w", t.ID, want.Name, cdc.ErrReshaped)
		}
		dt := d.types.get(c.typ)
		format, _ := dt.scanEncoder(slices.Contains(t.Key, c.name))
		names, types = append(names, c.name), append(types, dt)
		p.types, p.formats = append(p.types, d.types.base(c.typ)), append(p.formats, format)
	}
	var schemas, keys []string
	for _, k := range t.Key {
		c := now.column(k)
		if c == nil {
			return nil, fmt.Errorf("preparing to scan table %s: key column %q: %w", t.ID, k, cdc.ErrReshaped)
		}
		p.keyTypes, keys = append(p.keyTypes, d.types.base(c.typ)), append(keys, d.types.comparable(c.name, c.typ))
		if op := d.types.operator(c.typ); op.schema != "" {
			p.asRecords = p.asRecords || op.name != ">"
			if !slices.Contains(schemas, op.schema) {
				schemas = append(schemas, op.schema)
			}
		}
	}
	// Nothing else is looked for: types whose values are names (regclass and its like) print them in full then, as they do in
	// the stream.
	p.searchPath = "pg_catalog"
	if len(schemas) > 0 {
		p.searchPath += ", " + quoteIdents(schemas)
	}
	p.where, p.sent = conditions(now, t.Selection.Filter), conditions(now, "")
	if len(p.where) > 0 {
		p.searchPath += `, "$user", public` // what filters were printed and checked with
	}
	p.list, p.keyList = quoteIdents(names), strings.Join(keys, ", ")
	if p.hidden > 0 {
		p.list = "ctid, xmin, " + p.list
	}
	p.rows = newRowPlan(t.ID, t.Key, names, types, true)
	return p, nil
}

// scanRow is a row of a scan. It implements cdc.Row.
type scanRow struct {
	plan   *scanPlan
	vals   [][]byte // of the table's columns
	hidden [][]byte // ctid and xmin
	oid    uint32
	source []byte // of rows with a key, the same for the whole chunk: loc is where the log was when its snapshot was taken
	large  []cdc.LargeValue
}

// placed says where the log was when the row was read. The log's changes of the row that the snapshot shows lie before, those
// that are emitted after the chunk behind it: so the positions of a key's documents have the order of its versions.
func (r *scanRow) placed(high cdc.Mark) error {
	at, err := parseLSN(string(high))
	if err != nil {
		return fmt.Errorf("reading the place of a chunk: %w", err)
	}
	r.source = append(append(r.source[:0], r.plan.rows.source...), `,"loc":[`...)
	r.source = append(strconv.AppendUint(r.source, uint64(at), 10), `,0,0]`...)
	return nil
}

// lacks takes what was left out of the row because it is too large.
func (r *scanRow) lacks(values []leftValue) {
	r.large = r.large[:0]
	for _, v := range values {
		column := v.column - r.plan.hidden
		r.vals[column] = pgoutput.MarkTooLarge()
		r.large = r.plan.rows.large(r.large, column, v.bytes)
	}
}

// Oversized implements cdc.OversizedRow.
func (r *scanRow) Oversized() []cdc.LargeValue { return r.large }

// inDocument is rowPlan.inDocument for the columns that a query gives.
func (p *scanPlan) inDocument(column, n int) int {
	if column < p.hidden {
		return n
	}
	return p.rows.inDocument(column-p.hidden, n)
}

// AppendFields implements cdc.Row.
func (r *scanRow) AppendFields(dst []byte) ([]byte, error) {
	if len(r.large) > 0 {
		return r.plan.rows.shape.AppendFields(dst, r.vals, pgoutput.TooLarge)
	}
	return r.plan.rows.shape.AppendFields(dst, r.vals, nil)
}

// AppendKey implements cdc.Row.
func (r *scanRow) AppendKey(dst []byte) ([]byte, error) { return r.plan.rows.appendKey(dst, r.vals) }

// AppendSource implements cdc.Row. A row without a key is told from others by its place in the table: reading it again
// gives the same document.
func (r *scanRow) AppendSource(dst []byte) ([]byte, error) {
	if r.plan.hidden == 0 {
		return append(dst, r.source...), nil
	}
	dst = append(dst, r.plan.rows.source...)
	ctid := r.hidden[0]
	place := int64(binary.BigEndian.Uint32(ctid))<<16 | int64(binary.BigEndian.Uint16(ctid[4:]))
	dst = append(dst, `,"loc":[-1,`...)
	dst = strconv.AppendInt(dst, place, 10)
	dst = append(dst, ',')
	dst = strconv.AppendUint(dst, uint64(r.oid), 10)
	return append(dst, ']'), nil
}

// Omitted implements cdc.Row: scans read whole rows.
func (r *scanRow) Omitted() []string { return nil }

// fromStream reports whether a row of a table without a key was written by a transaction that the stream carries.
func (r *scanRow) fromStream(now *snapshot) bool {
	xid := binary.BigEndian.Uint32(r.hidden[1])
	const firstNormal = 3
	if xid < firstNormal {
		return false // frozen by an old version, or written when the cluster was made
	}
	// The newest transaction with these bits that can have written a visible row.
	full := now.xmax - 1 - uint64(uint32(now.xmax-1)-xid)
	return !r.plan.origin.sees(full)
}
