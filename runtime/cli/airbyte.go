package cli

import (
	"os"
	"path"
	"path/filepath"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/runtime/airbyte"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const adapterName = "airbyte-adapter"

// airbyteCommand is the command that is a connector for sources of Airbyte: this program.
func (a *app) airbyteCommand() []string {
	self, err := os.Executable()
	if err != nil {
		self = a.p.Name
	}
	command := []string{self, adapterName}
	if a.network != "" {
		command = append(command, "--network", a.network)
	}
	for _, option := range a.dockerOptions {
		command = append(command, "--docker-option", option)
	}
	return command
}

// adapterCommand is that connector. Pipelines start it; people need not know it.
func (a *app) adapterCommand() *cobra.Command {
	var adapter airbyte.Adapter
	e := &adapter.Source.Endpoint
	cmd := &cobra.Command{
		Use: adapterName + " [--image IMAGE] [-- COMMAND…]", Short: "Be a connector for a source of Airbyte", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (e.Image == "") == (len(args) == 0) {
				return usererr.New(nil, "%s needs a command or an image of a source of Airbyte", adapterName)
			}
			codec, err := a.p.Codec()
			if err != nil {
				return err
			}
			e.Command, e.Label = args, path.Base(e.Image)
			if e.Image == "" {
				e.Label = filepath.Base(args[0])
			}
			launcher := a.launcher()
			adapter.Codec, adapter.Source.Launcher, adapter.Source.Log = codec, &launcher, logrus.NewEntry(a.p.Log)
			return adapter.Serve(cmd.Context(), a.p.Stdin, a.p.Stdout)
		},
	}
	cmd.Flags().StringVar(&e.Image, "image", "", "the source is this image")
	cmd.Flags().DurationVar(&adapter.Source.Silence, "timeout", airbyte.DefaultSilence, "how long the source may say nothing")
	cmd.Flags().BoolVar(&adapter.Brief, "brief", false, "do not ask the source for what only people read")
	return cmd
}
