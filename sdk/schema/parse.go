package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Parse reads a configuration: defaults first, then what raw says. Every unknown field, value of a wrong type and value
// that is not one of those allowed is a problem, and all of them are in the error, in words for people; what names the
// configuration in them ("the configuration"). Fields that are null count as absent. Fields that runtimes add to the
// outermost object (sops) are ignored. Whether required fields are there is for the configuration's Validate to say.
func Parse[T any](raw json.RawMessage, what string) (T, error) {
	var v T
	if err := setDefaults(reflect.ValueOf(&v).Elem()); err != nil {
		return v, err
	}
	p := parser{what: what}
	doc, err := decode(raw)
	if err != nil {
		return v, usererr.New(err, "%s is not valid JSON: %v.", capital(what), err)
	}
	if members, ok := doc.(map[string]any); ok {
		delete(members, "sops")
	}
	p.check(doc, reflect.TypeFor[T](), "", nil)
	if err := usererr.Join(fmt.Sprintf("%s has %d problems:", capital(what), len(p.problems)), p.problems); err != nil {
		return v, err
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, usererr.New(err, "%s cannot be read: %v.", capital(what), err)
	}
	return v, nil
}

func decode(raw json.RawMessage) (any, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, errors.New("it is empty")
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("%w, at byte %d", err, syntax.Offset)
		}
		return nil, errors.New("it ends too early")
	}
	if d.More() {
		return nil, fmt.Errorf("something follows at byte %d", d.InputOffset())
	}
	return doc, nil
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// parser gathers problems.
type parser struct {
	what     string
	problems []error
}

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, usererr.New(nil, format, args...))
}

// check compares a value with a type. path leads to it; f is the field that holds it, nil outside of structs.
func (p *parser) check(v any, t reflect.Type, path string, f *field) {
	if v == nil && path != "" {
		return
	}
	t = deref(t)
	want := kindOf(t)
	if want == anything {
		return
	}
	if !matches(v, want, t) {
		p.mismatch(v, want, path)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		p.members(v, want, t, path)
	case []any:
		for i, item := range v {
			p.check(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i), nil)
		}
	case string:
		p.parseText(v, t, path, f)
	}
	if f != nil {
		p.enum(v, path, f)
	}
}

// matches reports whether a decoded value is of the kind.
func matches(v any, want kind, t reflect.Type) bool {
	switch v := v.(type) {
	case string:
		return want == text || want == timestamp || want == base64
	case bool:
		return want == boolean
	case []any:
		return want == array
	case map[string]any:
		return want == object || want == dictionary
	case json.Number:
		if want == integer {
			return fits(v.String(), t)
		}
		return want == number
	}
	return false
}

func fits(text string, t reflect.Type) bool {
	var err error
	if t.Kind() >= reflect.Uint {
		_, err = strconv.ParseUint(text, 10, t.Bits())
	} else {
		_, err = strconv.ParseInt(text, 10, t.Bits())
	}
	return err == nil
}

func (p *parser) mismatch(v any, want kind, path string) {
	names := map[kind]string{
		text: "a text", timestamp: "a time such as \"2024-12-31T23:59:59Z\"", base64: "a text in base64", integer: "a whole number",
		number: "a number", boolean: "true or false", array: "a list", object: "an object", dictionary: "an object",
	}
	is := "null"
	switch v.(type) {
	case string:
		is = "a text"
	case bool:
		is = "true or false"
	case json.Number:
		is = "a number"
		if want == integer {
			is = "a number with a fraction, below zero or too large"
		}
	case []any:
		is = "a list"
	case map[string]any:
		is = "an object"
	}
	if path == "" {
		p.problem("%s must be %s, but it is %s.", capital(p.what), names[want], is)
		return
	}
	p.problem("The field %q of %s must be %s, but it is %s.", path, p.what, names[want], is)
}

func (p *parser) members(v map[string]any, want kind, t reflect.Type, path string) {
	if want == dictionary {
		for _, name := range slices.Sorted(maps.Keys(v)) {
			p.check(v[name], t.Elem(), join(path, name), nil)
		}
		return
	}
	fields := fieldsOf(t)
	byName := make(map[string]*field, len(fields))
	var known []string
	for i := range fields {
		byName[fields[i].name] = &fields[i]
		known = append(known, fields[i].name)
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		f, ok := byName[name]
		if !ok {
			p.problem("The field %q of %s is unknown. %s", join(path, name), p.what, suggest(name, known))
			continue
		}
		p.check(v[name], f.typ, join(path, name), f)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// parseText tries types that parse their own text.
func (p *parser) parseText(v string, t reflect.Type, path string, f *field) {
	target, ok := reflect.TypeAssert[encoding.TextUnmarshaler](reflect.New(t))
	if !ok {
		return
	}
	if err := target.UnmarshalText([]byte(v)); err != nil {
		if f != nil && f.flag("secret") {
			p.problem("The field %q of %s is wrong.", path, p.what)
			return
		}
		p.problem("The field %q of %s is wrong: %v.", path, p.what, err)
	}
}

func (p *parser) enum(v any, path string, f *field) {
	list := f.tag.Get("enum")
	if list == "" {
		return
	}
	allowed := strings.Split(list, ",")
	now := fmt.Sprint(v)
	// A form sends "" for what is not filled in; where a value is needed Validate says so.
	if slices.Contains(allowed, now) || now == "" {
		return
	}
	p.problem("The field %q of %s is %q. It may be %s.", path, p.what, now, or(allowed))
}

// or lists alternatives.
func or(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// suggest names the known field that was probably meant, or all of them.
func suggest(name string, known []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("Did you mean %q?", best)
	}
	if len(known) == 0 {
		return "There are no fields."
	}
	return "The fields are " + strings.Join(known, ", ") + "."
}

// editDistance is how many letters have to be put in, taken out or replaced to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
