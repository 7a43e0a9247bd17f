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

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/capturetest"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// polled is a source whose streams are polled each on its own: the function reads one of them.
type polled struct {
	*counting
	read   func(ctx context.Context, tx *capture.Tx, b *binding) error
	closed atomic.Int64
}

func (s *polled) Open(_ context.Context, _ capture.Env, _ countingConfig, bs []*binding) (capture.Reader, error) {
	return capture.PerBinding(bs, func(b *binding) (capture.Reader, error) {
		if b.Resource.Stream == "broken" {
			return nil, errors.New("no such stream")
		}
		return &polledReader{s, b}, nil
	})
}

type polledReader struct {
	s *polled
	b *binding
}

func (r *polledReader) Read(ctx context.Context, tx *capture.Tx) error { return r.s.read(ctx, tx, r.b) }

func (r *polledReader) Close() error { r.s.closed.Add(1); return nil }

// numbers reads 20 numbers, in transactions of different sizes, some of which go through the output while they grow.
func numbers(ctx context.Context, tx *capture.Tx, b *binding) error {
	if b.State.Next == 20 {
		return io.EOF
	}
	if err := capture.Sleep(ctx, time.Millisecond); err != nil {
		return err
	}
	padding := ""
	if b.Resource.Stream == "large" {
		padding = strings.Repeat("x", 700_000)
	}
	for range 1 + b.State.Next%3 {
		if b.State.Next < 20 {
			if err := tx.AppendDoc(b, fmt.Appendf(nil, `{"n":%d,"stream":%q,"p":%q}`, b.State.Next, b.Resource.Stream, padding)); err != nil {
				return err
			}
			b.State.Next++
		}
	}
	return nil
}

func startPolled(t *testing.T, streams string, read func(context.Context, *capture.Tx, *binding) error) (*session.Session, *polled) {
	t.Helper()
	s := &polled{counting: &counting{}, read: read}
	process := session.Start(t, capture.New(s), frame.Proto)
	process.Open(process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: streams}), nil)
	return process, s
}

func TestPerBindingConformance(t *testing.T) {
	capturetest.Run(t, capturetest.Case{
		Connector: func() capture.Connector { return capture.New(&polled{counting: &counting{}, read: numbers}) },
		Config:    countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a b c"},
		Documents: 1000,
	})
}

// TestPerBindingKeepsTransactionsWhole reads streams side by side: no transaction mixes two of them, and each stream's
// state is what its documents say.
func TestPerBindingKeepsTransactionsWhole(t *testing.T) {
	t.Parallel()
	process, s := startPolled(t, "a large b", numbers)
	next := map[int]int{}
	for {
		tx, err := process.Transaction()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		binding := tx.Documents[0].Binding
		for _, d := range tx.Documents {
			require.Equal(t, binding, d.Binding)
			var doc struct{ N int }
			require.NoError(t, json.Unmarshal(d.Doc, &doc))
			require.Equal(t, next[binding], doc.N)
			next[binding]++
		}
		name := []string{"a", "large", "b"}[binding]
		require.JSONEq(t, fmt.Sprintf(`{"bindingStateV1":{"main%%2F%s":{"next":%d}}}`, name, next[binding]), string(tx.Patch))
	}
	require.NoError(t, process.Wait())
	require.Equal(t, map[int]int{0: 20, 1: 20, 2: 20}, next)
	require.EqualValues(t, 3, s.closed.Load())
}

func TestPerBindingFails(t *testing.T) {
	t.Parallel()
	process, s := startPolled(t, "a b", func(ctx context.Context, tx *capture.Tx, b *binding) error {
		if b.Resource.Stream == "b" {
			return errors.New("the stream is torn")
		}
		<-ctx.Done()
		return ctx.Err()
	})
	require.EqualError(t, process.Wait(), "reading main.b: the stream is torn")
	require.EqualValues(t, 2, s.closed.Load())
}

func TestPerBindingCannotOpen(t *testing.T) {
	t.Parallel()
	s := &polled{counting: &counting{}}
	process := session.Start(t, capture.New(s), frame.Proto)
	spec := process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a broken"})
	process.Send(openRequest(spec))
	require.EqualError(t, process.Wait(), "opening: opening main.broken: no such stream")
	require.EqualValues(t, 1, s.closed.Load())
}

// TestPerBindingLimit cuts a stream in the middle of a transaction.
func TestPerBindingLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"1", "2", "7", "40", "41"} {
		code, out, errs := run(t.Context(), capture.New(&polled{counting: &counting{}, read: numbers}),
			strings.NewReader("streams: a b"), nil, "pull", "--config", "-", "--limit", limit)
		require.Zero(t, code, errs)
		want := limit
		if limit == "41" {
			want = "40"
		}
		require.Equal(t, want, fmt.Sprint(strings.Count(out, "\n")))
		for line := range strings.Lines(out) {
			require.True(t, json.Valid([]byte(line)))
		}
	}
}

// TestPerBindingReadersWaitAlone: one that blocks for ever does not keep the others from being read.
func TestPerBindingReadersWaitAlone(t *testing.T) {
	t.Parallel()
	process, _ := startPolled(t, "a b", func(ctx context.Context, tx *capture.Tx, b *binding) error {
		if b.Resource.Stream == "b" {
			<-ctx.Done()
			return ctx.Err()
		}
		b.State.Next++
		return tx.Emit(b, b.State)
	})
	for range 50 {
		tx, err := process.Transaction()
		require.NoError(t, err)
		require.Zero(t, tx.Documents[0].Binding)
	}
	require.NoError(t, process.Stop())
}
