package capture

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// The formats of discover.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

func (t *cli) discoverCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "discover", Short: "Print what can be captured, as a catalog for pull", Args: cobra.NoArgs,
		Long: `Discover prints what can be captured. As JSON or YAML it is a catalog that pull takes: remove what is not wanted, and change
resources. A terminal gets a table, and anything else JSON.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "" {
				format = formatJSON
				if t.p.Displayed {
					format = formatTable
				}
			}
			if format != formatTable && format != formatJSON && format != formatYAML {
				return usererr.New(nil, "--output %q is not a format. It may be table, json or yaml.", format)
			}
			config, err := t.p.ReadConfig(t.configFile)
			if err != nil {
				return err
			}
			found, err := t.c.discover(cmd.Context(), t.log(), &capturepb.Request_Discover{ConfigJson: config})
			if err != nil {
				return err
			}
			return printCatalog(cmd.OutOrStdout(), format, found)
		},
	}
	t.configFlag(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "", "table, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", // it exists
		cobra.FixedCompletions([]string{formatTable, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func printCatalog(w io.Writer, format string, found *capturepb.Response_Discovered) error {
	switch format {
	case formatTable:
		return printTable(w, found)
	case formatYAML:
		return printYAML(w, found)
	default:
		return printMessage(w, found)
	}
}

// printTable prints one line for each binding, for people.
func printTable(w io.Writer, found *capturepb.Response_Discovered) error {
	if len(found.Bindings) == 0 {
		_, err := fmt.Fprintln(w, "There is nothing to capture.")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tKEY\tFIELDS\tNOTE")
	for _, b := range found.Bindings {
		key := strings.Join(b.Key, " ")
		if b.IsFallbackKey {
			key = "(none)"
		}
		note := ""
		if b.Disable {
			note = "off: name it with --bind to capture it"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", strings.Join(b.ResourcePath, "."), key, fields(b.DocumentSchemaJson), note)
	}
	return t.Flush()
}

// fields counts what a document has at its top level, without what the source adds.
func fields(schema json.RawMessage) int {
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	_ = json.Unmarshal(schema, &s) // it is our own
	delete(s.Properties, "_meta")
	return len(s.Properties)
}

// printYAML prints the catalog in the same order and with the same names as JSON.
func printYAML(w io.Writer, found *capturepb.Response_Discovered) error {
	text, err := frame.JSON.AppendBody(nil, found)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("writing YAML: %w", err)
	}
	plain(&doc)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return fmt.Errorf("writing YAML: %w", err)
	}
	return e.Close()
}

// plain makes JSON look like YAML: no braces, and quotes only where they are needed.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, inner := range n.Content {
		plain(inner)
	}
}
