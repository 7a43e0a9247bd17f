package codec

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
)

const (
	maxSampledMembers = 500
	maxSampledName    = 256 // bytes
)

// member is what samples have under one name.
type member struct {
	name  string
	types []string
}

// sampledJSON describes JSON values of which no schema is known by the members that samples have. A sample proves nothing of the records
// that come later: so no member is required or has a type. It only says, with x-infer-schema, that a runtime is to learn the types
// from the records themselves. nil if no sample is an object.
func sampledJSON(samples []*kgo.Record, side Side) *Schema {
	var members []*member
	byName := map[string]*member{}
	for _, rec := range samples {
		data := rec.Value
		if side == Key {
			data = rec.Key
		}
		if jsonscan.Kind(data) != '{' || !jsonscan.Valid(data) || !utf8.Valid(data) {
			continue
		}
		object := jsonscan.NewMembers(data)
		for raw, value, ok := object.Next(); ok; raw, value, ok = object.Next() {
			name := string(jsonscan.Name(raw))
			m := byName[name]
			if m == nil {
				if len(members) == maxSampledMembers || name == "" || len(name) > maxSampledName || !utf8.ValidString(name) {
					continue
				}
				m = &member{name: name}
				byName[name] = m
				members = append(members, m)
			}
			if t := typeName(value); !slices.Contains(m.types, t) {
				m.types = append(m.types, t)
			}
		}
	}
	if len(members) == 0 {
		return nil
	}
	return &Schema{JSON: inferred(members)}
}

// typeName is the JSON type of a value, as a schema calls it.
func typeName(value []byte) string {
	switch jsonscan.Kind(value) {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	for _, c := range value {
		if c == '.' || c == 'e' || c == 'E' {
			return "number"
		}
	}
	return "integer"
}

func inferred(members []*member) json.RawMessage {
	dst := []byte(`{"properties":`)
	for i, m := range members {
		slices.Sort(m.types)
		dst = append(dst, "{,"[min(i, 1)])
		dst = append(rowjson.AppendText(dst, m.name), `:{"x-infer-schema":true,"description":`...)
		dst = append(rowjson.AppendText(dst, "In samples: "+strings.Join(m.types, " or ")+". Types are learned from the records."), '}')
	}
	return append(dst, "}}"...)
}
