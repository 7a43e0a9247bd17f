// Package capturepb holds the messages between a runtime and a capture.
//
// The generated types are the wire types, and there are no others. Written by hand are validation (Check, Validate,
// InlineCollections), and AppendCaptured and ParseCaptured, which move documents without allocating; they agree with
// the generated code byte by byte.
//
// capture.proto says what each message means, and docs/protocol.md in which order they come.
package capturepb
