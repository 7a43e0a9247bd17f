package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// scanPlan is how one version of a table is scanned.
type scanPlan struct {
	table  *cdc.Table
	rows   *rowPlan
	list   string // the columns, as they are asked for
	key    []keyTerm
	keyAll string        // the key's columns, quoted
	result string        // how results with these columns are described
	bytes  *atomic.Int64 // that a row has, about; 0 until the first chunk was read
}

// keyTerm is a column of the key.
type keyTerm struct {
	name  string // quoted
	index int    // among the values of a row
	kind  kind
	cs    string // the character set that its values come in; "" for numbers
}

// scanRange is a part of a table: the rows whose keys lie behind After, up to UpTo. Values are SQL literals. They are made of
// digits only, or by us of hexadecimal digits.
type scanRange struct {
	After []string `json:"after,omitempty"`
	UpTo  []string `json:"upTo,omitempty"`
	Open  bool     `json:"open,omitempty"` // up to the last key that there is when the range is first read
}

func (r scanRange) encode() cdc.Range {
	text, _ := json.Marshal(r) // texts always encode
	return cdc.Range(text)
}

// scanPlanOf is the plan for scanning a version of a table, as the caller's own copy.
func (d *driver) scanPlanOf(ctx context.Context, s *session, t *cdc.Table) (*scanPlan, error) {
	found, err := d.readTables(ctx, s, []cdc.TableID{t.ID})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("preparing to scan table %s: %w", t.ID, cdc.ErrRewritten)
	}
	if len(t.Key) == 0 {
		return nil, usererr.New(nil, "The collection of table %s has no key of the table's, so its rows cannot be read. Discover the table again.", t.ID)
	}
	p := &scanPlan{table: t, bytes: &atomic.Int64{}}
	var names, list, key []string
	var codecs []*codec
	for _, want := range t.Columns {
		c := found[0].column(want.Name)
		if c == nil || c.typ.text() != want.Type {
			return nil, fmt.Errorf("preparing to scan table %s: column %q: %w", t.ID, want.Name, cdc.ErrReshaped)
		}
		codec, err := d.codec(c.typ, slices.Contains(t.Key, c.name))
		if err != nil {
			return nil, err
		}
		names, codecs = append(names, c.name), append(codecs, codec)
		list = append(list, codec.expression(quoteName(c.name)))
	}
	for _, k := range t.Key {
		i := slices.Index(names, k)
		if i < 0 {
			return nil, fmt.Errorf("preparing to scan table %s: key column %q: %w", t.ID, k, cdc.ErrReshaped)
		}
		typ := codecs[i].typ
		term := keyTerm{name: quoteName(k), index: i, kind: typ.kind, cs: typ.charset}
		if typ.kind == kindEnum || typ.kind == kindSet {
			// They sort by their numbers, so that is what they are compared by.
			term.index = len(list)
			list = append(list, term.name+" + 0")
		}
		p.key, key = append(p.key, term), append(key, term.name)
	}
	p.list, p.keyAll = strings.Join(list, ", "), strings.Join(key, ", ")
	if p.rows, err = newRowPlan(t.ID, t.Key, names, codecs, false); err != nil {
		return nil, err
	}
	// Every result has to be described as the one is that comes before the catalog is found to be the same as above.
	describe := func(columns []resultColumn) error {
		p.result = description(columns)
		return nil
	}
	if err := s.query(ctx, "SELECT "+p.list+p.from()+" LIMIT 0", describe, nil); err != nil {
		return nil, err
	}
	again, err := d.readTables(ctx, s, []cdc.TableID{t.ID})
	if err != nil {
		return nil, err
	}
	if len(again) == 0 || !reflect.DeepEqual(again[0].columns, found[0].columns) {
		return nil, fmt.Errorf("preparing to scan table %s: %w", t.ID, cdc.ErrReshaped)
	}
	return p, nil
}

// description is what of a result's columns decides how its values are read.
func description(columns []resultColumn) string {
	const unsigned, enum, set = 32, 256, 2048
	var b strings.Builder
	for _, c := range columns {
		fmt.Fprintf(&b, "%s %d %d %d %d;", c.name, c.typ, c.collation, c.decimals, c.flags&(unsigned|enum|set))
	}
	return b.String()
}

// asPlanned checks that a result has the columns that the plan is for: the table may have been altered meanwhile.
func (p *scanPlan) asPlanned(columns []resultColumn) error {
	if description(columns) != p.result {
		return fmt.Errorf("reading table %s: %w", p.table.ID, cdc.ErrReshaped)
	}
	return nil
}

// cachedPlan is scanPlanOf, asked for once a version.
func (d *driver) cachedPlan(ctx context.Context, s *session, t *cdc.Table) (*scanPlan, error) {
	d.plans.mu.Lock()
	known := d.plans.plans[t.ID]
	d.plans.mu.Unlock()
	if known == nil || known.table != t {
		var err error
		if known, err = d.scanPlanOf(ctx, s, t); err != nil {
			return nil, err
		}
		d.plans.mu.Lock()
		if d.plans.plans == nil {
			d.plans.plans = map[cdc.TableID]*scanPlan{}
		}
		d.plans.plans[t.ID] = known
		d.plans.mu.Unlock()
	}
	mine, rows := *known, *known.rows
	rows.scratch = nil
	mine.rows = &rows
	return &mine, nil
}

// literal writes a value of the key so that the server compares it as it compares the column: by its own collation.
func (k keyTerm) literal(v []byte) string {
	switch k.kind {
	case kindInt, kindUint, kindBit, kindYear, kindDecimal, kindFloat, kindDouble, kindEnum, kindSet:
		for _, c := range v {
			if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' {
				return fmt.Sprintf("X'%x'", v) // the server prints no number so
			}
		}
		return string(number(v))
	case kindText:
		if len(v) == 0 {
			return "''"
		}
		return fmt.Sprintf("_%s X'%x'", k.cs, v)
	case kindBinary, kindBytes:
		if len(v) == 0 {
			return "''"
		}
		return fmt.Sprintf("_binary X'%x'", v)
	default: // dates, addresses
		return quoteText(string(v))
	}
}

// after is the condition that a key lies behind the values, or at them. It is written out, because the server finds a range of an
// index by it, which it does not by a comparison of rows.
func (p *scanPlan) after(values []string) string { return p.compare(values, ">", false) }

func (p *scanPlan) upTo(values []string) string { return p.compare(values, "<", true) }

func (p *scanPlan) compare(values []string, operator string, orEqual bool) string {
	var alternatives []string
	for i := range values {
		var terms []string
		for j := range i {
			terms = append(terms, p.key[j].name+" = "+values[j])
		}
		op := operator
		if orEqual && i == len(values)-1 {
			op += "="
		}
		terms = append(terms, p.key[i].name+" "+op+" "+values[i])
		alternatives = append(alternatives, strings.Join(terms, " AND "))
	}
	return "(" + strings.Join(alternatives, " OR ") + ")"
}

func (p *scanPlan) from() string {
	return " FROM " + quoteName(p.table.ID.Schema) + "." + quoteName(p.table.ID.Name)
}

// keyOf are a row's key values as literals.
func (p *scanPlan) keyOf(vals [][]byte) []string {
	out := make([]string, len(p.key))
	for i, k := range p.key {
		out[i] = k.literal(vals[k.index])
	}
	return out
}

// The server's errors that say something about a table.
const (
	errUnknownDatabase = 1049
	errUnknownColumn   = 1054
	errUnknownTable    = 1146
	errTimedOut        = 3024
	errTimedOutMaria   = 1969
	errInterrupted     = 1317
	errDeadlock        = 1213
	errLockWait        = 1205
	errTableChanged    = 1412
)

// inScan runs f with a session and the table's plan, and sorts its errors into what the core does about them.
func (d *driver) inScan(ctx context.Context, t *cdc.Table, f func(*session, *scanPlan) error) error {
	s, _, err := d.conns.get(ctx)
	if err != nil {
		return err
	}
	defer d.conns.put(s)
	p, err := d.cachedPlan(ctx, s, t)
	if err == nil {
		err = f(s, p)
	}
	if err == nil {
		return nil
	}
	d.plans.mu.Lock()
	delete(d.plans.plans, t.ID)
	d.plans.mu.Unlock()
	if ctx.Err() != nil {
		s.broken = true
		return ctx.Err()
	}
	if !s.broken && s.exec(ctx, "ROLLBACK") != nil {
		s.broken = true
	}
	what := fmt.Sprintf("scanning table %s", t.ID)
	switch code(err) {
	case errUnknownTable, errUnknownDatabase:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrRewritten, err)
	case errUnknownColumn:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrReshaped, err)
	case errTimedOut, errTimedOutMaria, errInterrupted, errDeadlock, errLockWait, errTableChanged:
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err)
	case errNoTableRight, errNoColumnRight, errNoDatabaseRight:
		return d.noSelect(t.ID, err)
	}
	switch {
	case errors.Is(err, cdc.ErrRewritten), errors.Is(err, cdc.ErrReshaped), errors.Is(err, cdc.ErrInterrupted):
		return err
	case errors.Is(err, errLargePacket):
		return usererr.New(err, "The table %s has a row of more than %d MiB, which cannot be captured. Make its values smaller, or leave out the column with them (excludeColumns).", t.ID, cdc.MaxRow>>20)
	case isLost(err):
		return fmt.Errorf("%s: %w: %w", what, cdc.ErrInterrupted, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (d *driver) noSelect(id cdc.TableID, err error) error {
	return usererr.New(err, "User %q may not read table %s. Have an administrator run: GRANT SELECT ON %s.%s TO %s;", d.cfg.User, id, quoteName(id.Schema), quoteName(id.Name), d.grantee())
}

// Plan implements cdc.Driver.
func (d *driver) Plan(ctx context.Context, t *cdc.Table) (*cdc.Plan, error) {
	out := &cdc.Plan{Fixed: true}
	if live := d.live.Load(); live != nil {
		out.Unseen = live.delivered()
	}
	err := d.inScan(ctx, t, func(s *session, p *scanPlan) error {
		var err error
		out.Ranges, err = p.ranges(ctx, s)
		return err
	})
	return out, err
}

// rangeRows is about how many rows are worth a range of their own.
const rangeRows = 200_000

// ranges divides a table by its first key column if that is an integer, from its first and last values, which the server knows
// without a scan. Other tables are one range.
func (p *scanPlan) ranges(ctx context.Context, s *session) ([]cdc.Range, error) {
	parts := min(p.table.Rows/rangeRows+1, 16)
	first := p.key[0]
	if parts < 2 || first.kind != kindInt && first.kind != kindUint {
		return []cdc.Range{scanRange{Open: true}.encode()}, nil
	}
	row, err := s.row(ctx, "SELECT CAST(MIN("+first.name+") AS DECIMAL(30)), CAST(MAX("+first.name+") AS DECIMAL(30))"+p.from())
	if err != nil {
		return nil, err
	}
	low, err1 := strconv.ParseFloat(row[0], 64)
	high, err2 := strconv.ParseFloat(row[1], 64)
	if err1 != nil || err2 != nil || high-low < float64(parts) {
		return []cdc.Range{scanRange{Open: true}.encode()}, nil //nolint:nilerr // an empty table has no first value
	}
	var out []cdc.Range
	var before []string
	for i := range parts - 1 {
		bound := []string{strconv.FormatFloat(low+(high-low)*float64(i+1)/float64(parts), 'f', 0, 64)}
		out = append(out, scanRange{After: before, UpTo: bound}.encode())
		before = bound
	}
	return append(out, scanRange{After: before, Open: true}.encode()), nil
}

// Scan implements cdc.Driver.
func (d *driver) Scan(ctx context.Context, c cdc.Chunk, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	var r scanRange
	if err := json.Unmarshal([]byte(c.Range), &r); err != nil {
		return nil, fmt.Errorf("reading a stored range: %w", err)
	}
	var out *cdc.Scanned
	err := d.inScan(ctx, c.Table, func(s *session, p *scanPlan) (err error) {
		out, err = d.scan(ctx, s, p, c, r, yield)
		return err
	})
	return out, err
}

func (d *driver) scan(ctx context.Context, s *session, p *scanPlan, c cdc.Chunk, r scanRange, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	out := &cdc.Scanned{}
	var err error
	if d.server.mariadb {
		out.Snapshot, err = d.mariaSnapshot(ctx, s)
	} else {
		out.Snapshot, err = d.mysqlSnapshot(ctx, s)
	}
	if err != nil {
		return nil, err
	}
	empty := false
	if r.Open {
		if r.UpTo, empty, err = p.last(ctx, s); err != nil {
			return nil, err
		}
		r.Open = false
	}
	if !empty {
		if err := p.read(ctx, s, c, &r, yield); err != nil {
			return nil, err
		}
		if r.After != nil {
			out.Rest = r.encode()
		}
	}
	if d.server.mariadb && !s.broken {
		if err := s.exec(ctx, "COMMIT"); err != nil {
			return nil, err
		}
	}
	ask := func(s *session) error {
		end, err := d.end(ctx, s)
		out.High = cdc.Mark(end.String())
		return err
	}
	if s.broken {
		return out, d.conns.with(ctx, ask)
	}
	return out, ask(s)
}

// last is the last key that there is.
func (p *scanPlan) last(ctx context.Context, s *session) (key []string, empty bool, err error) {
	descending := make([]string, len(p.key))
	for i, k := range p.key {
		descending[i] = k.name + " DESC"
	}
	err = s.query(ctx, "SELECT "+p.list+p.from()+" ORDER BY "+strings.Join(descending, ", ")+" LIMIT 1", p.asPlanned, func(vals [][]byte) error {
		key = p.keyOf(vals)
		return nil
	})
	return key, key == nil, err
}

// read reads a chunk's rows. r becomes what is left; without After nothing is.
func (p *scanPlan) read(ctx context.Context, s *session, c cdc.Chunk, r *scanRange, yield func(cdc.Row) error) error {
	limit := p.limit(c)
	sql := "SELECT " + p.list + p.from()
	var conditions []string
	if len(r.After) > 0 {
		conditions = append(conditions, p.after(r.After))
	}
	if len(r.UpTo) > 0 {
		conditions = append(conditions, p.upTo(r.UpTo))
	}
	if len(conditions) > 0 {
		sql += " WHERE " + strings.Join(conditions, " AND ")
	}
	sql += " ORDER BY " + p.keyAll + " LIMIT " + strconv.Itoa(limit)
	row := scanRow{plan: p.rows}
	rows, size := 0, 0
	r.After = nil
	err := s.query(ctx, sql, p.asPlanned, func(vals [][]byte) error {
		row.vals = vals
		rowSize := 0
		for _, v := range vals {
			rowSize += len(v)
		}
		if rowSize > cdc.HeavyRow && c.Heavy != nil {
			if err := c.Heavy(ctx); err != nil {
				return err //nolint:wrapcheck // the context's
			}
		}
		if err := yield(&row); err != nil {
			return err
		}
		rows++
		size += rowSize
		tooMuch := size >= 2*c.MaxBytes
		if rows == limit || tooMuch {
			r.After = p.keyOf(vals)
		}
		if tooMuch && rows < limit {
			return errFull
		}
		return nil
	})
	if rows > 0 {
		p.bytes.Store(int64(size/rows) + 1)
	}
	if errors.Is(err, errFull) {
		return nil // the session is given up: the server would send the rest
	}
	return err
}

// errFull says that a chunk has as many bytes as it may have.
var errFull = errors.New("the chunk is full")

// limit is how many rows a chunk asks for, so that it has about as many bytes as it may have.
func (p *scanPlan) limit(c cdc.Chunk) int {
	rows := 1000
	if size := p.bytes.Load(); size > 0 {
		rows = int(min(int64(c.MaxBytes)/size, int64(c.MaxRows)))
	}
	return max(min(rows, c.MaxRows), 1)
}
