package cdc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// member is one member of a JSON object without braces.
type member struct {
	name       string
	start, end int // with the comma before it
}

// membersOf finds the members of what AppendFields appended. It is for rare cases.
func membersOf(fields []byte) ([]member, error) {
	var out []member
	for at := 0; at < len(fields); {
		m := member{start: at}
		if fields[at] == ',' {
			at++
		}
		nameEnd := at + textEnd(fields[at:])
		if err := json.Unmarshal(fields[at:nameEnd], &m.name); err != nil {
			return nil, fmt.Errorf("taking a row apart: %w", err)
		}
		at = nameEnd + 1
		depth := 0
		for ; at < len(fields) && (depth > 0 || fields[at] != ','); at++ {
			switch fields[at] {
			case '"':
				at += textEnd(fields[at:]) - 1
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
		}
		m.end = at
		out = append(out, m)
	}
	return out, nil
}

// textEnd is the length of the JSON string at the front.
func textEnd(s []byte) int {
	for i := 1; i < len(s); i++ {
		n := bytes.IndexAny(s[i:], `"\`)
		if n < 0 {
			break
		}
		if i += n; s[i] == '"' {
			return i + 1
		}
		i++
	}
	return len(s)
}

// fitted is a document that is made to fit.
type fitted struct {
	d       *document
	fields  []byte // the row's columns
	old     []byte // those of the row before
	members []member
	before  []member
	tail    []byte
	large   []LargeValue // of the row, not in fields
	drop    map[int]bool // places: members, then before
}

// appendFitting is append for a document that is too large, or that has something to say of one which was. It is slow, and holds
// the document's text twice.
func (d *document) appendFitting(dst []byte) ([]byte, error) {
	f := fitted{d: d, large: slices.Clone(largeValues(d.row)), drop: map[int]bool{}}
	start := len(dst)
	dst, err := f.encode(append(dst, '{'))
	if err != nil {
		return dst[:start], err
	}
	if err := f.choose(); err != nil {
		return dst[:start], err
	}
	if len(f.large) > 0 && d.op != opDelete && d.rules.policy != OversizePlaceholder {
		return dst[:start], &oversizedError{values: f.large}
	}
	return f.write(dst[:start+1]), nil
}

// encode appends the row's columns to dst, and what else the document needs to memory of its own.
func (f *fitted) encode(dst []byte) ([]byte, error) {
	n := len(dst)
	dst, err := f.d.row.AppendFields(dst)
	if err != nil {
		return dst, err
	}
	f.fields = dst[n:]
	if f.d.before != nil {
		if f.old, err = f.d.before.AppendFields(nil); err != nil {
			return dst, err
		}
	}
	if f.members, err = membersOf(f.fields); err != nil {
		return dst, err
	}
	if f.before, err = membersOf(f.old); err != nil {
		return dst, err
	}
	f.tail, err = f.d.appendTail(nil)
	return dst, err
}

// choose finds out which members the document has no place for.
func (f *fitted) choose() error {
	const around = len(`{,"_meta":{"op":"c","omitted":{},"before":{}`)
	budget := f.d.rules.limit - around - len(f.tail)
	for _, v := range f.large {
		if slices.Contains(f.d.rules.key, v.Column) {
			return f.keyTooLarge()
		}
		budget -= placeholderSize(v.Column)
	}
	for _, m := range f.members {
		if slices.Contains(f.d.rules.key, m.name) {
			budget -= m.end - m.start
		} else {
			budget -= placeholderSize(m.name)
		}
	}
	if budget < 0 {
		return f.keyTooLarge()
	}
	var sieve Sieve
	sieve.Reset(budget)
	offer := func(place, size int, old bool) {
		keep, drop := sieve.Offer(place, size, old)
		f.drop[place] = !keep
		for _, p := range drop {
			f.drop[p] = true
		}
	}
	for i, m := range f.before {
		offer(len(f.members)+i, m.end-m.start, true)
	}
	for i, m := range f.members {
		if !slices.Contains(f.d.rules.key, m.name) {
			offer(i, max(m.end-m.start-placeholderSize(m.name), 0), false)
		}
	}
	for i, m := range f.members {
		if f.drop[i] {
			f.large = append(f.large, LargeValue{Column: m.name, Bytes: int64(m.end - m.start - len(m.name) - len(`,"":`))})
		}
	}
	return nil
}

// placeholderSize is what a column takes that is null and listed as omitted.
func placeholderSize(name string) int { return 2*len(name) + len(`,"":null,"":1234567890`) }

// keyTooLarge is the error for a document that cannot hold even the key.
func (f *fitted) keyTooLarge() error {
	e := &oversizedError{key: true, values: f.large}
	for _, m := range f.members {
		if slices.Contains(f.d.rules.key, m.name) {
			e.values = append(e.values, LargeValue{Column: m.name, Bytes: int64(m.end - m.start)})
		}
	}
	return e
}

// write writes the document over its own columns.
func (f *fitted) write(dst []byte) []byte {
	from := len(dst)
	isDelete := f.d.op == opDelete
	comma := func() {
		if len(dst) > from {
			dst = append(dst, ',')
		}
	}
	for i, m := range f.members {
		switch {
		case !f.drop[i]:
			comma()
			dst = append(dst, bytes.TrimPrefix(f.fields[m.start:m.end], []byte{','})...)
		case !isDelete:
			comma()
			dst = append(rowjson.AppendText(dst, m.name), ":null"...)
		}
	}
	if !isDelete {
		for _, v := range f.large[:len(f.large)-f.dropped()] {
			comma()
			dst = append(rowjson.AppendText(dst, v.Column), ":null"...)
		}
	}
	comma()
	dst = append(append(append(dst, `"_meta":{"op":"`...), f.d.op), '"')
	if !isDelete {
		dst = f.appendOmitted(dst)
	}
	if f.d.before != nil {
		dst = append(dst, `,"before":{`...)
		from = len(dst)
		for i, m := range f.before {
			if !f.drop[len(f.members)+i] {
				comma()
				dst = append(dst, bytes.TrimPrefix(f.old[m.start:m.end], []byte{','})...)
			}
		}
		dst = append(dst, '}')
	}
	return append(dst, f.tail...)
}

// dropped is how many of the row's own members are left out.
func (f *fitted) dropped() int {
	n := 0
	for i := range f.members {
		if f.drop[i] {
			n++
		}
	}
	return n
}

// appendOmitted appends _meta.omitted: the columns that are too large, and those which once were and now are here.
func (f *fitted) appendOmitted(dst []byte) []byte {
	f.d.large = f.large
	var o object
	for _, v := range f.large {
		o.member(v.Column, strconv.AppendInt(nil, v.Bytes, 10))
	}
	for i, m := range f.members {
		if !f.drop[i] && slices.Contains(f.d.rules.cleared, m.name) {
			o.raw(m.name, "0")
		}
	}
	if len(o.dst) == 0 {
		return dst
	}
	return append(append(dst, `,"omitted":`...), o.close()...)
}
