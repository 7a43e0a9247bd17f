package capture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// nameProperty is what the configuration has in Airbyte mode besides what the source knows: the name of the capture.
const nameProperty = "capture_name"

// airbyteCLI speaks the Airbyte protocol: the commands of a source as Airbyte's platform and PyAirbyte call them.
type airbyteCLI struct {
	*cli
	out       *lineWriter
	stateFile string
	keys      string // of the range
	stateType string
}

// The types of states that read may write.
const (
	stateGlobal    = "global"
	stateOfStreams = "stream"
)

func (t *cli) airbyteCommand() *cobra.Command {
	a := &airbyteCLI{cli: t}
	cmd := &cobra.Command{
		Use: "airbyte", Short: "Be a source of the Airbyte protocol: spec, check, discover, read",
		Long: `Be a source of the Airbyte protocol, for Airbyte's platform, PyAirbyte, and whatever else runs sources of Airbyte: they call
a program with the arguments spec, check, discover and read, and read messages from its standard output. See
docs/guides/airbyte.md for how to give them one.`,
	}
	cmd.PersistentFlags().StringVar(&a.stateType, "state-type", stateGlobal, "what read writes: global, or stream for platforms that keep no global states, as PyAirbyte")
	cmd.AddCommand(
		a.command("spec", "Print what can be configured, as a SPEC message", a.spec),
		a.command("check", "Check a configuration, and print a CONNECTION_STATUS message", a.check),
		a.command("discover", "Print what can be read, as a CATALOG message", a.discover),
		a.readCommand(),
	)
	return cmd
}

// command is one whose output is messages, its log and its failure too.
func (a *airbyteCLI) command(use, short string, run func(ctx context.Context, cmd *cobra.Command) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		a.out = &lineWriter{out: a.p.Stdout}
		a.p.Log.SetOutput(a.out)
		a.p.Log.SetFormatter(airbyteFormatter{})
		err := a.checkStateType()
		if err == nil {
			err = run(cmd.Context(), cmd)
		}
		if err == nil || cmd.Context().Err() != nil {
			return err
		}
		if merr := a.out.message(airbyte.NewError(usererr.Message(err), err.Error(), failureType(err))); merr != nil {
			return errors.Join(err, merr)
		}
		return process.ExitError(1) // it has been said
	}}
	if use != "spec" {
		cmd.Flags().StringVar(&a.configFile, "config", "", "the configuration, JSON")
		_ = cmd.MarkFlagRequired("config") // it exists
	}
	return cmd
}

func (a *airbyteCLI) checkStateType() error {
	if a.stateType != stateGlobal && a.stateType != stateOfStreams {
		return usererr.New(nil, "--state-type is %q; it may be global or stream.", a.stateType)
	}
	return nil
}

func (a *airbyteCLI) readCommand() *cobra.Command {
	cmd := a.command("read", "Read streams, and print RECORD and STATE messages until it has caught up", a.read)
	cmd.Flags().StringVar(&a.catalogFile, "catalog", "", "the configured catalog, JSON")
	cmd.Flags().StringVar(&a.stateFile, "state", "", "the state that the last sync ended with, JSON")
	cmd.Flags().StringVar(&a.keys, "range", "", "an extension: read only this part of what can be divided, such as 00000000-7fffffff")
	_ = cmd.MarkFlagRequired("catalog") // it exists
	return cmd
}

// failureType tells whose the failure is: what is said in words for people is mostly for them to mend.
func failureType(err error) string {
	if usererr.Has(err) {
		return airbyte.ConfigError
	}
	return airbyte.SystemError
}

func (a *airbyteCLI) spec(context.Context, *cobra.Command) error {
	spec, err := a.c.spec()
	if err != nil {
		return err
	}
	form, err := airbyteForm(spec.ConfigSchemaJson)
	if err != nil {
		return err
	}
	return a.out.message(&airbyte.Message{Type: "SPEC", Spec: &airbyte.Spec{
		DocumentationURL: spec.DocumentationUrl, ConnectionSpecification: form, SupportsIncremental: true, ProtocolVersion: "0.5.2",
	}})
}

// airbyteForm is the configuration's schema in Airbyte's notation, with the name of the capture.
func airbyteForm(schema json.RawMessage) (json.RawMessage, error) {
	var root map[string]any
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil, fmt.Errorf("reading the configuration's schema: %w", err)
	}
	markSecrets(root)
	properties, ok := root["properties"].(map[string]any)
	if !ok {
		properties = map[string]any{}
	}
	properties[nameProperty] = map[string]any{
		"type": "string", "title": "Capture Name", "order": len(properties),
		"description": "The name from which the names of what this source makes at the endpoint derive, such as its replication slot. " +
			"Two connections that use one configuration need two of them. Empty means a name made from the configuration.",
	}
	root["properties"] = properties
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	return json.Marshal(root)
}

// markSecrets writes what is secret as Airbyte has it.
func markSecrets(node any) {
	switch v := node.(type) {
	case map[string]any:
		if secret, ok := v["secret"].(bool); ok && secret {
			v["airbyte_secret"] = true
		}
		for _, inner := range v {
			markSecrets(inner)
		}
	case []any:
		for _, inner := range v {
			markSecrets(inner)
		}
	}
}

// config is the configuration, and the name of the capture in it. References are not resolved: it was written by a platform
// that has its own secrets.
func (a *airbyteCLI) config() (json.RawMessage, string, error) {
	text, err := a.p.ReadFile(a.configFile)
	if err != nil {
		return nil, "", err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return text, "", nil //nolint:nilerr // the source says what is wrong with it
	}
	sum := sha256.Sum256(text)
	name := "airbyte-" + hex.EncodeToString(sum[:4])
	if given, ok := members[nameProperty]; ok {
		var s string
		if err := json.Unmarshal(given, &s); err != nil {
			return nil, "", usererr.New(err, "The field %q of the configuration must be a text.", nameProperty)
		}
		if s != "" {
			name = s
		}
		delete(members, nameProperty)
	}
	for field := range members { // what platforms and PyAirbyte add of their own
		if strings.HasPrefix(field, "__") {
			delete(members, field)
		}
	}
	text, err = json.Marshal(members)
	return text, name, err
}

func (a *airbyteCLI) check(ctx context.Context, _ *cobra.Command) error {
	status := &airbyte.ConnectionStatus{Status: "SUCCEEDED"}
	if err := a.ready(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		status.Status, status.Message = "FAILED", usererr.Message(err)
	}
	return a.out.message(&airbyte.Message{Type: "CONNECTION_STATUS", ConnectionStatus: status})
}

// ready finds out whether everything that is discovered could be captured.
func (a *airbyteCLI) ready(ctx context.Context) error {
	config, name, err := a.config()
	if err != nil {
		return err
	}
	found, err := a.c.discover(ctx, a.log(), &capturepb.Request_Discover{ConfigJson: config})
	if err != nil {
		return err
	}
	_, err = a.task(ctx, name, config, found)
	return err
}

func (a *airbyteCLI) discover(ctx context.Context, _ *cobra.Command) error {
	config, _, err := a.config()
	if err != nil {
		return err
	}
	found, err := a.c.discover(ctx, a.log(), &capturepb.Request_Discover{ConfigJson: config})
	if err != nil {
		return err
	}
	catalog := &airbyte.Catalog{Streams: []*airbyte.Stream{}}
	for _, b := range found.Bindings {
		stream, err := airbyte.NewStream(b, a.c.airbyteFields())
		if err != nil {
			return fmt.Errorf("describing stream %s: %w", b.RecommendedName, err)
		}
		catalog.Streams = append(catalog.Streams, stream)
	}
	return a.out.message(&airbyte.Message{Type: "CATALOG", Catalog: catalog})
}

// chosen are the bindings of the configured streams, in their order.
func chosen(found *capturepb.Response_Discovered, catalog *airbyte.ConfiguredCatalog) (*capturepb.Response_Discovered, error) {
	byName := map[airbyte.Descriptor]*capturepb.Response_Discovered_Binding{}
	for _, b := range found.Bindings {
		byName[airbyte.NewDescriptor(b.ResourcePath)] = b
	}
	out := &capturepb.Response_Discovered{}
	var missing []string
	for _, s := range catalog.Streams {
		b, ok := byName[s.Stream.Descriptor()]
		if !ok {
			missing = append(missing, s.Stream.Descriptor().String())
			continue
		}
		b.Disable = false
		out.Bindings = append(out.Bindings, b)
	}
	if len(missing) > 0 {
		return nil, usererr.New(nil, "The configured catalog has streams that do not exist any more: %s. Refresh the source's schema.", strings.Join(missing, ", "))
	}
	return out, nil
}

// parseRange reads the flag --range.
func parseRange(text string) (*flowpb.RangeSpec, error) {
	if text == "" {
		return flowpb.FullRange(), nil
	}
	begin, end, _ := strings.Cut(text, "-")
	from, err1 := strconv.ParseUint(begin, 16, 32)
	to, err2 := strconv.ParseUint(end, 16, 32)
	if err1 != nil || err2 != nil || len(begin) != 8 || len(end) != 8 || from > to {
		return nil, usererr.New(nil, "--range %q is not a range. Write two numbers of eight hexadecimal digits, such as 00000000-7fffffff.", text)
	}
	r := flowpb.FullRange()
	r.KeyBegin, r.KeyEnd = uint32(from), uint32(to)
	return r, nil
}

// airbyteFormatter writes log lines as LOG messages.
type airbyteFormatter struct{}

// Format implements logrus.Formatter.
func (airbyteFormatter) Format(e *logrus.Entry) ([]byte, error) {
	level := map[logrus.Level]string{
		logrus.PanicLevel: "FATAL", logrus.FatalLevel: "FATAL", logrus.ErrorLevel: "ERROR", logrus.WarnLevel: "WARN",
		logrus.InfoLevel: "INFO", logrus.DebugLevel: "DEBUG", logrus.TraceLevel: "TRACE",
	}[e.Level]
	message := e.Message
	if len(e.Data) > 0 {
		fields := make(map[string]any, len(e.Data))
		for name, value := range e.Data {
			if err, ok := value.(error); ok {
				value = err.Error()
			}
			fields[name] = value
		}
		if text, err := json.Marshal(fields); err == nil {
			message += " " + string(text)
		}
	}
	return airbyte.AppendLine(nil, &airbyte.Message{Type: "LOG", Log: &airbyte.Log{Level: level, Message: message}})
}
