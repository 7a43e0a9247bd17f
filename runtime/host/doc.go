// Package host runs connectors: it starts a program or an image, asks it what it can do, and captures or materializes
// with it. It is what sluice itself drives every connector with, and is meant to be imported by others who want to.
//
// A [Capture] and a [Materialization] answer single requests, each in a process of its own, as the protocol has it:
//
//	c := &host.Capture{Connector: host.Connector{Task: "acme/shop", Endpoint: host.Endpoint{Command: []string{"source-postgres"}, Config: config}}}
//	spec, err := c.Spec(ctx)          // what its configuration looks like
//	found, err := c.Discover(ctx)     // what could be captured
//	task, err := c.Specify(ctx, request)  // Validate, and the specification that comes of it
//	state, err := c.Apply(ctx, &capturepb.Request_Apply{Capture: task}, keep)
//	session, err := c.Open(ctx, &capturepb.Request_Open{Capture: task, StateJson: state})
//
// Then a capture's session is read, response by response; what came before a checkpoint is made durable together with
// [CaptureSession.State], and acknowledged after that:
//
//	for {
//		r, err := session.Next()
//		switch {
//		case errors.Is(err, io.EOF):
//			return session.Wait(ctx)
//		case err != nil:
//			return errors.Join(err, session.Close())
//		case r.Captured != nil:
//			keep(r.Captured.Binding, r.Captured.DocJson) // valid until the next call of Next
//		case r.Checkpoint != nil:
//			commit(session.State())
//			session.Acknowledge(1)
//		}
//	}
//
// A materialization's session goes from transaction to transaction:
//
//	Acknowledge  Load…  Await(Acknowledged)  Flush  Store…  Commit  |  Acknowledge …
//
// Images need a docker client on the PATH, and say by their label which codec they speak; of a program it is said in its
// Endpoint, and is Protobuf if it is not. What a connector writes to its standard error goes to [Connector.Log], and line by
// line to [Connector.OnLog].
//
// Errors are written for people: usererr.Message gives what to show them. A connector that ended with a code other
// than 0 is an [ExitError], which has its last words. Secrets of a configuration are in no error and in no log line of ours.
package host
