package airbyte

import (
	"encoding/json"
	"regexp"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// nearly are times as sources write them where their schema says that they follow RFC 3339.
var nearly = regexp.MustCompile(`^"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d(?::?\d\d)?)?"$`)

// timesOf are the fields of a stream that are times by its schema.
func timesOf(schema json.RawMessage) map[string]bool {
	var root map[string]any
	if json.Unmarshal(schema, &root) != nil {
		return nil // discovery says what is wrong with it
	}
	translate(root)
	times := map[string]bool{}
	properties, _ := root["properties"].(map[string]any)
	for name, p := range properties {
		if inner, ok := p.(map[string]any); ok && inner["format"] == "date-time" {
			times[name] = true
		}
	}
	return times
}

// appendZoned appends a document, in which times of fields that are to follow RFC 3339 do: without a zone they are in UTC, as Airbyte's destinations
// have it. Anything else stays as it is.
func appendZoned(dst, doc []byte, times map[string]bool) []byte {
	if len(times) == 0 {
		return append(dst, doc...)
	}
	done := 0
	for members := jsonscan.NewMembers(doc); ; {
		key, value, ok := members.Next()
		if !ok {
			return append(dst, doc[done:]...)
		}
		if !times[string(key)] || follows(value) {
			continue
		}
		m := nearly.FindSubmatch(value)
		if m == nil {
			continue
		}
		begin := cap(doc) - cap(value) // both end where their memory does
		dst = append(append(dst, doc[done:begin]...), '"')
		dst = append(append(append(append(dst, m[1]...), 'T'), m[2]...), zone(m[3])...)
		dst = append(dst, '"')
		done = begin + len(value)
	}
}

// follows tells, soon, of most times that nothing is to be done about them.
func follows(value []byte) bool {
	n := len(value)
	return n < 21 || value[11] == 'T' && (value[n-2] == 'Z' || value[n-4] == ':' && (value[n-7] == '+' || value[n-7] == '-'))
}

func zone(text []byte) string {
	switch len(text) {
	case 0:
		return "Z"
	case len("+00"):
		return string(text) + ":00"
	case len("+0000"):
		return string(text[:3]) + ":" + string(text[3:])
	}
	return string(text)
}
