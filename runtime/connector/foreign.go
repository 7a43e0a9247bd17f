package connector

import (
	"context"
	"os/exec"
	"syscall"
	"time"

	"github.com/sluicedata/sluice/runtime/pipeline"
)

// stopGrace is how long a foreign program may take to end when it is asked to.
const stopGrace = 5 * time.Second

// Foreign makes the command of a program or an image that speaks something else than the protocol, with arguments. An image sees the folder
// under the name that it has here. The program is asked to end when the context does, and killed if it does not; it is killed
// when we are. It stays in our process group, and with it whatever it starts. The second result ends a container, which outlives its client; it
// is to be called when the command has ended, and never nil.
func (l *Launcher) Foreign(ctx context.Context, e *pipeline.Endpoint, task, folder string, args ...string) (*exec.Cmd, func(), error) {
	command, remove := e.Command, func() {}
	if e.Image != "" {
		if _, err := l.ImageCodec(ctx, e.Image); err != nil { // which gets the image
			return nil, nil, err
		}
		name := l.containerName(e.Image, task)
		l.remove(ctx, name)
		remove = func() { l.remove(context.WithoutCancel(ctx), name) }
		command = append([]string{l.docker()}, l.runArgs(name)...)
		command = append(append(command, "--volume", folder+":"+folder), l.DockerOptions...)
		command = append(command, e.Image)
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], args...)...) //nolint:gosec // running the user's command is the purpose
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	cmd.Env = l.Environ
	dieWithUs(cmd)
	return cmd, remove, nil
}
