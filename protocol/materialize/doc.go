// Package materializepb holds the messages between a runtime and a materialization.
//
// The generated types are the wire types, and there are no others. Written by hand are validation (Check, Validate,
// InlineCollections, FieldConstraints), and the functions that append and parse Load, Loaded and Store without allocating;
// they agree with the generated code byte by byte.
//
// materialize.proto says what each message means, and docs/protocol.md in which order they come.
package materializepb
