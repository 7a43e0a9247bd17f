package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/scaffold"
)

func (a *app) newCommand() *cobra.Command {
	return &cobra.Command{
		Use: "new source-NAME|materialize-NAME", Short: "Write the beginning of a connector, with its tests and documentation", Args: cobra.ExactArgs(1),
		Long: `Write the beginning of a connector: a module that builds, and passes its tests and the conformance suite. A source captures an HTTP
API; a materialization keeps files of JSON lines. Run it in a clone of the repository, then change it into what you need. See
docs/writing-a-source.md and docs/writing-a-materialization.md.`,
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
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "\nNext:\n  cd %[1]s && go test .\n  go run . spec\n", args[0])
			return err
		},
	}
}
