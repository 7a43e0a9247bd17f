package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// scanPlan is how one version of a table is scanned.
type scanPlan struct {
	table  *cdc.Table
	rows   *rowPlan
	list   string // the columns, as they are asked for
	key    []keyTerm
	keyAll string // the key's columns, quoted
	result string // how results with these columns are described
	sizes  *rowSizes
}

// rowSizes is how large a table's rows are, by those that were read. It may be used from any goroutine.
type rowSizes struct {
	mu    sync.Mutex
	mean  int     // bytes of the values of a row in the last chunk, about; 0 until one was read
	least float64 // bytes of a row as the server sends it, rather too few
}

// observe learns from rows that were read: the bytes of their values, and of all that the server sent for them.
func (z *rowSizes) observe(rows, values, sent int) {
	if rows == 0 {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.mean = values/rows + 1
	now := float64(sent) / float64(rows)
	if z.least > 0 && now > z.least {
		now = z.least*0.75 + now*0.25
	}
	z.least = now
}

// rows is how many rows a chunk asks for, so that it has about as many bytes as it may have. The first one is small, to learn from.
func (z *rowSizes) rows(c cdc.Chunk) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	rows := 1000
	if z.mean > 0 {
		rows = min(c.MaxBytes/z.mean, c.MaxRows)
	}
	return max(min(rows, c.MaxRows), 1)
}

// surely is how many bytes so many rows take at least, unless they are smaller than those before; 0 if none was read.
func (z *rowSizes) surely(rows int) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return int(z.least * float64(rows) * 31 / 32)
}

// keyTerm is a column of the key.
type keyTerm struct {
	name  string // quoted
	expr  string // by which its values are asked for
	index int    // among the values of a row
	kind  kind
	text  *charset // that its values come in; nil for what is no text
	most  int      // the number of an enumeration's last member
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
	if err := d.checkFilter(ctx, s, t); err != nil {
		return nil, err
	}
	p := &scanPlan{table: t, sizes: &rowSizes{}}
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
		term := keyTerm{name: quoteName(k), expr: list[i], index: i, kind: typ.kind, text: codecs[i].cs, most: len(typ.members)}
		if typ.kind == kindEnum || typ.kind == kindSet {
			// They sort by their numbers, so that is what they are compared by.
			term.index, term.expr = len(list), term.number()
			list = append(list, term.expr)
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
		return fmt.Sprintf("_%s X'%x'", k.text.name, v)
	case kindBinary, kindBytes:
		if len(v) == 0 {
			return "''"
		}
		return fmt.Sprintf("_binary X'%x'", v)
	default: // dates, addresses
		return quoteText(string(v))
	}
}

// number is by which an enumeration or a set sorts. Where a set is used as a number, the server makes one with a fraction of it, which
// is not exact for its later members.
func (k keyTerm) number() string { return "CAST(" + k.name + " AS UNSIGNED)" }

// maxListed is how many members an enumeration may have so that those behind one are listed.
const maxListed = 255

// compared is the condition that the key's column compares so with a value: =, <, <=, > or >=.
func (k keyTerm) compared(operator, value string) string {
	n, err := strconv.Atoi(value)
	switch {
	case k.kind == kindSet:
		return k.number() + " " + operator + " " + value
	case k.kind != kindEnum, operator == "=", err != nil, k.most > maxListed:
		return k.name + " " + operator + " " + value
	}
	// The server finds a range of an index by members, but not by what lies behind one.
	var numbers []string
	for i := range k.most + 1 { // 0 is what is no member
		if i < n && operator[0] == '<' || i > n && operator[0] == '>' || i == n && len(operator) > 1 {
			numbers = append(numbers, strconv.Itoa(i))
		}
	}
	if numbers == nil {
		return "FALSE"
	}
	return k.name + " IN (" + strings.Join(numbers, ", ") + ")"
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
			terms = append(terms, p.key[j].compared("=", values[j]))
		}
		op := operator
		if orEqual && i == len(values)-1 {
			op += "="
		}
		terms = append(terms, p.key[i].compared(op, values[i]))
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
