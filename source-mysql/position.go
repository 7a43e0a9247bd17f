package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

// position is what was captured of the log: of MySQL a set, of MariaDB the last transaction of each domain. A cursor is its text;
// of MariaDB with the name of the last transaction behind it. Where transactions have no identifiers, or they are not wanted, it is
// a place in one server's log instead.
type position struct {
	set    *gtid.Set
	domain gtid.Position
	newest gtid.Source // of the transaction that was added last

	byFile bool
	place  place
	made   uint32 // when the server made the file, in seconds since 1970; 0 if not known yet
}

func (p *position) addMySQL(g binlog.MySQLGTID) {
	p.newest = gtid.Source{UUID: g.UUID, Tag: g.Tag}
	p.set.Add(p.newest, g.Number)
}

func (p *position) addMaria(g binlog.MariaDBGTID) {
	p.domain[g.Domain] = gtid.Last{Server: g.Server, Sequence: g.Sequence}
}

// text is the position as a cursor.
func (p *position) text(last cdc.TxnID) []byte {
	var dst []byte
	if p.byFile {
		dst = append(append(dst, fileMark...), p.place.String()...)
		if p.made != 0 {
			dst = strconv.AppendUint(append(dst, madeMark...), uint64(p.made), 10)
		}
		return dst
	}
	if p.set != nil {
		return p.set.Append(dst, &p.newest)
	}
	dst = p.domain.Append(dst)
	if last != "" {
		dst = append(append(dst, ' '), last...)
	}
	return dst
}

// What a cursor that is a place begins with, and what stands before the time when its file was made: "at binlog.000003:154 of 1700000000".
const fileMark, madeMark = "at ", " of "

// byFile reports whether a cursor is a place in the log of one server.
func byFile(c cdc.Cursor) bool { return strings.HasPrefix(string(c), fileMark) }

// parseCursor reads a cursor.
func parseCursor(c cdc.Cursor, mariadb bool) (p position, last cdc.TxnID, err error) {
	text := string(c)
	if byFile(c) {
		p.byFile = true
		where, made, dated := strings.Cut(strings.TrimPrefix(text, fileMark), madeMark)
		if dated {
			var n uint64
			n, err = strconv.ParseUint(made, 10, 32)
			p.made = uint32(n)
		}
		if err == nil {
			p.place, err = parsePlace(where)
		}
	} else if !mariadb {
		p.set, err = gtid.Parse(text)
	} else {
		var rest string
		text, rest, _ = strings.Cut(text, " ")
		last = cdc.TxnID(rest)
		p.domain, err = gtid.ParsePosition(text)
	}
	if err != nil {
		return p, "", fmt.Errorf("reading the stored position: %w", err)
	}
	return p, last, nil
}

func mysqlName(g binlog.MySQLGTID) []byte {
	return strconv.AppendInt(append(gtid.Source{UUID: g.UUID, Tag: g.Tag}.Append(nil), ':'), g.Number, 10)
}

func mariaName(g binlog.MariaDBGTID) []byte {
	return gtid.Position{g.Domain: {Server: g.Server, Sequence: g.Sequence}}.Append(nil)
}
