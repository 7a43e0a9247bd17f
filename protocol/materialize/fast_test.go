package materializepb_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

func codecs() []frame.Codec { return []frame.Codec{frame.Proto, frame.JSON} }

// message is one of the hot messages, with its fast paths.
type message struct {
	whole  func(part proto.Message) proto.Message // the request or response that carries it
	part   func(whole proto.Message) proto.Message
	fresh  func() (whole, part proto.Message)
	append func(dst []byte, c frame.Codec, part proto.Message) []byte
	parse  func(c frame.Codec, body []byte, part proto.Message) bool
}

// build makes one from functions of its own types.
func build[W, P proto.Message](wrap func(P) W, part func(W) P, fresh func() (W, P),
	app func([]byte, frame.Codec, P) []byte, parse func(frame.Codec, []byte, P) bool,
) message {
	return message{
		whole:  func(p proto.Message) proto.Message { return wrap(p.(P)) },
		part:   func(w proto.Message) proto.Message { return part(w.(W)) },
		fresh:  func() (proto.Message, proto.Message) { w, p := fresh(); return w, p },
		append: func(dst []byte, c frame.Codec, p proto.Message) []byte { return app(dst, c, p.(P)) },
		parse:  func(c frame.Codec, body []byte, p proto.Message) bool { return parse(c, body, p.(P)) },
	}
}

func load() message {
	return build(
		func(p *materializepb.Request_Load) *materializepb.Request { return &materializepb.Request{Load: p} },
		(*materializepb.Request).GetLoad,
		func() (*materializepb.Request, *materializepb.Request_Load) {
			return &materializepb.Request{}, &materializepb.Request_Load{Binding: 7, KeyJson: []byte("old"), KeyPacked: []byte("old")}
		},
		materializepb.AppendLoad, materializepb.ParseLoad)
}

func loaded() message {
	return build(
		func(p *materializepb.Response_Loaded) *materializepb.Response {
			return &materializepb.Response{Loaded: p}
		},
		(*materializepb.Response).GetLoaded,
		func() (*materializepb.Response, *materializepb.Response_Loaded) {
			return &materializepb.Response{}, &materializepb.Response_Loaded{Binding: 7, DocJson: []byte("old")}
		},
		materializepb.AppendLoaded, materializepb.ParseLoaded)
}

func store() message {
	return build(
		func(p *materializepb.Request_Store) *materializepb.Request { return &materializepb.Request{Store: p} },
		(*materializepb.Request).GetStore,
		func() (*materializepb.Request, *materializepb.Request_Store) {
			return &materializepb.Request{}, &materializepb.Request_Store{
				Binding: 7, KeyJson: []byte("old"), KeyPacked: []byte("old"), ValuesJson: []byte("old"), ValuesPacked: []byte("old"),
				DocJson: []byte("old"), Exists: true, Delete: true,
			}
		},
		materializepb.AppendStore, materializepb.ParseStore)
}

// checkAppend compares what is appended with the generated code, and parses it again.
func checkAppend(t *testing.T, m message, codec frame.Codec, part proto.Message) {
	t.Helper()
	want, err := frame.Append([]byte("before"), codec, m.whole(part))
	require.NoError(t, err)
	got := m.append([]byte("before"), codec, part)
	require.Equal(t, string(want), string(got))
	body, err := frame.NewReader(bytes.NewReader(got[6:]), codec, 0).Next()
	require.NoError(t, err)
	whole, back := m.fresh()
	require.NoError(t, codec.Unmarshal(body, whole))
	require.True(t, m.parse(codec, body, back), "%q", got)
	require.True(t, proto.Equal(whole, m.whole(back)))
}

// checkParse compares a parser with the generated code on any body.
func checkParse(t *testing.T, m message, codec frame.Codec, body []byte) {
	t.Helper()
	whole, got := m.fresh()
	err := codec.Unmarshal(bytes.Clone(body), whole)
	before := bytes.Clone(body)
	if m.parse(codec, body, got) {
		require.NoError(t, err, "%q", before)
		require.True(t, proto.Equal(whole, m.whole(got)), "%q\n%v\n%v", before, whole, got)
		return
	}
	require.Equal(t, before, body, "a body that was not parsed is needed as it was")
	part := m.part(whole)
	if err != nil || !part.ProtoReflect().IsValid() {
		return
	}
	// What senders write must not take the slow way: encoded again, the message is parsed.
	again, err := codec.AppendBody(nil, m.whole(part))
	require.NoError(t, err)
	require.True(t, m.parse(codec, again, got), "%q", again)
	require.True(t, proto.Equal(part, got))
}

func bodies() []string {
	return []string{
		"", "\x2a\x00", "\x2a\x06\x08\x02\x1a\x02\x15\x07", "\x2a\x05\x1a\x01\x14\x08\x02", "\x2a\x06\x08\x02\x12\x02[]", "\x2a\x06\x08\x02\x12\x03[]", "\x2a\x02\x20\x01", "\x2a\x00\x00",
		"\x3a\x00", "\x3a\x0e\x1a\x01\x14\x2a\x01\x27\x32\x02{}8\x01@\x01", "\x3a\x028\x02", "\x3a\x028\x00", "\x3a\x038\x80\x01", "\x3a\x048\x80\x00@", "\x3a\x04\x12\x01[\x22", "\x3a\x02\x48\x01", "\x3a\x00\x3a\x00",
		`{"load":{}}`, `{"load":{"binding":2,"keyPacked":"FQc="}}`, `{"load":{"binding":2,"key":[1,"a"]}}`, `{"load":{"key_packed":"FQc="}}`, `{"load":{"keyPacked":"FQc"}}`, `{"load":{"keyPacked":"F=c="}}`,
		`{"load":{"keyPacked":"-_8="}}`, `{"load":{"keyPacked":"\u0046Qc="}}`, `{"load":{"keyPacked":null}}`, `{"load":{"keyPacked":"FQc=","x":1}}`, `{"load":{"keyPacked":"FQc="}} x`, `{"load":{"keyPacked":"===="}}`, `{"load":{"keyPacked":"A==="}}`,
		`{"load":{"keyPacked":"FQc=","keyPacked":"FA=="}}`, `{"load":{"keyPacked":""}}`, `{"load":{"keyPacked":7}}`, `{"load":{"keyPacked":"FQd="}}`,
		`{"store":{"binding":1,"keyPacked":"FA==","valuesPacked":"Jw==","doc":{},"exists":true,"delete":true}}`, `{"store":{"exists":false,"delete":1}}`, `{"store":{"exists":"true"}}`,
		`{"store":{"key":[1],"values":[null,{}],"doc":null}}`, `{"store":{"keyPacked":"FA==","valuesPacked":"!"}}`, `{"store":{"keyPacked":"!","valuesPacked":"FA=="}}`, `{ "store" : { "binding" : 1 } } `,
		`{"loaded":{"binding":3,"doc":{"a":1}}}`, `{"loaded":{}}`, `{"loaded":{"doc":nul}}`, `{"flush":{}}`,
	}
}

func TestFastPathsAreWhatIsGenerated(t *testing.T) {
	t.Parallel()
	for _, m := range []message{load(), loaded(), store()} {
		for _, codec := range codecs() {
			for _, body := range bodies() {
				checkParse(t, m, codec, []byte(body))
			}
		}
	}
	text := func(size int) []byte { return []byte(`"` + strings.Repeat("x", size) + `"`) }
	for _, codec := range codecs() {
		for _, binding := range []uint32{0, 1, 127, 128, math.MaxUint32} {
			for _, size := range []int{0, 1, 100, 110, 125, 126, 127, 16380, 16381, 16382} {
				for _, packed := range [][]byte{nil, {0}, {0xff, 0xfe}, {1, 2, 3}, bytes.Repeat([]byte{0x15, 9}, size)} {
					checkAppend(t, load(), codec, &materializepb.Request_Load{Binding: binding, KeyJson: text(size), KeyPacked: packed})
					checkAppend(t, loaded(), codec, &materializepb.Response_Loaded{Binding: binding, DocJson: text(size)})
					checkAppend(t, store(), codec, &materializepb.Request_Store{
						Binding: binding, KeyPacked: packed, ValuesJson: text(size), ValuesPacked: packed, Exists: size%2 == 0, Delete: size%3 == 0,
					})
				}
			}
		}
		checkAppend(t, load(), codec, &materializepb.Request_Load{})
		checkAppend(t, loaded(), codec, &materializepb.Response_Loaded{DocJson: []byte("{\n}")})
		checkAppend(t, store(), codec, &materializepb.Request_Store{KeyJson: []byte("[\n1]"), DocJson: []byte("{\r\n\"a\" :\"\\\"\"}")})
	}
}

func FuzzParse(f *testing.F) {
	for _, body := range bodies() {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range []message{load(), loaded(), store()} {
			for _, codec := range codecs() {
				checkParse(t, m, codec, bytes.Clone(body))
			}
		}
	})
}

func FuzzAppend(f *testing.F) {
	f.Add(uint32(3), []byte(`[1,"a"]`), []byte{0x15, 1}, []byte(`{"a":null}`), []byte{}, true, false)
	f.Add(uint32(300), []byte{}, []byte{0}, []byte("{\"a\":\n1}"), []byte("x"), false, true)
	f.Fuzz(func(t *testing.T, binding uint32, key, packed, doc, values []byte, exists, del bool) {
		for _, codec := range codecs() {
			if codec == frame.JSON && (len(key) > 0 && !json.Valid(key) || len(doc) > 0 && !json.Valid(doc)) {
				continue
			}
			if codec == frame.JSON && (isNull(key) || isNull(doc)) {
				continue // null is the same as nothing, and takes the slow way
			}
			checkAppend(t, load(), codec, &materializepb.Request_Load{Binding: binding, KeyJson: key, KeyPacked: packed})
			checkAppend(t, loaded(), codec, &materializepb.Response_Loaded{Binding: binding, DocJson: doc})
			checkAppend(t, store(), codec, &materializepb.Request_Store{
				Binding: binding, KeyJson: key, KeyPacked: packed, ValuesJson: doc, ValuesPacked: values, DocJson: doc, Exists: exists, Delete: del,
			})
		}
	})
}

func isNull(text []byte) bool { return string(bytes.TrimSpace(text)) == "null" }

func row() *materializepb.Request_Store {
	return &materializepb.Request_Store{
		Binding: 3, KeyPacked: []byte("\x16\x12\x34"), Exists: true,
		ValuesPacked: []byte("\x02" + strings.Repeat("some text ", 20) + "\x00\x15\x09\x27"),
		DocJson:      []byte(`{"id":4660,"name":"` + strings.Repeat("some text ", 20) + `"}`),
	}
}

func TestFastPathsDoNotAllocate(t *testing.T) {
	dst := make([]byte, 0, 4096)
	r := row()
	l := &materializepb.Request_Load{Binding: 3, KeyPacked: r.GetKeyPacked()}
	d := &materializepb.Response_Loaded{Binding: 3, DocJson: r.GetDocJson()}
	var gotStore materializepb.Request_Store
	var gotLoad materializepb.Request_Load
	var gotLoaded materializepb.Response_Loaded
	head := map[frame.Codec]int{frame.Proto: 4}
	for _, codec := range codecs() {
		require.Zero(t, testing.AllocsPerRun(1000, func() {
			dst = materializepb.AppendStore(dst[:0], codec, r)
			ok := materializepb.ParseStore(codec, dst[head[codec]:], &gotStore)
			dst = materializepb.AppendLoad(dst[:0], codec, l)
			ok = ok && materializepb.ParseLoad(codec, dst[head[codec]:], &gotLoad)
			dst = materializepb.AppendLoaded(dst[:0], codec, d)
			ok = ok && materializepb.ParseLoaded(codec, dst[head[codec]:], &gotLoaded)
			if !ok {
				panic("not parsed")
			}
		}), codec)
	}
}

func BenchmarkStore(b *testing.B) {
	r, dst := row(), make([]byte, 0, 4096)
	whole := &materializepb.Request{Store: r}
	for _, codec := range codecs() {
		body, err := codec.AppendBody(nil, whole)
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
		run("append", func() { dst = materializepb.AppendStore(dst[:0], codec, r) })
		run("append generated", func() { dst, _ = frame.Append(dst[:0], codec, whole) })
		var m materializepb.Request_Store
		again := make([]byte, len(body))
		run("parse", func() { copy(again, body); materializepb.ParseStore(codec, again, &m) })
		var q materializepb.Request
		run("parse generated", func() { _ = codec.Unmarshal(body, &q) })
	}
}
