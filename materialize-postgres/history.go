package main

import (
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A history (slowly changing dimension of type 2) has a row for every version of every key:
//
//	id │ name │ valid_from │ valid_to │ is_current │ version_number
//	7  │ Ada  │ 10:00      │ 10:30    │ f          │ 1
//	7  │ Eve  │ 10:30      │          │ t          │ 2
//
// To the runtime it is a binding of delta updates: every document is handed over, in the order of the log. What they make of
// the versions that are stored is decided in one statement at the commit (historysql.go).

// historySCD2 is the only kind of history.
const historySCD2 = "scd2"

// The columns of a history that are not fields.
const (
	validFrom     = "valid_from"
	validTo       = "valid_to"
	isCurrent     = "is_current"
	versionNumber = "version_number"
)

const (
	opPointer   = "/_meta/op"
	timePointer = "/_meta/source/ts_ms"
	// positionPointer is where in the source's log a change is. Its values can be compared within one source only.
	positionPointer = "/_meta/source/loc"
)

func isHistoryColumn(name string) bool {
	return name == validFrom || name == validTo || name == isCurrent || name == versionNumber
}

// history is what a table that is one knows besides its columns, and of the present transaction.
type history struct {
	op   int // column of the kind of change; -1 if there is none
	time int // column of the source's time
	// members are the columns below each member of the document, except for what describes the change itself.
	members map[string][]int
	// hidden are columns that can be absent from a document and not null: their fields have defaults.
	hidden []int
	// compared are the columns in which versions differ.
	compared []int

	rows    int64  // of this transaction
	partial []bool // by column: some document of this transaction lacks it
	absent  []byte // scratch: a bit for each column that the present document lacks
	// newest is the newest time of the source that was seen, in microseconds since 2000; isNew says that it is not stored yet.
	newest stamp
	isNew  bool
}

// stamp is a moment, or none.
type stamp struct {
	micros int64
	known  bool
}

// storedFields are the fields that have columns. The document of a history is only looked into: what a version's document
// was cannot be told to the letter where changes leave values out.
func storedFields(b *materialize.Binding[resource]) []materialize.Field {
	if b.Resource.History == "" {
		return b.Fields()
	}
	return slices.Concat(b.Keys, b.Values)
}

// timeField finds the field that says since when a version is valid.
func (r resource) timeField(fields []materialize.Field) int {
	return slices.IndexFunc(fields, func(f materialize.Field) bool {
		if r.HistoryTime != "" {
			return f.Name == r.HistoryTime
		}
		return f.Pointer == timePointer
	})
}

// isTime says whether a field can be read as a moment: milliseconds since 1970, or a date-time.
func isTime(f materialize.Field) bool {
	return f.Is("integer") || f.Is("string") && f.Format == "date-time"
}

// proposeHistory makes obligatory what a history needs. Names that collide are a matter of the fields that are selected
// (checkHistory).
func proposeHistory(p *materialize.Proposal[resource]) error {
	at := p.Resource.timeField(p.Fields)
	if at < 0 {
		return noTime(p.Resource, p.Collection)
	}
	if !isTime(p.Fields[at]) {
		return usererr.New(nil, "Field %q of collection %q cannot say since when a version is valid: it has to be an integer (milliseconds since 1970) or text of format date-time. Name another one in historyTime.", p.Fields[at].Name, p.Collection)
	}
	for i, f := range p.Fields {
		c := &p.Constraints[i]
		need := materialize.Optional
		switch {
		case i == at && p.Resource.HistoryTime != "":
			need, c.Reason = materialize.Required, "It says since when a version is valid."
		case i == at:
			need, c.Reason = materialize.LocationRequired, "It says since when a version is valid."
		case f.Pointer == "":
			need, c.Reason = materialize.LocationRequired, "It says which fields a change leaves out. The history does not store it."
		case f.Key && f.Nullable && len(f.Default) == 0:
			need, c.Reason = materialize.Forbidden, "A field that can be null cannot be part of a primary key. Give it a default in the collection's schema."
		}
		c.Choice = max(c.Choice, need)
	}
	return nil
}

func noTime(r resource, collection string) error {
	if r.HistoryTime != "" {
		return usererr.New(nil, "Collection %q has no field %q, which historyTime names. Name one that has the time of each change.", collection, r.HistoryTime)
	}
	return usererr.New(nil, "Collection %q does not say when its changes happened: it has no %s, as captures of databases write it. Name a field that has the time of each change in historyTime, or use deltaUpdates.", collection, timePointer)
}

// checkHistory refuses fields that would share a column with one of the history's own.
func checkHistory(b *materialize.Binding[resource]) error {
	var problems []error
	for _, f := range storedFields(b) {
		if isHistoryColumn(columnName(f.Name)) {
			problems = append(problems, usererr.New(nil, "Field %q of collection %q has the name of a column that a history adds by itself. Exclude the field, and store it under another name with a projection if you need it.", f.Name, b.Collection))
		}
	}
	if b.Document == nil {
		problems = append(problems, usererr.New(nil, "A history needs the whole document, to see which fields a change leaves out. Do not exclude it."))
	}
	return usererr.Join("The history "+nameOf(b.Target.Path).String()+" cannot be kept:", problems)
}

// planHistory plans what does not depend on rows.
func planHistory(b *materialize.Binding[resource]) (*history, error) {
	if err := checkHistory(b); err != nil {
		return nil, err
	}
	fields := storedFields(b)
	h := &history{
		op: -1, time: b.Resource.timeField(fields), members: map[string][]int{},
		partial: make([]bool, len(fields)), absent: make([]byte, (len(fields)+7)/8),
	}
	if h.time < 0 {
		return nil, noTime(b.Resource, b.Collection)
	}
	for i, f := range fields {
		if f.Pointer == opPointer {
			h.op = i
		}
		if i < len(b.Keys) {
			continue
		}
		first, _, _ := strings.Cut(f.Pointer[1:], "/")
		if first == "_meta" {
			continue
		}
		first = strings.ReplaceAll(strings.ReplaceAll(first, "~1", "/"), "~0", "~")
		h.members[first] = append(h.members[first], i)
		h.compared = append(h.compared, i)
		if len(f.Default) > 0 {
			h.hidden = append(h.hidden, i)
		}
	}
	return h, nil
}

// element is a row's element by column.
func element(r *materialize.Row, column int) tuple.Element {
	if column < len(r.Key) {
		return r.Key[column]
	}
	return r.Values[column-len(r.Key)]
}

// isGone says whether a row is the deletion of its key.
func (h *history) isGone(r *materialize.Row) bool {
	if r.Delete || h.op < 0 {
		return r.Delete
	}
	e := element(r, h.op)
	return e.Kind == tuple.String && len(e.Bytes) == 1 && e.Bytes[0] == 'd'
}

// when is the time of a row's change. One that has none, such as a row that a backfill read, changed at a time that nobody
// knows, but not before what was seen already: then exact is false, and the stamp that of the newest change before it.
func (h *history) when(r *materialize.Row) (at stamp, exact bool, err error) {
	e := element(r, h.time)
	switch e.Kind {
	case tuple.Nil:
		return h.newest, false, nil
	case tuple.Int:
		const limit = 8_000_000_000_000_000 // beyond, it is no time of Postgres'
		if e.Int > limit || e.Int < -limit {
			return at, false, errNotTime
		}
		at = stamp{e.Int*1000 - int64(daysFrom1970To2000)*microsPerDay, true}
	case tuple.String:
		if at.micros, _, err = parseTimestamp(e.Bytes); err != nil {
			return at, false, err
		}
		at.known = true
	default:
		return at, false, errNotTime
	}
	if at.micros != stampInfinity && (!h.newest.known || at.micros > h.newest.micros) {
		h.newest, h.isNew = at, true
	}
	return at, true, nil
}

// lacking finds the columns that the row's document does not have: they keep their values. It returns a bit for each, or nil
// if the document is complete. Absent values look like nulls, or like defaults; only then is the document looked into.
func (h *history) lacking(r *materialize.Row, nkeys int) []byte {
	suspicious := len(h.hidden) > 0
	for i := 0; i < len(h.compared) && !suspicious; i++ {
		suspicious = r.Values[h.compared[i]-nkeys].Kind == tuple.Nil
	}
	if !suspicious {
		return nil
	}
	clear(h.absent)
	some := len(h.compared)
	for _, i := range h.compared {
		h.absent[i/8] |= 1 << (i % 8)
	}
	members := jsonscan.NewMembers(r.Doc)
	for name, _, ok := members.Next(); ok; name, _, ok = members.Next() {
		for _, i := range h.members[string(jsonscan.Name(name))] {
			if h.absent[i/8]&(1<<(i%8)) != 0 {
				h.absent[i/8] &^= 1 << (i % 8)
				some--
			}
		}
	}
	if some == 0 {
		return nil
	}
	for _, i := range h.compared {
		h.partial[i] = h.partial[i] || h.absent[i/8]&(1<<(i%8)) != 0
	}
	return h.absent
}

// appendVersion appends a row in the form of the table that stages it: its columns, its place in the transaction, whether it
// is a deletion, its time and whether that is exact, and which columns it lacks.
func (t *table) appendVersion(dst []byte, r *materialize.Row) ([]byte, error) {
	start, h := len(dst), t.history
	n := len(t.columns) + stagedBesides
	dst, err := t.appendElements(append(dst, byte(n>>8), byte(n)), 0, r.Key, r.Key)
	if err == nil {
		dst, err = t.appendElements(dst, t.nkeys, r.Values, r.Key)
	}
	if err != nil {
		return dst[:start], err
	}
	at, exact, err := h.when(r)
	if err != nil {
		return dst[:start], t.unstorable(&t.columns[h.time], element(r, h.time), r.Key, err)
	}
	gone := h.isGone(r)
	var absent []byte
	if !gone {
		absent = h.lacking(r, t.nkeys)
	}
	h.rows++
	dst = appendFlag(appendInt8(dst, h.rows), gone)
	if at.known {
		dst = appendInt8(dst, at.micros)
	} else {
		dst = appendNull(dst)
	}
	if dst = appendFlag(dst, exact); absent == nil {
		return appendNull(dst), nil
	}
	return appendBytes(dst, absent), nil
}

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return append(dst, 0, 0, 0, 1, 1)
	}
	return append(dst, 0, 0, 0, 1, 0)
}
