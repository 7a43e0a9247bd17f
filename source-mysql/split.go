package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// Large tables are divided at values that the index has. Where to look for them is guessed: in the middle between two values that are known (of
// texts and bytes, character by character), and in the part that has most rows by the server's own estimate. Which
// value comes there, and in which order, only the server says, by the column's collation: a bad guess makes parts uneven, never wrong.

// part is what lies behind one value of the key's first column, up to another one. The first part has no beginning, the last one no end.
type part struct {
	low, high []byte // in the column's character set; of the outer parts, the first and the last value that there is
	rows      int64  // about
	whole     bool   // no value was found in the middle
}

// divisible reports whether values between others can be guessed.
func (k keyTerm) divisible() bool {
	switch k.kind {
	case kindBinary, kindBytes, kindInt, kindUint, kindBit, kindYear, kindDecimal, kindFloat, kindDouble,
		kindDate, kindDatetime, kindTimestamp, kindTime, kindUUID, kindInet4, kindInet6:
		return true
	case kindText:
		return k.text.name != "swe7" // which lacks some of what is guessed
	case kindEnum:
		return k.most <= maxListed
	default: // the server finds no range of an index by a set's number
		return false
	}
}

// recoded reports whether texts between others are guessed in UTF-8, because ASCII is something else in their character set.
func (k keyTerm) recoded() bool {
	return k.kind == kindText && k.text.longest > 1 && !k.text.utf8
}

// guessed is a guess as a literal.
func (k keyTerm) guessed(v []byte) string {
	if k.recoded() {
		return quoteText(string(v))
	}
	return k.literal(v)
}

// divide divides a table into about so many ranges.
func (p *scanPlan) divide(ctx context.Context, s *session, parts int64) ([]cdc.Range, error) {
	k := p.key[0]
	low, err := p.firstKey(ctx, s, "", "")
	if err != nil || low == nil {
		return []cdc.Range{scanRange{Open: true}.encode()}, err
	}
	high, err := p.firstKey(ctx, s, "", " DESC")
	if err != nil || high == nil {
		return []cdc.Range{scanRange{Open: true}.encode()}, err
	}
	found := []part{{low: low, high: high, rows: p.table.Rows}}
	for tries := 3 * parts; tries > 0 && int64(len(found)) < parts; tries-- {
		i := largest(found)
		if i < 0 {
			break
		}
		if found, err = p.halve(ctx, s, found, i); err != nil {
			return nil, err
		}
	}
	var out []cdc.Range
	var before []string
	for _, part := range found[:len(found)-1] {
		bound := []string{k.literal(part.high)}
		out = append(out, scanRange{After: before, UpTo: bound}.encode())
		before = bound
	}
	return append(out, scanRange{After: before, Open: true}.encode()), nil
}

// largest is the part with most rows that may be divided; -1 if there is none.
func largest(parts []part) int {
	best := -1
	for i, p := range parts {
		if !p.whole && (best < 0 || p.rows > parts[best].rows) {
			best = i
		}
	}
	return best
}

// guess is where in a part a value is looked for: so many eighths between its ends, in the first character in which these differ, or so
// many characters further on behind its beginning, where many values may begin alike.
type guess struct{ further, eighths int }

// guesses are tried until a part is divided well.
func guesses() []guess {
	all := []guess{{0, 4}, {0, 2}, {0, 6}, {0, 1}, {0, 3}, {0, 5}, {0, 7}}
	for i := 1; i <= 12; i++ {
		all = append(all, guess{i, 4})
	}
	return all
}

// halve divides a part at a value that lies about in its middle, if there is one. At worst it asks the server
// three short questions for each guess.
func (p *scanPlan) halve(ctx context.Context, s *session, parts []part, i int) ([]part, error) {
	k := p.key[0]
	whole := &parts[i]
	behind := ">" // the part before ends with low
	if i == 0 {
		behind = ">="
	}
	low, high := k.compared(behind, k.literal(whole.low)), k.literal(whole.high)
	within := low + " AND " + k.compared("<", high)
	var best []part
	if bytes.Equal(whole.low, whole.high) {
		whole.whole = true
		return parts, nil
	}
	next := k.guesses(whole.low, whole.high)
	var higher bool
	for text := next(false); text != nil; text = next(higher) {
		middle, err := p.firstKey(ctx, s, within+" AND "+k.compared(">=", k.guessed(text)), "")
		if err != nil {
			return nil, err
		}
		if middle == nil {
			higher = false
			continue
		}
		first, second := part{low: whole.low, high: middle}, part{low: middle, high: whole.high}
		if first.rows, err = p.estimate(ctx, s, low+" AND "+k.compared("<=", k.literal(middle))); err != nil {
			return nil, err
		}
		if second.rows, err = p.estimate(ctx, s, k.compared(">", k.literal(middle))+" AND "+k.compared("<=", high)); err != nil {
			return nil, err
		}
		higher = first.rows < second.rows
		smaller := min(first.rows, second.rows)
		if best == nil || smaller > min(best[0].rows, best[1].rows) {
			best = []part{first, second}
		}
		if smaller >= whole.rows/4 {
			break
		}
	}
	if best == nil {
		whole.whole = true
		return parts, nil
	}
	return slices.Replace(parts, i, i+1, best...), nil
}

// firstKey is the first value of the key's first column for which a condition is true, which the server finds by the index; nil if
// there is none.
func (p *scanPlan) firstKey(ctx context.Context, s *session, where, order string) (value []byte, err error) {
	name := p.key[0].name
	if where != "" {
		where = " WHERE " + where
	}
	err = s.query(ctx, "SELECT "+p.key[0].expr+p.from()+where+" ORDER BY "+name+order+" LIMIT 1", nil, func(vals [][]byte) error {
		value = append([]byte{}, vals[0]...)
		return nil
	})
	return value, err
}

// estimate is about how many rows there are, as the server guesses by a look at the index.
func (p *scanPlan) estimate(ctx context.Context, s *session, where string) (rows int64, err error) {
	column := -1
	begin := func(columns []resultColumn) error {
		column = slices.IndexFunc(columns, func(c resultColumn) bool { return c.name == "rows" })
		return nil
	}
	err = s.query(ctx, "EXPLAIN FORMAT=TRADITIONAL SELECT "+p.key[0].name+p.from()+" WHERE "+where, begin, func(vals [][]byte) error {
		if column >= 0 {
			rows, _ = strconv.ParseInt(string(vals[column]), 10, 64) // null if it knows that there are none
		}
		return nil
	})
	return rows, err
}

// guesses gives values between two, one after the other, then nil; each time it is told whether to look higher than the last one.
func (k keyTerm) guesses(low, high []byte) func(higher bool) []byte {
	if scale, ok := k.scale(); ok {
		return scale.guesses(low, high)
	}
	if k.recoded() {
		var errs [2]error
		low, errs[0] = k.text.decode(nil, low)
		high, errs[1] = k.text.decode(nil, high)
		if errors.Join(errs[:]...) != nil {
			return func(bool) []byte { return nil }
		}
	}
	left := guesses()
	return func(bool) []byte {
		for len(left) > 0 {
			g := left[0]
			left = left[1:]
			if text := inTheMiddle(low, high, g, k.kind != kindText); text != nil && k.has(text) {
				return text
			}
		}
		return nil
	}
}

// has reports whether a guess is surely text of the column's character set.
func (k keyTerm) has(text []byte) bool {
	return !k.recoded() || isASCII(text) || slices.Contains([]string{"utf16", "utf16le", "utf32", "ucs2"}, k.text.name)
}

// inTheMiddle guesses a value between two; nil if there is no such guess. Texts get nothing but ASCII behind what is taken from low, which
// every character set has, and letters are taken for what they are without case.
func inTheMiddle(low, high []byte, g guess, raw bool) []byte {
	n := 0
	for n < len(low) && n < len(high) && low[n] == high[n] {
		n++
	}
	least, most := byte(0), byte(0xff)
	if !raw {
		for least, most = ' ', '~'; n > 0 && !utf8.Valid(low[:n]) && utf8.Valid(low); {
			n-- // not inside of a character
		}
	}
	if n += g.further; n > len(low) || !raw && !utf8.Valid(low[:n]) && utf8.Valid(low) {
		return nil
	}
	digit := func(b []byte, otherwise byte) byte {
		switch {
		case n >= len(b), b[n] < least, b[n] > most:
			return otherwise
		case !raw && 'A' <= b[n] && b[n] <= 'Z':
			return b[n] + 'a' - 'A'
		default:
			return b[n]
		}
	}
	from, to := digit(low, least), most
	if g.further == 0 {
		to = digit(high, most)
	}
	if from > to {
		from, to = to, from
	}
	step := byte(int(to-from) * g.eighths / 8) //nolint:gosec // no more than to
	if step == 0 {
		return nil
	}
	return append(bytes.Clone(low[:n]), from+step)
}
