package main

import (
	"encoding/json"
	"slices"
	"strings"
)

// edit is what one clause of an ALTER TABLE does to the table's columns, as far as that is understood.
type edit struct {
	op    editOp
	name  string
	to    string // its name afterwards, of a renamed or modified column
	typ   string // the type's words, of an added or modified column
	first bool   // the column goes to the front,
	after string // or behind this one; otherwise it stays, or goes to the end
}

type editOp uint8

const (
	addColumn editOp = iota
	dropColumn
	modifyColumn
	renameColumn
)

// derived is what a table is like after statements that were understood, from a layout that was certain. It says nothing by itself: it counts
// only if, with all the statements that follow up to the present, it becomes what the catalog says (settle). It is immutable.
type derived struct {
	Columns []derivedColumn `json:"columns"`
	Next    int             `json:"next"` // the next column's number
}

type derivedColumn struct {
	Name string `json:"n"`
	ID   int    `json:"id"`          // the same for as long as the type stays the same
	Type string `json:"t,omitempty"` // columnType.text; empty if it is not known
	Text string `json:"x,omitempty"` // the type's words in the statement; empty if they are not known
}

func deriveFrom(l layout) *derived {
	d := &derived{Next: len(l)}
	for i, c := range l {
		if c.Own {
			return nil
		}
		d.Columns = append(d.Columns, derivedColumn{Name: c.Name, ID: i, Type: c.Type})
	}
	return d
}

// apply is what the table is like after a statement; nil if that was not understood.
func (d *derived) apply(st statement) *derived {
	if d == nil || st.verb != "ALTER" || st.vague || len(st.to) > 0 {
		return nil
	}
	out := &derived{Columns: slices.Clone(d.Columns), Next: d.Next}
	renames := 0
	for _, e := range st.edits {
		if e.to != "" && e.to != e.name {
			renames++
		}
	}
	if renames > 0 && len(st.edits) > 1 {
		if !out.rename(d, st.edits) {
			return nil
		}
		return out
	}
	for _, e := range st.edits {
		if !out.edit(e) {
			return nil
		}
	}
	return out
}

func (d *derived) index(name string) int {
	return slices.IndexFunc(d.Columns, func(c derivedColumn) bool { return strings.EqualFold(c.Name, name) })
}

// rename applies several renames, which happen at once, so that two columns may change their names. Other clauses beside these are not
// understood.
func (d *derived) rename(before *derived, edits []edit) bool {
	for _, e := range edits {
		i := before.index(e.name)
		if i < 0 || e.op != renameColumn {
			return false
		}
		d.Columns[i].Name = e.to
	}
	return true
}

func (d *derived) edit(e edit) bool {
	i := d.index(e.name)
	if (i < 0) != (e.op == addColumn) {
		return false
	}
	switch e.op {
	case dropColumn:
		d.Columns = slices.Delete(d.Columns, i, i+1)
		return true
	case renameColumn:
		d.Columns[i].Name = e.to
		return true
	case modifyColumn:
		c := d.Columns[i]
		c.Name = e.to
		if c.Text == "" || c.Text != e.typ {
			c = derivedColumn{Name: e.to, ID: d.Next, Text: e.typ}
			d.Next++
		}
		d.Columns[i] = c
		if !e.first && e.after == "" {
			return true
		}
		d.Columns = slices.Delete(d.Columns, i, i+1)
		return d.insert(c, e)
	default:
		d.Next++
		return d.insert(derivedColumn{Name: e.name, ID: d.Next - 1, Text: e.typ}, e)
	}
}

// insert puts a column where the clause says, or at the end.
func (d *derived) insert(c derivedColumn, e edit) bool {
	at := len(d.Columns)
	switch {
	case e.first:
		at = 0
	case e.after != "":
		if at = d.index(e.after) + 1; at == 0 {
			return false
		}
	}
	d.Columns = slices.Insert(d.Columns, at, c)
	return true
}

// settle is d as a layout, if the statements ahead make of it what the catalog says now, column by column; nil if they do not, or if the
// type of one of its columns is nowhere to be seen.
func (d *derived) settle(ahead []statement, now layout) layout {
	last := d
	for _, st := range ahead {
		last = last.apply(st)
	}
	if last == nil || len(last.Columns) != len(now) {
		return nil
	}
	types := map[int]string{}
	for i, c := range last.Columns {
		if c.Name != now[i].Name || c.Type != "" && c.Type != now[i].Type || now[i].Own {
			return nil
		}
		types[c.ID] = now[i].Type
	}
	var out layout
	for _, c := range d.Columns {
		if c.Type == "" {
			c.Type = types[c.ID]
		}
		typ, err := parseType(c.Type)
		if err != nil {
			return nil
		}
		out = append(out, placed{Name: c.Name, Type: c.Type, typ: typ})
	}
	return out
}

func (d *derived) encode() string {
	if d == nil {
		return layoutUnknown
	}
	text, _ := json.Marshal(d) // texts and numbers always encode
	return string(text)
}

// parseDerived reads a stored description; nil if the text is something else.
func parseDerived(text string) *derived {
	var d derived
	if !strings.HasPrefix(text, "{") || json.Unmarshal([]byte(text), &d) != nil {
		return nil
	}
	return &d
}
