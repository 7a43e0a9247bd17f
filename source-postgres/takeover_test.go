package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// slowDialer makes connections whose writes return long after the server has the bytes, as on a machine that has much else to
// do. That is when pgconn reads in the background, ahead of what it was asked for.
type slowDialer struct{ endpoint.Dialer }

func (s slowDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.Dialer.DialContext(ctx, network, address)
	return slowConn{conn}, err
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	time.Sleep(50 * time.Millisecond) //nolint:forbidigo // it is what is simulated
	return n, err
}

// The log that the server sends at once, together with its answer, is not lost with what was read ahead when the connection is
// taken over.
func TestTakingOverLosesNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	for i := range 5 {
		db.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
	}
	d.dialer.net = slowDialer{d.dialer.net}
	for range 3 {
		s := db.resume(d, s.Start(), tables...)
		require.Len(t, s.fence(), 5)
		s.close()
	}
}

// A login over TLS is bound to the server's certificate, also on a connection that is going to be taken over.
func TestLoginIsBoundToTheChannel(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(nil) // for its certificate
	defer secure.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	chosen := make(chan string, 1)
	go func() {
		defer close(chosen)
		plain, err := listener.Accept()
		if err != nil {
			return
		}
		defer plain.Close()
		if _, err = pgproto3.NewBackend(plain, plain).ReceiveStartupMessage(); err != nil { // the wish for TLS
			return
		}
		if _, err = plain.Write([]byte("S")); err != nil {
			return
		}
		conn := tls.Server(plain, &tls.Config{Certificates: secure.TLS.Certificates})
		backend := pgproto3.NewBackend(conn, conn)
		if _, err = backend.ReceiveStartupMessage(); err != nil {
			return
		}
		backend.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"}})
		if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeSASL) != nil {
			return
		}
		if answer, err := backend.Receive(); err == nil {
			if first, ok := answer.(*pgproto3.SASLInitialResponse); ok {
				chosen <- first.AuthMechanism
			}
		}
	}()
	cc, err := pgconn.ParseConfig(fmt.Sprintf("postgres://user:secret@%s/db?sslmode=require", listener.Addr()))
	require.NoError(t, err)
	keepReader(cc)
	_, err = pgconn.ConnectConfig(t.Context(), cc)
	require.Error(t, err, "the server goes before it has let anybody in")
	require.Equal(t, "SCRAM-SHA-256-PLUS", <-chosen)
}

// What pgconn has read in the background, together with the answer by which the log begins, comes first from the connection that is
// taken over, and what follows comes after it.
func TestTakenConnectionBeginsWithWhatWasReadAhead(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	more := make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		backend := pgproto3.NewBackend(conn, conn)
		if _, err = backend.ReceiveStartupMessage(); err != nil {
			return
		}
		backend.Send(&pgproto3.AuthenticationOk{})
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		for backend.Flush() == nil {
			m, err := backend.Receive()
			query, ok := m.(*pgproto3.Query)
			switch {
			case err != nil || !ok:
				return
			case query.String == "log":
				backend.Send(&pgproto3.CopyBothResponse{})
				backend.Send(&pgproto3.CopyData{Data: []byte("first")})
				if backend.Flush() != nil {
					return
				}
				<-more
				backend.Send(&pgproto3.CopyData{Data: []byte("second")})
			default:
				backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
				backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			}
		}
	}()
	cc, err := pgconn.ParseConfig(fmt.Sprintf("postgres://user@%s/db?sslmode=disable", listener.Addr()))
	require.NoError(t, err)
	cc.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return slowConn{conn}, err
	}
	reader := keepReader(cc)
	conn, err := pgconn.ConnectConfig(t.Context(), cc)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "leave a read behind").ReadAll()
	require.NoError(t, err)
	conn.Frontend().SendQuery(&pgproto3.Query{String: "log"})
	require.NoError(t, conn.Frontend().Flush())
	require.NoError(t, untilCopying(t.Context(), conn))
	hijacked, err := conn.Hijack()
	require.NoError(t, err)
	taken := takenConn{hijacked.Conn, *reader}
	defer taken.Close()
	w := newWire(taken, 1<<20, nil)
	for i, want := range []string{"first", "second"} {
		if i == 1 {
			require.NoError(t, taken.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
			_, err := w.read()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "there is nothing yet")
			require.NoError(t, taken.SetReadDeadline(time.Time{}))
			close(more)
		}
		_, body, ok := w.next()
		for deadline := time.Now().Add(time.Minute); !ok && time.Now().Before(deadline); _, body, ok = w.next() {
			_, err := w.read()
			require.NoError(t, err)
		}
		require.Equal(t, want, string(body))
	}
}

// unhurried is a connection that nobody waits for.
type unhurried struct{ net.Conn }

func (unhurried) SetReadDeadline(time.Time) error { return nil }

// What the server says before it ends the connection is heard, also if the end is told with it, as by TLS.
func TestLastWords(t *testing.T) {
	t.Parallel()
	const words = "E\x00\x00\x00\x05\x00"
	conn := takenConn{r: iotest.DataErrReader(strings.NewReader(words)), Conn: unhurried{}}
	s := &stream{conn: conn, wire: newWire(conn, 1<<20, nil), guard: &guard{}, feedback: &feedback{}}
	_, err := s.fill(t.Context(), time.Now().Add(time.Minute))
	require.NoError(t, err)
	kind, _, ok := s.wire.next()
	require.True(t, ok)
	require.Equal(t, byte('E'), kind)
	_, err = s.fill(t.Context(), time.Now().Add(time.Minute))
	require.EqualError(t, err, "reading the replication stream: the server closed the connection: unexpected EOF")
}
