// Package protobuf decodes Protobuf's binary encoding straight to JSON, by a plan made once for each message type.
package protobuf

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Text is the text of one .proto file under the path that others import it by.
type Text struct {
	Path, Proto string
}

// File is a compiled schema. It belongs to one goroutine.
type File struct {
	file  linker.File
	plans map[protoreflect.FullName]*message
	// extensions are known fields of messages that they are not declared in.
	extensions map[protoreflect.FullName][]protoreflect.FieldDescriptor
	types      map[protoreflect.FullName]protoreflect.MessageDescriptor
}

// rootPath is the path of the schema itself; no import has it.
const rootPath = "sluice/schema.proto"

// What Confluent's registry knows without a reference, besides Google's well-known types.
//
//nolint:gochecknoglobals // texts
var builtin = map[string]string{
	"confluent/meta.proto": `syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
		message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
		extend google.protobuf.FileOptions { Meta file_meta = 1088; }
		extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
		extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
		extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
		extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }`,
	"confluent/type/decimal.proto": `syntax = "proto3"; package confluent.type;
		message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }`,
}

// Compile reads a schema and the files that it imports. Google's well-known types need not be among them. Errors are phrases
// about the schema, for people.
func Compile(ctx context.Context, text string, imports []Text) (*File, error) {
	texts := map[string]string{rootPath: text}
	maps.Copy(texts, builtin)
	for _, i := range imports {
		texts[i.Path] = i.Proto
	}
	c := protocompile.Compiler{
		MaxParallelism: 1,
		SourceInfoMode: protocompile.SourceInfoStandard,
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: func(path string) (io.ReadCloser, error) {
				t, ok := texts[path]
				if !ok {
					return nil, fmt.Errorf("it imports %q, which it has no reference to", path)
				}
				return io.NopCloser(strings.NewReader(t)), nil
			},
		}),
	}
	files, err := c.Compile(ctx, rootPath)
	if err != nil {
		return nil, fmt.Errorf("it is no Protobuf: %w", err)
	}
	f := &File{
		file: files[0], plans: map[protoreflect.FullName]*message{},
		extensions: map[protoreflect.FullName][]protoreflect.FieldDescriptor{},
		types:      map[protoreflect.FullName]protoreflect.MessageDescriptor{},
	}
	f.collect(files[0], map[string]bool{})
	return f, nil
}

// collect notes every message and extension of a file and of those it imports.
func (f *File) collect(file protoreflect.FileDescriptor, seen map[string]bool) {
	if seen[file.Path()] {
		return
	}
	seen[file.Path()] = true
	f.collectExtensions(file.Extensions())
	f.collectMessages(file.Messages())
	for i := range file.Imports().Len() {
		f.collect(file.Imports().Get(i).FileDescriptor, seen)
	}
}

func (f *File) collectMessages(all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		m := all.Get(i)
		f.types[m.FullName()] = m
		f.collectExtensions(m.Extensions())
		f.collectMessages(m.Messages())
	}
}

func (f *File) collectExtensions(all protoreflect.ExtensionDescriptors) {
	for i := range all.Len() {
		e := all.Get(i)
		of := e.ContainingMessage().FullName()
		f.extensions[of] = append(f.extensions[of], e)
	}
}

// Message is the message type at a path of indexes: the file's messages, then those within.
func (f *File) Message(path []int) (*Decoder, error) {
	all := f.file.Messages()
	var m protoreflect.MessageDescriptor
	for _, i := range path {
		if i < 0 || i >= all.Len() {
			return nil, fmt.Errorf("it has no message at %v", path)
		}
		m = all.Get(i)
		all = m.Messages()
	}
	if m == nil {
		return nil, fmt.Errorf("it has no message at %v", path)
	}
	return &Decoder{file: f, root: f.plan(m)}, nil
}

// Name is the full name of the first message type, by which serializers name a schema; empty if there is none.
func (f *File) Name() string {
	if f.file.Messages().Len() == 0 {
		return ""
	}
	return string(f.file.Messages().Get(0).FullName())
}

// Roots are the paths of the outer message types that no other one of the file holds, or of all if each is held by another:
// those that records are likely to be written as.
func (f *File) Roots() [][]int {
	all := f.file.Messages()
	held := map[protoreflect.FullName]bool{}
	for i := range all.Len() {
		hold(all.Get(i), held)
	}
	var roots, every [][]int
	for i := range all.Len() {
		every = append(every, []int{i})
		if !held[all.Get(i).FullName()] {
			roots = append(roots, []int{i})
		}
	}
	if len(roots) == 0 {
		return every
	}
	return roots
}

// hold notes the types of m's fields, and of the messages declared within it, other than m itself.
func hold(m protoreflect.MessageDescriptor, held map[protoreflect.FullName]bool) {
	for i := range m.Fields().Len() {
		if t := m.Fields().Get(i).Message(); t != nil && t.FullName() != m.FullName() {
			held[t.FullName()] = true
		}
	}
	for i := range m.Messages().Len() {
		hold(m.Messages().Get(i), held)
	}
}
