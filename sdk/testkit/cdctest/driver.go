package cdctest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// EventText is an event of a stream in a short notation, for tests of drivers to compare:
//
//	u orders {"id":1,"total":42} before {"id":1,"total":41} omitted [note]
//
// What is no change (a commit, a fence) is empty. It must be called before the stream's next event, from the test's goroutine.
func EventText(t testing.TB, ev *cdc.Event) string {
	t.Helper()
	switch ev.Op {
	case cdc.Insert, cdc.Update, cdc.Delete:
		return changeText(t, ev)
	case cdc.Truncate:
		return "truncate " + ev.Table.Name
	case cdc.Shape:
		var columns []string
		for _, c := range ev.Shape.Columns {
			columns = append(columns, c.Name+" "+c.Type)
		}
		text := fmt.Sprintf("shape %s (%s) rescan %v", ev.Table.Name, strings.Join(columns, ", "), ev.Rescan)
		if ev.Look {
			text += " look"
		}
		return text
	case cdc.Drop:
		return fmt.Sprintf("drop %s: %v", ev.Table.Name, ev.Err)
	default:
		return ""
	}
}

func changeText(t testing.TB, ev *cdc.Event) string {
	t.Helper()
	text := map[cdc.Op]string{cdc.Insert: "c", cdc.Update: "u", cdc.Delete: "d"}[ev.Op] + " " + ev.Table.Name
	if ev.Row != nil {
		text += " " + Fields(t, ev.Row)
	}
	if ev.Before != nil {
		text += " before " + Fields(t, ev.Before)
	}
	if ev.Row != nil && len(ev.Row.Omitted()) > 0 {
		text += fmt.Sprintf(" omitted %v", ev.Row.Omitted())
	}
	return text
}

// Fields is a row as the JSON object that it becomes part of. The test fails if it is none.
func Fields(t testing.TB, row cdc.Row) string {
	t.Helper()
	text, err := row.AppendFields([]byte{'{'})
	require.NoError(t, err)
	text = append(text, '}')
	require.True(t, json.Valid(text), "%s", text)
	return string(text)
}

// ScanAll reads a whole table as a backfill does, in chunks of at most maxRows rows, and returns its rows (Fields) and their
// keys. Every chunk must say how far it saw.
func ScanAll(t testing.TB, d cdc.Driver, table *cdc.Table, maxRows int) (rows []string, keys [][]byte) {
	t.Helper()
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	for _, part := range plan.Ranges {
		for chunks := 0; part != ""; chunks++ {
			require.Less(t, chunks, 100_000)
			chunk := cdc.Chunk{Table: table, Range: part, MaxRows: maxRows, MaxBytes: 1 << 20}
			scanned, err := d.Scan(t.Context(), chunk, func(row cdc.Row) error {
				rows = append(rows, Fields(t, row))
				key, err := row.AppendKey(nil)
				keys = append(keys, key)
				return err
			})
			require.NoError(t, err)
			require.NotEmpty(t, scanned.High)
			part = scanned.Rest
		}
	}
	return rows, keys
}

// ScanKeys reads rows of a table by their keys, all of them whatever the chunk's limits are.
func ScanKeys(t testing.TB, d cdc.KeyScanner, table *cdc.Table, keys [][]byte) (rows []string) {
	t.Helper()
	scanned, err := d.ScanKeys(t.Context(), cdc.Chunk{Table: table, MaxRows: 1, MaxBytes: 1}, keys, func(row cdc.Row) error {
		rows = append(rows, Fields(t, row))
		return nil
	})
	require.NoError(t, err)
	require.NotEmpty(t, scanned.High)
	require.Empty(t, scanned.Rest)
	return rows
}
