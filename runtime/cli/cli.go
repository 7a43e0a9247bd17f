// Package cli is the command line of sluice.
package cli

import (
	"context"
	"crypto/rand"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/process"
)

// Run is the program: give it to process.Main.
func Run(ctx context.Context, p *process.Process) int {
	a := &app{p: p}
	root := p.Root("Move data continuously between systems, exactly once",
		`sluice runs pipelines of connectors: captures that read a system, and materializations that write one.

  sluice discover bin/source-postgres --config source.yaml > pipeline.yaml
  sluice run pipeline.yaml

A CONNECTOR is the path of a connector's program, its name on the PATH, or a Docker image.`)
	root.PersistentFlags().StringVar(&a.network, "network", "", "the Docker network that connectors which are images join; host shares this machine's (default: Docker's own)")
	root.PersistentFlags().StringArrayVar(&a.dockerOptions, "docker-option", nil, "an option of docker run for connectors that are images, such as --memory=1g; may be given several times")
	root.AddCommand(a.runCommand(), a.statusCommand(), a.logCommand(), a.specCommand(), a.checkCommand(), a.discoverCommand(), a.previewCommand(), a.sqlCommand(), a.testCommand(), a.newCommand(), a.adapterCommand())
	return p.Execute(ctx, root)
}

type app struct {
	p             *process.Process
	network       string // that images join
	dockerOptions []string
}

func (a *app) pipelineOptions() pipeline.Options {
	return pipeline.Options{Getenv: a.p.LookupEnv, Airbyte: append(a.airbyteCommand(), "--brief")}
}

// launcher starts connectors that inherit our environment.
func (a *app) launcher() connector.Launcher {
	level, _ := a.p.LookupEnv("LOG_LEVEL")
	environ := slices.DeleteFunc(os.Environ(), func(entry string) bool { //nolint:forbidigo // for child processes, as it is
		// The address is ours, and so are the keys of our files.
		return strings.HasPrefix(entry, "SLUICE_PPROF=") || strings.HasPrefix(entry, "SOPS_")
	})
	instance, ok := a.p.LookupEnv(connector.InstanceName) // that of the runtime which started us
	if !ok {
		instance = "cli-" + strings.ToLower(rand.Text()[:8])
	}
	return connector.Launcher{Environ: environ, LogLevel: level, Network: a.network, DockerOptions: a.dockerOptions, Instance: instance}
}

func (a *app) entry(connector string) *logrus.Entry { return a.p.Log.WithField("connector", connector) }

// timeoutFlag adds the flag for how long a connector may take to answer.
func timeoutFlag(cmd *cobra.Command, timeout *time.Duration) {
	cmd.Flags().DurationVar(timeout, "timeout", 5*time.Minute, "how long the connector may take to answer")
}
