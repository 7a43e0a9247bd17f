package wire

import (
	"encoding/base64"
	"strconv"

	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

// Object appends the members of a JSON object which is the only member of another, as a line: {"outer":{…}}.
type Object struct {
	Dst   []byte
	begun bool
}

// OpenObject begins the line. outer includes its quotes, as all names here do.
func OpenObject(dst []byte, outer string) Object {
	dst = append(append(append(dst, '{'), outer...), ':', '{')
	return Object{Dst: dst}
}

// Name begins a member.
func (o *Object) Name(name string) {
	if o.begun {
		o.Dst = append(o.Dst, ',')
	}
	o.begun = true
	o.Dst = append(append(o.Dst, name...), ':')
}

// Uint adds a number unless it is 0.
func (o *Object) Uint(name string, v uint32) {
	if v != 0 {
		o.Name(name)
		o.Dst = strconv.AppendUint(o.Dst, uint64(v), 10)
	}
}

// Bool adds a bool unless it is false.
func (o *Object) Bool(name string, v bool) {
	if v {
		o.Name(name)
		o.Dst = append(o.Dst, "true"...)
	}
}

// Raw adds JSON text unless it is empty.
func (o *Object) Raw(name string, text []byte) {
	if len(text) != 0 {
		o.Name(name)
		o.Dst = rawjson.AppendLine(o.Dst, text)
	}
}

// Base64 adds bytes unless they are empty.
func (o *Object) Base64(name string, v []byte) {
	if len(v) != 0 {
		o.Name(name)
		o.Dst = append(base64.StdEncoding.AppendEncode(append(o.Dst, '"'), v), '"')
	}
}

// Close ends the line and returns what Dst has become.
func (o *Object) Close() []byte { return append(o.Dst, "}}\n"...) }
