package frame

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// few gives a stream in pieces of at most a kilobyte.
type few struct{ src io.Reader }

func (f few) Read(p []byte) (int, error) { return f.src.Read(p[:min(len(p), 1<<10)]) }

// The buffer that a large message needed is given back once messages are small again, and not before.
func TestReaderGivesMemoryBack(t *testing.T) {
	t.Parallel()
	stream := AppendBytes(nil, Proto, make([]byte, 3<<20))
	for range 1000 {
		stream = AppendBytes(stream, Proto, make([]byte, 500))
	}
	r := NewReader(few{bytes.NewReader(stream)}, Proto, 0)
	var sizes []int
	for {
		body, err := r.Next()
		if err != nil {
			require.Equal(t, io.EOF, err)
			break
		}
		require.Zero(t, bytes.Count(body, []byte{1}))
		sizes = append(sizes, len(r.buf))
	}
	require.Len(t, sizes, 1001)
	require.Equal(t, 4<<20, sizes[0])
	require.Equal(t, 4<<20, sizes[shrinkWait-1])
	require.Equal(t, readerSize, sizes[shrinkWait+10])
	require.Equal(t, readerSize, sizes[1000])
}
