package pipeline

import (
	"path/filepath"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// airbyte reads an endpoint that is a source of Airbyte. It is made a connector when its command has been found.
func (s *source) airbyte(e *Endpoint) field {
	return func(n *yaml.Node) error {
		if len(s.opts.Airbyte) == 0 {
			return s.fail(n, "this program cannot run sources of Airbyte")
		}
		e.adapter = s.opts.Airbyte
		return s.members(n, "airbyte", map[string]field{
			"command": s.texts(&e.Command, "command"), "image": s.text(&e.Image, "image"), "env": s.env(e),
			"config": func(n *yaml.Node) (err error) { e.Config, err = s.config(n); return err },
			"timeout": func(n *yaml.Node) error {
				d, err := time.ParseDuration(n.Value)
				if err != nil || d <= 0 {
					return s.fail(n, "timeout must be a duration such as 30m or 2h: how long the source may say nothing")
				}
				e.adapter = append(slices.Clip(e.adapter), "--timeout", n.Value)
				return nil
			},
		})
	}
}

// AdaptAirbyte makes of the program or image of a source of Airbyte a connector that runs it: adapter is the command that does.
func (e *Endpoint) AdaptAirbyte(adapter []string) error {
	command := append([]string{}, adapter...)
	switch {
	case e.Image != "" && len(e.Env) > 0:
		return usererr.New(nil, "env is for a command. Give an image its environment by --docker-option=--env=NAME=VALUE.")
	case e.Image != "":
		e.Label = e.Image
		command = append(command, "--image", e.Image)
	default:
		e.Label = filepath.Base(e.Command[0])
		command = append(append(command, "--"), e.Command...)
	}
	e.Image, e.Command, e.Codec = "", command, frame.Proto
	return nil
}
