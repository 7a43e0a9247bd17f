package cdc

import (
	"encoding/json"
	"slices"
)

// Phase is how far the capture of a table has come.
//
//	        plan                    last range                (Only Changes, SkipBackfills: live at once)
//	pending ────▶ scanning ───────────────────▶ live
//	   ▲             │ rewritten, rescan          │ rescan
//	   ├─────────────┴────────────────────────────┘
//	   └─ found again ─ missing ◀─ dropped, whatever the phase
type Phase string

// The phases of a table.
const (
	Pending  Phase = "pending"  // to be backfilled; nothing is known of it yet
	Scanning Phase = "scanning" // being backfilled
	Live     Phase = "live"     // everything that existed has been emitted; changes follow
	Missing  Phase = "missing"  // the server has no such table, or it was given up (TableState.Halted)
)

// TableState is what a capture keeps of one table between sessions, as JSON in the state of its binding. It always agrees
// with the position in the log that is stored beside it.
type TableState struct {
	Phase Phase `json:"phase"`
	// Incarnation, Columns and Key are the table's shape at the position in the log: what later changes of shape are
	// compared with.
	Incarnation string        `json:"incarnation,omitempty"`
	Columns     []ColumnState `json:"columns,omitempty"`
	Key         []string      `json:"key,omitempty"`
	// Formed says that the columns have their forms. States of early versions do not.
	Formed bool `json:"formed,omitempty"`
	// Parts are those of Table.Parts that were read, or are among Ranges.
	Parts []string `json:"parts,omitempty"`
	// Layout is Table.Layout.
	Layout string `json:"layout,omitempty"`
	// Scope is Table.Scope.
	Scope string `json:"scope,omitempty"`
	// Withheld are columns that the binding's selection leaves out, as Selection.Withheld.
	Withheld []ColumnState `json:"withheld,omitempty"`
	// Dropped names columns that the table had and does not have any more: documents still hold values in them. Rows must
	// be read again when a column of such a name comes, also if it comes without values.
	Dropped []string `json:"dropped,omitempty"`
	// Origin is Table.Origin.
	Origin string `json:"origin,omitempty"`
	// Halted says, of a table that is missing, why it is not captured again before its binding is backfilled (Event.Halt).
	Halted string `json:"halted,omitempty"`

	// Ranges are what is left to be read of a table that is scanning, by Plan; Fixed is Plan.Fixed.
	Ranges []Range `json:"ranges,omitempty"`
	Fixed  bool    `json:"fixed,omitempty"`
	// Unseen are the transactions that every chunk from here on must see: those of the plan, and those that are emitted
	// and were not known to be visible. Unsettled says that there were too many to be listed: the next session asks the
	// driver again.
	Unseen    []TxnID `json:"unseen,omitempty"`
	Unsettled bool    `json:"unsettled,omitempty"`
	// Holes are keys (tuples) of rows that were emitted without all of their columns and will be read by key. Lossy
	// says that there were too many to be listed: the next session backfills the table from the beginning. Where only changes
	// are captured all are listed.
	Holes [][]byte `json:"holes,omitempty"`
	Lossy bool     `json:"lossy,omitempty"`

	// Omitted are the columns for which some document said that their values are too large for it.
	Omitted []string `json:"omitted,omitempty"`

	// Rows is how many rows the backfill has emitted, Estimate how many it expected.
	Rows     int64 `json:"rows,omitempty"`
	Estimate int64 `json:"estimate,omitempty"`
}

// ColumnState is what a TableState keeps of a Column.
type ColumnState struct {
	Name        string `json:"name"`
	Type        string `json:"type,omitempty"`
	Nullable    bool   `json:"nullable,omitempty"`
	Incarnation string `json:"incarnation,omitempty"`
	Form        string `json:"form,omitempty"`
}

func columnState(c Column) ColumnState {
	return ColumnState{Name: c.Name, Type: c.Type, Nullable: c.Nullable, Incarnation: c.Incarnation, Form: c.Form}
}

// sharedState is what all tables of a capture share.
type sharedState struct {
	Position
}

// setShape stores a shape.
func (s *TableState) setShape(t *Table) {
	for _, c := range s.Columns {
		if !slices.Contains(s.Dropped, c.Name) {
			s.Dropped = append(s.Dropped, c.Name)
		}
	}
	s.Dropped = slices.DeleteFunc(s.Dropped, t.has)
	s.Incarnation, s.Key, s.Layout, s.Formed = t.Incarnation, t.Key, t.Layout, true
	s.Columns = make([]ColumnState, len(t.Columns))
	for i, c := range t.Columns {
		s.Columns[i] = columnState(c)
	}
}

// returns reports whether a table gets a column, as this shape of it says and the one before did not, of a name that is in
// documents already.
func (s *TableState) returns(before, now *Table) bool {
	return slices.ContainsFunc(now.Columns, func(c Column) bool {
		return !before.has(c.Name) && (slices.Contains(s.Dropped, c.Name) ||
			slices.ContainsFunc(s.Columns, func(d ColumnState) bool { return d.Name == c.Name }))
	})
}

// has reports whether the table has a column of that name.
func (t *Table) has(name string) bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Name == name })
}

// identify stores the incarnations of columns of which none was known, and reports whether there were any.
func (s *TableState) identify(t *Table) bool {
	changed := false
	for i := range s.Columns {
		c := &s.Columns[i]
		j := slices.IndexFunc(t.Columns, func(d Column) bool { return d.Name == c.Name && d.Type == c.Type })
		if c.Incarnation == "" && j >= 0 && t.Columns[j].Incarnation != "" {
			c.Incarnation = t.Columns[j].Incarnation
			changed = true
		}
	}
	return changed
}

// shape gives back the stored shape. The columns' schemas are taken from the table as it was discovered, where it still
// has the column; without a stored shape it is that table.
func (s *TableState) shape(id TableID, discovered *Table) *Table {
	if len(s.Columns) == 0 {
		return discovered
	}
	t := &Table{ID: id, Incarnation: s.Incarnation, Key: s.Key, Parts: s.Parts, Layout: s.Layout, Rows: -1}
	if discovered != nil {
		t.Rows = discovered.Rows
	}
	for _, c := range s.Columns {
		col := Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable, Incarnation: c.Incarnation, Form: c.Form}
		if discovered != nil {
			i := slices.IndexFunc(discovered.Columns, func(d Column) bool { return d.Name == c.Name && d.Type == c.Type })
			if i >= 0 {
				col.Schema, col.Filled, col.Small = discovered.Columns[i].Schema, discovered.Columns[i].Filled, discovered.Columns[i].Small
			}
		}
		t.Columns = append(t.Columns, col)
	}
	return t
}

// begin makes the state that of a table of which nothing has been read.
func (s *TableState) begin(p Phase) {
	s.Phase = p
	s.Ranges, s.Fixed, s.Rows, s.Estimate = nil, false, 0, 0
	s.Unseen, s.Unsettled, s.Holes, s.Lossy = nil, false, nil, false
}

// parseShared reads the shared state; nil is that of a new capture.
func parseShared(raw json.RawMessage) (sharedState, error) {
	var s sharedState
	if len(raw) == 0 {
		return s, nil
	}
	err := json.Unmarshal(raw, &s)
	return s, err
}

// sameShape reports whether two versions of a table are one.
func sameShape(a, b *Table) bool {
	return a.Incarnation == b.Incarnation && slices.Equal(a.Key, b.Key) && sameColumns(a, b) &&
		slices.EqualFunc(a.Columns, b.Columns, func(x, y Column) bool { return x.Nullable == y.Nullable })
}

// sameColumns reports whether rows of one version are rows of the other. Logs do not tell what may be null.
func sameColumns(a, b *Table) bool {
	return slices.EqualFunc(a.Columns, b.Columns, func(x, y Column) bool { return x.Name == y.Name && sameColumn(x, y) })
}

// refilled reports whether rows may have got other values by becoming what discovery shows, without a word in the log.
func refilled(before, now *Table) bool {
	for _, c := range now.Columns {
		i := slices.IndexFunc(before.Columns, func(b Column) bool { return b.Name == c.Name })
		if i < 0 && c.Filled || i >= 0 && !sameColumn(before.Columns[i], c) {
			return true
		}
	}
	return false
}

// sameColumn reports whether two columns of one name are one, as far as is known.
func sameColumn(a, b Column) bool {
	return a.Type == b.Type && (a.Incarnation == b.Incarnation || a.Incarnation == "" || b.Incarnation == "")
}

// complete fills in what a shape from the log does not tell and an earlier version of the table does. The columns'
// incarnations are those of before, so that discovery still notices columns that have been replaced since.
func complete(now, before *Table) *Table {
	c := *now
	c.Columns = slices.Clone(now.Columns)
	for i := range c.Columns {
		col := &c.Columns[i]
		j := slices.IndexFunc(before.Columns, func(b Column) bool { return b.Name == col.Name && b.Type == col.Type })
		if j >= 0 && col.Incarnation == "" {
			col.Incarnation = before.Columns[j].Incarnation
		}
	}
	return &c
}
