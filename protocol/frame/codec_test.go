package frame_test

import (
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/protocol/internal/pbrand"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

func TestParseCodec(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]frame.Codec{"": frame.Proto, "proto": frame.Proto, "json": frame.JSON} {
		got, err := frame.ParseCodec(name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, "proto json", frame.Proto.String()+" "+frame.JSON.String())
	_, err := frame.ParseCodec("JSON")
	require.EqualError(t, err, `unknown codec "JSON": the choices are "proto" (the default) and "json"`)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	require.NoError(t, err)
	return b
}

// Bytes that were derived by hand from the protocol's numbers and the rules of protobuf and ProtoJSON.
func TestGoldenFrames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		message proto.Message
		proto   string
		json    string
	}{
		{"empty message", &capturepb.Request{}, "00000000", `{}`},
		{"spec", &capturepb.Request{Spec: &capturepb.Request_Spec{}}, "02000000 0a00", `{"spec":{}}`},
		{
			"range",
			&flowpb.RangeSpec{KeyBegin: 0x00112233, KeyEnd: 0x44556677, RClockBegin: 0x8899aabb, RClockEnd: 0xccddeeff},
			"14000000 15 33221100 1d 77665544 25 bbaa9988 2d ffeeddcc",
			`{"keyBegin":1122867,"keyEnd":1146447479,"rClockBegin":2291772091,"rClockEnd":3437096703}`,
		},
		{
			"captured",
			&capturepb.Response{Captured: &capturepb.Response_Captured{Binding: 300, DocJson: []byte(`{"a":1}`)}},
			"0e000000 32 0c 08 ac02 12 07 7b2261223a317d",
			`{"captured":{"binding":300,"doc":{"a":1}}}`,
		},
		{
			"checkpoint",
			&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{
				State: &flowpb.ConnectorState{UpdatedJson: []byte(`{}`), MergePatch: true},
			}},
			"0a000000 3a 08 0a 06 0a 02 7b7d 10 01",
			`{"checkpoint":{"state":{"updated":{},"mergePatch":true}}}`,
		},
		{
			"acknowledge",
			&capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: 3}},
			"04000000 32 02 08 03", `{"acknowledge":{"checkpoints":3}}`,
		},
		{
			"sourced schema",
			&capturepb.Response{SourcedSchema: &capturepb.Response_SourcedSchema{Binding: 1, SchemaJson: []byte(`true`)}},
			"0a000000 42 08 08 01 12 04 74727565", `{"sourcedSchema":{"binding":1,"documentSchema":true}}`,
		},
		{
			"load",
			&materializepb.Request{Load: &materializepb.Request_Load{Binding: 2, KeyPacked: []byte{0x15, 7}}},
			"08000000 2a 06 08 02 1a 02 15 07", `{"load":{"binding":2,"keyPacked":"FQc="}}`,
		},
		{
			"store",
			&materializepb.Request{Store: &materializepb.Request_Store{
				KeyPacked: []byte{0x14}, ValuesPacked: []byte{0x27}, DocJson: []byte(`{}`), Exists: true, Delete: true,
			}},
			"10000000 3a 0e 1a 01 14 2a 01 27 32 02 7b7d 38 01 40 01",
			`{"store":{"keyPacked":"FA==","valuesPacked":"Jw==","doc":{},"exists":true,"delete":true}}`,
		},
		{
			"opened with the empty checkpoint",
			&materializepb.Response{Opened: &materializepb.Response_Opened{RuntimeCheckpoint: &flowpb.Checkpoint{}}},
			"04000000 22 02 0a 00", `{"opened":{"runtimeCheckpoint":{}}}`,
		},
		{
			"opened without one", &materializepb.Response{Opened: &materializepb.Response_Opened{}},
			"02000000 22 00", `{"opened":{}}`,
		},
		{
			"start commit",
			&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: &flowpb.Checkpoint{
				Sources: map[string]*flowpb.Checkpoint_Source{"j": {ReadThrough: 5}},
			}}},
			"0d000000 42 0b 0a 09 0a 07 0a 01 6a 12 02 08 05", `{"startCommit":{"runtimeCheckpoint":{"sources":{"j":{"readThrough":"5"}}}}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := frame.Append([]byte("x"), frame.Proto, c.message)
			require.NoError(t, err)
			require.Equal(t, append([]byte("x"), unhex(t, c.proto)...), got)
			got, err = frame.Append([]byte("x"), frame.JSON, c.message)
			require.NoError(t, err)
			require.Equal(t, "x"+c.json+"\n", string(got))
			for codec, body := range map[frame.Codec][]byte{frame.Proto: unhex(t, c.proto)[4:], frame.JSON: []byte(c.json)} {
				back := c.message.ProtoReflect().New().Interface()
				require.NoError(t, codec.Unmarshal(body, back))
				require.True(t, proto.Equal(c.message, back))
				framed, err := frame.Append(nil, codec, c.message)
				require.NoError(t, err)
				require.Equal(t, framed, frame.AppendBytes(nil, codec, body))
			}
		})
	}
}

// A checkpoint of the six bytes that documents describe as the explicit zero is the empty one.
func TestExplicitZeroCheckpoint(t *testing.T) {
	t.Parallel()
	var got materializepb.Response
	require.NoError(t, frame.Proto.Unmarshal(unhex(t, "22 08 0a 06 f8ffffff0f01"), &got))
	require.NotNil(t, got.GetOpened().GetRuntimeCheckpoint())
	body, err := frame.Proto.AppendBody(nil, &got)
	require.NoError(t, err)
	require.Equal(t, unhex(t, "22 02 0a 00"), body)
	var bare flowpb.Checkpoint
	require.NoError(t, frame.Proto.Unmarshal(unhex(t, "f8ffffff0f01"), &bare))
	require.True(t, proto.Equal(&flowpb.Checkpoint{}, &bare))
}

// Fields of another age are skipped, whatever their wire type, and do not come out again.
func TestUnknownFieldsAreDropped(t *testing.T) {
	t.Parallel()
	// spec{9: varint, 10: bytes, 11: fixed32, 12: fixed64}, and beside it field 50
	body := unhex(t, "0a 18 48 01 52 02 7b7d 5d 01020304 61 0102030405060708 12 02 7b7d 9203 01 61")
	var got capturepb.Request
	require.NoError(t, frame.Proto.Unmarshal(body, &got))
	require.True(t, proto.Equal(&capturepb.Request{Spec: &capturepb.Request_Spec{ConfigJson: []byte(`{}`)}}, &got))
	again, err := frame.Proto.AppendBody(nil, &got)
	require.NoError(t, err)
	require.Equal(t, unhex(t, "0a 04 12 02 7b7d"), again)
}

func TestUnmarshalReplacesAndCopies(t *testing.T) {
	t.Parallel()
	for codec, body := range map[frame.Codec][]byte{
		frame.Proto: unhex(t, "32 04 12 02 7b7d"), frame.JSON: []byte(`{"captured":{"doc":{}}}`),
	} {
		m := &capturepb.Response{Opened: &capturepb.Response_Opened{}, Captured: &capturepb.Response_Captured{Binding: 9}}
		require.NoError(t, codec.Unmarshal(body, m))
		clear(body)
		require.True(t, proto.Equal(m, &capturepb.Response{Captured: &capturepb.Response_Captured{DocJson: []byte(`{}`)}}))
	}
}

func TestProtoErrors(t *testing.T) {
	t.Parallel()
	err := frame.Proto.Unmarshal([]byte{0x0a, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8}, &capturepb.Request{})
	require.ErrorContains(t, err, "decoding Request of 10 bytes, which begins 0a 7f 01 02 03 04 05 06…: ")
	_, err = frame.Proto.AppendBody(nil, &flowpb.Label{Name: "\xff"})
	require.ErrorContains(t, err, "encoding Label: ")
	_, err = frame.Append([]byte("x"), frame.JSON, &flowpb.Label{Name: "\xff"})
	require.EqualError(t, err, "name: string is not valid UTF-8")
}

func messages() []proto.Message {
	return []proto.Message{
		&capturepb.Request{}, &capturepb.Response{}, &materializepb.Request{}, &materializepb.Response{},
		&flowpb.CaptureSpec{}, &flowpb.MaterializationSpec{}, &flowpb.Checkpoint{}, &flowpb.OAuth2{},
	}
}

// Random messages come out of either codec as they went in, on one line.
func TestRoundTripsOfRandomMessages(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		for _, m := range messages() {
			pbrand.Fill(rnd, m.ProtoReflect(), 6)
			for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
				body, err := codec.AppendBody(nil, m)
				require.NoError(t, err, "seed %d", seed)
				back := m.ProtoReflect().New().Interface()
				require.NoError(t, codec.Unmarshal(body, back), "seed %d: %s", seed, body)
				require.True(t, proto.Equal(m, back), "seed %d, %v:\n%s", seed, codec, body)
				again, err := codec.AppendBody(nil, back)
				require.NoError(t, err)
				require.Equal(t, string(body), string(again))
				if codec == frame.JSON {
					require.NotContains(t, string(body), "\n")
				}
			}
		}
	}
}

// For messages without raw JSON, the JSON codec understands what the reference implementation of ProtoJSON writes, and
// the other way round.
func TestAgreesWithProtoJSON(t *testing.T) {
	t.Parallel()
	plain := []proto.Message{
		&flowpb.Checkpoint{}, &flowpb.ShardSpec{}, &flowpb.JournalSpec{}, &flowpb.LabelSelector{}, &flowpb.UUIDParts{},
		&flowpb.NetworkPort{}, &flowpb.SerPolicy{}, &flowpb.ConnectorExecution{}, &flowpb.Inference_Numeric{}, &flowpb.RangeSpec{},
	}
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		for _, m := range plain {
			pbrand.Fill(rnd, m.ProtoReflect(), 6)
			theirs, err := protojson.MarshalOptions{UseProtoNames: seed%2 == 0, Multiline: seed%3 == 0}.Marshal(m)
			require.NoError(t, err)
			back := m.ProtoReflect().New().Interface()
			require.NoError(t, frame.JSON.Unmarshal(theirs, back), string(theirs))
			require.True(t, proto.Equal(m, back), string(theirs))

			ours, err := frame.JSON.AppendBody(nil, m)
			require.NoError(t, err)
			back = m.ProtoReflect().New().Interface()
			require.NoError(t, protojson.Unmarshal(ours, back), string(ours))
			require.True(t, proto.Equal(m, back), string(ours))
		}
	}
}

func TestDoublesAndUnknownEnumNumbers(t *testing.T) {
	t.Parallel()
	body, err := frame.JSON.AppendBody(nil, &flowpb.Inference_Numeric{Minimum: math.Inf(-1), Maximum: math.Inf(1)})
	require.NoError(t, err)
	require.Equal(t, `{"minimum":"-Infinity","maximum":"Infinity"}`, string(body))
	body, err = frame.JSON.AppendBody(nil, &flowpb.JournalSpec_Suspend{Level: 77})
	require.NoError(t, err)
	require.Equal(t, `{"level":77}`, string(body))
	back := &flowpb.JournalSpec_Suspend{}
	require.NoError(t, frame.JSON.Unmarshal(body, back))
	require.EqualValues(t, 77, back.GetLevel())
}
