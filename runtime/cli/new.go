package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/scaffold"
)

func (a *app) newCommand() *cobra.Command {
	return &cobra.Command{
		Use: "new source-NAME", Short: "Write the beginning of a source, with its tests and documentation", Args: cobra.ExactArgs(1),
		Long: `Write the beginning of a source: a module that builds, passes its tests and the conformance suite, and captures an HTTP API.
Run it in a clone of the repository, then change main.go into what you need. See docs/writing-a-source.md.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			written, err := scaffold.Write(".", args[0])
			if err != nil {
				return err
			}
			for _, path := range written {
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), path); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nNext:\n  cd %[1]s && go mod tidy && go test .\n  go run . spec\n", args[0])
			return err
		},
	}
}
