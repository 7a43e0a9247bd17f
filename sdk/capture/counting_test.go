package capture_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// counting is a source with a few streams of numbers, 0 to Count-1, in transactions of Batch. It ends when all numbers
// were read, unless Wait has it wait for the end of the session instead.
type counting struct {
	mu      sync.Mutex
	acked   []int // for every acknowledged transaction, the count of numbers up to it
	applied []string
	closed  int
	env     capture.Env
}

type countingConfig struct {
	Count    int           `json:"count" title:"Count" desc:"Numbers in each stream." default:"10"`
	Batch    int           `json:"batch" title:"Batch" desc:"Numbers in a transaction." default:"3"`
	Password schema.Secret `json:"password,omitzero" title:"Password" desc:"It opens the door." secret:"true"`
	Mode     string        `json:"mode" title:"Mode" desc:"How to end." default:"end" enum:"end,wait,fail"`
	Streams  string        `json:"streams" title:"Streams" desc:"Names of the streams." default:"a b"`
}

func (c countingConfig) Validate() error {
	var problems []error
	if c.Count < 0 {
		problems = append(problems, usererr.New(nil, "Count must not be negative."))
	}
	if c.Batch < 1 {
		problems = append(problems, usererr.New(nil, "Batch must be at least 1."))
	}
	return usererr.Join("", problems)
}

type countingResource struct {
	Schema string `json:"schema" title:"Schema" desc:"Where the stream is." default:"main"`
	Stream string `json:"stream" title:"Stream" desc:"Name of the stream."`
}

func (r countingResource) Validate() error {
	if r.Stream == "" {
		return usererr.New(nil, "Stream is missing.")
	}
	return nil
}

type countingState struct {
	Next int            `json:"next"`
	Seen map[string]int `json:"seen,omitempty"`
}

type sharedState struct {
	Total int `json:"total"`
}

func (s *counting) Spec() capture.Spec {
	return capture.Spec{Title: "Numbers", DocsURL: "https://example.com/numbers", ResourcePath: []string{"/schema", "/stream"}}
}

func (s *counting) Discover(_ context.Context, _ capture.Env, cfg countingConfig) ([]capture.Collection[countingResource], error) {
	var found []capture.Collection[countingResource]
	for name := range strings.FieldsSeq(cfg.Streams) {
		found = append(found, capture.Collection[countingResource]{
			Name: "main/" + name, Resource: countingResource{"main", name}, Key: []string{"/n"},
			Schema: json.RawMessage(`{"type":"object"}`), Disable: strings.HasPrefix(name, "off"),
		})
	}
	return found, nil
}

func (s *counting) Check(_ context.Context, _ capture.Env, cfg countingConfig, rs []countingResource) error {
	var problems []error
	for _, r := range rs {
		if !strings.Contains(cfg.Streams, r.Stream) {
			problems = append(problems, usererr.New(nil, "There is no stream %s.", r.Stream))
		}
	}
	return usererr.Join("", problems)
}

func (s *counting) Apply(_ context.Context, env capture.Env, _ countingConfig, rs []countingResource) (string, error) {
	s.applied = append(s.applied, env.Task)
	return fmt.Sprintf("prepared %d streams", len(rs)), nil
}

func (s *counting) Open(
	_ context.Context, env capture.Env, cfg countingConfig, bs []*capture.Binding[countingResource, countingState],
) (capture.Reader, error) {
	s.env = env
	r := &countingReader{source: s, cfg: cfg, bs: bs}
	if env.Shared != nil {
		if err := json.Unmarshal(env.Shared, &r.shared); err != nil {
			return nil, err
		}
	}
	return r, nil
}

type countingReader struct {
	source *counting
	cfg    countingConfig
	bs     []*capture.Binding[countingResource, countingState]
	shared sharedState
	turn   int
}

func (r *countingReader) Read(ctx context.Context, tx *capture.Tx) error {
	for range r.bs {
		b := r.bs[r.turn%len(r.bs)]
		r.turn++
		if b.State.Next >= r.cfg.Count {
			continue
		}
		for i := 0; i < r.cfg.Batch && b.State.Next < r.cfg.Count; i++ {
			err := tx.Append(b, func(dst []byte) ([]byte, error) {
				return fmt.Appendf(dst, `{"n":%d,"stream":%q}`, b.State.Next, b.Resource.Stream), nil
			})
			if err != nil {
				return err
			}
			b.State.Next++
			r.shared.Total++
		}
		tx.SetShared(&r.shared)
		total := r.shared.Total
		tx.OnAck(func(context.Context) error {
			r.source.mu.Lock()
			defer r.source.mu.Unlock()
			r.source.acked = append(r.source.acked, total)
			return nil
		})
		return nil
	}
	switch r.cfg.Mode {
	case "wait":
		<-ctx.Done()
		return ctx.Err()
	case "fail":
		return usererr.New(errors.New("boom"), "The numbers have run out.")
	default:
		return io.EOF
	}
}

func (r *countingReader) Close() error {
	r.source.closed++
	return nil
}

func (s *counting) acks() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.acked...)
}

// run runs the connector as a program.
func run(ctx context.Context, c capture.Connector, stdin io.Reader, env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	p := &process.Process{
		Name: "source-numbers", Args: args, Stdin: stdin, Stdout: &out, Stderr: &errs,
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
	code = p.Run(ctx, func(ctx context.Context, p *process.Process) int { return capture.Run(ctx, p, c) })
	return code, out.String(), errs.String()
}
