package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/conformance"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type testFlags struct {
	output   string
	file     string
	kind     string
	resource string
	verify   string
	only     []string
	quiet    time.Duration
	memory   int64
	rules    bool
}

func (a *app) testCommand() *cobra.Command {
	t := &target{app: a, form: true}
	var f testFlags
	cmd := &cobra.Command{
		Use: "test CONNECTOR --config FILE", Short: "Check that a connector keeps the rules of the protocol", Args: cobra.MaximumNArgs(1),
		Long: `Check that a connector, ours or not, keeps the rules of the protocol: framing, schemas, resuming from every checkpoint, kills at every
step, transactions that count once, and that no secret shows. It ends with code 1 if a rule is broken that is not a mere
warning.

A source is read several times: give it something small that stands still. A destination gets tables that are called
sluice_test_…, and keeps them.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.rules {
				return writeRules(cmd.OutOrStdout())
			}
			if len(args) == 0 || t.config == "" {
				return usererr.New(nil, "name a connector, and its configuration with --config")
			}
			if err := t.resolve(args[0]); err != nil {
				return err
			}
			return t.test(cmd, f)
		},
	}
	t.flags(cmd, false)
	cmd.Flags().StringVar(&t.config, "config", "", "file with the connector's configuration, YAML or JSON")
	cmd.Flags().StringVar(&f.output, "output", "text", "form of the report: text, json or junit")
	cmd.Flags().StringVar(&f.file, "file", "", "where to write the report (default: standard output)")
	cmd.Flags().StringVar(&f.kind, "kind", "", "what the connector does: capture or materialize (default: found out)")
	cmd.Flags().StringVar(&f.resource, "resource", "", `resource of a destination's binding, as JSON in which {table} is replaced (default: made of the schema)`)
	cmd.Flags().StringVar(&f.verify, "verify", "", `command that prints the rows of a destination's {table}, an object a line with id, region, note and size (default: they are not looked at)`)
	cmd.Flags().StringSliceVar(&f.only, "only", nil, "check only these rules, and what they need")
	cmd.Flags().DurationVar(&f.quiet, "quiet", 3*time.Second, "how long a source has to be silent to have given everything")
	cmd.Flags().Int64Var(&f.memory, "memory", 1024, "how many MiB may be resident")
	cmd.Flags().BoolVar(&f.rules, "rules", false, "print the rules and end")
	cmd.Flags().Lookup("timeout").DefValue = "1m0s"
	t.timeout = time.Minute
	return cmd
}

func (t *target) test(cmd *cobra.Command, f testFlags) error {
	switch f.output {
	case "text", "json", "junit":
	default:
		return usererr.New(nil, "--output is %q; it may be text, json or junit", f.output)
	}
	kind := conformance.Kind(f.kind)
	if kind != "" && kind != conformance.Capture && kind != conformance.Materialize {
		return usererr.New(nil, "--kind is %q; it may be capture or materialize", f.kind)
	}
	known := map[string]bool{}
	for _, rule := range conformance.Rules() {
		known[rule.ID] = true
	}
	for _, only := range f.only {
		if !known[only] {
			return usererr.New(nil, "there is no rule %q; sluice test --rules lists them", only)
		}
	}
	c := t.connector("sluice/conformance")
	c.Log = nil // what the connector says of its kills would hide the report
	report, err := conformance.Run(cmd.Context(), conformance.Options{
		Connector: c, Kind: kind, Resource: f.resource, Verify: f.verify, Only: f.only, Quiet: f.quiet, Memory: f.memory << 20,
	})
	if err != nil {
		return err
	}
	if err := t.writeReport(cmd.OutOrStdout(), f, report); err != nil {
		return err
	}
	if !report.OK() {
		return usererr.New(nil, "%s breaks %d rules", t.name(), report.Count(conformance.Fail, conformance.Error))
	}
	return nil
}

func (t *target) writeReport(out io.Writer, f testFlags, report *conformance.Report) error {
	if f.file == "" {
		return report.Write(out, f.output)
	}
	var text strings.Builder
	if err := report.Write(&text, f.output); err != nil {
		return err
	}
	if err := os.WriteFile(f.file, []byte(text.String()), 0o644); err != nil { //nolint:gosec // reports are for others to read
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// writeRules writes the rules as the table of the documentation.
func writeRules(out io.Writer) error {
	_, err := io.WriteString(out, conformance.Table())
	return err
}
