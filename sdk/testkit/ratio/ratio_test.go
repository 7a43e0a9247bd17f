package ratio_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/ratio"
)

func TestPairs(t *testing.T) {
	t.Parallel()
	var order []string
	took := func(name string, seconds ...float64) func(int) (ratio.Run, error) {
		return func(pair int) (ratio.Run, error) {
			order = append(order, name)
			return ratio.Run{Rows: 1000, Took: time.Duration(seconds[pair] * float64(time.Second)), CPU: time.Millisecond * time.Duration(pair+1)}, nil
		}
	}
	result, err := ratio.Pairs(3, took("limit", 1, 1, 2), took("ours", 2, 1.25, 4))
	require.NoError(t, err)
	require.Equal(t, "limit ours limit ours limit ours", strings.Join(order, " "))
	require.InDelta(t, 0.5, result.Ratio, 1e-9)
	require.InDelta(t, 0.6, result.Spread, 1e-9)
	require.InDelta(t, 1000, result.Limit.Rate(), 1e-9)
	require.InDelta(t, 500, result.Ours.Rate(), 1e-9)
	require.InDelta(t, 2, result.Ours.CPUPerMillion(), 1e-9)

	broken := func(int) (ratio.Run, error) { return ratio.Run{}, errors.New("no server") }
	_, err = ratio.Pairs(3, took("limit", 1), broken)
	require.EqualError(t, err, "measuring ours: no server")
}

func TestPrint(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	require.NoError(t, ratio.Print(&out, "source-postgres/backfill", 0.8149, ratio.AtLeast, 0.7, "640000 rows/s"))
	require.NoError(t, ratio.Print(&out, "latency/p50", 1234.5, ratio.AtMost, 10, ""))
	require.NoError(t, ratio.PrintOnly(&out, "materialize-postgres/history-new", 0.3, "5 rows/s"))
	require.Equal(t, "ratio source-postgres/backfill 0.815 (aim >= 0.7) 640000 rows/s\nratio latency/p50 1234 (aim <= 10) \n"+
		"ratio materialize-postgres/history-new 0.3 (no aim) 5 rows/s\n", out.String())
}

func TestCommandMeasuresTheChildAlone(t *testing.T) {
	t.Parallel()
	if os.Getenv("SLUICE_TEST_BURN") != "" {
		block := make([]byte, 16<<20)
		for begin := time.Now(); time.Since(begin) < 300*time.Millisecond; {
			for i := 0; i < len(block); i += 4096 {
				block[i]++
			}
		}
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	ballast := make([]byte, 256<<20) // ours, and not to be counted as the child's
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestCommandMeasuresTheChildAlone$")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_BURN=1")
	run, err := ratio.Command(cmd, 7)
	require.NoError(t, err)
	require.EqualValues(t, 7, run.Rows)
	require.GreaterOrEqual(t, run.Took, 300*time.Millisecond)
	require.Greater(t, run.CPU, 20*time.Millisecond)
	require.Greater(t, run.Peak, int64(16<<20))
	require.Less(t, run.Peak, int64(192<<20))

	usage, err := ratio.Usage(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, usage.Peak, int64(256<<20))
	require.NotZero(t, ballast[0])

	_, err = ratio.Command(exec.CommandContext(t.Context(), "false"), 1)
	require.ErrorContains(t, err, "exit status 1")
}
