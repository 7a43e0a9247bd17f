package process

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Root makes the root of a connector's command line, with the command version.
func (p *Process) Root(short, long string) *cobra.Command {
	root := &cobra.Command{
		Use: p.Name, Short: short, Long: long,
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s/%s %s\n", p.Name, Version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	})
	return root
}

// The exit codes of a command line.
const (
	exitDone    = 0 // it did what it was asked to, or was told to stop by a signal
	exitFailed  = 1 // the last line on standard error says why
	exitMisused = 2 // the command line makes no sense: nothing was done
)

// Execute runs the command line and returns the exit code: 0 for what was done, 1 for what failed, 2 for a command line that
// makes no sense. An interruption by a signal is a success; a command that printed its findings itself returns an
// ExitError.
func (p *Process) Execute(ctx context.Context, root *cobra.Command) int {
	began := false
	noteBegin(root, &began)
	cmd, err := root.ExecuteContextC(ctx)
	var exit ExitError
	switch {
	case err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)):
		return exitDone
	case errors.As(err, &exit):
		return int(exit)
	case !began:
		p.Fail(usererr.New(err, "%v. See %s --help", err, cmd.CommandPath()))
		return exitMisused
	default:
		return p.Fail(err)
	}
}

// noteBegin has every command note that it was reached: what fails before is the command line.
func noteBegin(cmd *cobra.Command, began *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*began = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		noteBegin(sub, began)
	}
}

// ExitError is an error of a command that has said all there is to say.
type ExitError int

func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// Set by the linker of a release: -X github.com/sluicedata/sluice/sdk/process.version=1.2.3, and revision likewise.
var version, revision string //nolint:gochecknoglobals // the linker can only set variables

// Version is the version of the program that is running: what the release's linker was told, or what Go recorded.
func Version() string {
	if version != "" && revision != "" {
		return version + " (" + revision + ")"
	}
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}
