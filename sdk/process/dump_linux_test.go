package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const dumpsChild = "SLUICE_TEST_DUMPS"

// TestNoDumps: a program that crashes, although the machine wants dumps and Go is told to make one, leaves none, and nobody but root
// can look into it.
func TestNoDumps(t *testing.T) {
	if os.Getenv(dumpsChild) != "" {
		Main("dumps", func(context.Context, *Process) int {
			var limit unix.Rlimit
			err := unix.Getrlimit(unix.RLIMIT_CORE, &limit)
			dumpable, prctlErr := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
			fmt.Println(limit.Cur, limit.Max, dumpable, err, prctlErr)
			panic("as this test wants it")
		})
	}
	folder := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -c unlimited; exec "$0" -test.run '^TestNoDumps$'`, self)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), dumpsChild+"=1", "GOTRACEBACK=crash")
	out, err := cmd.Output()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Contains(t, string(exit.Stderr), "as this test wants it")
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
	limits, _, _ := strings.Cut(string(out), "\n")
	require.Equal(t, "0 0 0 <nil> <nil>", limits)
}
