package status

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
)

const deploy = "../../deploy"

// TestMetricsThatAreShown: alerts and dashboard name no metric that the program does not have, and together all that it has.
func TestMetricsThatAreShown(t *testing.T) {
	t.Parallel()
	described := make(chan *prometheus.Desc, 100)
	NewCollector(NewBoard()).Describe(described)
	close(described)
	exported := map[string]bool{}
	name := regexp.MustCompile(`\bsluice_[a-z_]+`)
	for d := range described {
		exported[name.FindString(d.String())] = true
	}
	shown := map[string]bool{}
	for _, file := range []string{"prometheus/alerts.yaml", "grafana/sluice.json"} {
		text, err := os.ReadFile(filepath.Join(deploy, file))
		require.NoError(t, err)
		for _, metric := range name.FindAllString(string(text), -1) {
			require.True(t, exported[metric], "%s names %s, which is not exported", file, metric)
			shown[metric] = true
		}
	}
	require.Equal(t, exported, shown)
	operations, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	for metric := range exported {
		require.Contains(t, string(operations), "`"+metric+"`")
	}
}

// TestAlerts: the rules are valid, each fires when what it is for happens, and none when all is well; the dashboard's expressions are
// valid, too.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if promtool, err = filepath.Abs("../../.cache/promtool/promtool"); err == nil {
			_, err = os.Stat(promtool)
		}
	}
	if err != nil {
		need.Missing(t, "no promtool: scripts/services install promtool")
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Join(deploy, "prometheus")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	run("check", "rules", "alerts.yaml")
	run("test", "rules", "alerts_test.yaml")

	text, err := os.ReadFile(filepath.Join(deploy, "grafana/sluice.json"))
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &board))
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	grafana := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	for i, p := range board.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for j, target := range p.Targets {
			fmt.Fprintf(&rules, "  - {record: panel:%d:%d, expr: %q}\n", i, j, grafana.Replace(target.Expr))
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	require.NoError(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	run("check", "rules", file)
}
