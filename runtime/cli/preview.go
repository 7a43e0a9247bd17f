package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type previewFlags struct {
	limit   int
	timeout time.Duration
	bind    []string
	name    string
}

func (a *app) previewCommand() *cobra.Command {
	t := &target{app: a}
	var f previewFlags
	cmd := &cobra.Command{
		Use: "preview CONNECTOR --config FILE", Short: "Print the documents that a source captures, and keep nothing", Args: cobra.ExactArgs(1),
		Long: `Print the documents that a source captures, one a line, and keep nothing. What the connector creates in the source (a
replication slot, say) stays there; a connector of this project has a command of its own, pull, which leaves nothing.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := t.resolve(args[0]); err != nil {
				return err
			}
			return t.preview(cmd, f)
		},
	}
	t.flags(cmd, true)
	cmd.Flags().IntVar(&f.limit, "limit", 0, "end after so many documents (default: no limit)")
	cmd.Flags().DurationVar(&f.timeout, "for", 30*time.Second, "end after this time")
	cmd.Flags().StringSliceVar(&f.bind, "bind", nil, "capture only streams whose path (such as public/orders) matches; may be repeated")
	cmd.Flags().StringVar(&f.name, "name", "preview/capture", "name of the capture, from which connectors derive the names of what they create")
	return cmd
}

func (t *target) preview(cmd *cobra.Command, f previewFlags) error {
	found, err := t.discover(cmd, f.name)
	if err != nil {
		return err
	}
	def := &pipeline.Capture{Name: f.name, Endpoint: t.endpoint, Interval: time.Second, At: "preview"}
	defs := map[string]*pipeline.Collection{}
	for i := range found {
		d := &found[i]
		if d.disable && len(f.bind) == 0 || len(d.key) == 0 || !matches(f.bind, path.Join(d.path...)) {
			continue
		}
		def.Bindings = append(def.Bindings, pipeline.CaptureBinding{Resource: d.resource, Target: d.collection})
		defs[d.collection] = d.definition()
	}
	if len(def.Bindings) == 0 {
		return usererr.New(nil, "none of the %d streams of %s is chosen", len(found), t.name())
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	printer := &printer{out: bufio.NewWriter(cmd.OutOrStdout()), limit: f.limit, full: cancel, records: wal.Records{}}
	collections, err := collection.Open(ctx, printer, defs)
	if err != nil {
		return err
	}
	launcher := t.app.launcher()
	task := &capture.Task{
		Def: def, Launcher: &launcher, Log: printer, Store: printer, Collections: collections, Logger: t.app.entry(t.name()),
		Status: status.NewBoard().Task(status.Capture, def.Name), Timeouts: capture.Timeouts{Answer: t.timeout},
	}
	err = task.Run(ctx)
	if ctx.Err() != nil {
		err = nil // the limit or the time is over, or the user interrupted
	}
	if flushErr := printer.out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

func matches(globs []string, name string) bool {
	for _, glob := range globs {
		if ok, err := path.Match(glob, name); ok && err == nil {
			return true
		}
	}
	return len(globs) == 0
}

// printer is a log that prints what it is given and remembers nothing but records.
type printer struct {
	mu      sync.Mutex
	out     *bufio.Writer
	limit   int
	printed int
	full    func()
	records wal.Records
}

func (p *printer) Identity() wal.Identity            { return wal.Identity{1} }
func (p *printer) Words() wal.Words                  { return wal.Words{} }
func (p *printer) Share(wal.Journal, int) int        { return 0 }
func (p *printer) Heads(string) []wal.Head           { return nil }
func (p *printer) Alone(string, string) []wal.Head   { return nil }
func (p *printer) Behind(wal.Journal, int64) int64   { return 0 }
func (p *printer) Changed() <-chan struct{}          { return nil }
func (p *printer) Writer(string) (wal.Writer, error) { return p, nil }
func (p *printer) Get(name string) ([]byte, error)   { return p.records[name], nil }
func (p *printer) Reader(j wal.Journal, _, _ int64) (wal.Reader, error) {
	return nil, fmt.Errorf("reading the journal %s: a preview keeps nothing", j)
}

// Put implements wal.Store.
func (p *printer) Put(_ context.Context, changes wal.Records) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.Copy(p.records, changes)
	return nil
}

// Append implements wal.Writer.
func (p *printer) Append(_ string, b *wal.Block) error {
	return b.Docs(func(doc []byte) error {
		if p.limit > 0 && p.printed >= p.limit {
			return nil
		}
		p.printed++
		if p.printed == p.limit {
			defer p.full()
		}
		if _, err := p.out.Write(doc); err != nil {
			return fmt.Errorf("printing: %w", err)
		}
		_, err := io.WriteString(p.out, "\n")
		return err
	})
}

// Close implements wal.Writer.
func (p *printer) Close() error { return nil }

// Require implements wal.Writer.
func (p *printer) Require(string, uint32) error { return nil }

// Commit implements wal.Writer.
func (p *printer) Commit(ctx context.Context, changes wal.Records) error {
	return errors.Join(p.Put(ctx, changes), p.out.Flush())
}
