package schema

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

const draft = "https://json-schema.org/draft/2020-12/schema"

// Reflect is the JSON schema of a configuration struct, with what a form needs: titles, descriptions, defaults, the order
// of the fields, which of them are secret or advanced. Members that it does not name are allowed, for runtimes add some.
// Equal types give equal bytes.
func Reflect[T any](title string) json.RawMessage {
	b := builder{form: true}
	b.open()
	b.text("$schema", draft)
	b.text("title", title)
	b.typeOf(reflect.TypeFor[T]())
	return b.close()
}

// Of is the JSON schema of the documents that encoding/json writes for T. A field that is always written is required; one
// that can be nil may be null.
func Of[T any]() json.RawMessage {
	b := builder{}
	b.open()
	b.text("$schema", draft)
	b.typeOf(reflect.TypeFor[T]())
	return b.close()
}

// builder appends a schema. It writes members itself since their order matters to readers.
type builder struct {
	dst  []byte
	form bool
}

func (b *builder) open() { b.dst = append(b.dst, '{') }

func (b *builder) close() []byte {
	if b.dst[len(b.dst)-1] == ',' {
		b.dst = b.dst[:len(b.dst)-1]
	}
	b.dst = append(b.dst, '}')
	return b.dst
}

// raw appends a member whose value is JSON already.
func (b *builder) raw(name, value string) {
	b.name(name)
	b.dst = append(append(b.dst, value...), ',')
}

func (b *builder) text(name, value string) {
	b.name(name)
	b.dst = append(rowjson.AppendText(b.dst, value), ',')
}

func (b *builder) name(name string) { b.dst = append(rowjson.AppendText(b.dst, name), ':') }

// closeMember ends an object that is the value of a member.
func (b *builder) closeMember() { b.dst = append(b.close(), ',') }

// typeOf appends the members that say what values a type has.
func (b *builder) typeOf(t reflect.Type) {
	nullable := !b.form && t.Kind() == reflect.Pointer
	t = deref(t)
	typeName := func(name string, nullable bool) {
		if nullable {
			b.raw("type", `["`+name+`","null"]`)
		} else {
			b.text("type", name)
		}
	}
	switch kindOf(t) {
	case text:
		typeName("string", nullable)
	case timestamp:
		typeName("string", nullable)
		b.text("format", "date-time")
	case base64:
		typeName("string", nullable || (!b.form && t.Kind() == reflect.Slice))
		b.text("contentEncoding", "base64")
	case integer:
		typeName("integer", nullable)
		if t.Kind() >= reflect.Uint && t.Kind() <= reflect.Uint64 {
			b.raw("minimum", "0")
		}
	case number:
		typeName("number", nullable)
	case boolean:
		typeName("boolean", nullable)
	case array:
		typeName("array", nullable || (!b.form && t.Kind() == reflect.Slice))
		b.nested("items", t.Elem())
	case dictionary:
		typeName("object", nullable || !b.form)
		b.nested("additionalProperties", t.Elem())
	case object:
		typeName("object", nullable)
		b.properties(t)
	case anything:
	}
}

func (b *builder) nested(name string, t reflect.Type) {
	b.name(name)
	b.open()
	b.typeOf(t)
	b.closeMember()
}

func (b *builder) properties(t reflect.Type) {
	fields := fieldsOf(t)
	var required []string
	b.name("properties")
	b.open()
	for i, f := range fields {
		b.name(f.name)
		b.open()
		if b.form {
			b.annotations(f, i)
		}
		b.typeOf(f.typ)
		b.closeMember()
		if b.required(f) {
			required = append(required, f.name)
		}
	}
	b.closeMember()
	if len(required) > 0 {
		list, _ := json.Marshal(required) // texts always encode
		b.raw("required", string(list))
	}
}

// required reports whether a field must be there: in a form, what has no value without the user's.
func (b *builder) required(f field) bool {
	if !b.form || f.omitempty {
		return !f.omitempty
	}
	_, hasDefault := f.tag.Lookup("default")
	switch kindOf(f.typ) {
	case boolean, array, dictionary, object, anything:
		return false
	default:
		return !hasDefault && f.typ.Kind() != reflect.Pointer && !f.flag("advanced")
	}
}

// annotations appends what a form wants to know.
func (b *builder) annotations(f field, i int) {
	for _, a := range [][2]string{{"title", "title"}, {"description", "desc"}} {
		if v := f.tag.Get(a[1]); v != "" {
			b.text(a[0], v)
		}
	}
	if v, ok := f.tag.Lookup("default"); ok {
		b.raw("default", literal(f.typ, v))
	}
	if v := f.tag.Get("enum"); v != "" {
		var values []string
		for one := range strings.SplitSeq(v, ",") {
			values = append(values, literal(f.typ, one))
		}
		b.raw("enum", "["+strings.Join(values, ",")+"]")
	}
	for _, name := range []string{"secret", "multiline", "advanced"} {
		if f.flag(name) {
			b.raw(name, "true")
		}
	}
	order := strconv.Itoa(i)
	if v := f.tag.Get("order"); v != "" {
		order = v
	}
	b.raw("order", order)
	for _, name := range extensions(f.tag) {
		b.raw(name, literalAny(f.tag.Get(name)))
	}
}

// literal is a tag's text as JSON: quoted where the field holds text.
func literal(t reflect.Type, v string) string {
	switch kindOf(t) {
	case text, timestamp, base64:
		return string(rowjson.AppendText(nil, v))
	default:
		return v
	}
}

// literalAny is a tag's text as it is if it is JSON, and quoted if not.
func literalAny(v string) string {
	if json.Valid([]byte(v)) {
		return v
	}
	return string(rowjson.AppendText(nil, v))
}

// extensions lists the keys of a tag that begin with x-, sorted.
func extensions(tag reflect.StructTag) []string {
	var names []string
	rest := string(tag)
	for {
		rest = strings.TrimLeft(rest, " ")
		name, after, ok := strings.Cut(rest, ":")
		if !ok {
			slices.Sort(names)
			return names
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return names
		}
		rest = after[len(quoted):]
		if strings.HasPrefix(name, "x-") {
			names = append(names, name)
		}
	}
}
