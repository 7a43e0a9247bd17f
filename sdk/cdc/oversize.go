package cdc

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// OversizePolicy is what becomes of a row that is larger than a document can be (hard case 25). It concerns the columns of rows
// that are there: what is too large for _meta.before, or for the document of a delete, is left out of these whatever the policy.
type OversizePolicy string

// The policies for rows that are too large.
const (
	// OversizeFail ends the capture, before anything that follows is emitted.
	OversizeFail OversizePolicy = "fail"
	// OversizePlaceholder emits the row with null for the values that do not fit, the largest ones, and their sizes in
	// _meta.omitted. Null, because a column that is left out keeps its old value when documents are merged; and sizes, because a
	// null alone could be a value. When a later document brings the column, _meta.omitted says 0 for it.
	OversizePlaceholder OversizePolicy = "placeholder"
	// OversizeSkip emits nothing, and says so in the log.
	OversizeSkip OversizePolicy = "skip"
)

// OversizedRow is an optional ability of a Row: it lacks values which the driver did not read, because the row would then be larger
// than MaxRow. AppendFields leaves such columns out, and AppendKey may fail if one belongs to the key.
type OversizedRow interface {
	// Oversized lists them. The slice is valid as long as the row, its strings for ever.
	Oversized() []LargeValue
}

// LargeValue is a value that is too large for a document.
type LargeValue struct {
	Column string
	Bytes  int64 // as the server sends it, or as JSON
}

func largeValues(row Row) []LargeValue {
	if o, ok := row.(OversizedRow); ok {
		return o.Oversized()
	}
	return nil
}

// rules are what a table's documents follow. They are immutable, so that chunks can share them.
type rules struct {
	limit  int // bytes of a document
	policy OversizePolicy
	key    []string
	// cleared are columns for which some document said that they were omitted. Every document that has them says 0.
	cleared []string
}

// follow makes the table's rules, or makes them anew after state.Omitted has changed.
func (r *reader) follow(t *table) {
	t.rules = &rules{limit: r.limits.document, policy: r.opts.OnOversizedRow, cleared: slices.Clone(t.state.Omitted)}
	if !t.keyless {
		unescape := strings.NewReplacer("~1", "/", "~0", "~") // undoes what collectionKey does
		for _, pointer := range t.binding.Collection.Key {
			t.rules.key = append(t.rules.key, unescape.Replace(strings.TrimPrefix(pointer, "/")))
		}
	}
}

// oversizedError is a row that no document can hold, by a policy other than OversizePlaceholder, or by its key alone.
type oversizedError struct {
	values []LargeValue
	key    bool // among them are columns of the key
}

func (e *oversizedError) Error() string {
	return "the row is too large for a document: " + describe(e.values)
}

// describe lists values for people.
func describe(values []LargeValue) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = fmt.Sprintf("%s (%s)", v.Column, byteText(v.Bytes))
	}
	return strings.Join(parts, ", ")
}

func byteText(n int64) string {
	if n < 1<<20 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	return strconv.FormatFloat(float64(n)/(1<<20), 'f', 1, 64) + " MiB"
}

// withoutKey takes a change of a row of which even the key is too large. It reports whether it is one.
func (r *reader) withoutKey(t *table, ev *Event) (bool, error) {
	for _, row := range []Row{ev.Row, ev.Before} {
		if row == nil {
			continue
		}
		large := largeValues(row)
		if slices.ContainsFunc(large, func(v LargeValue) bool { return slices.Contains(t.rules.key, v.Column) }) {
			return true, r.oversized(t, row, &oversizedError{values: large, key: true})
		}
	}
	return false, nil
}

// oversized follows the policy for a change that no document can hold; other errors it returns as they are.
func (r *reader) oversized(t *table, row Row, err error) error {
	e, ok := errors.AsType[*oversizedError](err)
	if !ok {
		return err
	}
	n := note{row: rowName(t.rules, row), large: e.values}
	if r.opts.OnOversizedRow == OversizeSkip {
		n.log(r.log, t.id, "left out a change because it is too large for a document (onOversizedRow is skip)")
		return nil
	}
	return n.err(t.id, e)
}

// placed notes that a document says of values that they are too large for it.
func (r *reader) placed(t *table, n note) {
	n.log(r.log, t.id, "left out values because they are too large for a document (onOversizedRow is placeholder)")
	before := len(t.state.Omitted)
	for _, v := range n.large {
		if !slices.Contains(t.state.Omitted, v.Column) {
			t.state.Omitted = append(t.state.Omitted, v.Column)
		}
	}
	if len(t.state.Omitted) > before {
		r.follow(t)
		r.save(t)
	}
}

// patched is placed for a row of which only some columns are emitted.
func (r *reader) patched(t *table, n note, columns []string) {
	n.large = slices.DeleteFunc(slices.Clone(n.large), func(v LargeValue) bool { return !slices.Contains(columns, v.Column) })
	if len(n.large) > 0 {
		r.placed(t, n)
	}
}

// note is what is to be said of a row that is too large.
type note struct {
	doc     int // which document of its chunk it is
	skipped bool
	row     string // how people find it
	large   []LargeValue
}

// rowName names a row by its key, or by its source if it has none.
func rowName(rules *rules, row Row) string {
	if len(rules.key) > 0 {
		if key, err := row.AppendKey(nil); err == nil {
			if values, err := tuple.Unpack(key); err == nil {
				return "key " + keyText(rules.key) + " is " + short(fmt.Sprint(values))
			}
		}
	}
	source, err := row.AppendSource([]byte{'{'})
	if err != nil {
		return "source is unknown"
	}
	return "source is " + short(string(append(source, '}')))
}

// short cuts a text that people need not read whole.
func short(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// tooLargeEvent marks log lines about rows that are too large.
const tooLargeEvent = "rowTooLarge"

func (n note) log(log *logrus.Entry, id TableID, message string) {
	columns := make(map[string]int64, len(n.large))
	for _, v := range n.large {
		columns[v.Column] = v.Bytes
	}
	log.WithFields(logrus.Fields{"eventType": tooLargeEvent, "table": id.String(), "row": n.row, "columns": columns}).Warn(message)
}

func (n note) err(id TableID, e *oversizedError) error {
	if e.key {
		return usererr.New(e, "A row of table %s is too large for a document by its key alone: %s (its %s). "+
			"Leave the table out of the capture, or set onOversizedRow to skip to go on without such rows.", id, describe(n.large), n.row)
	}
	return usererr.New(e, "The row of table %s whose %s is too large for a document, of which no more than %s can be: %s. "+
		"Set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.",
		id, n.row, byteText(MaxRow), describe(n.large))
}
