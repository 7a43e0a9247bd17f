package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
	root.CompletionOptions.HiddenDefaultCmd = true
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

// Execute runs the command line and returns the exit code. An interruption by a signal is a success; a command that
// printed its findings itself returns an ExitError.
func (p *Process) Execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	var exit ExitError
	switch {
	case err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)):
		return 0
	case errors.As(err, &exit):
		return int(exit)
	default:
		return p.Fail(err)
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

// ReadConfig reads a configuration file, YAML or JSON, as JSON. The name "-" means Stdin.
func (p *Process) ReadConfig(name string) (json.RawMessage, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(p.Stdin)
		name = "standard input"
	} else {
		text, err = os.ReadFile(name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, usererr.New(err, "There is no file %s.", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	out, err := toJSON(text)
	if err != nil {
		return nil, usererr.New(err, "%s is neither JSON nor YAML: %v.", name, err)
	}
	return out, nil
}
