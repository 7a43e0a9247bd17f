package registry

// Type is the language of a schema.
type Type string

// The languages that registries have.
const (
	Avro     Type = "Avro"
	Protobuf Type = "Protobuf"
	JSON     Type = "JSON Schema"
)

// Schema is one schema of the registry. It is never changed after it was read.
type Schema struct {
	ID   int    // in the registry's context
	GUID string // across contexts; empty where the registry has none
	// Subject and Version say by what name it was read; empty when it was read by its id.
	Subject string
	Version int

	Type       Type
	Text       string
	References []Reference
}

// Reference is another schema that a schema needs: by the full name of an Avro type, the path of a Protobuf import, or the
// address of a JSON Schema's $ref.
type Reference struct {
	Name   string
	Schema *Schema
}

// Walk calls visit for everything that the schema needs, referenced schemas before those that refer to them, each name once.
func (s *Schema) Walk(visit func(name string, s *Schema)) {
	walk(s, map[string]bool{}, visit)
}

func walk(s *Schema, seen map[string]bool, visit func(string, *Schema)) {
	for _, ref := range s.References {
		if seen[ref.Name] {
			continue
		}
		seen[ref.Name] = true
		walk(ref.Schema, seen, visit)
		visit(ref.Name, ref.Schema)
	}
}
