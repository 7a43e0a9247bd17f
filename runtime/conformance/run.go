package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Options say what is tested and how long. The zero value of all but Connector works.
type Options struct {
	// Connector is what is tested. Its OnLog and Log may be set; its Answer is how long any answer may take (1 minute).
	Connector host.Connector
	// Kind is what it does; "" finds out.
	Kind Kind
	// Resource is the resource of a materialization's binding, in which {table} stands for the name of a table. "" makes
	// one of the resource schema.
	Resource string
	// Verify is a shell command that prints the rows of a materialization's {table}, as somebody else sees them: an object a line with
	// the members id, region, note, size, and _meta/op where rows are marked as deleted. "" leaves out what only it can tell.
	Verify string
	// Only are the rules to check, and what they need; empty for all.
	Only []string
	// Quiet is how long a capture has to be silent to have given all that is there; 0 is 3 seconds.
	Quiet time.Duration
	// Documents bounds how much of a capture is read; 0 is 5,000.
	Documents int
	// Memory bounds the resident memory of a local process, in bytes; 0 is 1 GiB.
	Memory int64
}

func (o *Options) withDefaults() {
	if o.Connector.Answer == 0 {
		o.Connector.Answer = time.Minute
	}
	if o.Connector.Task == "" {
		o.Connector.Task = "sluice/conformance"
	}
	if o.Quiet == 0 {
		o.Quiet = 3 * time.Second
	}
	if o.Documents == 0 {
		o.Documents = 5000
	}
	if o.Memory == 0 {
		o.Memory = 1 << 30
	}
}

// skipped is the error of a rule that could not be checked.
type skipped string

func (s skipped) Error() string { return string(s) }

// suite is one run over one connector, for one goroutine.
type suite struct {
	opts   Options
	codecs []frame.Codec
	// labelled is the codec that an image says it speaks.
	labelled  frame.Codec
	instances int // of an image that were started
	watch     *watch
	report    *Report

	spec     *capturepb.Response_Spec
	answers  map[frame.Codec]string // to Spec, by codec
	found    *capturepb.Response_Discovered
	bindings []*capturepb.Request_Validate_Binding
	task     *flowpb.CaptureSpec
	whole    *reading
	resumed  error         // what resume-once found
	longest  time.Duration // for which a capture was silent between two responses
	sink     *sink
}

// Run checks a connector. What is wrong with it is in the report; the error is the context's.
func Run(ctx context.Context, opts Options) (*Report, error) {
	opts.withDefaults()
	s := &suite{opts: opts, watch: newWatch(opts.Connector.OnLog), answers: map[frame.Codec]string{}, report: &Report{}}
	s.opts.Connector.OnLog = s.watch.log
	s.report.Connector = name(&opts.Connector.Endpoint)
	if err := s.chooseCodecs(ctx); err != nil {
		s.report.Findings = []Finding{finding(ruleByID("frame"), err, 0)}
		return s.report, ctx.Err()
	}
	s.report.Kind = s.kind()
	s.watch.secrets = slices.DeleteFunc(secretsOf(s.spec.ConfigSchemaJson, opts.Connector.Endpoint.Config), func(secret string) bool {
		// The schema knows no configuration: a word of it, such as a default, cannot be told from a secret.
		return shows(s.spec.ConfigSchemaJson, secret)
	})
	checks := s.checks()
	for _, rule := range Rules() {
		if rule.Of != Any && rule.Of != s.report.Kind || !s.wanted(rule.ID) {
			continue
		}
		began := time.Now()
		err := checks[rule.ID](ctx)
		if ctx.Err() != nil {
			return s.report, ctx.Err()
		}
		s.report.Findings = append(s.report.Findings, finding(rule, err, time.Since(began)))
	}
	return s.report, nil
}

// chooseCodecs finds out in which codecs the connector answers Spec at all, and takes the first of them for what is done once.
func (s *suite) chooseCodecs(ctx context.Context) (err error) {
	candidates := []frame.Codec{frame.Proto, frame.JSON}
	if s.opts.Connector.Endpoint.Image != "" {
		if s.labelled, err = s.opts.Connector.ImageCodec(ctx); err != nil {
			return err
		}
		if s.labelled == frame.JSON {
			slices.Reverse(candidates)
		}
	}
	for _, codec := range candidates {
		c := s.opts.Connector
		s.speak(&c.Endpoint, codec)
		spec, probeErr := c.Probe(ctx)
		if spec == nil {
			err = probeErr
			continue
		}
		s.codecs = append(s.codecs, codec)
		if s.spec == nil {
			s.spec = spec
		}
	}
	if s.spec != nil {
		return nil
	}
	return err
}

// speak has an endpoint use a codec. The first time, an image is asked by its environment only for the codec that its label does not name, so that it is
// run as it will be in production; later for each, which spares a look at the label for every start.
func (s *suite) speak(e *host.Endpoint, codec frame.Codec) {
	e.Codec, e.AskCodec = codec, e.Image != "" && (codec != s.labelled || s.spec != nil)
}

func (s *suite) wanted(id string) bool {
	switch id {
	case "spec-protocol", "discover", "validate", "apply", "documents", "transactions": // they prepare what others use
		return true
	}
	return len(s.opts.Only) == 0 || slices.Contains(s.opts.Only, id)
}

func finding(rule Rule, err error, took time.Duration) Finding {
	f := Finding{Rule: rule.ID, Severity: rule.Severity, Title: rule.Title, Outcome: Pass, Took: took, Seconds: took.Round(time.Millisecond).Seconds()}
	var skip skipped
	switch {
	case errors.As(err, &skip):
		f.Outcome, f.Detail = Skip, string(skip)
	case err != nil:
		f.Outcome, f.Detail, f.Fix = Fail, strings.TrimSpace(usererr.Message(err)), rule.Fix
	}
	return f
}

// checks are the functions of the rules.
func (s *suite) checks() map[string]func(context.Context) error {
	all := map[string]func(context.Context) error{
		"frame": s.frame, "codecs-agree": s.codecsAgree, "lenient": s.lenient, "cut-frame": s.cutFrame, "huge-frame": s.hugeFrame, "wrong-order": s.wrongOrder,
		"spec-protocol": s.specProtocol, "spec-schema": s.specSchema, "spec-secrets": s.specSecrets, "spec-described": s.specDescribed,
		"spec-documentation": s.specDocumentation, "spec-resource": s.specResource, "exit-code": s.exitCode,
		"log-format": s.watch.logFormat, "no-secrets": s.watch.noSecrets, "memory": s.memory,
		"discover": s.discover, "validate": s.validateCapture, "apply": s.applyCapture, "documents": s.documents, "stop": s.stop, "state": s.state,
		"resume": s.resume, "resume-once": s.resumeOnce, "killed": s.killed, "acknowledgements": s.acknowledgements,
		"too-many-acks": s.tooManyAcks, "slow-reader": s.slowReader,
	}
	if s.report.Kind == Materialize {
		s.sink = newSink(s)
		maps.Copy(all, map[string]func(context.Context) error{
			"validate": s.sink.validate, "constraints": s.sink.constraints, "apply": s.sink.apply, "transactions": s.sink.transactions, "load": s.sink.load,
			"many-loads": s.sink.manyLoads, "exactly-once": s.sink.exactlyOnce, "fence": s.sink.fence,
			"slow-reader": s.sink.slowReader, "deletes": s.sink.deletes, "beliefs": s.sink.beliefs, "delta-updates": s.sink.deltaUpdates, "stored": s.sink.stored,
		})
	}
	return all
}

// kind tells captures from materializations: only captures name the paths of resources, only materializations mark the name of a table.
func (s *suite) kind() Kind {
	switch {
	case s.opts.Kind != "":
		return s.opts.Kind
	case len(s.spec.ResourcePathPointers) == 0 && (strings.Contains(string(s.spec.ResourceConfigSchemaJson), "x-collection-name") ||
		strings.Contains(name(&s.opts.Connector.Endpoint), "materialize")):
		return Materialize
	}
	return Capture
}

func name(e *host.Endpoint) string {
	if e.Image != "" {
		return e.Image
	}
	return e.Command[0]
}

// connector is the connector in the codec number i, so that what is done several times is done in all codecs.
func (s *suite) connector(i int) host.Connector {
	c := s.opts.Connector
	s.speak(&c.Endpoint, s.codecs[i%len(s.codecs)])
	if c.Endpoint.Image != "" && c.Launcher != nil {
		// Containers are named after their task, and one of that name is removed first. Here two of one task may be open.
		s.instances++
		own := *c.Launcher
		own.Instance = fmt.Sprintf("%s-%d", own.Instance, s.instances)
		c.Launcher = &own
	}
	return c
}

func (s *suite) capture(i int) *host.Capture { return &host.Capture{Connector: s.connector(i)} }

// canonical is a JSON value in a form that can be compared.
func canonical(text []byte) string {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return string(text)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func inCodec(codec frame.Codec, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", codec, errors.New(usererr.Message(err)))
}
