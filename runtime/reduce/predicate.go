package reduce

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// A predicate tells whether a value is valid against a schema.
type predicate interface{ holds(value []byte) bool }

type (
	always bool
	// equals is const and enum.
	equals [][]byte
	// property demands a member if required is set, and applies then to it if the object has it.
	property struct {
		name     string
		required bool
		then     predicate // may be nil
	}
	all []predicate
	// external asks a complete validator, for everything that is not one of the few keywords known here.
	external struct {
		compiler *jsonschema.Compiler
		schema   *jsonschema.Schema
	}
)

func (p always) holds([]byte) bool { return bool(p) }

func (p equals) holds(value []byte) bool {
	for _, want := range p {
		if equal(want, value) {
			return true
		}
	}
	return false
}

func (p *property) holds(value []byte) bool {
	if jsonscan.Kind(value) != '{' {
		return true // properties and required say nothing about other types
	}
	member := jsonscan.Member(value, p.name)
	if member == nil {
		return !p.required
	}
	return p.then == nil || p.then.holds(member)
}

func (p all) holds(value []byte) bool {
	for _, part := range p {
		if !part.holds(value) {
			return false
		}
	}
	return true
}

func (p *external) holds(value []byte) bool {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	return err == nil && p.schema.Validate(v) == nil
}

// predicate compiles a schema into a test. Schemas of const, enum, properties and required, which is how connectors
// write "this is a deletion", are tested on the text; others by a complete validator.
func (c *compiler) predicate(place string, schema any) (predicate, error) {
	if p, ok := simple(schema); ok {
		return p, nil
	}
	if c.external == nil {
		compiler := jsonschema.NewCompiler()
		if err := compiler.AddResource("schema:document", c.doc); err != nil {
			return nil, fmt.Errorf("reading the schema: %w", err)
		}
		c.external = &external{compiler: compiler}
	}
	compiled, err := c.external.compiler.Compile("schema:document#" + place)
	if err != nil {
		return nil, fmt.Errorf("compiling the condition at %s: %w", place, err)
	}
	return &external{schema: compiled}, nil
}

func simple(schema any) (predicate, bool) {
	if b, ok := schema.(bool); ok {
		return always(b), true
	}
	object, ok := schema.(map[string]any)
	if !ok {
		return nil, false
	}
	var parts all
	members := map[string]*property{} // so that a member that is both described and required is looked up once
	member := func(name string) *property {
		p := members[name]
		if p == nil {
			p = &property{name: name}
			members[name] = p
			parts = append(parts, p)
		}
		return p
	}
	for keyword, v := range object {
		switch keyword {
		case "title", "description", "reduce", "default":
		case "const":
			parts = append(parts, equals{encode(v)})
		case "enum":
			list, _ := v.([]any)
			var choice equals
			for _, e := range list {
				choice = append(choice, encode(e))
			}
			parts = append(parts, choice)
		case "required":
			list, _ := v.([]any)
			for _, e := range list {
				name, _ := e.(string)
				member(name).required = true
			}
		case "properties":
			props, _ := v.(map[string]any)
			for name, sub := range props {
				then, ok := simple(sub)
				if !ok {
					return nil, false
				}
				member(name).then = then
			}
		default:
			return nil, false
		}
	}
	if len(parts) == 1 {
		return parts[0], true
	}
	return parts, true
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		return []byte("null") // cannot happen: v came out of a JSON text
	}
	return text
}
