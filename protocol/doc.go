// Package protocol is the root of the wire contract between connectors and the runtimes that drive them.
//
// Package [github.com/sluicedata/sluice/protocol/frame] takes streams apart into messages and puts messages into streams;
// the packages flow, capture and materialize hold the messages. This package itself holds only the tests which compare all
// of them with the facts of the protocol, in testdata.
package protocol
