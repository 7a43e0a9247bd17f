package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// cli is the command line of a source: for people, and for scripts that need no runtime.
type cli struct {
	p *process.Process
	c Connector

	configFile  string
	catalogFile string
	binds       []string
}

func commandLine(p *process.Process, c Connector) *cobra.Command {
	title := p.Name
	if spec, err := c.spec(); err == nil {
		title = schemaTitle(spec.ConfigSchemaJson)
	}
	root := p.Root("Capture "+title, fmt.Sprintf(`%[1]s captures %[2]s.

Without arguments it speaks the capture protocol on standard input and output, for a runtime. By hand:

  %[1]s spec                              what can be configured, as JSON schemas
  %[1]s check    --config c.yaml          is everything ready for a capture?
  %[1]s discover --config c.yaml          what can be captured?
  %[1]s pull     --config c.yaml          capture it: one JSON document a line
  %[1]s completion bash                   what a shell needs to complete commands (also fish, powershell, zsh)

A configuration is YAML or JSON: a file, standard input, or the environment variable SLUICE_CONFIG. In it, ${NAME} is an
environment variable and ${file:PATH} the content of a file. Logs go to standard error; LOG_LEVEL and LOG_FORMAT change them.
The exit code is 0 for what was done, or stopped by a signal; 1 for a failure; 2 for a command line that makes no sense.`, p.Name, title))
	t := &cli{p: p, c: c}
	root.AddCommand(t.specCommand(), t.checkCommand(), t.discoverCommand(), t.pullCommand(), t.airbyteCommand())
	return root
}

func schemaTitle(schema []byte) string {
	var s struct {
		Title string `json:"title"`
	}
	_ = json.Unmarshal(schema, &s) // it is our own
	return s.Title
}

func (t *cli) log() *logrus.Entry { return logrus.NewEntry(t.p.Log) }

func (t *cli) configFlag(cmd *cobra.Command) {
	process.ConfigFlag(cmd, &t.configFile)
}

func (t *cli) bindFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.catalogFile, "catalog", "", "what to capture, as discover printed it; without it, all that is discovered")
	cmd.Flags().StringArrayVar(&t.binds, "bind", nil, "capture only what has a name like this, such as 'public.*'; may be repeated")
	_ = cmd.MarkFlagFilename("catalog", "json", "yaml", "yml")
	_ = cmd.RegisterFlagCompletionFunc("bind", t.completeNames) // they exist
}

// completeNames is what a shell proposes for --bind: the names of what there is, if the configuration is known already.
func (t *cli) completeNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, err := t.p.ReadConfig(t.configFile)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found, err := t.catalog(cmd.Context(), config)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, b := range found.Bindings {
		names = append(names, strings.Join(b.ResourcePath, "."))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (t *cli) specCommand() *cobra.Command {
	return &cobra.Command{
		Use: "spec", Short: "Print what can be configured, as JSON schemas", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec, err := t.c.spec()
			if err != nil {
				return err
			}
			return printMessage(cmd.OutOrStdout(), spec)
		},
	}
}

func (t *cli) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Check that everything is ready for a capture", Args: cobra.NoArgs,
		Long: "Check connects, and looks for everything that would keep a capture from running. It changes nothing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := t.p.ReadConfig(t.configFile)
			if err != nil {
				return err
			}
			found, err := t.catalog(cmd.Context(), config)
			if err != nil {
				return err
			}
			spec, err := t.task(cmd.Context(), "check", config, found)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "ok: %d of %d resources would be captured\n", len(spec.Bindings), len(found.Bindings))
			return err
		},
	}
	t.configFlag(cmd)
	t.bindFlags(cmd)
	return cmd
}

// printMessage prints a message in the protocol's JSON, indented.
func printMessage(w io.Writer, m proto.Message) error {
	text, err := frame.JSON.AppendBody(nil, m)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err = w.Write(b.Bytes())
	return err
}

// catalog is what may be captured: the catalog file's content, or all that is discovered.
func (t *cli) catalog(ctx context.Context, config json.RawMessage) (*capturepb.Response_Discovered, error) {
	if t.catalogFile == "" {
		return t.c.discover(ctx, t.log(), &capturepb.Request_Discover{ConfigJson: config})
	}
	text, err := t.p.ReadFile(t.catalogFile)
	if err != nil {
		return nil, err
	}
	found := &capturepb.Response_Discovered{}
	if err := frame.JSON.Unmarshal(text, found); err != nil {
		return nil, usererr.New(err, "%s is not a catalog as discover prints it.", t.catalogFile)
	}
	if len(found.Bindings) == 0 {
		return nil, usererr.New(nil, `%s has no "bindings", so there is nothing to capture. Is it what discover printed?`, t.catalogFile)
	}
	return found, nil
}

// task makes a validated specification of a capture of what --bind chooses.
func (t *cli) task(
	ctx context.Context, name string, config json.RawMessage, found *capturepb.Response_Discovered,
) (*flowpb.CaptureSpec, error) {
	chosen, err := choose(found.Bindings, t.binds)
	if err != nil {
		return nil, err
	}
	req := &capturepb.Request_Validate{Name: name, ConnectorType: flowpb.CaptureSpec_LOCAL, ConfigJson: config}
	spec := &flowpb.CaptureSpec{Name: name, ConnectorType: flowpb.CaptureSpec_LOCAL, ConfigJson: config}
	for _, b := range chosen {
		collection := &flowpb.CollectionSpec{Name: b.RecommendedName, Key: b.Key, WriteSchemaJson: b.DocumentSchemaJson}
		req.Bindings = append(req.Bindings, &capturepb.Request_Validate_Binding{
			ResourceConfigJson: b.ResourceConfigJson, Collection: collection,
		})
		spec.Bindings = append(spec.Bindings, &flowpb.CaptureSpec_Binding{
			ResourceConfigJson: b.ResourceConfigJson, Collection: collection,
		})
	}
	validated, err := t.c.validate(ctx, t.log(), req)
	if err != nil {
		return nil, err
	}
	for i, v := range validated.Bindings {
		spec.Bindings[i].ResourcePath = v.ResourcePath
		spec.Bindings[i].StateKey = strings.Join(v.ResourcePath, "/")
	}
	return spec, nil
}

// choose filters what was discovered. A pattern may name the collection or the resource, whole or with * and ?; it also
// chooses what is switched off. Without patterns everything that is not switched off is chosen.
func choose(all []*capturepb.Response_Discovered_Binding, patterns []string) ([]*capturepb.Response_Discovered_Binding, error) {
	var chosen []*capturepb.Response_Discovered_Binding
	used := make([]bool, len(patterns))
	for _, b := range all {
		take := len(patterns) == 0 && !b.Disable
		for i, pattern := range patterns {
			for _, name := range []string{b.RecommendedName, strings.Join(b.ResourcePath, ".")} {
				ok, err := matchName(pattern, name)
				if err != nil {
					return nil, usererr.New(err, "--bind %q is not a pattern. Use * for any characters and ? for one.", pattern)
				}
				take, used[i] = take || ok, used[i] || ok
			}
		}
		if take {
			chosen = append(chosen, b)
		}
	}
	for i, pattern := range patterns {
		if !used[i] {
			return nil, usererr.New(nil, "--bind %q matches nothing. There is %s.", pattern, someNames(all))
		}
	}
	if len(chosen) == 0 {
		return nil, usererr.New(nil, "There is nothing to capture: nothing was discovered that is not switched off.")
	}
	return chosen, nil
}

// matchName is path.Match in which * goes across slashes.
func matchName(pattern, name string) (bool, error) {
	return path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(name, "/", "\x00"))
}

func someNames(all []*capturepb.Response_Discovered_Binding) string {
	const most = 10
	var names []string
	for _, b := range all[:min(most, len(all))] {
		names = append(names, b.RecommendedName)
	}
	switch {
	case len(all) == 0:
		return "nothing at all"
	case len(all) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), len(all)-most)
	default:
		return strings.Join(names, ", ")
	}
}
