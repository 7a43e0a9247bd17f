package frame_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
)

func codecs() []frame.Codec { return []frame.Codec{frame.Proto, frame.JSON} }

// readAll reads the bodies of all messages, as copies.
func readAll(r *frame.Reader) (bodies [][]byte, err error) {
	for {
		body, err := r.Next()
		if err != nil {
			return bodies, err
		}
		bodies = append(bodies, bytes.Clone(body))
	}
}

// twoParts gives a stream in two pieces.
func twoParts(stream []byte, cut int) io.Reader {
	return io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:]))
}

func TestFramesSplitAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		want := [][]byte{[]byte(`{"a":1}`), []byte(`{}`), bytes.Repeat([]byte(`{"b" }`), 50), []byte(`{"é":[]}`)}
		var stream []byte
		for _, body := range want {
			stream = frame.AppendBytes(stream, codec, body)
		}
		sources := []io.Reader{iotest.OneByteReader(bytes.NewReader(stream)), iotest.DataErrReader(bytes.NewReader(stream))}
		for cut := range stream {
			sources = append(sources, twoParts(stream, cut))
		}
		for _, src := range sources {
			got, err := readAll(frame.NewReader(src, codec, 0))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, want, got)
		}
	}
}

// A stream cut anywhere but between two messages is an error that says so.
func TestStreamsCutAtEveryByte(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		stream := frame.AppendBytes(nil, codec, []byte(`{"a":1}`))
		first := len(stream)
		stream = frame.AppendBytes(stream, codec, []byte(`{"b":2}`))
		for cut := range len(stream) + 1 {
			got, err := readAll(frame.NewReader(bytes.NewReader(stream[:cut]), codec, 0))
			require.Len(t, got, cut/first)
			if cut%first == 0 {
				require.Equal(t, io.EOF, err)
				continue
			}
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			require.NotErrorIs(t, err, io.EOF)
		}
	}
}

func TestHostileStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, in, want string
		codec          frame.Codec
	}{
		{"length cut", "\x05\x00", "message 1 at byte 0 ends inside its length: 2 of 4 bytes, 05 00: unexpected EOF", frame.Proto},
		{"body cut", "\x00\x00\x00\x00\x05\x00\x00\x00\x0a\x03", "message 2 at byte 4 ends after 2 of 5 bytes; it begins 05 00 00 00 0a 03: unexpected EOF", frame.Proto},
		{"2 GiB", "\x00\x00\x00\x80\x0a", "message 1 at byte 0 claims 2147483648 bytes, the limit is 1073741824; it begins 00 00 00 80 0a", frame.Proto},
		{"4 GiB", "\xff\xff\xff\xff", "message 1 at byte 0 claims 4294967295 bytes, the limit is 1073741824; it begins ff ff ff ff", frame.Proto},
		{
			"a print", "\x00\x00\x00\x00Starting up…",
			`message 2 at byte 4 is text and not a frame: it begins "Starting up…"; only messages of the protocol belong here, and what a connector prints belongs on stderr`, frame.Proto,
		},
		{
			"a traceback", "Traceback (most recent call last):\n  File \"main.py\", line 1, in <module>\n    import nothing\n",
			`message 1 at byte 0 is text and not a frame: it begins "Traceback (most recent call last):\n  File \"main.py\", line 1, in "…; only messages of the protocol belong here, and what a connector prints belongs on stderr`, frame.Proto,
		},
		{
			"the other codec", `{"spec":{"config":{"password":"x"}}}` + "\n",
			`message 1 at byte 0 is text and not a frame: it begins "{\"spec\":"…; this looks like the codec json where proto is expected: SLUICE_CODEC or FLOW_RUNTIME_CODEC chooses, in the connector's environment`, frame.Proto,
		},
		{
			"the other codec", "\x02\x00\x00\x00\x0a\x00",
			`message 1 at byte 0 is not a JSON object: it begins 02 00 00 00 0a 00; only messages of the protocol belong here, and what a connector prints belongs on stderr`, frame.JSON,
		},
		{
			"a print", "{}\n\nHello 5\n{}\n",
			`message 2 at byte 4 is not a JSON object: it begins "Hello 5\n{}\n"; only messages of the protocol belong here, and what a connector prints belongs on stderr`, frame.JSON,
		},
		{"no line break", "{}\n \n{\"password\":\"x\"", `message 2 at byte 5 ends after 15 bytes without a line break; it begins "{\"passwo"…: unexpected EOF`, frame.JSON},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := frame.NewReader(strings.NewReader(c.in), c.codec, 0)
			_, err := readAll(r)
			require.EqualError(t, err, c.want)
			require.True(t, r.Buffered())
			_, again := r.Next()
			require.Equal(t, err, again)
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		stream := frame.AppendBytes(nil, codec, []byte(`{"a":1}`))
		got, err := readAll(frame.NewReader(bytes.NewReader(stream), codec, 7))
		require.Equal(t, io.EOF, err)
		require.Len(t, got, 1)
		_, err = readAll(frame.NewReader(bytes.NewReader(stream), codec, 6))
		require.ErrorContains(t, err, "the limit ")
	}
	// Without a line break the limit holds as well, and long before the end of the stream.
	_, err := frame.NewReader(io.MultiReader(strings.NewReader(`{"a":"`), endless{}), frame.JSON, 1<<20).Next()
	require.EqualError(t, err, `message 1 at byte 0 is longer than the limit of 1048576 bytes; it begins "{\"a\":\"xx"…`)
}

// endless is a stream of x.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// Text is recognised as soon as it arrives: whoever wrote it may wait for an answer now.
func TestTextIsAnErrorBeforeTheStreamEnds(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		in, out := io.Pipe()
		go func() { _, _ = out.Write([]byte("oops\n")) }() // ends with the read below
		_, err := frame.NewReader(in, codec, 0).Next()
		require.ErrorContains(t, err, `"oops\n"`)
	}
}

// allocated is how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A claim costs nothing: memory follows what has arrived. Not parallel: it measures the process.
func TestMemoryFollowsArrival(t *testing.T) {
	claim := append([]byte{0, 0, 0, 0x3f}, make([]byte, 100<<10)...) // 1008 MiB claimed, 100 KiB sent
	used := allocated(func() {
		_, err := frame.NewReader(bytes.NewReader(claim), frame.Proto, 0).Next()
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	})
	require.Less(t, used, uint64(1<<20))
}

func TestLargeMessagesAndBack(t *testing.T) {
	t.Parallel()
	size := 66 << 20 // beyond the 64 MiB that some peers allow
	if testing.Short() {
		size = 3 << 20
	}
	large := bytes.Repeat([]byte(`{"0123456789abcd" `), size/18)
	for _, codec := range codecs() {
		stream := frame.AppendBytes(nil, codec, large)
		for range 1000 {
			stream = frame.AppendBytes(stream, codec, []byte(`{"small":1}`))
		}
		stream = frame.AppendBytes(stream, codec, large[:200<<10])
		r := frame.NewReader(bytes.NewReader(stream), codec, 0)
		body, err := r.Next()
		require.NoError(t, err)
		require.True(t, bytes.Equal(large, body))
		for range 1000 {
			body, err = r.Next()
			require.NoError(t, err)
			require.Equal(t, `{"small":1}`, string(body))
		}
		body, err = r.Next()
		require.NoError(t, err)
		require.True(t, bytes.Equal(large[:200<<10], body))
		_, err = r.Next()
		require.Equal(t, io.EOF, err)
	}
}

// Messages of all sizes around the buffer's, in pieces of all sizes.
func TestRandomSizes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		for _, codec := range codecs() {
			var want [][]byte
			var stream []byte
			for range 60 {
				body := bytes.Repeat([]byte{'{'}, 1+rnd.IntN(1<<rnd.IntN(19)))
				want = append(want, body)
				stream = frame.AppendBytes(stream, codec, body)
			}
			got, err := readAll(frame.NewReader(&pieces{rest: stream, rnd: rnd}, codec, 0))
			require.Equal(t, io.EOF, err)
			require.Len(t, got, len(want))
			for i := range want {
				require.True(t, bytes.Equal(want[i], got[i]), "seed %d, message %d", seed, i)
			}
		}
	}
}

// pieces gives a stream in pieces of random sizes, some of them empty.
type pieces struct {
	rest []byte
	rnd  *rand.Rand
}

func (p *pieces) Read(dst []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(dst[:min(len(dst), p.rnd.IntN(1<<p.rnd.IntN(18)))], p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

func TestBuffered(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		stream := frame.AppendBytes(nil, codec, []byte(`{"a":1}`))
		stream = frame.AppendBytes(stream, codec, []byte(`{"b":1}`))
		src := io.MultiReader(bytes.NewReader(append(bytes.Clone(stream), stream[:5]...)), bytes.NewReader(stream[5:]))
		r := frame.NewReader(src, codec, 0)
		var got []bool
		for range 5 {
			got = append(got, r.Buffered())
			_, err := r.Next()
			if err != nil {
				break
			}
		}
		require.Equal(t, []bool{false, true, false, true, false}, got, codec)
		require.True(t, r.Buffered())
	}
}

// TestMore: what is taken from the source ahead of time is there for Next, and errors are.
func TestMore(t *testing.T) {
	t.Parallel()
	for _, codec := range codecs() {
		stream := frame.AppendBytes(nil, codec, []byte(`{"a":1}`))
		r := frame.NewReader(iotest.OneByteReader(bytes.NewReader(stream)), codec, 0)
		for range len(stream) - 1 {
			r.More()
			require.False(t, r.Buffered())
		}
		r.More()
		require.True(t, r.Buffered())
		body, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, `{"a":1}`, string(body))
		r.More()
		require.True(t, r.Buffered())
		_, err = r.Next()
		require.Equal(t, io.EOF, err)
	}
}

func TestReadErrors(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken pipe")
	_, err := frame.NewReader(iotest.ErrReader(broken), frame.Proto, 0).Next()
	require.EqualError(t, err, "reading message 1: broken pipe")
	require.ErrorIs(t, err, broken)
	_, err = frame.NewReader(idle{}, frame.JSON, 0).Next()
	require.ErrorIs(t, err, io.ErrNoProgress)
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestReadDecodes(t *testing.T) {
	t.Parallel()
	stream := "{\"spec\":{}}\n{\"spec\":7}\n{\"acknowledge\":{\"checkpoints\":2}}\n"
	r := frame.NewReader(strings.NewReader(stream), frame.JSON, 0)
	var m capturepb.Request
	require.NoError(t, r.Read(&m))
	require.EqualError(t, r.Read(&m), "message 2: decoding Request of 10 bytes: spec: invalid JSON at byte 8: expected '{' at the start of an object, found '7'")
	require.NoError(t, r.Read(&m))
	require.True(t, proto.Equal(&capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: 2}}, &m))
	require.Equal(t, io.EOF, r.Read(&m))
}

func TestNextDoesNotAllocate(t *testing.T) {
	for _, codec := range codecs() {
		one := frame.AppendBytes(nil, codec, []byte(`{"captured":{"doc":{"id":1}}}`))
		r := frame.NewReader(&repeated{what: one}, codec, 0)
		require.Zero(t, testing.AllocsPerRun(10000, func() {
			if _, err := r.Next(); err != nil {
				panic(err)
			}
		}))
	}
}

// repeated is a stream of the same bytes without end.
type repeated struct {
	what []byte
	at   int
}

func (s *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		c := copy(p[n:], s.what[s.at:])
		n += c
		s.at = (s.at + c) % len(s.what)
	}
	return n, nil
}

func BenchmarkNext(b *testing.B) {
	for _, codec := range codecs() {
		b.Run(codec.String(), func(b *testing.B) {
			one := frame.AppendBytes(nil, codec, []byte(`{"captured":{"doc":{"id":1,"name":"`+strings.Repeat("x", 200)+`"}}}`))
			r := frame.NewReader(&repeated{what: one}, codec, 0)
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
