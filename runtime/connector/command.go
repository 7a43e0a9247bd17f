package connector

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	codecName = "FLOW_RUNTIME_CODEC"
	// InstanceName is the environment variable that tells a program which runtime started it, see [Launcher.Instance].
	InstanceName   = "SLUICE_INSTANCE"
	pullTimeout    = 15 * time.Minute
	inspectTimeout = time.Minute
)

// command makes the command of an endpoint, and tells which codec it speaks, and the name of its container if it has one.
func (l *Launcher) command(ctx context.Context, e *pipeline.Endpoint, task string) (*exec.Cmd, frame.Codec, string, error) {
	level := l.LogLevel
	if level == "" {
		level = "info"
	}
	if e.Image != "" {
		return l.container(ctx, e, task, level)
	}
	// The process is ended by Stop, Kill or Wait in the right order, so not by the context.
	cmd := exec.Command(e.Command[0], e.Command[1:]...) //nolint:gosec,noctx // running the user's command is the purpose
	cmd.Env = append(append([]string{}, l.Environ...), "LOG_FORMAT=json", "LOG_LEVEL="+level,
		// Both names, since one of them may stand in our own environment and would win.
		codecName+"="+e.Codec.String(), "SLUICE_CODEC="+e.Codec.String(), InstanceName+"="+l.Instance)
	for _, name := range sortedNames(e.Env) {
		cmd.Env = append(cmd.Env, name+"="+e.Env[name])
	}
	return cmd, e.Codec, "", nil
}

// container makes the docker command of an image, and gives the container's name. The client's death does not end its
// container, so containers have names, and one that a killed runtime left behind is removed first.
func (l *Launcher) container(ctx context.Context, e *pipeline.Endpoint, task, level string) (cmd *exec.Cmd, codec frame.Codec, name string, err error) {
	codec = e.Codec
	if !e.AskCodec {
		if codec, err = l.ImageCodec(ctx, e.Image); err != nil {
			return nil, 0, "", err
		}
	}
	name = l.containerName(e.Image, task)
	l.remove(ctx, name)
	args := l.runArgs(name)
	args = append(args, "--env", "LOG_FORMAT=json", "--env", "LOG_LEVEL="+level)
	if e.AskCodec {
		args = append(args, "--env", codecName+"="+codec.String(), "--env", "SLUICE_CODEC="+codec.String())
	}
	args = append(append(args, l.DockerOptions...), e.Image)
	cmd = exec.Command(l.docker(), args...) //nolint:gosec,noctx // as for local commands
	cmd.Env = l.Environ
	return cmd, codec, name, nil
}

// runArgs are the arguments of docker with which a container of a name begins.
func (l *Launcher) runArgs(name string) []string {
	args := []string{"run", "--interactive", "--rm", "--name", name, "--log-driver", "none"}
	here := "host-gateway"
	if l.Network != "" {
		args = append(args, "--network", l.Network)
	}
	if l.Network == "host" {
		here = "127.0.0.1"
	}
	return append(args, "--add-host", "host.docker.internal:"+here)
}

// containerName is one for each task and image of this runtime: the task for people, who find it in the engine's lists, and a hash, since not
// every name of a task can be one of a container, and a capture and a materialization may be called the same.
func (l *Launcher) containerName(image, task string) string {
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, task)
	hash := sha256.Sum256([]byte(image + "\x00" + task))
	return fmt.Sprintf("sluice-%s-%s-%x", l.Instance, readable, hash[:4])
}

// remove ends and removes a container. There usually is none, which docker calls an error.
func (l *Launcher) remove(ctx context.Context, name string) {
	_, _ = l.run(ctx, inspectTimeout, "rm", "--force", name)
}

// ImageCodec is the codec that an image's label says it speaks, or its environment. The image is pulled first if it is not here. Errors are for people.
func (l *Launcher) ImageCodec(ctx context.Context, image string) (frame.Codec, error) {
	if _, err := exec.LookPath(l.docker()); err != nil {
		return 0, usererr.New(err, "the connector %s is an image, and there is no program %s to run it: install Docker, or use a local command", image, l.docker())
	}
	out, err := l.run(ctx, inspectTimeout, "image", "inspect", "--format", "{{json .Config}}", image)
	if err != nil && !strings.HasSuffix(image, ":local") {
		if _, err = l.run(ctx, pullTimeout, "pull", "--quiet", image); err == nil {
			out, err = l.run(ctx, inspectTimeout, "image", "inspect", "--format", "{{json .Config}}", image)
		}
	}
	if err != nil {
		return 0, usererr.New(err, "cannot get the image %s: %v", image, err)
	}
	var config struct {
		Labels map[string]string
		Env    []string
	}
	if err := json.Unmarshal(out, &config); err != nil {
		return 0, fmt.Errorf("reading what docker says of the image %s: %w", image, err)
	}
	value, ok := config.Labels[codecName]
	for _, entry := range config.Env {
		if v, found := strings.CutPrefix(entry, codecName+"="); found && !ok {
			value = v
		}
	}
	if value == "json" {
		return frame.JSON, nil
	}
	return frame.Proto, nil
}

func (l *Launcher) run(ctx context.Context, timeout time.Duration, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.docker(), args...) //nolint:gosec // the user's image
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Env = l.Environ
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("docker %s: %s", args[0], strings.TrimSpace(stderr.String()+" "+err.Error()))
	}
	return out, nil
}

func (l *Launcher) docker() string {
	if l.Docker != "" {
		return l.Docker
	}
	return "docker"
}

// displayName is what a connector is called in messages.
func displayName(e *pipeline.Endpoint) string {
	if e.Label != "" {
		return e.Label
	}
	if e.Image != "" {
		return e.Image
	}
	return filepath.Base(e.Command[0])
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
