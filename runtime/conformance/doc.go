// Package conformance checks a connector from outside: any program or image that speaks the protocol, ours or not. It is what `sluice test`
// runs, and vendors may run it from their own tests:
//
//	report, err := conformance.Run(ctx, conformance.Options{Connector: host.Connector{Task: "acme/test", Endpoint: endpoint}})
//
// A connector is held to the rules of [Rules]. Each is checked by one function, in the order of the table; what a rule needs of an
// earlier one that failed makes it skipped. A capture is read several times, from different states, so what it
// captures should stand still; a materialization stores rows into tables of their own, which stay.
package conformance
