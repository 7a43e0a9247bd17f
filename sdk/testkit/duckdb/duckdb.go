// Package duckdb asks a real DuckDB what is in files, in tests. DuckDB is a program: nothing is linked in.
package duckdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
)

// Row is a row of a result, by name of column. Numbers are json.Number.
type Row map[string]any

// errNotHere says that no DuckDB was found.
var errNotHere = errors.New("DuckDB is not here: run scripts/services install, or set SLUICE_DUCKDB to the program")

// Find returns the path of the DuckDB program: SLUICE_DUCKDB, what scripts/services installed, or the one in PATH.
func Find() (string, error) {
	if path := os.Getenv("SLUICE_DUCKDB"); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding DuckDB: %w", err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".cache", "duckdb", "duckdb")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("duckdb"); err == nil {
		return path, nil
	}
	return "", errNotHere
}

// Run executes statements, separated by semicolons, in the database file (empty: in memory, for this call), and returns
// what they print in the given output mode of DuckDB's command line.
func Run(ctx context.Context, file, mode, sql string) ([]byte, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	args := []string{"-bail", "-" + mode}
	if file != "" {
		args = append(args, file)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	cmd.Stdin = bytes.NewBufferString(sql)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err == nil && errs.Len() > 0 {
		err = errors.New("it complained")
	}
	if err != nil {
		return out, fmt.Errorf("running DuckDB: %w: %s", err, errs.Bytes())
	}
	return out, nil
}

// Need ends the test if there is no DuckDB (see [need.Missing]), or if it is run with -short.
func Need(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs DuckDB")
	}
	if _, err := Find(); err != nil {
		need.Missing(t, "%v", err)
	}
}

// Query runs statements in the database file and returns the rows of the last one, which must be a query.
func Query(t testing.TB, file, sql string) []Row {
	t.Helper()
	out, err := Run(t.Context(), file, "jsonlines", sql)
	require.NoError(t, err, "%s", sql)
	rows := []Row{}
	d := json.NewDecoder(bytes.NewReader(out))
	d.UseNumber()
	for d.More() {
		var row Row
		require.NoError(t, d.Decode(&row), "%s", out)
		rows = append(rows, row)
	}
	return rows
}
