package endpoint_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// lowWaterPair is a connection that is read in large pieces, and its other end.
func lowWaterPair(t *testing.T) (client *endpoint.LowWater, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	client, err = endpoint.NewLowWater(conn)
	require.NoError(t, err)
	server, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

// An answer comes whole, whatever was thought of its length.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for name, expected := range map[string]int{
		"right": answered, "longer": answered * 21 / 20, "much longer": 3 * answered, "shorter": answered / 2, "nothing": 0, "less than nothing": -1,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readAnswer(t, expected)
		})
	}
}

// An answer whose length is known comes in large pieces, unless the machine is so busy that its sender stands still.
func TestAnswersComeInLargePieces(t *testing.T) {
	t.Parallel()
	require.Eventually(t, func() bool { return readAnswer(t, answered) < answered/answerPiece/4 }, time.Minute, time.Millisecond)
}

const answered, answerPiece = 2 << 20, 8 << 10

// readAnswer reads an answer that is sent piece by piece, and says in how many reads.
func readAnswer(t *testing.T, expected int) (reads int) {
	t.Helper()
	client, server := lowWaterPair(t)
	answer := make([]byte, answered)
	_, _ = rand.NewChaCha8([32]byte{}).Read(answer) // never fails
	client.Expect(expected)
	sent := make(chan error, 1)
	go func() {
		for piece := range slices.Chunk(answer, answerPiece) {
			if _, err := server.Write(piece); err != nil {
				sent <- err
				return
			}
			time.Sleep(50 * time.Microsecond) //nolint:forbidigo // as it takes to make one; nothing is waited for
		}
		sent <- nil
	}()
	var got []byte
	buffer := make([]byte, 128<<10)
	for len(got) < len(answer) {
		n, err := client.Read(buffer)
		require.NoError(t, err)
		got, reads = append(got, buffer[:n]...), reads+1
	}
	require.NoError(t, <-sent)
	require.True(t, bytes.Equal(answer, got))
	client.Expect(0)
	_, err := server.Write([]byte{'x'})
	require.NoError(t, err)
	n, err := client.Read(buffer)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	return reads
}

// Who waits for much is still woken by a deadline, and by the end of the connection.
func TestAnswersThatDoNotCome(t *testing.T) {
	t.Parallel()
	client, server := lowWaterPair(t)
	client.Expect(1 << 20)
	buffer := make([]byte, 64<<10)
	require.NoError(t, client.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
	_, err := client.Read(buffer)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, client.SetReadDeadline(time.Time{}))
	woken := make(chan error, 1)
	go func() {
		_, err := client.Read(buffer)
		woken <- err
	}()
	require.NoError(t, client.SetReadDeadline(time.Date(1, 1, 1, 1, 0, 0, 0, time.UTC))) // as pgx cancels
	require.ErrorIs(t, <-woken, os.ErrDeadlineExceeded, "set while it waits")
	require.NoError(t, client.SetReadDeadline(time.Time{}))
	_, err = server.Write([]byte("a little"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "a little", string(got))
}

// cancelledConn is cancelled the moment before its second deadline is set: that is the one that the reader gets back when it has waited.
type cancelledConn struct {
	net.Conn
	cancel func()
	set    int
}

func (c *cancelledConn) SetReadDeadline(t time.Time) error {
	if c.set++; c.set == 2 {
		c.cancel()
	}
	return c.Conn.SetReadDeadline(t)
}

// A deadline that is set while another one is put back counts.
func TestDeadlineSetMeanwhile(t *testing.T) {
	t.Parallel()
	client, _ := lowWaterPair(t)
	client.Conn = &cancelledConn{Conn: client.Conn, cancel: func() { _ = client.SetDeadline(time.Unix(1, 0)) }}
	client.Expect(1 << 20)
	read := make(chan error, 1)
	go func() {
		_, err := client.Read(make([]byte, 64<<10))
		read <- err
	}()
	select {
	case err := <-read:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	case <-time.After(10 * time.Second):
		require.Fail(t, "the read was not cancelled")
	}
}

// What is sent in many small pieces comes whole, without any deadline; when it ends, a last piece does not wait for more, and neither do
// deadlines.
func TestManySmallPieces(t *testing.T) {
	t.Parallel()
	client, server := lowWaterPair(t)
	for range 5 {
		readPieces(t, client, server)
		for range 3 { // until it has noticed that no more comes
			require.NoError(t, client.SetReadDeadline(time.Now().Add(30*time.Millisecond)))
			_, err := client.Read(make([]byte, 128<<10))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		require.Zero(t, client.Patience(0), "it waits for every byte again")
	}
	require.NoError(t, client.SetReadDeadline(time.Time{}))
	_, err := server.Write([]byte("the end"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "the end", string(got))
}

const pieces, pieceSize = 20_000, 250

// readPieces sends so many pieces, one by one, and reads them.
func readPieces(t *testing.T, client *endpoint.LowWater, server net.Conn) {
	t.Helper()
	all := make([]byte, pieces*pieceSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(all) // never fails
	sent := make(chan error, 1)
	go func() {
		for piece := range slices.Chunk(all, pieceSize) {
			if _, err := server.Write(piece); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	require.NoError(t, client.SetReadDeadline(time.Time{}))
	var got []byte
	buffer := make([]byte, 128<<10)
	for len(got) < len(all) {
		n, err := client.Read(buffer)
		require.NoError(t, err)
		got = append(got, buffer[:n]...)
	}
	require.NoError(t, <-sent)
	require.True(t, bytes.Equal(all, got))
}
