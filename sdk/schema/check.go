package schema

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// TestingT is the part of testing.T that CheckConfig needs.
type TestingT interface {
	Helper()
	Errorf(format string, args ...any)
}

var lowerCamel = regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)

// CheckConfig is a lint for the tags of a configuration, for tests: names in lower camel case, a title and a description
// for every field, defaults that can be parsed and are allowed, secrets that do not show themselves, booleans that default to false.
func CheckConfig[T any](t TestingT) {
	t.Helper()
	checkType(t, reflect.TypeFor[T](), "")
}

func checkType(t TestingT, typ reflect.Type, path string) {
	t.Helper()
	typ = deref(typ)
	if kindOf(typ) == array {
		checkType(t, typ.Elem(), path+"[]")
		return
	}
	if kindOf(typ) != object {
		if path == "" {
			t.Errorf("a configuration must be a struct, not %s", typ)
		}
		return
	}
	for _, f := range fieldsOf(typ) {
		at := join(path, f.name)
		for _, problem := range checkField(f) {
			t.Errorf("field %s: %s", at, problem)
		}
		checkType(t, f.typ, at)
	}
}

func checkField(f field) (problems []string) {
	complain := func(wrong bool, problem string) {
		if wrong {
			problems = append(problems, problem)
		}
	}
	desc, value := f.tag.Get("desc"), f.tag.Get("default")
	_, hasDefault := f.tag.Lookup("default")
	complain(!lowerCamel.MatchString(f.name), "its name is not in lower camel case")
	complain(f.tag.Get("title") == "", "it has no title")
	complain(desc == "", "it has no desc")
	complain(desc != "" && !strings.HasSuffix(desc, "."), "its desc does not end with a full stop")
	complain(f.flag("secret") && kindOf(f.typ) != text, "it is secret but not a text")
	complain(f.flag("secret") && f.typ.Kind() == reflect.String, "it is secret but a string, which shows itself; use schema.Secret")
	complain(f.flag("secret") && hasDefault, "it is secret and has a default")
	complain(kindOf(f.typ) == boolean && hasDefault && value != "false", "it is a boolean that does not default to false")
	if hasDefault {
		target := reflect.New(f.typ)
		p := parser{what: "it"}
		doc, err := decode([]byte(literal(f.typ, value)))
		if err == nil {
			p.check(doc, target.Type(), "default", &f)
		}
		complain(err != nil || len(p.problems) > 0, "its default "+value+" is not a value it can have")
		if enum := f.tag.Get("enum"); enum != "" {
			complain(!slices.Contains(strings.Split(enum, ","), value), "its default is not among its enum")
		}
	}
	return problems
}
