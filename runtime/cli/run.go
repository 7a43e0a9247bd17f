package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sluicedata/sluice/runtime/engine"
	"github.com/sluicedata/sluice/runtime/kafkalog"
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
	join      bool
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
	cmd.Flags().BoolVar(&f.join, "join", false, "share the pipeline with other processes that are started so, on any machine, each with a data folder of its own: its log has to be on Kafka")
	cmd.Flags().DurationVar(&f.stopAfter, "stop-after", 0, "stop by itself, cleanly, after this time")
	return cmd
}

func (a *app) run(cmd *cobra.Command, file string, f runFlags) error {
	p, err := pipeline.Load(file, a.pipelineOptions())
	if err != nil {
		return err
	}
	if f.join && p.Kafka == nil {
		return usererr.New(nil, "--join shares a pipeline through its log on Kafka, and the log of %s is in the data folder of one process: write log: kafka://… into the file", file)
	}
	if r := p.Retention; f.join && r.Limited() && !r.DropUnread {
		return usererr.New(nil, "the log of %s has a retention that keeps what a materialization has not read, which only a process that runs all of them knows: with --join write unread: drop beside it, which leaves it to the topics, or leave it out", file)
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
	return a.show(ctx, display, engine.Options{Pipeline: p, DataDir: f.data, Logger: a.p.Log, Board: board, Launcher: a.launcher(), From: from, Join: f.join})
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

// statusOf is the status of a data folder and, if the pipeline's log is on Kafka, of the processes that share it.
func (a *app) statusOf(ctx context.Context, file, data string) (*status.Snapshot, error) {
	s, err := status.ReadFile(data)
	k, kafkaErr := a.kafkaOf(file)
	if kafkaErr != nil || k == nil {
		return s, errors.Join(err, kafkaErr)
	}
	places, placesErr := places(ctx, k, logrus.NewEntry(a.p.Log))
	switch {
	case err != nil && len(places) > 0: // this machine is not one of those
		return &status.Snapshot{Pipeline: filepath.Base(file), Places: places}, nil
	case err == nil && placesErr != nil:
		a.p.Log.WithError(placesErr).Warn("who else runs the pipeline is not known: " + usererr.Message(placesErr))
	}
	if err == nil {
		s.Places = places
	}
	return s, err
}

// places asks Kafka who runs what.
func places(ctx context.Context, k *pipeline.Kafka, log *logrus.Entry) (list []status.Place, err error) {
	l, err := kafkalog.Open(ctx, kafkalog.Options{Kafka: k, Log: log, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	found, err := l.Places(ctx)
	for _, p := range found {
		list = append(list, status.Place{Task: p.Unit, Process: p.Process})
	}
	return list, errors.Join(err, l.Close())
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
			file := ""
			if len(args) > 0 {
				file = args[0]
			}
			s, err := a.statusOf(cmd.Context(), file, data)
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
