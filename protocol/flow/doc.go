// Package flowpb holds the messages which captures and materializations have in common: collections, the specifications of
// tasks, connector state, and those messages of Gazette that appear in them.
//
// Written by hand are validation (Validate checks what receivers rely on, ValidateStrict what foreign connectors insist on),
// InlineCollections, the key range, and the rules by which a connector's state changes (ReduceState, MergePatch, ReducePatches).
package flowpb
