// Package child has a test's own binary run as another program, such as the connector under test.
package child

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// Connector is the program that a connector's tests know as the connector itself.
const Connector = "connector"

// env says which program the binary is.
const env = "SLUICE_TEST_PROGRAM"

// Main is for TestMain, which exits with what it returns. In a process that [Self] made it runs that program; otherwise it runs
// the tests, atOnce of them at the same time, unless -parallel says how many or there are more cores: for the most part, tests wait
// for their servers.
func Main(m *testing.M, atOnce int, programs map[string]func()) int {
	if name := os.Getenv(env); name != "" {
		programs[name]()
		return 0
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && atOnce > runtime.GOMAXPROCS(0) {
		_ = flag.Set("test.parallel", strconv.Itoa(atOnce)) // it is a number
	}
	return m.Run()
}

// Self is the test's binary as one of the programs of [Main], not started yet. It is killed when the test ends. Its log is JSON, unless
// the caller adds something else to its environment.
func Self(t testing.TB, program string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), env+"="+program, "LOG_FORMAT=json", "LOG_LEVEL=info")
	return cmd
}
