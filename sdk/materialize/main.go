package materialize

import (
	"context"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/process"
)

// Main is a connector's whole main function: it runs the protocol on standard input and output, or, with arguments, the
// command line, and exits. The name is the program's own. It never returns.
func Main[C, R Config](s Sink[C, R]) {
	process.Main(process.ProgramName(), func(ctx context.Context, p *process.Process) int { return Run(ctx, p, s) })
}

// Run is Main in a given process. It returns the exit code.
func Run[C, R Config](ctx context.Context, p *process.Process, s Sink[C, R]) int {
	if len(p.Args) > 0 {
		return p.Execute(ctx, commandLine(p, s.Spec(), adapter[C, R]{s}))
	}
	if p.Interactive {
		return p.Hint()
	}
	codec, err := p.Codec()
	if err != nil {
		return p.Fail(err)
	}
	if err := Serve(ctx, s, logrus.NewEntry(p.Log), codec, p.Stdin, p.Stdout); err != nil {
		return p.Fail(err)
	}
	return 0
}
