package materialize

import (
	"bytes"
	"encoding/json"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/schema"
)

// maxReferences bounds how deep schemas refer to each other; those that refer to themselves have no end.
const maxReferences = 16

// annotations finds what a collection's schema says of a location beyond what runtimes infer from it. It looks where a
// statement holds for every document: in properties, through references and allOf.
type annotations struct {
	doc any // nil if nothing is annotated
}

func annotationsOf(c *flowpb.CollectionSpec) annotations {
	text := c.GetReadSchemaJson()
	if len(text) == 0 {
		text = c.GetWriteSchemaJson()
	}
	if !bytes.Contains(text, []byte(schema.DecimalKeyword)) {
		return annotations{}
	}
	var doc any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if d.Decode(&doc) != nil {
		return annotations{} // runtimes check schemas; one that cannot be read says nothing
	}
	return annotations{doc}
}

// decimal is the bound of a location's digits, if every schema that describes the location has one: where a runtime adds a
// schema of its own that has none, or has lost it since sources changed, nothing is certain.
func (a annotations) decimal(pointer string) schema.Decimal {
	if a.doc == nil || pointer == "" {
		return schema.Decimal{}
	}
	found := a.at(a.doc, jsonscan.SplitPointer(pointer), 0)
	var bound schema.Decimal
	for i, s := range found {
		own := schema.ParseDecimal(s[schema.DecimalKeyword])
		if i == 0 {
			bound = own
		} else {
			bound = bound.Union(own)
		}
	}
	return bound
}

// at lists the schemas that describe what the path leads to. Those that only combine others are not among them.
func (a annotations) at(node any, path []string, depth int) (found []map[string]any) {
	s, ok := node.(map[string]any)
	if !ok || depth > maxReferences {
		return nil
	}
	if ref, ok := s["$ref"].(string); ok {
		found = append(found, a.at(a.resolve(ref), path, depth+1)...)
	}
	all, _ := s["allOf"].([]any)
	for _, branch := range all {
		found = append(found, a.at(branch, path, depth+1)...)
	}
	if len(path) == 0 {
		if len(found) == 0 || s["type"] != nil || s[schema.DecimalKeyword] != nil {
			found = append(found, s)
		}
		return found
	}
	properties, _ := s["properties"].(map[string]any)
	return append(found, a.at(properties[path[0]], path[1:], depth)...)
}

// resolve finds a schema by its place in the document, or by the name that it has among the definitions, as runtimes bundle
// schemas; nil if there is none.
func (a annotations) resolve(ref string) any {
	root, _ := a.doc.(map[string]any)
	place, local := strings.CutPrefix(ref, "#")
	if !local {
		definitions, _ := root["$defs"].(map[string]any)
		for name, d := range definitions {
			if s, _ := d.(map[string]any); name == ref || s["$id"] == ref {
				return d
			}
		}
		return nil
	}
	at := a.doc
	for _, token := range jsonscan.SplitPointer(place) {
		object, _ := at.(map[string]any)
		at = object[token]
	}
	return at
}
