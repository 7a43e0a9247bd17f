package capture

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// saveInterval is how often pull keeps its position. What is read again after a crash is at most this much.
const saveInterval = time.Second

// pullOptions are the flags of pull beyond those of check.
type pullOptions struct {
	stateFile string
	name      string
	limit     int
	named     bool
	catchUp   bool
}

func (t *cli) pullCommand() *cobra.Command {
	var o pullOptions
	cmd := &cobra.Command{
		Use: "pull", Short: "Capture, and print one JSON document a line", Args: cobra.NoArgs,
		Long: `Pull captures what --catalog lists, or all that is discovered, and prints one JSON document a line, until it is
interrupted or the source ends. With --catch-up it ends once everything is captured that was there when it began: what
is downstream, such as a query, sees the end of its input then.

On a terminal it shows how much that is, unless the documents go there.

With --state it remembers how far it came, and goes on from there when it is started again. The position is kept after
the documents before it were written: an interruption never loses a document, and may repeat some. So may --limit, when
it ends in the middle of what belongs together. Without --state every pull begins anew and leaves nothing behind.

When the connection to the source is lost, it is opened again behind what was printed, for up to ten minutes, if the source
can go on there. Nothing is printed twice: in the midst of a large transaction, and with --limit, the pull ends instead.

With --named, every line tells where its document comes from: {"binding": "public.orders", "document": {…}}.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.limit < 0 {
				return usererr.New(nil, "--limit %d makes no sense: it is a number of documents, and 0 means all.", o.limit)
			}
			return t.pull(cmd.Context(), o)
		},
	}
	t.configFlag(cmd)
	t.bindFlags(cmd)
	cmd.Flags().StringVar(&o.stateFile, "state", "", "file that keeps the position between pulls; made if it does not exist")
	cmd.Flags().IntVar(&o.limit, "limit", 0, "stop after this many documents; 0 means never")
	cmd.Flags().BoolVar(&o.catchUp, "catch-up", false, "end once everything is captured that was there when it began")
	cmd.Flags().BoolVar(&o.named, "named", false, "print where each document comes from")
	cmd.Flags().StringVar(&o.name, "name", "", "name of the capture, from which the names of what it makes at the source derive")
	return cmd
}

func (t *cli) pull(ctx context.Context, o pullOptions) error {
	config, err := t.p.ReadConfig(t.configFile)
	if err != nil {
		return err
	}
	stored, err := readState(o.stateFile)
	if err != nil {
		return err
	}
	if o.name != "" && stored.Task != "" && stored.Task != o.name {
		return usererr.New(nil, "The state in %s belongs to a capture named %q. Leave out --name, or use another --state.",
			o.stateFile, stored.Task)
	}
	if stored.Task == "" {
		if stored.Task, err = taskName(o); err != nil {
			return err
		}
		// Before anything is made at the source that is named after it.
		if err := stored.write(o.stateFile); err != nil {
			return err
		}
	}
	found, err := t.catalog(ctx, config)
	if err != nil {
		return err
	}
	spec, err := t.task(ctx, stored.Task, config, found)
	if err != nil {
		return err
	}
	applied, err := t.c.apply(ctx, t.log(), &capturepb.Request_Apply{Capture: spec, Version: "pull", StateJson: stored.State})
	if err != nil {
		return err
	}
	if applied.ActionDescription != "" {
		t.p.Log.Info(applied.ActionDescription)
	}
	out := &lineOutput{out: t.p.Stdout, file: o.stateFile, stored: stored}
	if t.p.Watched && !t.p.Displayed {
		out.progress = &pullProgress{show: t.p.ShowStatus, began: time.Now()}
	}
	return t.sessions(ctx, spec, o, out)
}

// sessions runs a session, and another one from where it was for each that has lost its connection.
func (t *cli) sessions(ctx context.Context, spec *flowpb.CaptureSpec, o pullOptions, out *lineOutput) error {
	var r reopening
	for again := false; ; again = true {
		opened, documents := time.Now(), out.documents
		s, err := t.c.open(ctx, t.log(), &capturepb.Request_Open{
			Capture: spec, Version: "pull", Range: flowpb.FullRange(), StateJson: out.stored.State,
		}, opening{ephemeral: o.stateFile == "", catchUp: o.catchUp})
		if err == nil {
			again, err = t.stream(ctx, s, o, out)
		}
		if ctx.Err() != nil && errors.Is(err, ErrDisconnected) {
			return nil // the echo of the stop
		}
		if !again || !errors.Is(err, ErrDisconnected) {
			return err
		}
		wait, ok := r.lost(opened, time.Now(), out.documents > documents)
		if !ok {
			return err
		}
		t.log().WithFields(logrus.Fields{"eventType": "connectorStatus", "phase": "waiting", "waitsFor": usererr.Message(err), "wait": wait.Round(time.Millisecond).String()}).
			Warn("the connection is lost; the capture is opened again behind what it has written")
		if Sleep(ctx, wait) != nil {
			return nil //nolint:nilerr // it was told to stop
		}
	}
}

// reopening decides how long a pull waits before it opens a session again, and when it gives up.
type reopening struct {
	since   time.Time // when the connection was lost
	attempt int       // since then
}

const (
	// reopenFor is how long sessions are opened again before one of them has captured documents, or stood for steady.
	reopenFor, steady = 10 * time.Minute, time.Minute
)

// lost takes a session that was opened at a time and is lost now, and whether it has captured documents: positions alone are no
// progress, for a session commits them even where each of them ends at the same place.
func (r *reopening) lost(opened, now time.Time, captured bool) (wait time.Duration, ok bool) {
	if r.since.IsZero() || captured || now.Sub(opened) >= steady {
		*r = reopening{since: now}
	}
	r.attempt++
	return retry.Backoff{}.Delay(r.attempt, rand.Float64()), now.Sub(r.since) < reopenFor
}

// taskName is the name of a capture that has no state yet. Two captures with different state files must not share what
// they make at the source, so the name depends on the file.
func taskName(o pullOptions) (string, error) {
	if o.name != "" || o.stateFile == "" {
		if o.name == "" {
			return "pull", nil
		}
		return o.name, nil
	}
	file, err := filepath.Abs(o.stateFile)
	if err != nil {
		return "", fmt.Errorf("locating %s: %w", o.stateFile, err)
	}
	sum := sha256.Sum256([]byte(file))
	return "pull-" + hex.EncodeToString(sum[:4]), nil
}

// stream runs an opened session until it ends, and closes it. It reports whether what was written ends where another session may go on.
func (t *cli) stream(ctx context.Context, s *session, o pullOptions, out *lineOutput) (whole bool, err error) {
	defer s.close(t.log())
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	saving, stopSaving := context.WithCancel(context.WithoutCancel(ctx))
	saved := make(chan error, 1)
	go func() {
		err := out.keepSaving(saving)
		if err != nil {
			stop(err)
		}
		saved <- err
	}()
	p := newPump(s, form{lines: true, named: o.named})
	p.limit = o.limit
	err = p.run(ctx, out)
	stopSaving()
	if serr := <-saved; serr != nil {
		return false, serr
	}
	switch {
	case errors.Is(err, errUnfinished):
		// Lines have no transactions: what was printed of the last one is printed again next time.
		err = nil
	case errors.Is(err, syscall.EPIPE):
		err = nil // whoever reads, such as head, has read enough
	}
	return !p.open && o.limit == 0, err
}

// lineOutput prints documents, and keeps the position in a file behind them.
type lineOutput struct {
	out  io.Writer
	file string // "" keeps nothing
	// progress is nil if nobody looks.
	progress  *pullProgress
	documents int // of whole transactions, of all sessions; of the goroutine that writes

	mu     sync.Mutex
	stored storedState
	acks   []func(context.Context) error
	dirty  bool // stored is ahead of the file
}

func (l *lineOutput) write(_ context.Context, buf []byte, c *commit) error {
	if _, err := l.out.Write(buf); err != nil {
		return fmt.Errorf("writing documents: %w", err)
	}
	l.progress.wrote(buf)
	if c == nil {
		return nil
	}
	l.documents += c.docs
	l.mu.Lock()
	defer l.mu.Unlock()
	state, err := flowpb.MergePatch(l.stored.State, c.patch)
	if err != nil {
		return fmt.Errorf("keeping the position: %w", err)
	}
	l.stored.State, l.dirty = state, true
	l.acks = append(l.acks, c.acks...)
	return nil
}

// keepSaving saves at intervals until ctx ends, and then once more.
func (l *lineOutput) keepSaving(ctx context.Context) error {
	tick := time.NewTicker(saveInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.progress.tell(time.Now())
			if err := l.save(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return l.save(context.WithoutCancel(ctx))
		}
	}
}

// save keeps what has been written so far, and then lets the source release it.
func (l *lineOutput) save(ctx context.Context) error {
	l.mu.Lock()
	stored, acks, dirty := l.stored, l.acks, l.dirty
	l.acks, l.dirty = nil, false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	if l.file != "" {
		// Documents in a file must be on the disk before the position that says they are.
		if f, ok := l.out.(*os.File); ok {
			_ = f.Sync() // a pipe or a terminal cannot be synced, and need not
		}
		if err := stored.write(l.file); err != nil {
			return err
		}
	}
	for _, f := range acks {
		if err := f(ctx); err != nil {
			return fmt.Errorf("releasing what was captured: %w", err)
		}
	}
	return nil
}
