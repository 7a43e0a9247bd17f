package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// target is a connector named on the command line.
type target struct {
	app      *app
	endpoint pipeline.Endpoint
	config   string // file
	codec    string
	airbyte  bool              // it is a source of Airbyte
	form     bool              // what its configuration looks like is to be shown
	source   pipeline.Endpoint // as it was named, if it is
	timeout  time.Duration
}

func (t *target) flags(cmd *cobra.Command, needsConfig bool) {
	timeoutFlag(cmd, &t.timeout)
	cmd.Flags().BoolVar(&t.airbyte, "airbyte", false, "CONNECTOR is a source of the Airbyte protocol, program or image")
	cmd.Flags().StringVar(&t.codec, "codec", "proto", "what a local connector speaks: proto or json")
	if needsConfig {
		cmd.Flags().StringVar(&t.config, "config", "", "file with the connector's configuration, YAML or JSON")
		_ = cmd.MarkFlagRequired("config") // fails only for a flag that does not exist
	}
}

// resolve finds the connector and reads its configuration.
func (t *target) resolve(name string) error {
	codec, err := frame.ParseCodec(t.codec)
	if err != nil {
		return usererr.New(err, "--codec is %q; it may be proto or json", t.codec)
	}
	t.endpoint = pipeline.Endpoint{Codec: codec, Config: json.RawMessage("{}")}
	if found, lookErr := exec.LookPath(name); lookErr == nil {
		if found, err = filepath.Abs(found); err != nil {
			return fmt.Errorf("finding %q: %w", name, err)
		}
		t.endpoint.Command = []string{found}
	} else if _, statErr := os.Stat(name); statErr != nil && isImage(name) {
		t.endpoint.Image = name
	} else {
		problem := lookErr
		if errors.Is(lookErr, exec.ErrNotFound) && strings.ContainsRune(name, filepath.Separator) {
			problem = os.ErrNotExist
		}
		return usererr.New(lookErr, "%s (an image is written with its tag, such as ghcr.io/acme/source-x:v1)", pipeline.CommandProblem(name, problem))
	}
	if t.airbyte {
		t.source = t.endpoint
		adapter := t.app.airbyteCommand()
		if !t.form {
			adapter = append(adapter, "--brief")
		}
		if err := t.endpoint.AdaptAirbyte(adapter); err != nil {
			return err
		}
	}
	if t.config != "" {
		t.endpoint.Config, err = pipeline.LoadConfig(t.config, t.app.pipelineOptions())
	}
	return err
}

// isImage tells whether a name that is no file looks like an image: with a tag, a digest or a registry.
func isImage(name string) bool {
	host, _, slash := strings.Cut(name, "/")
	return strings.ContainsAny(path.Base(name), ":@") || slash && strings.Contains(host, ".") && strings.Trim(host, ".") != ""
}

func (t *target) name() string {
	if t.endpoint.Label != "" {
		base, _, _ := strings.Cut(path.Base(t.endpoint.Label), ":")
		return base
	}
	if t.endpoint.Image != "" {
		base, _, _ := strings.Cut(path.Base(t.endpoint.Image), ":")
		return base
	}
	return filepath.Base(t.endpoint.Command[0])
}

// connector is the connector as it is run for one command.
func (t *target) connector(task string) host.Connector {
	launcher := t.app.launcher()
	return host.Connector{Endpoint: t.endpoint, Task: task, Launcher: &launcher, Log: t.app.entry(t.name()), Answer: t.timeout}
}

func (t *target) capture(task string) *host.Capture {
	return &host.Capture{Connector: t.connector(task)}
}

func (t *target) spec(cmd *cobra.Command) (*capturepb.Response_Spec, error) {
	c := t.connector("spec")
	return c.Probe(cmd.Context())
}

// materializes guesses what the connector is: by the paths of resources that only captures name, else by its name.
func (t *target) materializes(spec *capturepb.Response_Spec) bool {
	return len(spec.ResourcePathPointers) == 0 && strings.HasPrefix(t.name(), "materialize")
}

func (a *app) specCommand() *cobra.Command {
	t := &target{app: a, form: true}
	cmd := &cobra.Command{
		Use: "spec CONNECTOR", Short: "Print what a connector's configuration looks like", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(args[0]); err != nil {
				return err
			}
			spec, err := t.spec(cmd)
			if err != nil {
				return err
			}
			return writeJSON(cmd.OutOrStdout(), map[string]any{
				"protocol": spec.Protocol, "documentationUrl": spec.DocumentationUrl, "configSchema": json.RawMessage(spec.ConfigSchemaJson),
				"resourceConfigSchema": json.RawMessage(spec.ResourceConfigSchemaJson), "resourcePathPointers": spec.ResourcePathPointers,
			})
		},
	}
	t.flags(cmd, false)
	return cmd
}

func (a *app) checkCommand() *cobra.Command {
	t := &target{app: a}
	cmd := &cobra.Command{
		Use: "check CONNECTOR --config FILE", Short: "Check that a connector can do its work with a configuration", Args: cobra.ExactArgs(1),
		Long: `Check that a connector can do its work with a configuration. A source has to be able to capture every stream that it
discovers; a destination is connected to.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(args[0]); err != nil {
				return err
			}
			spec, err := t.spec(cmd)
			if err != nil {
				return err
			}
			message := "the destination can be used"
			if t.materializes(spec) {
				m := host.Materialization{Connector: t.connector("check/" + t.name())}
				_, err = m.Validate(cmd.Context(), &materializepb.Request_Validate{})
			} else {
				var n int
				n, err = t.validateCapture(cmd)
				message = fmt.Sprintf("%d streams can be captured", n)
			}
			if err == nil {
				_, err = io.WriteString(cmd.OutOrStdout(), "OK: "+message+"\n")
			}
			return err
		},
	}
	t.flags(cmd, true)
	return cmd
}

// validateCapture validates a capture of everything that is discovered, and returns how many streams that are.
func (t *target) validateCapture(cmd *cobra.Command) (int, error) {
	found, err := t.discover(cmd, "check/"+t.name())
	if err != nil {
		return 0, err
	}
	request := &capturepb.Request_Validate{}
	for _, d := range found {
		if d.disable {
			continue
		}
		c, err := d.spec()
		if err != nil {
			return 0, err
		}
		request.Bindings = append(request.Bindings, &capturepb.Request_Validate_Binding{ResourceConfigJson: d.resource, Collection: c})
	}
	_, err = t.capture("check/"+t.name()).Validate(cmd.Context(), request)
	return len(request.Bindings), err
}

// discovered is one stream that a connector offers.
type discovered struct {
	collection string
	resource   json.RawMessage
	path       []string
	key        []string
	schema     json.RawMessage
	disable    bool
}

// discover asks what can be captured. Collections are named beside the task.
func (t *target) discover(cmd *cobra.Command, task string) ([]discovered, error) {
	response, err := t.capture(task).Discover(cmd.Context())
	if err != nil {
		return nil, err
	}
	prefix := path.Dir(task)
	var list []discovered
	for _, b := range response.Bindings {
		list = append(list, discovered{
			collection: path.Join(prefix, b.RecommendedName), resource: b.ResourceConfigJson, path: b.ResourcePath, key: b.Key,
			schema: b.DocumentSchemaJson, disable: b.Disable || len(b.Key) == 0,
		})
	}
	return list, nil
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
