// Package gtid knows sets of global transaction identifiers, as MySQL and MariaDB write them.
package gtid

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Source is what numbers of transactions belong to: a server, and a tag that a session chose (MySQL 8.3 and newer), if any.
type Source struct {
	UUID [16]byte
	Tag  string
}

func (s Source) compare(o Source) int {
	if c := bytes.Compare(s.UUID[:], o.UUID[:]); c != 0 {
		return c
	}
	return strings.Compare(s.Tag, o.Tag)
}

// Append appends the server's notation: the UUID, and the tag behind a colon.
func (s Source) Append(dst []byte) []byte {
	dst = AppendUUID(dst, s.UUID)
	if s.Tag != "" {
		dst = append(append(dst, ':'), s.Tag...)
	}
	return dst
}

// ParseSource reads what Append writes.
func ParseSource(text string) (Source, error) {
	name, tag, _ := strings.Cut(text, ":")
	uuid, err := hex.DecodeString(strings.ReplaceAll(name, "-", ""))
	if err != nil || len(uuid) != 16 {
		return Source{}, fmt.Errorf("%q is not a server's UUID", text)
	}
	return Source{UUID: [16]byte(uuid), Tag: tag}, nil
}

// interval are the numbers from first to last, both included.
type interval struct{ first, last int64 }

// Set is a set of MySQL's identifiers: numbers of transactions for each server. The zero value is empty.
type Set struct {
	servers []server // in order

	// text is what String gave, except for the last interval of one server, which is the one that grows.
	before, after []byte
	growing       int // index of that server; -1 if text is outdated
	known         bool
}

type server struct {
	Source
	intervals []interval // ascending, apart from each other
}

// Parse reads the server's notation: "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-3:11:tag:1-2, …".
func Parse(text string) (*Set, error) {
	s := &Set{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, rest, _ := strings.Cut(part, ":")
		source, err := ParseSource(strings.TrimSpace(name))
		if err != nil || rest == "" {
			return nil, fmt.Errorf("parsing the GTID set %q: %q is not a server's UUID with numbers", text, part)
		}
		for item := range strings.SplitSeq(rest, ":") {
			item = strings.ToLower(strings.TrimSpace(item))
			if isTag(item) {
				source.Tag = item
				continue
			}
			first, last, isRange := strings.Cut(item, "-")
			a, err := strconv.ParseInt(first, 10, 64)
			b := a
			if err == nil && isRange {
				b, err = strconv.ParseInt(last, 10, 64)
			}
			if err != nil || a < 1 || b < a {
				return nil, fmt.Errorf("parsing the GTID set %q: %q is not a range of numbers", text, item)
			}
			s.add(source, interval{a, b})
		}
	}
	return s, nil
}

// isTag reports whether a part of a set's text is a tag: a word that begins with no digit.
func isTag(item string) bool {
	return item != "" && strings.Trim(item, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && (item[0] < '0' || item[0] > '9')
}

// Add adds one transaction.
func (s *Set) Add(source Source, number int64) { s.add(source, interval{number, number}) }

func (s *Set) add(source Source, n interval) {
	i, found := s.find(source)
	if !found {
		s.known = false
		s.servers = slices.Insert(s.servers, i, server{Source: source})
	}
	v := &s.servers[i]
	if last := len(v.intervals) - 1; last >= 0 && n.first == v.intervals[last].last+1 {
		v.intervals[last].last = n.last // the usual case
		if i != s.growing {
			s.known = false
		}
		return
	}
	s.known = false
	at, _ := slices.BinarySearchFunc(v.intervals, n.first, func(x interval, first int64) int {
		switch {
		case x.last+1 < first:
			return -1
		default:
			return 1
		}
	})
	end := at
	for ; end < len(v.intervals) && v.intervals[end].first <= n.last+1; end++ {
		n.first, n.last = min(n.first, v.intervals[end].first), max(n.last, v.intervals[end].last)
	}
	v.intervals = slices.Replace(v.intervals, at, end, n)
}

func (s *Set) find(source Source) (int, bool) {
	return slices.BinarySearchFunc(s.servers, source, func(v server, o Source) int { return v.compare(o) })
}

// Has reports whether a transaction is in the set.
func (s *Set) Has(source Source, number int64) bool { return s.has(source, interval{number, number}) }

func (s *Set) has(source Source, n interval) bool {
	i, found := s.find(source)
	if !found {
		return false
	}
	return slices.ContainsFunc(s.servers[i].intervals, func(x interval) bool { return x.first <= n.first && n.last <= x.last })
}

// Contains reports whether all of another set is in this one.
func (s *Set) Contains(o *Set) bool { return len(o.Minus(s).servers) == 0 }

// Minus is what of the set is not in another one.
func (s *Set) Minus(o *Set) *Set {
	out := &Set{}
	for _, v := range s.servers {
		i, found := o.find(v.Source)
		for _, n := range v.intervals {
			if found {
				for _, x := range o.servers[i].intervals {
					if x.last < n.first || x.first > n.last {
						continue
					}
					if n.first < x.first {
						out.add(v.Source, interval{n.first, x.first - 1})
					}
					n.first = x.last + 1
				}
			}
			if n.first <= n.last {
				out.add(v.Source, n)
			}
		}
	}
	return out
}

// Meets reports whether both sets have transactions of one server.
func (s *Set) Meets(o *Set) bool {
	return slices.ContainsFunc(s.servers, func(v server) bool { _, found := o.find(v.Source); return found })
}

// Empty reports whether nothing is in the set.
func (s *Set) Empty() bool { return len(s.servers) == 0 }

// Clone is a copy.
func (s *Set) Clone() *Set {
	out := &Set{servers: slices.Clone(s.servers)}
	for i := range out.servers {
		out.servers[i].intervals = slices.Clone(out.servers[i].intervals)
	}
	return out
}

// String is the server's notation.
func (s *Set) String() string { return string(s.Append(nil, nil)) }

// Append appends the server's notation. Where newest, the source of the transaction that was added last, is given, what is the
// same for the next transaction is remembered.
func (s *Set) Append(dst []byte, newest *Source) []byte {
	at := -1
	if newest != nil {
		if i, found := s.find(*newest); found {
			at = i
		}
	}
	if at >= 0 && (!s.known || s.growing != at) {
		s.before, s.after = s.before[:0], s.after[:0]
		for i := range s.servers {
			if i == at {
				s.before = s.appendServer(s.before, i, true)
			} else if i < at {
				s.before = s.appendServer(s.before, i, false)
			} else {
				s.after = s.appendServer(s.after, i, false)
			}
		}
		s.known, s.growing = true, at
	}
	if at >= 0 {
		v := s.servers[at].intervals
		return append(v[len(v)-1].append(append(dst, s.before...)), s.after...)
	}
	for i := range s.servers {
		dst = s.appendServer(dst, i, false)
	}
	return dst
}

// appendServer appends one server's part, or all of it but the last interval.
func (s *Set) appendServer(dst []byte, i int, butLast bool) []byte {
	v := &s.servers[i]
	if i > 0 && s.servers[i-1].UUID == v.UUID {
		dst = append(append(dst, ':'), v.Tag...)
	} else {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = v.Source.Append(dst)
	}
	intervals := v.intervals
	if butLast {
		intervals = intervals[:len(intervals)-1]
	}
	for _, n := range intervals {
		dst = n.append(append(dst, ':'))
	}
	if butLast {
		dst = append(dst, ':')
	}
	return dst
}

func (n interval) append(dst []byte) []byte {
	dst = strconv.AppendInt(dst, n.first, 10)
	if n.last != n.first {
		dst = strconv.AppendInt(append(dst, '-'), n.last, 10)
	}
	return dst
}

// AppendUUID appends a server's UUID.
func AppendUUID(dst []byte, u [16]byte) []byte {
	for i, part := range [][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// Encode is the form in which a set is sent to the server that is asked for the rest. Servers that know no tags know no other
// form than that of sets without any.
func (s *Set) Encode() []byte {
	tagged := slices.ContainsFunc(s.servers, func(v server) bool { return v.Tag != "" })
	count := uint64(len(s.servers))
	if tagged {
		const format = 1
		count = format<<56 | count<<8 | format
	}
	out := binary.LittleEndian.AppendUint64(nil, count)
	for _, v := range s.servers {
		out = append(out, v.UUID[:]...)
		if tagged {
			out = append(append(out, byte(len(v.Tag)<<1)), v.Tag...)
		}
		out = binary.LittleEndian.AppendUint64(out, uint64(len(v.intervals)))
		for _, n := range v.intervals {
			out = binary.LittleEndian.AppendUint64(out, uint64(n.first))  //nolint:gosec // positive
			out = binary.LittleEndian.AppendUint64(out, uint64(n.last+1)) //nolint:gosec // positive
		}
	}
	return out
}
