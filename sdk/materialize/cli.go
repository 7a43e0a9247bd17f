package materialize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// commandLine is what a connector does when it is called by hand.
func commandLine(p *process.Process, s Spec, c connector) *cobra.Command {
	root := p.Root("Materialize collections into "+s.Title, fmt.Sprintf(
		`%s keeps %s up to date with collections of documents.

Without arguments it speaks the materialization protocol on standard input and output, for a runtime such as sluice.
The commands below are for people. See %s.

A configuration is YAML or JSON: a file, standard input, or the environment variable SLUICE_CONFIG. In it, ${NAME} is an
environment variable and ${file:PATH} the content of a file. Logs go to standard error; LOG_LEVEL and LOG_FORMAT change them.
The exit code is 0 for what was done, or stopped by a signal; 1 for a failure; 2 for a command line that makes no sense.`, p.Name, s.Title, s.DocsURL))
	root.AddCommand(specCommand(c), checkCommand(p, c), applyCommand(p, c))
	return root
}

func specCommand(c connector) *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print the schemas of the configuration as JSON", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := c.spec()
			return printJSON(cmd.OutOrStdout(), struct {
				Protocol         uint32          `json:"protocol"`
				ConfigSchema     json.RawMessage `json:"configSchema"`
				ResourceSchema   json.RawMessage `json:"resourceConfigSchema"`
				DocumentationURL string          `json:"documentationUrl"`
			}{s.GetProtocol(), s.GetConfigSchemaJson(), s.GetResourceConfigSchemaJson(), s.GetDocumentationUrl()})
		},
	}
}

func checkCommand(p *process.Process, c connector) *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "check --config FILE", Short: "Check a configuration and that the destination can be used with it",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := p.ReadConfig(config)
			if err != nil {
				return err
			}
			if err := c.check(cmd.Context(), logrus.NewEntry(p.Log), raw); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "The configuration works.")
			return err
		},
	}
	process.ConfigFlag(cmd, &config)
	return cmd
}

func applyCommand(p *process.Process, c connector) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use: "apply --spec FILE", Short: "Create or change what a materialization needs in the destination",
		Long: `Create or change what a materialization needs in the destination.

FILE holds the protocol's Apply request in its JSON form: {"materialization": {…}, "version": "…"}.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := p.ReadFile(spec)
			if err != nil {
				return err
			}
			body, err := json.Marshal(map[string]json.RawMessage{"apply": raw})
			if err != nil {
				return fmt.Errorf("reading %s: %w", spec, err)
			}
			req := &materializepb.Request{}
			if err := frame.JSON.Unmarshal(body, req); err != nil {
				return usererr.New(err, "%s is not an Apply request.", spec)
			}
			if err := accept(req); err != nil {
				return usererr.New(err, "%s is not a complete Apply request: %v.", spec, errors.Unwrap(err))
			}
			done, err := c.apply(cmd.Context(), logrus.NewEntry(p.Log), req.GetApply())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), done.GetActionDescription())
			return err
		},
	}
	cmd.Flags().StringVar(&spec, "spec", "", "file with the request; - for standard input")
	_ = cmd.MarkFlagRequired("spec")
	return cmd
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
