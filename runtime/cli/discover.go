package cli

import (
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func (a *app) discoverCommand() *cobra.Command {
	t := &target{app: a}
	var name string
	cmd := &cobra.Command{
		Use: "discover CONNECTOR --config FILE", Short: "Print a pipeline that captures everything a source has", Args: cobra.ExactArgs(1),
		Long: `Print a pipeline that captures everything a source has. It runs as it is, and keeps what it captures in the log of its
data folder; a materialization is there as a comment, to be filled in. The configuration stays in its own file, to
which the pipeline refers.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(args[0]); err != nil {
				return err
			}
			if name == "" {
				name = "local/" + t.name()
			}
			spec, err := t.spec(cmd)
			if err != nil {
				return err
			}
			if t.materializes(spec) {
				return usererr.New(nil, "%s is a destination: there is nothing to discover in it", t.name())
			}
			found, err := t.discover(cmd, name)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				return usererr.New(nil, "%s has nothing that could be captured with this configuration", t.name())
			}
			return t.writePipeline(cmd.OutOrStdout(), name, found)
		},
	}
	t.flags(cmd, true)
	cmd.Flags().StringVar(&name, "name", "", "name of the capture; its collections are named beside it (default local/CONNECTOR)")
	return cmd
}

// spec is the collection of a stream as requests describe it.
func (d *discovered) spec() (*flowpb.CollectionSpec, error) {
	return host.NewCollection(d.collection, d.key, d.schema)
}

func (d *discovered) definition() *pipeline.Collection {
	return &pipeline.Collection{Name: d.collection, Key: d.key, Schema: d.schema, At: "discovered"}
}

func (t *target) writePipeline(out io.Writer, name string, found []discovered) error {
	config, err := filepath.Abs(t.config)
	if err != nil {
		return fmt.Errorf("finding %q: %w", t.config, err)
	}
	endpoint := mapping("local", mapping("command", sequence(t.endpoint.Command...), "protobuf", boolean(t.endpoint.Codec.String() == "proto"), "config", text(config)))
	if t.endpoint.Image != "" {
		endpoint = mapping("connector", mapping("image", text(t.endpoint.Image), "config", text(config)))
	}
	switch {
	case t.source.Image != "":
		endpoint = mapping("airbyte", mapping("image", text(t.source.Image), "config", text(config)))
	case t.airbyte:
		endpoint = mapping("airbyte", mapping("command", sequence(t.source.Command...), "config", text(config)))
	}
	bindings := &yaml.Node{Kind: yaml.SequenceNode}
	collections := &yaml.Node{Kind: yaml.MappingNode}
	for i := range found {
		d := &found[i]
		resource, err := fromJSON(d.resource)
		if err != nil {
			return err
		}
		binding := mapping("resource", resource, "target", text(d.collection))
		if d.disable {
			binding.Content = append(binding.Content, text("disable"), boolean(true))
			binding.HeadComment = "The source proposes not to capture this one."
		}
		if len(d.key) == 0 {
			binding.HeadComment = "This one has no key: choose one for its collection below."
		}
		bindings.Content = append(bindings.Content, binding)
		schema, err := fromJSON(d.schema)
		if err != nil {
			return err
		}
		key := sequence(d.key...)
		if len(d.key) == 0 {
			key = sequence("/choose/a/key")
		}
		collections.Content = append(collections.Content, text(d.collection), mapping("key", key, "schema", schema))
	}
	root := mapping("captures", mapping(name, mapping("endpoint", endpoint, "bindings", bindings)), "collections", collections)
	root.FootComment = materializationHint(name, found)
	enc := yaml.NewEncoder(out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return fmt.Errorf("writing the pipeline: %w", err)
	}
	return enc.Close()
}

// materializationHint is a materialization to fill in, as a comment.
func materializationHint(name string, found []discovered) string {
	var b strings.Builder
	fmt.Fprintf(&b, `To write the collections into a destination, remove the # and the space behind it from these lines and fill them in.

materializations:
  %s:
    endpoint:
      local:
        command: [/path/to/bin/materialize-postgres]
        protobuf: true
        config: /path/to/destination.yaml
    bindings:`, path.Join(path.Dir(name), "destination"))
	for _, d := range found {
		if !d.disable {
			fmt.Fprintf(&b, "\n      - source: %s\n        resource: {table: %s}", d.collection, path.Base(d.collection))
		}
	}
	return b.String()
}

// fromJSON makes a YAML value of a JSON text, in block style.
func fromJSON(json []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(json, &doc); err != nil || len(doc.Content) == 0 {
		return nil, fmt.Errorf("converting JSON: %w", err)
	}
	plain(doc.Content[0])
	return doc.Content[0], nil
}

func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && strings.Contains(n.Value, "${") {
		n.Style = yaml.DoubleQuotedStyle
	}
	simple := len(n.Content) <= 4
	for _, child := range n.Content {
		plain(child)
		simple = simple && child.Kind == yaml.ScalarNode && len(child.Value) < 20
	}
	if simple && len(n.Content) > 0 {
		n.Style = yaml.FlowStyle
	}
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func boolean(b bool) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: fmt.Sprint(b)}
}

func sequence(items ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, item := range items {
		n.Content = append(n.Content, text(item))
	}
	return n
}

// mapping takes names and values in turn; values are nodes.
func mapping(members ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, m := range members {
		switch m := m.(type) {
		case string:
			n.Content = append(n.Content, text(m))
		case *yaml.Node:
			n.Content = append(n.Content, m)
		}
	}
	return n
}
