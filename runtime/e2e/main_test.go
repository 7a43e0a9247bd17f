package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// built is the folder that build makes; TestMain removes it.
var built string

func TestMain(m *testing.M) {
	if os.Getenv(standIn) != "" {
		os.Exit(runStandIn())
	}
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
	os.Exit(code)
}

var build = sync.OnceValues(func() (launch.Binaries, error) {
	if dir := os.Getenv("SLUICE_BIN"); dir != "" {
		abs, err := filepath.Abs(dir)
		return launch.Binaries(abs), err
	}
	dir, err := os.MkdirTemp("", "sluice-e2e-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	root, err := filepath.Abs("../..")
	if err != nil {
		return "", err
	}
	for program, pkg := range map[string]string{
		"sluice": "./runtime/cmd/sluice", launch.SourcePostgres: "./source-postgres", launch.SourceMySQL: "./source-mysql", launch.SourceKafka: "./source-kafka",
		launch.MaterializePostgres: "./materialize-postgres", launch.MaterializeParquet: "./materialize-s3-parquet",
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, program), pkg)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", program, err, out)
		}
	}
	return launch.Binaries(dir), nil
})

// binaries gives the folder with the programs, which all tests of the run share.
func binaries(t testing.TB) launch.Binaries {
	t.Helper()
	if testing.Short() {
		t.Skip("needs servers and the built programs; run without -short")
	}
	bins, err := build()
	require.NoError(t, err)
	require.NoError(t, bins.Check())
	return bins
}
