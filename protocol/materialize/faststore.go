package materializepb

import (
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
	"github.com/sluicedata/sluice/protocol/internal/wire"
)

const (
	fieldStore           = 7 // of Request
	fieldStoreBinding    = 1
	fieldStoreKeyJSON    = 2
	fieldStoreKey        = 3
	fieldStoreValuesJSON = 4
	fieldStoreValues     = 5
	fieldStoreDoc        = 6
	fieldStoreExists     = 7
	fieldStoreDelete     = 8
)

// AppendStore appends a framed Request with m. It does not allocate when dst has room. The bytes are those that
// frame.Append would append.
func AppendStore(dst []byte, c frame.Codec, m *Request_Store) []byte {
	if c == frame.JSON {
		return appendStoreJSON(dst, m)
	}
	dst = wire.AppendFrameHead(dst, fieldStore, wire.SizeUint(m.Binding)+
		wire.SizeBytes(len(m.KeyJson))+wire.SizeBytes(len(m.KeyPacked))+
		wire.SizeBytes(len(m.ValuesJson))+wire.SizeBytes(len(m.ValuesPacked))+
		wire.SizeBytes(len(m.DocJson))+wire.SizeBool(m.Exists)+wire.SizeBool(m.Delete))
	dst = wire.AppendUint(dst, fieldStoreBinding, m.Binding)
	dst = wire.AppendBytes(dst, fieldStoreKeyJSON, m.KeyJson)
	dst = wire.AppendBytes(dst, fieldStoreKey, m.KeyPacked)
	dst = wire.AppendBytes(dst, fieldStoreValuesJSON, m.ValuesJson)
	dst = wire.AppendBytes(dst, fieldStoreValues, m.ValuesPacked)
	dst = wire.AppendBytes(dst, fieldStoreDoc, m.DocJson)
	dst = wire.AppendBool(dst, fieldStoreExists, m.Exists)
	return wire.AppendBool(dst, fieldStoreDelete, m.Delete)
}

func appendStoreJSON(dst []byte, m *Request_Store) []byte {
	o := wire.OpenObject(dst, `"store"`)
	o.Uint(`"binding"`, m.Binding)
	o.Raw(`"key"`, m.KeyJson)
	o.Base64(`"keyPacked"`, m.KeyPacked)
	o.Raw(`"values"`, m.ValuesJson)
	o.Base64(`"valuesPacked"`, m.ValuesPacked)
	o.Raw(`"doc"`, m.DocJson)
	o.Bool(`"exists"`, m.Exists)
	o.Bool(`"delete"`, m.Delete)
	return o.Close()
}

// ParseStore reads the body of a Request with Store into m, without allocating. m's slices alias body.
// False means what it means for ParseLoad, and as there the JSON codec decodes the packed fields over their own text.
func ParseStore(c frame.Codec, body []byte, m *Request_Store) bool {
	m.Binding, m.KeyJson, m.KeyPacked, m.ValuesJson, m.ValuesPacked = 0, nil, nil, nil, nil
	m.DocJson, m.Exists, m.Delete, m.unknownFields = nil, false, false, nil
	if c == frame.JSON {
		return parseStoreJSON(body, m)
	}
	b, ok := wire.Inner(body, fieldStore)
	for ok && len(b) > 0 {
		switch tag := b[0]; tag {
		case wire.VarintTag(fieldStoreBinding):
			m.Binding, b, ok = wire.Uint(b[1:])
		case wire.BytesTag(fieldStoreKeyJSON):
			m.KeyJson, b, ok = wire.Bytes(b[1:])
		case wire.BytesTag(fieldStoreKey):
			m.KeyPacked, b, ok = wire.Bytes(b[1:])
		case wire.BytesTag(fieldStoreValuesJSON):
			m.ValuesJson, b, ok = wire.Bytes(b[1:])
		case wire.BytesTag(fieldStoreValues):
			m.ValuesPacked, b, ok = wire.Bytes(b[1:])
		case wire.BytesTag(fieldStoreDoc):
			m.DocJson, b, ok = wire.Bytes(b[1:])
		case wire.VarintTag(fieldStoreExists):
			m.Exists, b, ok = wire.Bool(b[1:])
		case wire.VarintTag(fieldStoreDelete):
			m.Delete, b, ok = wire.Bool(b[1:])
		default:
			return false
		}
	}
	return ok
}

func parseStoreJSON(body []byte, m *Request_Store) bool {
	s := rawjson.NewScanner(body)
	ok := s.Enter("store")
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
		case "values":
			m.ValuesJson, ok = s.Raw()
		case "valuesPacked":
			m.ValuesPacked, ok = s.Quoted()
		case "doc":
			m.DocJson, ok = s.Raw()
		case "exists":
			m.Exists, ok = s.Bool()
		case "delete":
			m.Delete, ok = s.Bool()
		default:
			return key == nil && s.Leave() && unpackStore(m)
		}
	}
	return false
}

// unpackStore decodes the packed fields, once nothing can fail any more.
func unpackStore(m *Request_Store) bool {
	if !wire.IsBase64(m.KeyPacked) || !wire.IsBase64(m.ValuesPacked) {
		return false
	}
	m.KeyPacked, m.ValuesPacked = wire.DecodeBase64(m.KeyPacked), wire.DecodeBase64(m.ValuesPacked)
	return true
}
