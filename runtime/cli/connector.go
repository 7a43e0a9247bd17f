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
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// target is a connector named on the command line.
type target struct {
	app      *app
	endpoint pipeline.Endpoint
	config   string // file
	codec    string
	timeout  time.Duration
}

func (t *target) flags(cmd *cobra.Command, needsConfig bool) {
	timeoutFlag(cmd, &t.timeout)
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
	if t.endpoint.Image != "" {
		base, _, _ := strings.Cut(path.Base(t.endpoint.Image), ":")
		return base
	}
	return filepath.Base(t.endpoint.Command[0])
}

// spec asks for the Spec of a connector of either protocol: their requests and the common part of their responses are
// the same bytes.
func (t *target) spec(cmd *cobra.Command) (*capturepb.Response_Spec, error) {
	response := &capturepb.Response{}
	launcher := t.app.launcher()
	err := launcher.Call(cmd.Context(), &t.endpoint, "spec", t.app.entry(t.name()), t.timeout, connector.Exchange{
		Name: "Spec",
		// 8, LOCAL of a capture, is also a type that materializations know.
		Request:  &capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_LOCAL, ConfigJson: []byte("{}")}},
		Response: response,
		Check: func() error {
			if response.Spec == nil {
				return connector.Unexpected("Spec", response)
			}
			return connector.CheckProtocol(response.Spec.Protocol)
		},
	})
	return response.Spec, err
}

// materializes guesses what the connector is: by the paths of resources that only captures name, else by its name.
func (t *target) materializes(spec *capturepb.Response_Spec) bool {
	return len(spec.ResourcePathPointers) == 0 && strings.HasPrefix(t.name(), "materialize")
}

func (a *app) specCommand() *cobra.Command {
	t := &target{app: a}
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
				err = t.validateMaterialization(cmd)
			} else {
				var n int
				n, err = t.validateCapture(cmd, spec)
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

func (t *target) validateMaterialization(cmd *cobra.Command) error {
	first, _ := materialize.SpecExchange(&t.endpoint)
	response := &materializepb.Response{}
	kind := flowpb.MaterializationSpec_LOCAL
	if t.endpoint.Image != "" {
		kind = flowpb.MaterializationSpec_IMAGE
	}
	launcher := t.app.launcher()
	return launcher.Call(cmd.Context(), &t.endpoint, "check", t.app.entry(t.name()), t.timeout, first, connector.Exchange{
		Name:     "Validate",
		Request:  &materializepb.Request{Validate: &materializepb.Request_Validate{Name: "check/" + t.name(), ConnectorType: kind, ConfigJson: t.endpoint.Config}},
		Response: response,
		Check: func() error {
			if response.Validated == nil {
				return connector.Unexpected("Validated", response)
			}
			return nil
		},
	})
}

// validateCapture validates a capture of everything that is discovered, and returns how many streams that are.
func (t *target) validateCapture(cmd *cobra.Command, spec *capturepb.Response_Spec) (int, error) {
	found, err := t.discover(cmd, "check/"+t.name(), spec)
	if err != nil {
		return 0, err
	}
	request := &capturepb.Request_Validate{Name: "check/" + t.name(), ConnectorType: t.captureType(), ConfigJson: t.endpoint.Config}
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
	first, _ := capture.SpecExchange(&t.endpoint)
	response := &capturepb.Response{}
	launcher := t.app.launcher()
	return len(request.Bindings), launcher.Call(cmd.Context(), &t.endpoint, "check", t.app.entry(t.name()), t.timeout, first, connector.Exchange{
		Name: "Validate", Request: &capturepb.Request{Validate: request}, Response: response,
		Check: func() error {
			if response.Validated == nil {
				return connector.Unexpected("Validated", response)
			}
			return nil
		},
	})
}

func (t *target) captureType() flowpb.CaptureSpec_ConnectorType {
	if t.endpoint.Image != "" {
		return flowpb.CaptureSpec_IMAGE
	}
	return flowpb.CaptureSpec_LOCAL
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
func (t *target) discover(cmd *cobra.Command, task string, spec *capturepb.Response_Spec) ([]discovered, error) {
	first, _ := capture.SpecExchange(&t.endpoint)
	response := &capturepb.Response{}
	launcher := t.app.launcher()
	err := launcher.Call(cmd.Context(), &t.endpoint, "discover", t.app.entry(t.name()), t.timeout, first, connector.Exchange{
		Name: "Discover",
		Request: &capturepb.Request{Discover: &capturepb.Request_Discover{
			ConnectorType: t.captureType(), ConfigJson: t.endpoint.Config, Name: task, CreatedAt: time.Now().UTC().Format(time.DateOnly),
		}},
		Response: response,
		Check: func() error {
			if response.Discovered == nil {
				return connector.Unexpected("Discovered", response)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	prefix := path.Dir(task)
	var list []discovered
	for _, b := range response.Discovered.Bindings {
		d := discovered{
			collection: path.Join(prefix, b.RecommendedName), resource: b.ResourceConfigJson, path: b.ResourcePath, key: b.Key,
			schema: b.DocumentSchemaJson, disable: b.Disable || len(b.Key) == 0,
		}
		if len(d.path) == 0 {
			d.path = specs.ResourcePath(d.resource, spec.ResourcePathPointers)
		}
		list = append(list, d)
	}
	return list, nil
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
