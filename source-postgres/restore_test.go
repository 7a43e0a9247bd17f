package main

import (
	"encoding/binary"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What TestDescriptionsInPieces shows with a server that sends the description once more, here with one that does not (as
// versions do that forget publications, see serverInfo): the messages are made up.
func TestDescriptionThatCameLastCounts(t *testing.T) {
	t.Parallel()
	db := piecesDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	st := s.Stream.(*stream)
	oid := binary.BigEndian.AppendUint32(nil, regclass(t, db, "t"))
	const xid = "\x00\x00\x02\xee"
	end := strings.Repeat("\x00", 8) + "\x00\x00\x00\x7f\x00\x00\x00\x00" + "\x00\x00\x00\x7f\x00\x00\x00\x10" // time, commit, end
	table := func(xid string, columns ...string) string {
		m := "R" + xid + string(oid) + "public\x00t\x00d\x00" + string(rune(len(columns)))
		for _, c := range columns {
			kind := map[bool]string{true: "\x01id\x00\x00\x00\x00\x17", false: "\x00" + c + "\x00\x00\x00\x00\x19"}[c == "id"]
			m += kind + "\xff\xff\xff\xff"
		}
		return m
	}
	row := func(xid string, values ...string) string {
		m := "I" + xid + string(oid) + "N\x00" + string(rune(len(values)))
		for _, v := range values {
			m += "t\x00\x00\x00" + string(rune(len(v))) + v
		}
		return m
	}
	var got []string
	for _, m := range []string{
		"S" + xid + "\x01", table(xid, "id", "a", "b"), row(xid, "1", "a", "b"), "E",
		table("", "id", "a"), row("", "2", "a"),
		"c" + xid + "\x00" + end[8:] + end[:8],
		row("", "3", "a"),
	} {
		ev, err := st.handle(t.Context(), 'd', []byte("w"+strings.Repeat("\x00", replicationHead-1)+m))
		for ; ev != nil; ev, err = st.queued(), nil {
			got = append(got, s.text(ev))
		}
		for st.kept != nil && err == nil {
			if ev, err = st.Next(t.Context(), patience); ev != nil {
				got = append(got, s.text(ev))
			}
		}
		require.NoError(t, err)
	}
	var rows []string
	for _, line := range got {
		if strings.HasPrefix(line, "c ") {
			rows = append(rows, line)
		}
	}
	require.Equal(t, []string{`c t {"a":"a","id":2}`, `c t {"a":"a","b":"b","id":1}`, `c t {"a":"a","id":3}`}, rows)
}

// regclass is the object identifier of a table.
func regclass(t *testing.T, db *database, name string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(db.exec("SELECT '"+name+"'::regclass::oid")), 10, 32)
	require.NoError(t, err)
	return uint32(n)
}
