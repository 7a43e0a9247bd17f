package gtid

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Position is MariaDB's place in the log: the last transaction of each domain.
type Position map[uint32]Last

// Last is the last transaction of a domain.
type Last struct {
	Server   uint32
	Sequence uint64
}

// ParsePosition reads MariaDB's notation: "0-1-100,1-1-5".
func ParsePosition(text string) (Position, error) {
	p := Position{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		fields := strings.Split(part, "-")
		if len(fields) != 3 {
			return nil, fmt.Errorf("parsing the GTID position %q: %q is not of the form domain-server-sequence", text, part)
		}
		domain, err1 := strconv.ParseUint(fields[0], 10, 32)
		server, err2 := strconv.ParseUint(fields[1], 10, 32)
		sequence, err3 := strconv.ParseUint(fields[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("parsing the GTID position %q: %q is not made of numbers", text, part)
		}
		// The server lists all servers of a domain in some places, the last one last.
		if before, ok := p[uint32(domain)]; !ok || before.Sequence <= sequence {
			p[uint32(domain)] = Last{Server: uint32(server), Sequence: sequence}
		}
	}
	return p, nil
}

// Append appends MariaDB's notation, in the order of the domains.
func (p Position) Append(dst []byte) []byte {
	if len(p) == 1 {
		for domain, last := range p {
			return last.append(dst, domain)
		}
	}
	for i, domain := range slices.Sorted(maps.Keys(p)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = p[domain].append(dst, domain)
	}
	return dst
}

func (l Last) append(dst []byte, domain uint32) []byte {
	dst = append(strconv.AppendUint(dst, uint64(domain), 10), '-')
	dst = append(strconv.AppendUint(dst, uint64(l.Server), 10), '-')
	return strconv.AppendUint(dst, l.Sequence, 10)
}

func (p Position) String() string { return string(p.Append(nil)) }

// Behind lists the domains, with their transactions, in which this position lies before another one.
func (p Position) Behind(o Position) Position {
	out := Position{}
	for domain, last := range o {
		if p[domain].Sequence < last.Sequence {
			out[domain] = last
		}
	}
	return out
}

// State is all that MariaDB's log has: the last transaction of each server in each domain.
type State map[[2]uint32]uint64

// ParseState reads MariaDB's gtid_binlog_state: "0-1-100,0-2-97".
func ParseState(text string) (State, error) {
	out := State{}
	for part := range strings.SplitSeq(text, ",") {
		p, err := ParsePosition(part)
		if err != nil {
			return nil, err
		}
		for domain, last := range p {
			out[[2]uint32{domain, last.Server}] = last.Sequence
		}
	}
	return out, nil
}

// Compare finds out which of a position's transactions the log does not have: those of servers that it knows nothing of, and those
// that it does not have yet, or any more.
func (s State) Compare(p Position) (unknown, ahead Position) {
	unknown, ahead = Position{}, Position{}
	for domain, last := range p {
		switch sequence, known := s[[2]uint32{domain, last.Server}]; {
		case !known:
			unknown[domain] = last
		case sequence < last.Sequence:
			ahead[domain] = last
		}
	}
	return unknown, ahead
}
