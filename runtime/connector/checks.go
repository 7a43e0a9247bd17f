package connector

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// CheckProtocol refuses connectors that speak another protocol.
func CheckProtocol(number uint32) error {
	if number == specs.Protocol {
		return nil
	}
	return usererr.New(nil, "the connector speaks protocol %d, and this is protocol %d: use a version of the connector that speaks it", number, specs.Protocol)
}

// CheckCount refuses an answer that does not have one binding for each that was asked about.
func CheckCount(got, want int) error {
	if got == want {
		return nil
	}
	return usererr.New(nil, "the connector answered about %d bindings when it was asked about %d", got, want)
}

// Unexpected is the error for a response that is none of those which may come now.
func Unexpected(expected string, response proto.Message) error {
	return usererr.New(nil, "the connector answered with %s where %s was expected", Which(response), expected)
}

// Which names the message that is set in a request or response.
func Which(m proto.Message) string {
	name := "an empty message"
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if fd.Message() == nil {
			return true
		}
		name = fmt.Sprint(fd.Message().Name())
		return false
	})
	return name
}
