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
	return Options{
		Connector: host.Connector{Endpoint: host.Endpoint{
			Command: []string{self}, Config: json.RawMessage(`{"password":"hunter22"}`),
			Env: map[string]string{fakeEnv: kind, modeEnv: mode, folderEnv: t.TempDir()},
		}},
		Quiet: 3 * time.Second,
	}
}

// TestGoodConnectorsPass: connectors that break no rule are found to break none, and every rule of their kind is checked.
func TestGoodConnectorsPass(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"source", "sink"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			report, err := Run(t.Context(), fakeOptions(t, kind, ""))
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

// TestBrokenConnectorsFail has, for each rule, a connector that breaks it, and looks whether that is found, with a reason.
func TestBrokenConnectorsFail(t *testing.T) {
	t.Parallel()
	sinks := map[string]bool{"constraints": true, "transactions": true, "load": true, "many-loads": true, "exactly-once": true, "fence": true}
	for _, rule := range Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			t.Parallel()
			kind := "source"
			if sinks[rule.ID] {
				kind = "sink"
			}
			opts := fakeOptions(t, kind, rule.ID)
			opts.Only = []string{rule.ID}
			switch rule.ID {
			case "memory":
				opts.Memory = 1 << 20
			case "codecs-agree":
				opts.Only = append(opts.Only, "frame")
			case "resume-once":
				opts.Only = append(opts.Only, "resume")
			case "many-loads", "exactly-once":
				opts.Connector.Answer = 30 * time.Second
			}
			report, err := Run(t.Context(), opts)
			require.NoError(t, err)
			found := false
			for _, f := range report.Findings {
				if f.Rule == rule.ID {
					found = true
					require.Equal(t, Fail, f.Outcome, "%s", f.Detail)
					require.NotEmpty(t, f.Detail)
					require.NotContains(t, f.Detail, "hunter22")
					require.Equal(t, rule.Fix, f.Fix)
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
