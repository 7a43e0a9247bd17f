package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/capturetest"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func eachCodec(t *testing.T, f func(t *testing.T, codec frame.Codec)) {
	t.Helper()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) { t.Parallel(); f(t, codec) })
	}
}

func TestCountingConformance(t *testing.T) {
	capturetest.Run(t, capturetest.Case{
		Connector: func() capture.Connector { return capture.New(&counting{}) },
		Config:    countingConfig{Count: 12, Batch: 3, Mode: "end", Streams: "a b"},
		Documents: 1000,
	})
}

func TestSessionEndsWithItsSource(t *testing.T) {
	t.Parallel()
	eachCodec(t, func(t *testing.T, codec frame.Codec) {
		s := &counting{}
		process := session.Start(t, capture.New(s), codec)
		process.Open(process.Task(countingConfig{Count: 2, Batch: 2, Mode: "end", Streams: "a b"}), nil)
		tx, err := process.Transaction()
		require.NoError(t, err)
		require.Len(t, tx.Documents, 2)
		require.JSONEq(t, `{"n":1,"stream":"a"}`, string(tx.Documents[1].Doc))
		require.JSONEq(t, `{"bindingStateV1":{"main%2Fa":{"next":2}},"shared":{"total":2}}`, string(tx.Patch))
		process.Ack(1)
		tx, err = process.Transaction()
		require.NoError(t, err)
		require.Equal(t, 1, tx.Documents[0].Binding)
		require.JSONEq(t, `{"bindingStateV1":{"main%2Fb":{"next":2}},"shared":{"total":4}}`, string(tx.Patch))
		_, err = process.Transaction()
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, process.Wait())
		require.Equal(t, []int{2}, s.acks())
		require.Equal(t, 1, s.closed)
		require.Equal(t, "acme/capture", s.env.Task)
		require.Equal(t, "v1", s.env.Version)
		require.False(t, s.env.Ephemeral)
	})
}

// TestAcknowledgementsAreInOrder acknowledges in groups of all sizes.
func TestAcknowledgementsAreInOrder(t *testing.T) {
	t.Parallel()
	s := &counting{}
	process := session.Start(t, capture.New(s), frame.Proto)
	process.Open(process.Task(countingConfig{Count: 50, Batch: 1, Mode: "wait", Streams: "a"}), nil)
	for group := 1; group < 9; group++ {
		for range group {
			_, err := process.Transaction()
			require.NoError(t, err)
		}
		process.Ack(group)
	}
	var want []int
	for i := 1; i <= 36; i++ {
		want = append(want, i)
	}
	require.Eventually(t, func() bool { return len(s.acks()) == len(want) }, 10*time.Second, time.Millisecond)
	require.Equal(t, want, s.acks())
	require.NoError(t, process.Stop())
}

func TestAcknowledgementThatFails(t *testing.T) {
	t.Parallel()
	process := start(t, func(ctx context.Context, tx *capture.Tx, b *binding) error {
		tx.OnAck(func(context.Context) error { return errors.New("the log is gone") })
		return errors.Join(tx.Emit(b, map[string]int{"n": 1}), capture.Sleep(ctx, time.Millisecond))
	})
	_, err := process.Transaction()
	require.NoError(t, err)
	process.Ack(1)
	drain(process)
	require.EqualError(t, process.Wait(), "acting on an acknowledgement: the log is gone")
}

// TestRequestsThatEnd: closing the requests is a wish to stop only for runtimes that acknowledge.
func TestRequestsThatEnd(t *testing.T) {
	t.Parallel()
	t.Run("after Open", func(t *testing.T) {
		t.Parallel()
		process := start(t, ticking)
		process.CloseRequests()
		for range 20 {
			_, err := process.Transaction()
			require.NoError(t, err)
		}
		require.NoError(t, process.Stop())
	})
	t.Run("after an acknowledgement", func(t *testing.T) {
		t.Parallel()
		process := start(t, ticking)
		_, err := process.Transaction()
		require.NoError(t, err)
		process.Ack(1)
		process.CloseRequests()
		for err == nil {
			_, err = process.Transaction()
		}
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, process.Wait())
	})
	t.Run("in the middle of a message", func(t *testing.T) {
		t.Parallel()
		process := start(t, ticking)
		process.SendBytes([]byte{9, 0, 0, 0, 1})
		process.CloseRequests()
		drain(process)
		require.ErrorContains(t, process.Wait(), "reading an acknowledgement: message ")
	})
}

// binding and start make a session of a function.
type binding = capture.Binding[countingResource, countingState]

type funcSource struct {
	*counting
	read func(ctx context.Context, tx *capture.Tx, b *binding) error
}

func (s funcSource) Open(
	_ context.Context, _ capture.Env, _ countingConfig, bs []*binding,
) (capture.Reader, error) {
	return capture.ReaderFunc(func(ctx context.Context, tx *capture.Tx) error { return s.read(ctx, tx, bs[0]) }), nil
}

func start(t *testing.T, read func(ctx context.Context, tx *capture.Tx, b *binding) error) *session.Session {
	t.Helper()
	process := session.Start(t, capture.New(funcSource{&counting{}, read}), frame.Proto)
	process.Open(process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a b"}), nil)
	return process
}

func ticking(ctx context.Context, tx *capture.Tx, b *binding) error {
	b.State.Next++
	return errors.Join(capture.Sleep(ctx, 100*time.Microsecond), tx.Emit(b, b.State))
}

func drain(process *session.Session) {
	var err error
	for err == nil {
		_, err = process.Next()
	}
}

// TestHugeTransaction writes a transaction of fifty megabytes, of which no more than a few are ever held.
func TestHugeTransaction(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 1000)
	const docs = 50_000
	process := start(t, func(_ context.Context, tx *capture.Tx, b *binding) error {
		for i := range docs {
			err := tx.Append(b, func(dst []byte) ([]byte, error) { return fmt.Appendf(dst, `{"n":%d,"text":%q}`, i, text), nil })
			if err != nil {
				return err
			}
		}
		b.State.Next = tx.Documents()
		return io.EOF
	})
	n := 0
	for {
		res, err := process.Next()
		require.NoError(t, err)
		if res.Checkpoint != nil {
			require.JSONEq(t, fmt.Sprintf(`{"bindingStateV1":{"main%%2Fa":{"next":%d}}}`, docs), string(res.Checkpoint.State.UpdatedJson))
			break
		}
		require.True(t, strings.HasPrefix(string(res.Captured.DocJson), fmt.Sprintf(`{"n":%d,`, n)))
		n++
	}
	require.Equal(t, docs, n)
	require.NoError(t, process.Wait())
}

// TestStopInsideHugeTransaction: the output then ends where it may not, and the exit says so.
func TestStopInsideHugeTransaction(t *testing.T) {
	t.Parallel()
	process := start(t, func(ctx context.Context, tx *capture.Tx, b *binding) error {
		for tx.Size() < 3<<20 {
			if err := tx.AppendDoc(b, []byte(`{"n":1}`)); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	})
	_, err := process.Next()
	require.NoError(t, err)
	require.ErrorContains(t, process.Stop(), "stopped inside a transaction")
}

// TestStopThatSoundsLikeAFailure: a driver may answer the end of its context with an error of its own.
func TestStopThatSoundsLikeAFailure(t *testing.T) {
	t.Parallel()
	process := start(t, func(ctx context.Context, tx *capture.Tx, b *binding) error {
		if b.State.Next++; b.State.Next == 1 {
			return tx.Emit(b, 1)
		}
		<-ctx.Done()
		return errors.New("read tcp: use of closed network connection")
	})
	_, err := process.Transaction()
	require.NoError(t, err)
	require.NoError(t, process.Stop())
}

func TestDocumentsThatAreTooLarge(t *testing.T) {
	t.Parallel()
	huge := []byte(`"` + strings.Repeat("x", 63<<20) + `"`)
	var first error
	process := start(t, func(_ context.Context, tx *capture.Tx, b *binding) error {
		first = tx.AppendDoc(b, huge)
		if err := tx.Emit(b, "placeholder"); err != nil {
			return err
		}
		return io.EOF
	})
	tx, err := process.Transaction()
	require.NoError(t, err)
	require.Len(t, tx.Documents, 1)
	require.Equal(t, `"placeholder"`, string(tx.Documents[0].Doc))
	require.ErrorIs(t, first, capture.ErrTooLarge)
	require.Equal(t, "A document of main.a is 63.0 MiB large; one document may have 63 MiB at most.", usererr.Message(first))
}

func TestTransactionPieces(t *testing.T) {
	t.Parallel()
	eachCodec(t, func(t *testing.T, codec frame.Codec) {
		step := 0
		read := func(_ context.Context, tx *capture.Tx, b *binding) error {
			switch step++; step {
			case 1: // nothing happens: no checkpoint
				return nil
			case 2: // a schema alone
				tx.Schema(b, json.RawMessage(`{"type":"object","additionalProperties":false}`))
				return nil
			case 3: // state alone
				b.State.Next = 7
				tx.Save(b)
				return nil
			case 4: // an encoder that fails leaves no trace
				err := tx.Append(b, func(dst []byte) ([]byte, error) { return append(dst, "half"...), errors.New("bad value") })
				if err == nil || err.Error() != "encoding a document of main.a: bad value" {
					return fmt.Errorf("unexpected: %w", err)
				}
				return tx.AppendDoc(b, []byte("{\n\"n\": 1\n}"))
			case 5: // an acknowledgement alone
				tx.OnAck(func(context.Context) error { return nil })
				return nil
			default:
				if err := tx.Emit(b, func() {}); err == nil || !strings.Contains(err.Error(), "encoding a document of main.a: json: unsupported type") {
					return fmt.Errorf("unexpected: %w", err)
				}
				return io.EOF
			}
		}
		process := session.Start(t, capture.New(funcSource{&counting{}, read}), codec)
		process.Open(process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a"}), nil)
		var got []string
		for {
			tx, err := process.Transaction()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			got = append(got, fmt.Sprintf("%d schemas, %d documents, %s", len(tx.Schemas), len(tx.Documents), tx.Patch))
		}
		require.NoError(t, process.Wait())
		require.Equal(t, []string{
			`1 schemas, 0 documents, {}`,
			`0 schemas, 0 documents, {"bindingStateV1":{"main%2Fa":{"next":7}}}`,
			`0 schemas, 1 documents, {}`,
			`0 schemas, 0 documents, {}`,
		}, got)
	})
}

// TestBlockedOutput: while nobody takes the output, the source is stopped and acknowledgements are taken.
func TestBlockedOutput(t *testing.T) {
	t.Parallel()
	var emitted atomic.Int64
	doc := []byte(`{"text":"` + strings.Repeat("x", 10_000) + `"}`)
	acked := make(chan struct{})
	process := start(t, func(_ context.Context, tx *capture.Tx, b *binding) error {
		emitted.Add(1)
		tx.OnAck(func(context.Context) error { acked <- struct{}{}; return nil })
		return tx.AppendDoc(b, doc)
	})
	_, err := process.Transaction()
	require.NoError(t, err)
	process.Ack(1)
	<-acked
	require.LessOrEqual(t, emitted.Load(), int64(5), "no more than what two buffers hold is read ahead")
	require.NoError(t, process.Stop())
}

func TestSourceThatFails(t *testing.T) {
	t.Parallel()
	process := start(t, func(_ context.Context, tx *capture.Tx, b *binding) error {
		_ = tx.Emit(b, 1)
		return usererr.New(errors.New("SQLSTATE 42P01"), "The table orders is gone.")
	})
	_, err := process.Transaction()
	require.ErrorIs(t, err, io.EOF, "what the failed transaction emitted is not written")
	require.Equal(t, "The table orders is gone.", usererr.Message(process.Wait()))
}

// A connection that breaks says io.EOF too, in its own words. That is no end of the source: nothing may be committed.
func TestConnectionThatBreaks(t *testing.T) {
	t.Parallel()
	process := start(t, func(_ context.Context, tx *capture.Tx, b *binding) error {
		_ = tx.Emit(b, 1)
		return fmt.Errorf("reading the log: %w", io.EOF)
	})
	_, err := process.Transaction()
	require.ErrorIs(t, err, io.EOF)
	require.ErrorContains(t, process.Wait(), "reading the log: EOF")
}

func TestRuntimeThatDies(t *testing.T) {
	t.Parallel()
	process := start(t, ticking)
	_, err := process.Transaction()
	require.NoError(t, err)
	process.CloseResponses()
	require.ErrorContains(t, process.Wait(), "writing to the runtime: io: read/write on closed pipe")
}

func openRequest(spec *flowpb.CaptureSpec) *capturepb.Request {
	return &capturepb.Request{Open: &capturepb.Request_Open{Capture: spec, Version: "v", StateJson: json.RawMessage("{}")}}
}

func TestApply(t *testing.T) {
	t.Parallel()
	s := &counting{}
	process := session.Start(t, capture.New(s), frame.Proto)
	spec := process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a b"})
	for range 2 {
		res := process.Call(&capturepb.Request{Apply: &capturepb.Request_Apply{Capture: spec, Version: "v"}})
		require.Equal(t, "prepared 2 streams", res.Applied.ActionDescription)
		require.Nil(t, res.Applied.State)
	}
	res := process.Call(&capturepb.Request{Spec: &capturepb.Request_Spec{ConnectorType: flowpb.CaptureSpec_IMAGE}})
	require.EqualValues(t, 3032023, res.Spec.Protocol)
	process.CloseRequests()
	require.NoError(t, process.Wait())
	require.Equal(t, []string{"acme/capture", "acme/capture"}, s.applied)
}
