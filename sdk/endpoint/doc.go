// Package endpoint is what a connector needs to reach a server, whatever the server speaks: addresses as people write them,
// TLS that never gives itself up, and connections whose other end cannot vanish unnoticed.
//
//	addr, err := endpoint.ParseAddress("db.example.com", 5432)
//	tls, err := endpoint.TLS{Mode: endpoint.VerifyFull, RootCert: pem}.Config(addr.Host)
//	conn, err := endpoint.NetDialer{}.DialContext(ctx, "tcp", addr.String())
package endpoint
