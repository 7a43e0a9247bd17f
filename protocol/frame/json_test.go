package frame_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// What peers write differently, and what it means.
func TestJSONIsForgiven(t *testing.T) {
	t.Parallel()
	spec := func(s *capturepb.Request_Spec) proto.Message { return &capturepb.Request{Spec: s} }
	for _, c := range []struct {
		name, in string
		want     proto.Message
	}{
		{"null sibling", `{"spec":{},"open":null,"validate":null}`, spec(&capturepb.Request_Spec{})},
		{"null everywhere", `{"spec":{"config":null,"connectorType":null}}`, spec(&capturepb.Request_Spec{})},
		{"null between", `{"spec":null}`, &capturepb.Request{}},
		{"white space", " {\t\"spec\" :\r { \"config\" : { \"a\" : 1 } } } \r", spec(&capturepb.Request_Spec{ConfigJson: []byte(`{ "a" : 1 }`)})},
		{"unknown names", `{"new":[1,{"a":[]}],"spec":{"newer":"\u00e9"}}`, spec(&capturepb.Request_Spec{})},
		{"private field", `{"$internal":"!!","spec":{}}`, spec(&capturepb.Request_Spec{})},
		{"enum by name", `{"spec":{"connectorType":"IMAGE"}}`, spec(&capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_IMAGE})},
		{"enum by number", `{"spec":{"connector_type":8}}`, spec(&capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_LOCAL})},
		{"enum of another age", `{"spec":{"connectorType":"BLIMP"}}`, spec(&capturepb.Request_Spec{})},
		{"escaped name", `{"sp\u0065c":{}}`, spec(&capturepb.Request_Spec{})},
		{"the last of equal names counts", `{"spec":{"config":1,"config_json":2}}`, spec(&capturepb.Request_Spec{ConfigJson: []byte(`2`)})},
		{
			"schema_json of the Python connectors", `{"sourced_schema":{"binding":2,"schema_json":{"type":"object"}}}`,
			&capturepb.Response{SourcedSchema: &capturepb.Response_SourcedSchema{Binding: 2, SchemaJson: []byte(`{"type":"object"}`)}},
		},
		{
			"numbers as strings and strings as numbers",
			`{"keyBegin":"1","keyEnd":4294967295,"rClockBegin":1.0,"rClockEnd":1e3}`,
			&flowpb.RangeSpec{KeyBegin: 1, KeyEnd: 4294967295, RClockBegin: 1, RClockEnd: 1000},
		},
		{"64 bits as number", `{"lastAck":18446744073709551615,"begin":-1}`, &flowpb.Checkpoint_ProducerState{LastAck: 18446744073709551615, Begin: -1}},
		{"64 bits as string", `{"lastAck":"18446744073709551615","begin":"-1"}`, &flowpb.Checkpoint_ProducerState{LastAck: 18446744073709551615, Begin: -1}},
		{"base64 without padding", `{"keyPacked":"FQc"}`, &materializepb.Request_Load{KeyPacked: []byte{0x15, 7}}},
		{"base64 for URLs", `{"keyPacked":"-_8="}`, &materializepb.Request_Load{KeyPacked: []byte{0xfb, 0xff}}},
		{
			"durations", `{"refreshInterval":"300s","retention":"0.000000001s","flushInterval":"-1.5s"}`,
			&flowpb.JournalSpec_Fragment{
				RefreshInterval: durationpb.New(5 * time.Minute), Retention: durationpb.New(1), FlushInterval: durationpb.New(-1500 * time.Millisecond),
			},
		},
		{
			"time with zone", `{"timestamp":"2026-02-01T02:00:00.5+02:00"}`,
			&materializepb.Request_Flush_BackfillBegin{Timestamp: timestamppb.New(time.Date(2026, 2, 1, 0, 0, 0, 5e8, time.UTC))},
		},
		{"presence of empty messages", `{"opened":{"runtimeCheckpoint":{}}}`, &materializepb.Response{Opened: &materializepb.Response_Opened{RuntimeCheckpoint: &flowpb.Checkpoint{}}}},
		{
			"raw maps keep nulls", `{"keys":[],"fieldConfig":{"a":null,"b":[ ]}}`,
			&flowpb.FieldSelection{FieldConfigJsonMap: map[string][]byte{"a": []byte(`null`), "b": []byte(`[ ]`)}},
		},
		{"raw lists keep nulls", `{"enum":[1,null,"x"]}`, &flowpb.Inference{EnumJsonVec: [][]byte{[]byte(`1`), []byte(`null`), []byte(`"x"`)}}},
		{"null entries of maps", `{"sources":null,"ackIntents":{"a":null,"b":"AA=="}}`, &flowpb.Checkpoint{AckIntents: map[string][]byte{"b": {0}}}},
		{
			"patches with white space", "{\"acknowledge\":{\"statePatches\":[{\"a\":1}\t,null\t]}}",
			&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{StatePatchesJson: []byte("[{\"a\":1}\t,null\t]")}},
		},
		{
			"the old name of a constraint", `{"type":"UNSATISFIABLE"}`,
			&materializepb.Response_Validated_Constraint{Type: materializepb.Response_Validated_Constraint_UNSATISFIABLE},
		},
		{"surrogate pair", `{"name":"\ud83d\ude00"}`, &flowpb.Label{Name: "😀"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := c.want.ProtoReflect().New().Interface()
			require.NoError(t, frame.JSON.Unmarshal([]byte(c.in), got))
			require.True(t, proto.Equal(c.want, got), "%v", got)
		})
	}
}

// What is wrong is named with the way to it, without showing what may be secret.
func TestJSONErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in, want string
		m        proto.Message
	}{
		{`[]`, `decoding Request of 2 bytes: invalid JSON at byte 0: expected '{' at the start of an object, found '['`, &capturepb.Request{}},
		{`{"spec":{}`, `decoding Request of 10 bytes: invalid JSON at byte 10: expected ',' or '}' after an object's value, found the end of the text`, &capturepb.Request{}},
		{`{"spec":{}} x`, `decoding Request of 13 bytes: invalid JSON at byte 12: expected the end, found 'x'`, &capturepb.Request{}},
		{`{"spec":{"config":{"a":tru}}}`, `decoding Request of 29 bytes: spec.config: invalid JSON at byte 23: expected true, found 't'`, &capturepb.Request{}},
		{`{"open":{"capture":{"bindings":[{},{"collection":{"key":"/a"}}]}}}`, `decoding Request of 66 bytes: open.capture.bindings[1].collection.key: invalid JSON at byte 56: expected '[' at the start of an array, found '"'`, &capturepb.Request{}},
		{`{"spec":{"connectorType":true}}`, `decoding Request of 31 bytes: spec.connectorType: expected an integer of 32 bits, found true`, &capturepb.Request{}},
		{`{"acknowledge":{"checkpoints":-1}}`, `decoding Request of 34 bytes: acknowledge.checkpoints: expected an unsigned integer of 32 bits, found -1`, &capturepb.Request{}},
		{`{"checkpoints":4294967296}`, `decoding Acknowledge of 26 bytes: checkpoints: expected an unsigned integer of 32 bits, found 4294967296`, &capturepb.Request_Acknowledge{}},
		{`{"name":5}`, `decoding Label of 10 bytes: name: expected a string`, &flowpb.Label{}},
		{"{\"name\":\"\xff\"}", `decoding Label of 12 bytes: name: string is not valid UTF-8`, &flowpb.Label{}},
		{`{"prefix":"true"}`, `decoding Label of 17 bytes: prefix: expected true or false, found "true"`, &flowpb.Label{}},
		{`{"keyPacked":"!"}`, `decoding Load of 17 bytes: keyPacked: decoding base64: illegal base64 data at input byte 0`, &materializepb.Request_Load{}},
		{`{"keyPacked":7}`, `decoding Load of 15 bytes: keyPacked: expected base64 in quotes`, &materializepb.Request_Load{}},
		{`{"timestamp":"yesterday"}`, `decoding BackfillBegin of 25 bytes: timestamp: expected a time in RFC 3339, found "yesterday"`, &materializepb.Request_Flush_BackfillBegin{}},
		{`{"timestamp":"0000-12-31T00:00:00Z"}`, `decoding BackfillBegin of 36 bytes: timestamp: expected a time in RFC 3339, found "0000-12-31T00:00:00Z"`, &materializepb.Request_Flush_BackfillBegin{}},
		{`{"retention":"5m"}`, `decoding Fragment of 18 bytes: retention: expected a duration such as "1.5s", found "5m"`, &flowpb.JournalSpec_Fragment{}},
		{`{"retention":"1.s2s"}`, `decoding Fragment of 21 bytes: retention: expected a duration such as "1.5s", found "1.s2s"`, &flowpb.JournalSpec_Fragment{}},
		{`{"minimum":"0x1p4"}`, `decoding Numeric of 19 bytes: minimum: expected a number, found "0x1p4"`, &flowpb.Inference_Numeric{}},
		{`{"sources":{"j":{"producers":[{"id":[]}]}}}`, `decoding Checkpoint of 43 bytes: sources."j".producers[0].id: expected base64 in quotes`, &flowpb.Checkpoint{}},
		{`{"bindings":[null]}`, `decoding Validated of 19 bytes: bindings[0]: invalid JSON at byte 13: expected '{' at the start of an object, found 'n'`, &capturepb.Response_Validated{}},
	} {
		require.EqualError(t, frame.JSON.Unmarshal([]byte(c.in), c.m), c.want)
	}
}

func TestNestedTooDeeply(t *testing.T) {
	t.Parallel()
	deep := func(open, middle, shut string, n int) []byte {
		var b []byte
		for range n {
			b = append(b, open...)
		}
		b = append(b, middle...)
		for range n {
			b = append(b, shut...)
		}
		return b
	}
	spec := append(append([]byte(`{"spec":{"config":`), deep("[", "", "]", 20000)...), "}}"...)
	require.ErrorContains(t, frame.JSON.Unmarshal(spec, &capturepb.Request{}), "spec.config: invalid JSON at byte 10018: nested more than 10000 levels deep")
	nested := deep(`{"derivation":{"transforms":[{"collection":`, `{}`, `}]}}`, 1000)
	require.ErrorContains(t, frame.JSON.Unmarshal(nested, &flowpb.CollectionSpec{}), "messages are nested more than 64 levels deep")
}

// Raw JSON is checked, and cannot break the line.
func TestJSONOutput(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    proto.Message
		want string
	}{
		{&capturepb.Response_Captured{DocJson: []byte("{\n  \"a b\": \"c\\n \\\" d\",\r\n  \"e\": [1,\t2]\n}\n")}, `{"doc":{"a b":"c\n \" d","e":[1,2]}}`},
		{&capturepb.Response_Captured{DocJson: []byte(`{ "kept" : 1 }`)}, `{"doc":{ "kept" : 1 }}`},
		{&flowpb.CaptureSpec{Name: "a"}, `{"name":"a","intervalSeconds":0}`},
		{&flowpb.RangeSpec{}, `{"keyEnd":0,"rClockEnd":0}`},
		{&flowpb.FieldSelection{FieldConfigJsonMap: map[string][]byte{"b": nil, "a": []byte(`1`)}}, `{"fieldConfig":{"a":1,"b":null}}`},
		{&capturepb.Request{Internal: []byte("secret"), Spec: &capturepb.Request_Spec{}}, `{"spec":{}}`},
		{&flowpb.Label{Name: "\x00\"\\\n\t\r<>&é"}, `{"name":"\u0000\"\\\n\t\r<>&é"}`},
		{&flowpb.JournalSpec_Fragment{RefreshInterval: durationpb.New(-1500 * time.Millisecond)}, `{"refreshInterval":"-1.5s"}`},
	} {
		got, err := frame.JSON.AppendBody(nil, c.m)
		require.NoError(t, err)
		require.Equal(t, c.want, string(got))
	}
}

func TestJSONOutputErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    proto.Message
		want string
	}{
		{&capturepb.Response{Captured: &capturepb.Response_Captured{DocJson: []byte("{]")}}, `captured.doc: invalid JSON at byte 1: expected a key in quotes, found ']'`},
		{&capturepb.Response_Captured{DocJson: []byte(" ")}, `doc: invalid JSON at byte 1: expected a value, found the end of the text`},
		{&capturepb.Response_Captured{DocJson: []byte("1 2")}, `doc: invalid JSON at byte 2: expected the end, found '2'`},
		{&flowpb.FieldSelection{FieldConfigJsonMap: map[string][]byte{"a": []byte("'")}}, `fieldConfig."a": invalid JSON at byte 0: expected a value, found '\''`},
		{&flowpb.Inference{EnumJsonVec: [][]byte{[]byte("1"), []byte("-")}}, `enum[1]: invalid JSON at byte 1: expected a digit, found the end of the text`},
		{&flowpb.JournalSpec_Fragment{Retention: &durationpb.Duration{Nanos: -1, Seconds: 1}}, `retention: proto`},
		{&flowpb.MaterializationSpec_Binding{NotBefore: &timestamppb.Timestamp{Nanos: -1}}, `notBefore: proto`},
	} {
		_, err := frame.JSON.AppendBody(nil, c.m)
		require.ErrorContains(t, err, c.want)
	}
}
