package frame_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
)

// sink notes every write, and fails from a given one on.
type sink struct {
	bytes.Buffer
	writes, failAt int
}

var errFull = errors.New("no space left")

func (s *sink) Write(p []byte) (int, error) {
	s.writes++
	if s.failAt > 0 && s.writes >= s.failAt {
		return 0, errFull
	}
	return s.Buffer.Write(p)
}

func TestWriterBuffersUntilFlush(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		var out sink
		w := frame.NewWriter(&out, codec)
		for range 3 {
			require.NoError(t, w.Write(&capturepb.Request{Spec: &capturepb.Request_Spec{}}))
		}
		require.Zero(t, out.writes)
		require.NoError(t, w.Flush())
		require.NoError(t, w.Flush())
		require.Equal(t, 1, out.writes)
		got, err := readAll(frame.NewReader(&out, codec, 0))
		require.Equal(t, io.EOF, err)
		require.Len(t, got, 3)
	}
}

func TestWriterWritesThroughAt64KiB(t *testing.T) {
	t.Parallel()
	var out sink
	w := frame.NewWriter(&out, frame.Proto)
	for range 64 {
		require.NoError(t, w.Append(func(dst []byte, c frame.Codec) ([]byte, error) {
			return frame.AppendBytes(dst, c, make([]byte, 1020)), nil
		}))
	}
	require.Equal(t, 1, out.writes)
	require.Equal(t, 64<<10, out.Len())
	require.NoError(t, w.Append(func(dst []byte, c frame.Codec) ([]byte, error) {
		require.Empty(t, dst)
		return frame.AppendBytes(dst, c, make([]byte, 5<<20)), nil
	}))
	require.Equal(t, 2, out.writes)
	require.NoError(t, w.Append(func(dst []byte, _ frame.Codec) ([]byte, error) {
		require.Less(t, cap(dst), 1<<20, "the buffer of a large message is given back")
		return dst, nil
	}))
}

// What could not be encoded leaves no trace in the stream.
func TestWriterDropsWhatFailed(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		var out sink
		w := frame.NewWriter(&out, codec)
		require.NoError(t, w.Write(&capturepb.Request{Spec: &capturepb.Request_Spec{}}))
		require.Error(t, w.Write(&flowpb.Label{Value: "longer than nothing", Name: "\xff"}))
		require.ErrorIs(t, w.Append(func(dst []byte, _ frame.Codec) ([]byte, error) { return append(dst, "half"...), errFull }), errFull)
		require.NoError(t, w.Write(&capturepb.Request{Spec: &capturepb.Request_Spec{}}))
		require.NoError(t, w.Flush())
		got, err := readAll(frame.NewReader(&out, codec, 0))
		require.Equal(t, io.EOF, err)
		require.Len(t, got, 2)
	}
}

func TestWriteErrorsStay(t *testing.T) {
	t.Parallel()
	out := sink{failAt: 1}
	w := frame.NewWriter(&out, frame.JSON)
	require.NoError(t, w.Write(&capturepb.Request{}))
	for _, err := range []error{
		w.Flush(), w.Flush(), w.Write(&capturepb.Request{}),
		w.Append(func([]byte, frame.Codec) ([]byte, error) { panic("must not be called") }),
	} {
		require.EqualError(t, err, "writing messages: no space left")
		require.ErrorIs(t, err, errFull)
	}
	require.Equal(t, 1, out.writes)
}
