package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// What snapshots say of transactions in every notation, those of a primary and those of a standby.
func TestVisibility(t *testing.T) {
	t.Parallel()
	list := &snapshot{xmin: 10, xmax: 20, running: []uint64{10, 15}}
	place := &replayed{before: 1000, xmin: 10}
	for id, want := range map[cdc.TxnID]struct{ list, place bool }{
		"9":      {true, true},
		"10":     {false, false},
		"12":     {true, false}, // a standby's snapshot alone cannot tell
		"20":     {false, false},
		"9@999":  {true, true},
		"12@999": {true, true},
		"15@999": {false, true},
		// The record that begins where it has replayed to has not been replayed.
		"9@1000":  {true, false},
		"12@1001": {true, false},
		"<10":     {true, true},
		"<11":     {false, false},
		"":        {false, false},
		"x":       {false, false},
		"9@x":     {false, false},
	} {
		require.Equal(t, want.list, list.Sees(id), "the list on %q", id)
		require.Equal(t, want.place, place.Sees(id), "the place on %q", id)
	}
	require.Equal(t, cdc.TxnID("7@1000"), transaction{xid: 7, commit: 1000}.id())
	require.Equal(t, cdc.TxnID("<7"), transaction{xid: 7, below: true}.id())
	require.Equal(t, cdc.TxnID("7"), txnID(7))
}

// Where the stream must have come to for a chunk of a standby.
func TestPlaceOfStandby(t *testing.T) {
	t.Parallel()
	d := &driver{server: serverInfo{segment: 16 << 20, walPage: 8192, standby: true}}
	for name, c := range map[string]struct {
		receiving, received, replayed, insert string
		want                                  cdc.Mark
	}{
		"all that was received is replayed":       {"t", "0/1000", "0/1000", "", "0/1000"},
		"the receiver began a segment anew":       {"t", "0/500", "0/1000", "", "0/1000"},
		"a record may be half visible":            {"t", "0/1008", "0/1000", "", "0/1001"},
		"the log comes from an archive":           {"f", "0/1000", "0/1000", "", "0/1001"},
		"it has never received":                   {"f", "", "0/1000", "", "0/1001"},
		"receiving begins":                        {"t", "", "0/1000", "", "0/1001"},
		"promoted a moment ago":                   {"f", "0/1000", "0/1000", "0/3000", "0/3000"},
		"promoted, at the beginning of a segment": {"f", "0/1000", "0/1000", "0/2000028", "0/2000000"},
	} {
		mark, err := d.place([][]byte{[]byte(c.receiving), []byte(c.received), []byte(c.replayed), []byte(c.insert)})
		require.NoError(t, err, name)
		require.Equal(t, c.want, mark, name)
	}
	_, err := d.place([][]byte{nil, nil, nil, nil})
	require.Error(t, err)
}

func TestMarkAtPageBoundary(t *testing.T) {
	t.Parallel()
	d := &driver{server: serverInfo{segment: 16 << 20, walPage: 8192}}
	for insert, want := range map[lsn]string{
		0x1002000 + 24: "0/1002000", // nothing on the page yet
		0x1002000 + 32: "0/1002020",
		0x2000000 + 40: "0/2000000", // nothing in the segment yet
		0x2000000 + 24: "0/2000018", // cannot be; left alone
		0x1002000:      "0/1002000",
	} {
		require.Equal(t, cdc.Mark(want), d.mark(insert))
	}
}

// While nobody commits, chunks do not wait for log that others write: what they see is what the first one saw.
func TestQuietPlace(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, postgresFor(t))
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (a int)")
	d := db.driver()
	table := db.tables(d, "t")[0]
	scan := func() cdc.Mark {
		plan, err := d.Plan(t.Context(), table)
		require.NoError(t, err)
		scanned, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
		require.NoError(t, err)
		return scanned.High
	}
	open := db.transaction("INSERT INTO other VALUES (1)")
	first := scan()
	_, err := open.Exec(t.Context(), "INSERT INTO other SELECT generate_series(1, 1000)")
	require.NoError(t, err)
	require.Equal(t, first, scan())
	d.quiet.begin()
	require.Greater(t, scan(), first, "a stream that begins knows nothing of what the server had not flushed before")
	first = scan()
	db.exec("INSERT INTO t VALUES (1)")
	require.NotEqual(t, first, scan())
	first = scan()
	commit(t, open) // in the middle of the snapshot
	require.NotEqual(t, first, scan())

	epoch := d.quiet.now()
	d.quiet.begin()
	require.Equal(t, cdc.Mark("0/5"), d.quiet.of(epoch, "1:1:", "0/5"), "of another epoch")
	require.Equal(t, cdc.Mark("0/6"), d.quiet.of(epoch+1, "1:1:", "0/6"))
	require.Equal(t, cdc.Mark("0/6"), d.quiet.of(epoch+1, "1:1:", "0/7"))
}
