package engine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/specs"
)

// The test binary is also its own connectors, and a runtime that can be killed: FAKE in the environment says which.
func TestMain(m *testing.M) {
	var err error
	switch os.Getenv("FAKE") {
	case "":
		os.Exit(m.Run())
	case "capture":
		err = (&fakeCapture{fake: newFake()}).run()
	case "atomic", "staged":
		err = (&fakeSink{fake: newFake(), staged: os.Getenv("FAKE") == "staged"}).run()
	case "script":
		err = runScript()
	case "runtime":
		err = runRuntime()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, `{"level":"error","message":%q}`+"\n", err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// fakeConfig is the endpoint configuration of the fakes.
type fakeConfig struct {
	Dir     string `json:"dir"`     // of the destination, or of the capture's notes
	Total   int    `json:"total"`   // documents to capture
	Batch   int    `json:"batch"`   // documents a checkpoint
	Keys    int    `json:"keys"`    // different keys
	Crash   string `json:"crash"`   // where to end with SIGKILL's effect, once
	CrashAt int    `json:"crashAt"` // at which passage of that place
	Sweep   bool   `json:"sweep"`   // end with code 0 when all is sent
	Replace bool   `json:"replace"` // checkpoints replace the state
	NoAcks  bool   `json:"noAcks"`  // do not ask for acknowledgements
	Pad     int    `json:"pad"`     // bytes that every document carries
	AlterAt int    `json:"alterAt"` // from this document on there is one more field, announced before
	Legacy  bool   `json:"legacy"`  // constraints as a map
	Deletes bool   `json:"deletes"` // every eleventh document deletes its key
	Late    bool   `json:"late"`    // announce the new field behind the documents of its checkpoint
	Silent  bool   `json:"silent"`  // never announce the new field
	Members int    `json:"members"` // how many documents from AlterAt on bring one more member each, beside
	From    int    `json:"from"`    // where a new state begins: what came before was deleted in the source
	Started bool   `json:"started"` // answer StartedCommit, and end before the commit
	Paced   bool   `json:"paced"`   // send a checkpoint only when the last one is acknowledged
}

type fake struct {
	in     *frame.Reader
	out    *frame.Writer
	codec  frame.Codec
	config fakeConfig
	passed map[string]int
}

func newFake() *fake {
	codec, err := frame.ParseCodec(os.Getenv("FLOW_RUNTIME_CODEC"))
	if err != nil {
		panic(err)
	}
	return &fake{in: frame.NewReader(os.Stdin, codec, 0), out: frame.NewWriter(os.Stdout, codec), codec: codec, passed: map[string]int{}}
}

// at is a place where the fake can crash: once, remembered by a file, as if it was killed.
func (f *fake) at(place string) {
	f.passed[place]++
	if f.config.Crash != place || f.passed[place] <= f.config.CrashAt {
		return
	}
	mark := filepath.Join(f.config.Dir, "crashed-"+place)
	file, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_ = file.Close()
	_ = f.out.Flush()
	os.Exit(137)
}

func (f *fake) configure(raw []byte) error { return json.Unmarshal(raw, &f.config) }

// fakeDoc is document number n of the fake's stream. Every document adds one to its key's count, so a document that is
// lost or repeated shows.
func fakeDoc(c *fakeConfig, n int) []byte {
	op := "u"
	if c.Deletes && n%11 == 10 {
		op = "d"
	}
	extra := ""
	if c.AlterAt > 0 && n >= c.AlterAt {
		extra = fmt.Sprintf(`,"extra":"x%d"`, n)
	}
	if c.AlterAt > 0 && n >= c.AlterAt && n < c.AlterAt+c.Members {
		extra += fmt.Sprintf(`,"m%d":%d`, n, n)
	}
	pad := ""
	if c.Pad > 0 {
		pad = `,"pad":"` + strings.Repeat("p", c.Pad) + `"`
	}
	return fmt.Appendf(nil, `{"id":%d,"n":%d,"count":1%s%s,"_meta":{"op":%q,"source":{"ts_ms":%d}}}`, (n*n+n)%c.Keys, n, extra, pad, op, time.Now().UnixMilli())
}

const fakeSchema = `{"type":"object","required":["id"],"reduce":{"strategy":"merge"},
 "if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"merge","delete":true}},
 "properties":{"id":{"type":"integer"},"n":{"type":"integer"},"pad":{"type":"string"},"count":{"type":"integer","reduce":{"strategy":"sum"}},
 "_meta":{"type":"object","properties":{"op":{"type":"string"},"source":{"type":"object"}}}}}`

type fakeCapture struct{ *fake }

func (f *fakeCapture) run() error {
	for {
		var r capturepb.Request
		if err := f.in.Read(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		response := &capturepb.Response{}
		switch {
		case r.Spec != nil:
			response.Spec = &capturepb.Response_Spec{
				Protocol: specs.Protocol, ConfigSchemaJson: []byte("{}"), ResourceConfigSchemaJson: []byte("{}"),
				DocumentationUrl: "https://example.com", ResourcePathPointers: []string{"/stream"},
			}
		case r.Validate != nil:
			if err := r.Validate.LastCapture.Validate(); r.Validate.LastCapture != nil && err != nil {
				return err
			}
			response.Validated = &capturepb.Response_Validated{}
			for _, b := range r.Validate.Bindings {
				response.Validated.Bindings = append(response.Validated.Bindings, &capturepb.Response_Validated_Binding{ResourcePath: specs.ResourcePath(b.ResourceConfigJson, []string{"/stream"})})
			}
		case r.Apply != nil:
			if err := f.configure(r.Apply.Capture.ConfigJson); err != nil {
				return err
			}
			f.at("apply")
			response.Applied = f.apply(r.Apply)
		case r.Open != nil:
			return f.open(r.Open)
		}
		if err := errors.Join(f.out.Write(response), f.out.Flush()); err != nil {
			return err
		}
	}
}

// apply wants to be called twice, with a state in between.
func (f *fakeCapture) apply(r *capturepb.Request_Apply) *capturepb.Response_Applied {
	if strings.Contains(string(r.StateJson), `"applied":true`) {
		return &capturepb.Response_Applied{ActionDescription: "nothing to do"}
	}
	return &capturepb.Response_Applied{State: &flowpb.ConnectorState{UpdatedJson: []byte(`{"applied":true}`), MergePatch: true}}
}

type fakeState struct {
	Next    int    `json:"next"`
	Applied bool   `json:"applied"`
	Key     string `json:"key"` // the state key that Next belongs to
}

func (f *fakeCapture) open(r *capturepb.Request_Open) error {
	var state fakeState
	if err := errors.Join(r.Validate(), f.configure(r.Capture.ConfigJson), json.Unmarshal(r.StateJson, &state)); err != nil {
		return err
	}
	if !state.Applied {
		return errors.New("opened without the state that Apply returned")
	}
	if state.Key != r.Capture.Bindings[0].StateKey {
		state.Next = f.config.From
	}
	f.at("open")
	if err := errors.Join(f.out.Write(&capturepb.Response{Opened: &capturepb.Response_Opened{ExplicitAcknowledgements: !f.config.NoAcks}}), f.out.Flush()); err != nil {
		return err
	}
	acks := make(chan uint32, 1000)
	go func() {
		for {
			var r capturepb.Request
			if f.in.Read(&r) != nil {
				return
			}
			acks <- r.Acknowledge.GetCheckpoints()
		}
	}()
	return f.stream(r, state.Next, acks)
}

func (f *fakeCapture) announce(r *capturepb.Request_Open) error {
	if f.config.Silent {
		return nil
	}
	schema := `{"type":"object","additionalProperties":false,"required":["id"],"properties":{"id":{"type":"integer"},"n":{"type":"integer"},"count":{"type":"integer"},"extra":{"type":"string"},"_meta":{"type":"object"}}}`
	for b := range r.Capture.Bindings {
		if err := f.out.Write(&capturepb.Response{SourcedSchema: &capturepb.Response_SourcedSchema{Binding: uint32(b), SchemaJson: []byte(schema)}}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeCapture) stream(r *capturepb.Request_Open, next int, acks <-chan uint32) error {
	c := &f.config
	announced := false
	for next < c.Total {
		for end := min(next+c.Batch, c.Total); next < end; next++ {
			if c.AlterAt > 0 && next >= c.AlterAt && !announced && !c.Late {
				announced = true
				if err := f.announce(r); err != nil {
					return err
				}
			}
			for b := range r.Capture.Bindings {
				if err := f.out.Append(func(dst []byte, codec frame.Codec) ([]byte, error) {
					return capturepb.AppendCapturedDoc(dst, codec, uint32(b), fakeDoc(c, next)), nil
				}); err != nil {
					return err
				}
			}
			f.at("captured")
		}
		if c.AlterAt > 0 && next > c.AlterAt && !announced {
			announced = true
			if err := f.announce(r); err != nil {
				return err
			}
		}
		state := fmt.Sprintf(`{"next":%d,"key":%q}`, next, r.Capture.Bindings[0].StateKey)
		if c.Replace {
			state = fmt.Sprintf(`{"next":%d,"applied":true,"key":%q}`, next, r.Capture.Bindings[0].StateKey)
		}
		if err := errors.Join(f.out.Write(&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{State: &flowpb.ConnectorState{UpdatedJson: []byte(state), MergePatch: !c.Replace}}}), f.out.Flush()); err != nil {
			return err
		}
		f.at("checkpoint")
		if c.Paced {
			<-acks
			time.Sleep(2 * time.Millisecond) //nolint:forbidigo // a source has its pace
		}
	}
	if c.Sweep {
		return nil
	}
	var acknowledged uint32
	for n := range acks {
		acknowledged += n
		note := filepath.Join(c.Dir, "acknowledged")
		if err := os.WriteFile(note, fmt.Append(nil, acknowledged), 0o600); err != nil {
			return err
		}
	}
	select {} // idle until it is stopped
}

// runScript is a capture that answers each kind of request with the lines of its script, in the JSON codec: "> text" is
// written to stdout, "! text" to stderr, "exit N" ends, "hang" waits for ever, "once NAME" goes on only the first time.
// What the script leaves out is answered well, in the oddest spelling that is allowed.
func runScript() error {
	script := map[string][]string{
		"spec":     {`> {"spec":{"protocol":3032023,"config_schema":{},"resource_config_schema_json":{},"documentation_url":"https://example.com","discovered":null,"unknown":[1]},"validated":null}`},
		"validate": {`> {"validated":{"bindings":[{"resource_path":["things"]}]},"$internal":"AAAA"}`, ""},
		"apply":    {`> {"applied":{"action_description":"","state":null}}`},
		"open":     {`> {"opened":{"explicit_acknowledgements":false}}`},
	}
	text, err := os.ReadFile(os.Getenv("SCRIPT"))
	if err != nil {
		return err
	}
	var given map[string][]string
	if err := json.Unmarshal(text, &given); err != nil {
		return err
	}
	maps.Copy(script, given)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		var request map[string]json.RawMessage
		if err := json.Unmarshal(in.Bytes(), &request); err != nil {
			return err
		}
		for kind := range request {
			play(script[kind])
		}
	}
	return in.Err()
}

func play(lines []string) {
	var output strings.Builder // what stands together is written together
	for _, line := range lines {
		if text, ok := strings.CutPrefix(line, "> "); ok {
			output.WriteString(text + "\n")
			continue
		}
		fmt.Fprint(os.Stdout, output.String())
		output.Reset()
		switch {
		case line == "hang":
			select {}
		case strings.HasPrefix(line, "! "):
			fmt.Fprintln(os.Stderr, line[2:])
		case strings.HasPrefix(line, "exit "):
			code, _ := strconv.Atoi(line[5:])
			os.Exit(code)
		case strings.HasPrefix(line, "once "):
			file, err := os.OpenFile(os.Getenv("SCRIPT")+"."+line[5:], os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return
			}
			_ = file.Close()
		}
	}
	fmt.Fprint(os.Stdout, output.String())
}
