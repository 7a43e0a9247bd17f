package materializepb

import (
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
	"github.com/sluicedata/sluice/protocol/internal/wire"
)

// Numbers of the fields that the functions of this package's fast paths write and read; a test compares them with the descriptors.
const (
	fieldLoad        = 5 // of Request
	fieldLoadBinding = 1
	fieldLoadKeyJSON = 2
	fieldLoadKey     = 3

	fieldLoaded        = 5 // of Response
	fieldLoadedBinding = 1
	fieldLoadedDoc     = 2
)

// AppendLoad appends a framed Request with m. It does not allocate when dst has room. The bytes are those that
// frame.Append would append.
func AppendLoad(dst []byte, c frame.Codec, m *Request_Load) []byte {
	if c == frame.JSON {
		o := wire.OpenObject(dst, `"load"`)
		o.Uint(`"binding"`, m.Binding)
		o.Raw(`"key"`, m.KeyJson)
		o.Base64(`"keyPacked"`, m.KeyPacked)
		return o.Close()
	}
	dst = wire.AppendFrameHead(dst, fieldLoad,
		wire.SizeUint(m.Binding)+wire.SizeBytes(len(m.KeyJson))+wire.SizeBytes(len(m.KeyPacked)))
	dst = wire.AppendUint(dst, fieldLoadBinding, m.Binding)
	dst = wire.AppendBytes(dst, fieldLoadKeyJSON, m.KeyJson)
	return wire.AppendBytes(dst, fieldLoadKey, m.KeyPacked)
}

// ParseLoad reads the body of a Request with Load into m, without allocating. m's slices alias body.
//
// False means that body is something else, or is written in a way which only Codec.Unmarshal knows, or is not valid;
// m's fields are unspecified then, and body is unchanged. When it succeeds with the JSON codec, the packed key was decoded
// over its own text, so body is no longer JSON.
func ParseLoad(c frame.Codec, body []byte, m *Request_Load) bool {
	m.Binding, m.KeyJson, m.KeyPacked, m.unknownFields = 0, nil, nil, nil
	if c == frame.JSON {
		return parseLoadJSON(body, m)
	}
	b, ok := wire.Inner(body, fieldLoad)
	for ok && len(b) > 0 {
		switch tag := b[0]; tag {
		case wire.VarintTag(fieldLoadBinding):
			m.Binding, b, ok = wire.Uint(b[1:])
		case wire.BytesTag(fieldLoadKeyJSON):
			m.KeyJson, b, ok = wire.Bytes(b[1:])
		case wire.BytesTag(fieldLoadKey):
			m.KeyPacked, b, ok = wire.Bytes(b[1:])
		default:
			return false
		}
	}
	return ok
}

func parseLoadJSON(body []byte, m *Request_Load) bool {
	s := rawjson.NewScanner(body)
	ok := s.Enter("load")
	for first := true; ok; first = false {
		var key []byte
		if key, ok = s.Member(first); !ok {
			return false
		}
		switch string(key) {
		case "binding":
			m.Binding, ok = s.Uint32()
		case "key":
			m.KeyJson, ok = s.Raw()
		case "keyPacked":
			m.KeyPacked, ok = s.Quoted()
		default:
			if key != nil || !s.Leave() || !wire.IsBase64(m.KeyPacked) {
				return false
			}
			m.KeyPacked = wire.DecodeBase64(m.KeyPacked)
			return true
		}
	}
	return false
}

// AppendLoaded appends a framed Response with m. It does not allocate when dst has room. The bytes are those that
// frame.Append would append.
func AppendLoaded(dst []byte, c frame.Codec, m *Response_Loaded) []byte {
	if c == frame.JSON {
		o := wire.OpenObject(dst, `"loaded"`)
		o.Uint(`"binding"`, m.Binding)
		o.Raw(`"doc"`, m.DocJson)
		return o.Close()
	}
	dst = wire.AppendFrameHead(dst, fieldLoaded, wire.SizeUint(m.Binding)+wire.SizeBytes(len(m.DocJson)))
	dst = wire.AppendUint(dst, fieldLoadedBinding, m.Binding)
	return wire.AppendBytes(dst, fieldLoadedDoc, m.DocJson)
}

// ParseLoaded reads the body of a Response with Loaded into m, without allocating. m.DocJson aliases body.
// False means what it means for ParseLoad.
func ParseLoaded(c frame.Codec, body []byte, m *Response_Loaded) bool {
	m.Binding, m.DocJson, m.unknownFields = 0, nil, nil
	if c == frame.JSON {
		return parseLoadedJSON(body, m)
	}
	b, ok := wire.Inner(body, fieldLoaded)
	for ok && len(b) > 0 {
		switch tag := b[0]; tag {
		case wire.VarintTag(fieldLoadedBinding):
			m.Binding, b, ok = wire.Uint(b[1:])
		case wire.BytesTag(fieldLoadedDoc):
			m.DocJson, b, ok = wire.Bytes(b[1:])
		default:
			return false
		}
	}
	return ok
}

func parseLoadedJSON(body []byte, m *Response_Loaded) bool {
	s := rawjson.NewScanner(body)
	ok := s.Enter("loaded")
	for first := true; ok; first = false {
		var key []byte
		if key, ok = s.Member(first); !ok {
			return false
		}
		switch string(key) {
		case "binding":
			m.Binding, ok = s.Uint32()
		case "doc":
			m.DocJson, ok = s.Raw()
		default:
			return key == nil && s.Leave()
		}
	}
	return false
}
