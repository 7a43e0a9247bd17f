// Package tunnel reaches a server through an SSH server, in this process: no child, no local port that somebody else on the
// machine could use. A Tunnel is an endpoint.Dialer, so whatever takes one of those goes through it.
//
//	t := tunnel.New(cfg.Tunnel, endpoint.NetDialer{}, log)
//	defer t.Close()
//	conn, err := t.DialContext(ctx, "tcp", "db.internal:5432")   // the name is resolved at the far end
//
// The SSH server has to show the host key that the configuration names; without one nothing is sent through it, and the error
// says what it showed. All connections share one SSH connection, which is made for the first of them, watched, and made anew
// by the next dial after it was lost. A lost tunnel is an error of the connections through it (ErrLost), nothing more.
package tunnel
