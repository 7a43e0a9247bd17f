package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/engine"
	"github.com/sluicedata/sluice/runtime/inspect"
	"github.com/sluicedata/sluice/runtime/kafkalog"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func (a *app) logCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "log", Short: "Look into the log of a pipeline, while it runs or after", Args: cobra.NoArgs,
		Long: `Look into the log of a pipeline: what collections it has, their documents, and how far each materialization has read them.
While the pipeline runs, the process that runs it answers; otherwise the data folder is read, or Kafka if the log is there, and nothing is changed.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&data, "data", "", "the data folder of the pipeline's runs (default: the pipeline's file with the extension .data)")
	// open calls use with the log.
	open := func(file string, use func(inspect.Log) error) error {
		dir := data
		if dir == "" {
			dir = engine.DataDir(file)
		}
		log, err := a.openLog(file, dir)
		if err != nil {
			return err
		}
		return errors.Join(use(log), log.Close())
	}
	cmd.AddCommand(logList(open), logStats(open), logCat(open), a.logForget(&data))
	return cmd
}

// openLog opens the log of a pipeline for reading: that of its file, which need not be there for a log in the data folder.
func (a *app) openLog(file, dir string) (inspect.Log, error) {
	k, err := a.kafkaOf(file)
	switch {
	case err != nil:
		return nil, err
	case k == nil:
		return inspect.Open(dir, a.p.Log)
	}
	return inspect.OpenElsewhere(dir, func() (wal.Engine, error) {
		return kafkalog.Open(context.Background(), kafkalog.Options{Kafka: k, Log: logrus.NewEntry(a.p.Log), ReadOnly: true})
	})
}

// hasLog refuses a log that does not exist, or that somebody here has open. It makes none.
func (a *app) hasLog(ctx context.Context, file, dir string) error {
	k, err := a.kafkaOf(file)
	var log wal.Engine
	switch {
	case err != nil:
		return err
	case k == nil:
		log, err = wal.Open(wal.Options{Dir: dir, Log: logrus.NewEntry(a.p.Log), ReadOnly: true})
	default:
		log, err = kafkalog.Open(ctx, kafkalog.Options{Kafka: k, Log: logrus.NewEntry(a.p.Log), ReadOnly: true})
	}
	if err != nil {
		return err
	}
	return log.Close()
}

// kafkaOf is the cluster that has a pipeline's log; nil if it is in the data folder.
func (a *app) kafkaOf(file string) (*pipeline.Kafka, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, nil //nolint:nilnil,nilerr // the data folder is all that there is
	}
	return pipeline.LoadLog(file, a.pipelineOptions())
}

func (a *app) logForget(data *string) *cobra.Command {
	return &cobra.Command{
		Use: "forget PIPELINE.yaml MATERIALIZATION [BINDING]", Short: "Forget a materialization that was given up, so that the log keeps nothing for it", Args: cobra.RangeArgs(2, 3),
		Long: `Forget how far a materialization that was given up has read, so that the log keeps nothing for it any more; or only one of its bindings that it
does not have any more, by the name that stats shows in brackets. Nothing is changed in the destination. What comes back later begins anew, unless its destination keeps its positions. What the pipeline's file still has is not forgotten,
also where it is disabled: take it out first. sluice run must not be running; of a log on Kafka, one that runs on another machine ends.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := *data
			if dir == "" {
				dir = engine.DataDir(args[0])
			}
			if err := a.hasLog(cmd.Context(), args[0], dir); err != nil {
				return err
			}
			p, err := pipeline.Load(args[0], a.pipelineOptions())
			if err != nil {
				return err
			}
			log, err := engine.OpenRecords(cmd.Context(), p, dir, a.p.Log)
			if err != nil {
				return err
			}
			return errors.Join(materialize.Forget(cmd.Context(), log, p, args[1], strings.Join(args[2:], "")), log.Close())
		},
	}
}

type openLog func(file string, use func(inspect.Log) error) error

func logList(open openLog) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls PIPELINE.yaml", Short: "List the collections that the log has", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return showReport(cmd, open, args, asJSON, listCollections)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, which has all that stats shows")
	return cmd
}

func logStats(open openLog) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "stats PIPELINE.yaml [COLLECTION...]", Short: "Show each collection's parts, and how far who has read them", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return showReport(cmd, open, args, asJSON, describeCollections)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// showReport shows some collections, or all.
func showReport(cmd *cobra.Command, open openLog, args []string, asJSON bool, show func(io.Writer, *inspect.Report) error) error {
	return open(args[0], func(log inspect.Log) error {
		report, err := log.Report(cmd.Context())
		if err != nil {
			return err
		}
		if len(args) > 1 {
			if report, err = report.Only(args[1:]); err != nil {
				return err
			}
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), report)
		}
		return show(cmd.OutOrStdout(), report)
	})
}

func listCollections(out io.Writer, report *inspect.Report) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COLLECTION\tBYTES\tDOCUMENTS\tCOMMITS\tFIRST COMMIT\tLAST COMMIT\tREADERS BEHIND")
	for i := range report.Collections {
		c := &report.Collections[i]
		sum := c.Sum()
		behind := 0
		for _, r := range c.Readers {
			if r.Bytes > 0 {
				behind++
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%d of %d\n", c.Name, status.Bytes(float64(sum.Bytes())), counted(sum, sum.Documents), counted(sum, sum.Commits),
			timeText(sum.First), timeText(sum.Last), behind, len(c.Readers))
	}
	return table.Flush()
}

func describeCollections(out io.Writer, report *inspect.Report) error {
	var b strings.Builder
	for i := range report.Collections {
		c := &report.Collections[i]
		fmt.Fprintf(&b, "%s\n", c.Name)
		for _, j := range c.Journals {
			fmt.Fprintf(&b, "  %s: %s in positions %d to %d, %s documents in %s commits from %s to %s\n", origin(j.Capture), status.Bytes(float64(j.Bytes())), j.Start, j.Head,
				counted(&j, j.Documents), counted(&j, j.Commits), timeText(j.First), timeText(j.Last))
			if j.Start > 0 {
				fmt.Fprintf(&b, "    %s before %s were dropped\n", dropped(&j), timeText(j.First))
			}
		}
		for _, r := range c.Readers {
			where := r.Materialization
			if r.Binding != "" {
				where += " (" + r.Binding + ")"
			}
			fmt.Fprintf(&b, "  read by %s: at position %d of %s, ", where, r.Position, partName(r.Capture))
			if r.Bytes == 0 {
				b.WriteString("up to date\n")
				continue
			}
			fmt.Fprintf(&b, "%s documents (%s) behind", status.Grouped(uint64(max(r.Documents, 0))), status.Bytes(float64(r.Bytes)))
			if !r.Through.IsZero() {
				fmt.Fprintf(&b, ", has what was committed until %s", timeText(r.Through))
			}
			b.WriteString("\n")
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// origin says what a journal is, and partName what its part is called: a capture's, or a partition.
func origin(part string) string {
	if strings.HasPrefix(part, "#") {
		return partName(part)
	}
	return "captured by " + part
}

func partName(part string) string {
	if number, ok := strings.CutPrefix(part, "#"); ok {
		return "partition " + number
	}
	return part
}

// dropped is what a journal does not have any more.
func dropped(j *inspect.Journal) string {
	if strings.HasPrefix(j.Capture, "#") {
		return "records"
	}
	return status.Bytes(float64(j.Start))
}

// counted is a number of documents or commits, which is a lower bound where an older version did not count.
func counted(j *inspect.Journal, n int64) string {
	text := status.Grouped(uint64(max(n, 0)))
	if j.Uncounted > 0 {
		return "≥ " + text
	}
	return text
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format("2006-01-02T15:04:05.000Z07:00")
}

func logCat(open openLog) *cobra.Command {
	var q inspect.Query
	var from, to, output string
	cmd := &cobra.Command{
		Use: "cat PIPELINE.yaml COLLECTION", Short: "Print documents of a collection, one JSON object a line", Args: cobra.ExactArgs(2),
		Long: `Print documents of a collection as they were captured, one JSON object a line, in the order of the log: every change, not the
present state. Only what is committed is there. Times are those of the commits, whole commits of them: ` + whenHelp + `.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			q.Collection = args[1]
			if q.From, err = parseWhen("--from", from, time.Now()); err != nil {
				return err
			}
			if q.To, err = parseWhen("--to", to, time.Now()); err != nil {
				return err
			}
			return open(args[0], func(log inspect.Log) error { return cat(cmd.Context(), log, q, output, cmd.OutOrStdout()) })
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "begin with what was committed at this time (default: the oldest that is there)")
	cmd.Flags().StringVar(&to, "to", "", "end before what was committed at this time (default: the newest)")
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "end after so many documents (default: no limit)")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this file, which is replaced (default: standard output)")
	return cmd
}

func cat(ctx context.Context, log inspect.Log, q inspect.Query, output string, stdout io.Writer) error {
	if output == "" {
		return log.Documents(ctx, q, stdout)
	}
	file, err := os.Create(output)
	if err != nil {
		return usererr.New(err, "cannot write to %s: %v", output, errors.Unwrap(err))
	}
	err = log.Documents(ctx, q, file)
	return errors.Join(err, file.Close())
}

const whenHelp = "a time (2026-11-20T08:00:00Z), a day (2026-11-20, from its beginning here), or how long ago (90m, 7d)"

// parseWhen reads a time of a flag; an empty one is zero.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if ago, err := pipeline.ParseAge(text); err == nil {
		return now.Add(-ago), nil
	}
	return time.Time{}, usererr.New(nil, "%s %q is no time: write %s", flag, text, whenHelp)
}
