package capture_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// outletSource gives its session's outlet away.
type outletSource struct {
	funcSource
	outlet chan *capture.Outlet
}

func (s outletSource) Open(ctx context.Context, env capture.Env, cfg countingConfig, bs []*binding) (capture.Reader, error) {
	s.outlet <- env.Outlet
	return s.funcSource.Open(ctx, env, cfg, bs)
}

// A source can tell that nobody takes its output from having nothing to do.
func TestOutlet(t *testing.T) {
	t.Parallel()
	doc := []byte(`{"text":"` + strings.Repeat("x", 10_000) + `"}`)
	source := outletSource{funcSource{&counting{}, func(_ context.Context, tx *capture.Tx, b *binding) error { return tx.AppendDoc(b, doc) }}, make(chan *capture.Outlet, 1)}
	process := session.Start(t, capture.New(source), frame.Proto)
	process.Open(process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a"}), nil)
	outlet := <-source.outlet
	require.Eventually(t, func() bool { return outlet.Blocked() > 20*time.Millisecond }, 10*time.Second, time.Millisecond, "nobody reads")
	require.True(t, outlet.Acknowledges())
	go func() {
		for {
			if _, err := process.Transaction(); err != nil {
				return
			}
		}
	}()
	require.Eventually(t, func() bool { return outlet.Blocked() < 20*time.Millisecond }, 10*time.Second, time.Millisecond, "somebody reads")
	require.NoError(t, process.Stop())
	var none *capture.Outlet
	require.Zero(t, none.Blocked())
	require.True(t, none.Acknowledges())
}

// A runtime that closes its requests after Open acknowledges nothing, and a source that waits for it would wait for ever.
func TestOutletWithoutAcknowledgements(t *testing.T) {
	t.Parallel()
	var outlet *capture.Outlet
	waiting := make(chan struct{})
	source := outletSource{funcSource{&counting{}, func(ctx context.Context, _ *capture.Tx, _ *binding) error {
		<-waiting
		for outlet.Acknowledges() && ctx.Err() == nil {
			_ = capture.Sleep(ctx, time.Millisecond)
		}
		return io.EOF
	}}, make(chan *capture.Outlet, 1)}
	process := session.Start(t, capture.New(source), frame.Proto)
	process.Open(process.Task(countingConfig{Count: 1, Batch: 1, Mode: "end", Streams: "a"}), nil)
	outlet = <-source.outlet
	process.CloseRequests()
	close(waiting)
	require.NoError(t, process.Wait())
}
