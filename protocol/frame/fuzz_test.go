package frame_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/sluicedata/sluice/protocol/frame"
)

// FuzzReader reads any bytes as a stream: it ends, however the bytes arrive it gives the same messages, and
// these messages framed again give the same stream, but for white space.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x0a\x00\x00\x00\x00\x00"), uint16(0))
	f.Add([]byte("\x05\x00\x00\x00abc"), uint16(3))
	f.Add([]byte("{\"spec\":{}}\n\r\n {}\n{"), uint16(100))
	f.Add([]byte("\xff\xff\xff\xffxyz"), uint16(9))
	f.Fuzz(func(t *testing.T, stream []byte, limit uint16) {
		for _, codec := range codecs() {
			whole, err := readAll(frame.NewReader(bytes.NewReader(stream), codec, int(limit)))
			require.Error(t, err)
			slow, slowErr := readAll(frame.NewReader(iotest.OneByteReader(bytes.NewReader(stream)), codec, int(limit)))
			require.Equal(t, len(whole), len(slow))
			require.Equal(t, whole, slow)
			require.Equal(t, errors.Is(err, io.EOF), errors.Is(slowErr, io.EOF))
			if codec != frame.Proto {
				continue
			}
			var again []byte
			for _, body := range whole {
				again = frame.AppendBytes(again, codec, body)
			}
			require.True(t, bytes.HasPrefix(stream, again))
			require.Equal(t, errors.Is(err, io.EOF), len(again) == len(stream))
		}
	})
}

// FuzzUnmarshal decodes any bytes: what is accepted goes through both codecs unchanged, but for proto's raw fields, which
// need not hold JSON.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte("\x0a\x00"))
	f.Add([]byte(`{"spec":{"config":{"a":[1,null]},"connectorType":"IMAGE"},"open":null}`))
	f.Add([]byte(`{"validate":{"bindings":[{"collection":{"projections":[{"inference":{"enum":[1,null],"numeric":{"minimum":"NaN"}}}]}}]}}`))
	f.Add([]byte(`{"flush":{"backfillBegins":[{"timestamp":"2026-02-01T00:00:00.5Z"}]},"startCommit":{"runtimeCheckpoint":{"sources":{"a":{"readThrough":"5"}}}}}`))
	f.Add([]byte(`{"open":{"capture":{"shardTemplate":{"maxTxnDuration":"1.5s"},"redactSalt":"AA=="},"range":{"keyEnd":"4294967295"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, m := range messages() {
			for _, codec := range codecs() {
				if codec.Unmarshal(body, m) != nil {
					continue
				}
				for _, other := range codecs() {
					encoded, err := other.AppendBody(nil, m)
					if err != nil && codec == frame.Proto {
						continue
					}
					require.NoError(t, err)
					back := m.ProtoReflect().New().Interface()
					require.NoError(t, other.Unmarshal(encoded, back), "%q", encoded)
					if codec == frame.JSON {
						require.True(t, proto.Equal(m, back), "%q\n%q", body, encoded)
					}
				}
			}
		}
	})
}
