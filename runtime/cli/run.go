package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicedata/sluice/runtime/engine"
	"github.com/sluicedata/sluice/runtime/live"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type runFlags struct {
	data      string
	metrics   string
	from      string
	stopAfter time.Duration
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use: "run PIPELINE.yaml", Short: "Run a pipeline until it is interrupted", Args: cobra.ExactArgs(1),
		Long: `Run a pipeline until it is interrupted (SIGINT or SIGTERM). Captures then stop at a checkpoint, and
materializations finish their transaction. Whatever is killed instead, and whenever: the next run goes on exactly where it was.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.run(cmd, args[0], f) },
	}
	cmd.Flags().StringVar(&f.data, "data", "", "the data folder, which holds the log and all positions (default: the pipeline's file with the extension .data)")
	cmd.Flags().StringVar(&f.metrics, "metrics", "", "serve Prometheus metrics on this address, such as 127.0.0.1:9400")
	cmd.Flags().StringVar(&f.from, "from", "", "where new materializations begin, instead of with all that the log has: "+whenHelp+", now, or checkpoint:NAME, where the materialization NAME has got to; NAME=… is for the materialization of that name only")
	cmd.Flags().DurationVar(&f.stopAfter, "stop-after", 0, "stop by itself, cleanly, after this time")
	return cmd
}

func (a *app) run(cmd *cobra.Command, file string, f runFlags) error {
	p, err := pipeline.Load(file, a.pipelineOptions())
	if err != nil {
		return err
	}
	if f.data == "" {
		f.data = engine.DataDir(file)
	}
	ctx := cmd.Context()
	if f.stopAfter > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.stopAfter)
		defer cancel()
	}
	from, err := parseBeginning(f.from, time.Now())
	if err != nil {
		return err
	}
	board := status.NewBoard()
	if f.metrics != "" {
		if err := live.Metrics(ctx, f.metrics, board, a.p.Log); err != nil {
			return err
		}
	}
	screen := a.screen()
	if screen != nil {
		if isTerminal(a.p.Stderr) { // else the log goes to a file, and not through the table
			a.p.Log.SetOutput(screen)
			defer a.p.Log.SetOutput(a.p.Stderr)
		}
	}
	display := &live.Display{Board: board, Pipeline: filepath.Base(file), DataDir: f.data, Screen: screen, Logger: a.p.Log}
	return a.show(ctx, display, engine.Options{Pipeline: p, DataDir: f.data, Logger: a.p.Log, Board: board, Launcher: a.launcher(), From: from})
}

// parseBeginning reads --from; nil if it was not given.
func parseBeginning(text string, now time.Time) (*materialize.Beginning, error) {
	if text == "" {
		return nil, nil
	}
	name, when, named := strings.Cut(text, "=")
	if !named {
		name, when = "", text
	}
	checkpoint, isCheckpoint := strings.CutPrefix(when, "checkpoint:")
	b := &materialize.Beginning{Materialization: name}
	switch {
	case checkpoint == "" || named && name == "":
		return nil, usererr.New(nil, "--from %q says only a part of where a materialization begins: write WHEN or NAME=WHEN, with a time, now, or checkpoint:NAME", text)
	case isCheckpoint:
		b.Checkpoint = checkpoint
		return b, nil
	case when == "now":
		b.Time = now
		return b, nil
	}
	var err error
	b.Time, err = parseWhen("--from", when, now)
	if err == nil && b.Time.After(now) {
		err = usererr.New(nil, "--from %q has not come yet: a new materialization begins with what was committed at a time that is over", text)
	}
	return b, err
}

// show runs the engine with a display beside it. The display outlives the context, to show how things stop.
func (a *app) show(ctx context.Context, d *live.Display, o engine.Options) error {
	showing, end := context.WithCancel(context.WithoutCancel(ctx))
	var shown sync.WaitGroup
	o.Ready = func() { shown.Go(func() { d.Run(showing) }) }
	err := engine.Run(ctx, o)
	end()
	shown.Wait()
	return err
}

// screen is the terminal on stdout; nil if stdout is anything else.
func (a *app) screen() *live.Screen {
	file, ok := a.p.Stdout.(*os.File)
	if !ok || !isTerminal(file) {
		return nil
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		width = 0
	}
	return &live.Screen{Out: file, Width: width}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (a *app) statusCommand() *cobra.Command {
	var data string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "status [PIPELINE.yaml]", Short: "Show how a pipeline is doing, while it runs or after", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if data == "" && len(args) == 0 {
				return usererr.New(nil, "status of what? Name the pipeline's file, or its data folder with --data")
			}
			if data == "" {
				data = engine.DataDir(args[0])
			}
			s, err := status.ReadFile(data)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			for _, line := range status.Table(s, time.Now(), 0) {
				if _, err := io.WriteString(cmd.OutOrStdout(), line+"\n"); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data folder of the run")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
