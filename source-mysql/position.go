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
// of MariaDB with the name of the last transaction behind it.
type position struct {
	set    *gtid.Set
	domain gtid.Position
	newest [16]byte // the server whose transaction was added last
}

func (p *position) addMySQL(g binlog.MySQLGTID) {
	p.set.Add(g.UUID, g.Number)
	p.newest = g.UUID
}

func (p *position) addMaria(g binlog.MariaDBGTID) {
	p.domain[g.Domain] = gtid.Last{Server: g.Server, Sequence: g.Sequence}
}

func (p *position) append(dst []byte, last cdc.TxnID) []byte {
	if p.set != nil {
		return p.set.Append(dst, &p.newest)
	}
	dst = p.domain.Append(dst)
	if last != "" {
		dst = append(append(dst, ' '), last...)
	}
	return dst
}

// parseCursor reads a cursor.
func parseCursor(c cdc.Cursor, mariadb bool) (p position, last cdc.TxnID, err error) {
	text := string(c)
	if !mariadb {
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
	return strconv.AppendInt(append(gtid.AppendUUID(nil, g.UUID), ':'), g.Number, 10)
}

func mariaName(g binlog.MariaDBGTID) []byte {
	return gtid.Position{g.Domain: {Server: g.Server, Sequence: g.Sequence}}.Append(nil)
}
