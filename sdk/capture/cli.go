package capture

import (
	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/sdk/process"
)

func commandLine(p *process.Process, c Connector) *cobra.Command {
	return p.Root("", "")
}
