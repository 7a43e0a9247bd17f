package codec

import (
	"context"
	"fmt"

	"github.com/sluicedata/sluice/source-kafka/internal/codec/avro"
	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsonschema"
	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsontype"
	"github.com/sluicedata/sluice/source-kafka/internal/codec/protobuf"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

func compileAvro(s *registry.Schema, side Side) (*avro.Schema, error) {
	var refs []avro.Text
	s.Walk(func(name string, s *registry.Schema) { refs = append(refs, avro.Text{Name: name, Schema: s.Text}) })
	return avro.Compile(s.Text, refs, avro.Options{Key: side == Key})
}

func compileProtobuf(ctx context.Context, s *registry.Schema) (*protobuf.File, error) {
	var imports []protobuf.Text
	s.Walk(func(path string, s *registry.Schema) {
		imports = append(imports, protobuf.Text{Path: path, Proto: s.Text})
	})
	return protobuf.Compile(ctx, s.Text, imports)
}

func convertJSONSchema(s *registry.Schema) (*jsontype.Document, error) {
	var refs []jsonschema.Text
	s.Walk(func(name string, s *registry.Schema) {
		refs = append(refs, jsonschema.Text{Name: name, Schema: s.Text})
	})
	return jsonschema.Convert(s.Text, refs)
}

// describe is the schema of what a decoder appends.
func describe(side Side, id int, name string, doc *jsontype.Document) *Schema {
	members, object := doc.Members()
	return &Schema{ID: id, Name: name, JSON: doc.JSON(side.prefix()), Object: object, Members: members, Keys: doc.Keys()}
}

// exact is describe for the values of one schema: the decoder appends what it describes, and nothing else.
func exact(side Side, id int, name string, doc *jsontype.Document) *Schema {
	s := describe(side, id, name, doc)
	s.Closed = doc.Closed(side.prefix())
	return s
}

// describeJSON is the schema of JSON values that promise to follow one. Nobody proves it: other members may come, and none
// of them can be relied on to be there.
func describeJSON(side Side, id int, doc *jsontype.Document) *Schema {
	_, object := doc.Members()
	return &Schema{ID: id, Name: doc.Follow(doc.Root).Title, JSON: doc.JSON(side.prefix()), Object: object}
}

// prefix stands before the names of definitions, so that those of a key and of a value can be together in one schema.
func (s Side) prefix() string {
	if s == Key {
		return "key:"
	}
	return ""
}

// documents describes the values that a schema of a registry can stand for. paths are the message types that records of it
// name; without, all that no other one holds are taken to come.
func documents(ctx context.Context, s *registry.Schema, side Side, paths [][]int) ([]*jsontype.Document, error) {
	switch s.Type {
	case registry.Avro:
		a, err := compileAvro(s, side)
		if err != nil {
			return nil, err
		}
		return []*jsontype.Document{a.Describe()}, nil
	case registry.JSON:
		doc, err := convertJSONSchema(s)
		if err != nil {
			return nil, err
		}
		return []*jsontype.Document{doc}, nil
	case registry.Protobuf:
		file, err := compileProtobuf(ctx, s)
		if err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			paths = file.Roots()
		}
		var all []*jsontype.Document
		for _, p := range paths {
			d, err := file.Message(p)
			if err != nil {
				return nil, err
			}
			all = append(all, d.Describe())
		}
		return all, nil
	default:
		return nil, fmt.Errorf("schemas of the type %s cannot be read", s.Type)
	}
}
