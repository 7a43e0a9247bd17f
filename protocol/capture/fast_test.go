package capturepb_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
)

func codecs() []frame.Codec { return []frame.Codec{frame.Proto, frame.JSON} }

// encoder appends a document, the way that a connector does.
func encoder(doc []byte) func(dst []byte) ([]byte, error) {
	return func(dst []byte) ([]byte, error) { return append(dst, doc...), nil }
}

// checkAppend compares both appenders with the generated code.
func checkAppend(t *testing.T, codec frame.Codec, binding uint32, doc []byte) {
	t.Helper()
	m := &capturepb.Response{Captured: &capturepb.Response_Captured{Binding: binding, DocJson: doc}}
	want, err := frame.Append([]byte("before"), codec, m)
	require.NoError(t, err)
	require.Equal(t, string(want), string(capturepb.AppendCapturedDoc([]byte("before"), codec, binding, doc)))
	got, err := capturepb.AppendCaptured([]byte("before"), codec, binding, encoder(doc))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
	// The same with room to spare, which holds something old.
	room := bytes.Repeat([]byte{0xaa}, len(want)+100)
	got, err = capturepb.AppendCaptured(append(room[:0], "before"...), codec, binding, encoder(doc))
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// Documents of all sizes at which a length in the header gets longer.
func TestAppendCapturedIsWhatIsGenerated(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		for _, binding := range []uint32{0, 1, 127, 128, 16383, 16384, math.MaxUint32} {
			for _, around := range []int{2, 128, 16384, 2097152} {
				if around > 1<<20 && (binding != 1 || codec == frame.JSON) {
					continue
				}
				for size := max(2, around-14); size < around+3; size++ {
					checkAppend(t, codec, binding, []byte(`"`+strings.Repeat("x", size-2)+`"`))
				}
			}
			checkAppend(t, codec, binding, nil)
			checkAppend(t, codec, binding, []byte("{\n \"a\" : \"b c\"\r\n}"))
		}
	}
}

func TestAppendCapturedErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("column \"x\": not a number")
	for _, codec := range codecs() {
		dst := []byte("before")
		got, err := capturepb.AppendCaptured(dst, codec, 1, func(dst []byte) ([]byte, error) { return append(dst, "{"...), broken })
		require.Equal(t, broken, err)
		require.Equal(t, "before", string(got))
		got, err = capturepb.AppendCaptured(dst, codec, 1, func([]byte) ([]byte, error) { return nil, nil })
		require.EqualError(t, err, "encoding a document: the encoder returned less than it was given")
		require.Equal(t, "before", string(got))
	}
}

// checkParse compares the parser with the generated code on any body.
func checkParse(t *testing.T, codec frame.Codec, body []byte) {
	t.Helper()
	before := bytes.Clone(body)
	got := &capturepb.Response_Captured{Binding: 77, DocJson: []byte("old")}
	ok := capturepb.ParseCaptured(codec, body, got)
	require.Equal(t, before, body)
	var want capturepb.Response
	err := codec.Unmarshal(body, &want)
	if ok {
		require.NoError(t, err)
		require.True(t, proto.Equal(&want, &capturepb.Response{Captured: got}), "%q\n%v\n%v", body, &want, got)
		return
	}
	if err != nil || want.GetCaptured() == nil {
		return
	}
	// What senders write must not take the slow way: encoded again, the message is parsed.
	again, err := codec.AppendBody(nil, &capturepb.Response{Captured: want.GetCaptured()})
	require.NoError(t, err)
	require.True(t, capturepb.ParseCaptured(codec, again, got), "%q", again)
	require.True(t, proto.Equal(want.GetCaptured(), got))
}

func bodies() []string {
	return []string{
		"", "\x32\x00", "\x32\x02\x08\x05", "\x32\x04\x12\x02{}", "\x32\x06\x08\x01\x12\x02{}", "\x32\x06\x12\x02{}\x08\x01",
		"\x32\x06\x08\x01\x12\x02{}\x00", "\x32\x07\x08\x01\x12\x02{}", "\x32\x06\x08\x01\x12\x09{}", "\x32\x0a\x08\xff\xff\xff\xff\x0f\x12\x02{}",
		"\x32\x0a\x08\xff\xff\xff\xff\x1f\x12\x02{}", "\x32\x04\x08\x01\x08\x02", "\x32\x02\x18\x01", "\x32\x02\x08\x05\x32\x02\x08\x06", "\x32\x02\x08\x05\xa2\x06\x01x",
		"\x32\x82\x00\x08\x05", "\x32\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x3a\x00",
		`{"captured":{}}`, `{"captured":{"binding":3,"doc":{"a":[1,2]}}}`, ` { "captured" : { "doc" : "x" , "binding" : 0 } } `,
		`{"captured":{"binding":4294967295,"doc":1}}`, `{"captured":{"binding":4294967296,"doc":1}}`, `{"captured":{"binding":"3","doc":1}}`, `{"captured":{"binding":1e0}}`,
		`{"captured":{"doc":null}}`, `{"captured":{"doc_json":{}}}`, `{"captured":{"doc":{},"doc":[]}}`, `{"captured":{"":{}}}`, `{"captured":{"d\u006fc":{}}}`,
		`{"captured":{"doc":{}},"$internal":"AA=="}`, `{"captured":{"doc":{}}`, `{"captured":{"doc":{}}}x`, `{"captured":{"doc":{}},}`, `{"captured":null}`, `{"opened":{}}`, `{"captured":{"binding":01}}`,
		`{"captured":{"binding":1,}}`, `{"captured":{,"binding":1}}`, `{"captured":{"binding":1 "doc":2}}`, `{"captured":{"binding":1}`, `{"captured":{"binding":-1}}`,
	}
}

func TestParseCapturedIsWhatIsGenerated(t *testing.T) {
	t.Parallel()
	for _, body := range bodies() {
		for _, codec := range codecs() {
			checkParse(t, codec, []byte(body))
		}
	}
}

// The forms which real senders use take the fast way.
func TestParseCapturedTakesTheFastWay(t *testing.T) {
	t.Parallel()
	var m capturepb.Response_Captured
	for _, body := range []string{"\x32\x00", "\x32\x06\x08\x01\x12\x02{}", "\x32\x06\x12\x02{}\x08\x01"} {
		require.True(t, capturepb.ParseCaptured(frame.Proto, []byte(body), &m))
	}
	for _, body := range []string{`{"captured":{"binding":3,"doc":{"a":[1,2]}}}`, `{"captured": {"doc": {}, "binding": 0}}`} {
		require.True(t, capturepb.ParseCaptured(frame.JSON, []byte(body), &m))
	}
}

func FuzzParseCaptured(f *testing.F) {
	for _, body := range bodies() {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, codec := range codecs() {
			checkParse(t, codec, body)
		}
	})
}

func FuzzAppendCaptured(f *testing.F) {
	f.Add(uint32(0), []byte(`{}`))
	f.Add(uint32(300), []byte("{\"a\":\n[\"\\\"\"]}"))
	f.Fuzz(func(t *testing.T, binding uint32, doc []byte) {
		checkAppend(t, frame.Proto, binding, doc)
		if len(doc) == 0 || json.Valid(doc) {
			checkAppend(t, frame.JSON, binding, doc)
			return
		}
		// A document that is none spoils its own line, and no other.
		line := capturepb.AppendCapturedDoc(nil, frame.JSON, binding, doc)
		require.Equal(t, len(line)-1, bytes.IndexByte(line, '\n'))
	})
}

func document() []byte {
	return []byte(`{"id":12345,"name":"` + strings.Repeat("some text ", 20) + `","at":"2026-02-01T00:00:00Z","_meta":{"op":"c"}}`)
}

func TestFastPathsDoNotAllocate(t *testing.T) {
	doc, dst := document(), make([]byte, 0, 4096)
	enc := encoder(doc)
	var m capturepb.Response_Captured
	for _, codec := range codecs() {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			dst = capturepb.AppendCapturedDoc(dst[:0], codec, 3, doc)
			dst, _ = capturepb.AppendCaptured(dst, codec, 3, enc)
		}), codec)
		body, err := codec.AppendBody(nil, &capturepb.Response{Captured: &capturepb.Response_Captured{Binding: 3, DocJson: doc}})
		require.NoError(t, err)
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			if !capturepb.ParseCaptured(codec, body, &m) {
				panic("not parsed")
			}
		}), codec)
		require.Equal(t, doc, m.GetDocJson())
	}
}

func BenchmarkCaptured(b *testing.B) {
	doc, dst := document(), make([]byte, 0, 4096)
	message := &capturepb.Response{Captured: &capturepb.Response_Captured{Binding: 3, DocJson: doc}}
	enc := encoder(doc)
	for _, codec := range codecs() {
		body, err := codec.AppendBody(nil, message)
		require.NoError(b, err)
		run := func(name string, f func()) {
			b.Run(codec.String()+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
		run("append", func() { dst, _ = capturepb.AppendCaptured(dst[:0], codec, 3, enc) })
		run("append generated", func() { dst, _ = frame.Append(dst[:0], codec, message) })
		var m capturepb.Response_Captured
		run("parse", func() { capturepb.ParseCaptured(codec, body, &m) })
		var r capturepb.Response
		run("parse generated", func() { _ = codec.Unmarshal(body, &r) })
	}
}
