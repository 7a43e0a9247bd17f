package conformance

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/testkit/child"
)

func TestMain(m *testing.M) {
	switch os.Getenv(fakeEnv) {
	case "source":
		runFakeSource()
	case "sink":
		runFakeSink()
	}
	os.Exit(child.Main(m, 8, nil))
}

func fakeOptions(t *testing.T, kind, mode string) Options {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	folder := t.TempDir()
	return Options{
		Connector: host.Connector{Endpoint: host.Endpoint{
			Command: []string{self}, Config: json.RawMessage(`{"password":"hunter22"}`),
			Env: map[string]string{fakeEnv: kind, modeEnv: mode, folderEnv: folder},
		}},
		Quiet: 3 * time.Second, Verify: "cat '" + folder + "'/{table}.jsonl",
	}
}

// TestGoodConnectorsPass: connectors that break no rule are found to break none, and every rule of their kind is checked. Those that pause
// for longer than a source's silence may last, in the middle of what they have, are none the worse.
func TestGoodConnectorsPass(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"source", "sink"} {
		for _, mode := range []string{"", "pauses"} {
			t.Run(kind+" "+mode, func(t *testing.T) {
				t.Parallel()
				opts := fakeOptions(t, kind, mode)
				if mode == "pauses" {
					opts.Quiet = pauseOfFake / 2
				}
				report, err := Run(t.Context(), opts)
				require.NoError(t, err)
				for _, f := range report.Findings {
					require.Equal(t, Pass, f.Outcome, "%s: %s", f.Rule, f.Detail)
				}
				rules := 0
				for _, rule := range Rules() {
					if rule.Of == Any || rule.Of == report.Kind {
						rules++
					}
				}
				require.Len(t, report.Findings, rules)
			})
		}
	}
}

// TestBrokenConnectorsFail has, for each rule, a connector that breaks it, and looks whether that is found, with a reason.
func TestBrokenConnectorsFail(t *testing.T) {
	t.Parallel()
	type broken struct{ rule, kind, mode, detail string }
	all := []broken{
		{"slow-reader", "sink", "slow-reader", "a committed document was not loaded"},
		{"slow-reader", "source", "slow-reader grows", "MiB more were resident after nobody had read for 3s"},
		{"documents", "source", "documents behind a pause", "a document of items"},
		{"delta-updates", "sink", "delta-updates reduced", "0 times, and it was committed 1 times"},
	}
	for _, rule := range Rules() {
		kind := "source"
		if rule.Of == Materialize {
			kind = "sink"
		}
		all = append(all, broken{rule.ID, kind, rule.ID, ""})
	}
	for _, c := range all {
		t.Run(c.mode+" of "+c.kind, func(t *testing.T) {
			t.Parallel()
			opts := fakeOptions(t, c.kind, c.mode)
			opts.Only = []string{c.rule}
			switch c.mode {
			case "memory":
				opts.Memory = 1 << 20
			case "documents behind a pause":
				opts.Quiet = pauseOfFake / 2
			case "slow-reader grows":
				opts.Memory = 64 << 20
			case "codecs-agree":
				opts.Only = append(opts.Only, "frame")
			case "resume-once":
				opts.Only = append(opts.Only, "resume")
			case "many-loads", "exactly-once":
				opts.Connector.Answer = 30 * time.Second
			case "resume", "killed", "acknowledgements", "slow-reader": // what is known to be missing is waited for
				opts.Connector.Answer = 10 * time.Second
			}
			report, err := Run(t.Context(), opts)
			require.NoError(t, err)
			found := false
			for _, f := range report.Findings {
				if f.Rule == c.rule {
					found = true
					require.Equal(t, Fail, f.Outcome, "%s", f.Detail)
					require.NotEmpty(t, f.Detail)
					require.Contains(t, f.Detail, c.detail)
					require.NotContains(t, f.Detail, "hunter22")
					require.Equal(t, ruleByID(c.rule).Fix, f.Fix)
				}
			}
			require.True(t, found, "%+v", report.Findings)
		})
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	report := &Report{Connector: "source-x", Kind: Capture, Findings: []Finding{
		finding(ruleByID("frame"), nil, time.Second), finding(ruleByID("resume"), skipped("needs documents"), 0),
		finding(ruleByID("stop"), os.ErrClosed, 0), finding(ruleByID("memory"), os.ErrExist, 0),
	}}
	require.False(t, report.OK())
	var text, junit, machine bytes.Buffer
	require.NoError(t, report.Write(&text, "text"))
	require.Contains(t, text.String(), "fail  stop                  0.0s  SIGTERM ends a capture")
	require.Contains(t, text.String(), "error: Stop reading at SIGTERM")
	require.True(t, strings.HasSuffix(text.String(), "source-x (capture): 1 rules hold, 1 errors, 1 warnings, 1 skipped\n"), text.String())
	require.NoError(t, report.Write(&junit, "junit"))
	var suite junitSuite
	require.NoError(t, xml.Unmarshal(junit.Bytes(), &suite))
	require.Equal(t, []int{4, 1, 1}, []int{suite.Tests, suite.Failures, suite.Skipped})
	require.NoError(t, report.Write(&machine, "json"))
	var back Report
	require.NoError(t, json.Unmarshal(machine.Bytes(), &back))
	require.Equal(t, Fail, back.Findings[2].Outcome)
	require.Error(t, report.Write(&text, "yaml"))
}

func TestEveryRuleIsChecked(t *testing.T) {
	t.Parallel()
	for _, kind := range []Kind{Capture, Materialize} {
		s := &suite{report: &Report{Kind: kind}, watch: newWatch(nil)}
		checks := s.checks()
		seen := map[string]bool{}
		for _, rule := range Rules() {
			require.False(t, seen[rule.ID], rule.ID)
			seen[rule.ID] = true
			require.NotEmpty(t, rule.Title)
			require.NotEmpty(t, rule.Fix)
			if rule.Of == Any || rule.Of == kind {
				require.NotNil(t, checks[rule.ID], rule.ID)
			}
		}
	}
}
