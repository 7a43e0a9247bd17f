// Package airbyte lets a source of the Airbyte protocol be a capture: towards a runtime it speaks the capture protocol, and towards the
// source it has its commands spec, check, discover and read run, as processes or containers, and reads their messages.
//
//	            capture protocol            Airbyte protocol
//	runtime ◀────────────────────▶ Adapter ◀──────────────────── source
//	         Spec                           spec
//	         Discover                       discover
//	         Validate                       check
//	         Open, Captured, Checkpoint     read: RECORD, STATE
//
// A session is one sync: it ends when the source does, and the runtime's interval starts the next one. What the source tells between two
// states is one transaction: a state becomes the checkpoint behind the records before it. States are kept as texts, since a
// merge patch cannot hold their nulls, and would mix a new one with the old.
package airbyte
