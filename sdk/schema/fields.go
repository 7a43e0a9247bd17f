// Package schema makes JSON schemas of Go types, and reads configurations by them.
//
// A configuration is a struct. Its fields carry one tag a fact:
//
//	json       the name in the configuration, lower camel case; ",omitempty" makes the field optional
//	title      a short label for a form
//	desc       a sentence or two for the person who fills in the form
//	default    what an absent field is taken for; the field is then optional
//	enum       the values that are allowed, separated by commas
//	secret     "true": the value is encrypted, masked in forms and never shown in messages; the field's type is Secret
//	multiline  "true": a text of several lines
//	advanced   "true": on a struct, a section that is folded away
//	order      the place in the form, if not that of the declaration
//	x-…        copied to the schema: x-collection-name, x-schema-name, x-delta-updates …
//
// Booleans, slices, maps, pointers and nested structs are optional. Durations are of type Duration.
package schema

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// field is one member of a struct as encoding/json sees it.
type field struct {
	name      string
	typ       reflect.Type
	index     []int
	tag       reflect.StructTag
	omitempty bool
}

func (f field) flag(tag string) bool { return f.tag.Get(tag) == "true" }

// fieldsOf lists the members that encoding/json writes for a struct, in the order of their declaration. Embedded structs
// without a name of their own are part of the struct around them.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		name, options, _ := strings.Cut(sf.Tag.Get("json"), ",")
		switch {
		case name == "-" && options == "":
			continue
		case sf.Anonymous && name == "" && deref(sf.Type).Kind() == reflect.Struct:
			for _, f := range fieldsOf(deref(sf.Type)) {
				f.index = append([]int{i}, f.index...)
				fields = append(fields, f)
			}
			continue
		case !sf.IsExported():
			continue
		case name == "":
			name = sf.Name
		}
		fields = append(fields, field{
			name: name, typ: sf.Type, index: []int{i}, tag: sf.Tag,
			omitempty: strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero"),
		})
	}
	return fields
}

func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// kind is what a type is in JSON.
type kind uint8

const (
	anything kind = iota
	text
	timestamp
	base64
	integer
	number
	boolean
	array
	object // a struct
	dictionary
)

// kindOf says what encoding/json makes of a type, pointers aside.
func kindOf(t reflect.Type) kind {
	t = deref(t)
	switch {
	case t == reflect.TypeFor[time.Time]():
		return timestamp
	case t == reflect.TypeFor[json.RawMessage]() || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return anything
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return text
	}
	switch t.Kind() {
	case reflect.String:
		return text
	case reflect.Bool:
		return boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return integer
	case reflect.Float32, reflect.Float64:
		return number
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return base64
		}
		return array
	case reflect.Struct:
		return object
	case reflect.Map:
		return dictionary
	default:
		return anything
	}
}

// Duration is a length of time that is written as Go does: "90s", "5m", "1h30m".
type Duration time.Duration

// MarshalText writes the duration as time.Duration prints it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration reads, but nothing negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return durationError(b)
	}
	*d = Duration(v)
	return nil
}

type durationError string

func (e durationError) Error() string {
	return `"` + string(e) + `" is no length of time such as "30s" or "5m"`
}
