package capture

import (
	"context"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/process"
)

// Main is a connector's whole main function: it runs the protocol on standard input and output, or, with arguments, the
// command line, and exits. The name is the program's own. It never returns.
func Main(c Connector) {
	process.Main(process.ProgramName(), func(ctx context.Context, p *process.Process) int { return Run(ctx, p, c) })
}

// Run is Main in a given process. It returns the exit code.
func Run(ctx context.Context, p *process.Process, c Connector) int {
	if len(p.Args) > 0 {
		return p.Execute(ctx, commandLine(p, c))
	}
	if p.Interactive {
		return p.Hint()
	}
	codec, err := p.Codec()
	if err != nil {
		return p.Fail(err)
	}
	server := Server{Connector: c, Codec: codec, Log: logrus.NewEntry(p.Log)}
	if err := server.Serve(ctx, p.Stdin, p.Stdout); err != nil {
		return p.Fail(err)
	}
	return 0
}
