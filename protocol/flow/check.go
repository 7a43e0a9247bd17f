package flowpb

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

// ProtocolVersion is the number which Response.Spec of a connector has to carry. It has stayed the same through all
// changes of the protocol so far.
const ProtocolVersion = 3032023

// ErrMissing is what a required field that is not there gets, below its path.
var ErrMissing = errors.New("missing")

// CheckJSON checks that a field which must be there holds one JSON value. It is for the Validate methods of the packages beside this one.
func CheckJSON(name string, text []byte) error {
	if len(text) == 0 {
		return fieldpath.In(name, ErrMissing)
	}
	return fieldpath.In(name, rawjson.Check(text))
}

// CheckOptionalJSON is CheckJSON for a field which may be empty.
func CheckOptionalJSON(name string, text []byte) error {
	if len(text) == 0 {
		return nil
	}
	return CheckJSON(name, text)
}

// CheckOne checks that exactly one of the messages that a request or response can carry is set, and returns its JSON name.
func CheckOne(m proto.Message) (string, error) {
	var names []string
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); fd.Kind() == protoreflect.MessageKind && r.Has(fd) {
			names = append(names, fd.JSONName())
		}
	}
	kind := strings.ToLower(string(r.Descriptor().Name()))
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fmt.Errorf("the %s is empty, or of a kind that this version does not know", kind)
	}
	return "", fmt.Errorf("the %s carries several messages at once: %s", kind, strings.Join(names, ", "))
}

// CheckPath checks a resource path: it has parts, and none of them is empty.
func CheckPath(path []string) error {
	if len(path) == 0 {
		return fieldpath.In("resourcePath", ErrMissing)
	}
	for i, part := range path {
		if part == "" {
			return fieldpath.InAt("resourcePath", i, errors.New("empty"))
		}
	}
	return nil
}

// CheckPointer checks that a text is a JSON pointer to something below the root.
func CheckPointer(pointer string) error {
	if !strings.HasPrefix(pointer, "/") {
		return fmt.Errorf("%q is not a JSON pointer: it has to begin with a slash", pointer)
	}
	return nil
}

// Unique finds what is there twice.
type Unique map[string]int

// Add notes that element i of the list name holds key.
func (u Unique) Add(name string, i int, key string) error {
	if before, ok := u[key]; ok {
		return fieldpath.InAt(name, i, fmt.Errorf("%q is there already in %s[%d]", key, name, before))
	}
	u[key] = i
	return nil
}
