package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// recipe is an image while its Dockerfile is followed, one instruction after the other.
type recipe struct {
	context string
	created time.Time
	given   map[string]string // values of ARGs
	env     []string          // what ${NAME} in later instructions can mean
	config  v1.Config
	layers  []mutate.Addendum
}

// build follows a Dockerfile that begins with FROM scratch. An instruction that it does not know is an error: an image that
// lacks something silently would be found out by its users.
func build(dockerfile []byte, context string, platform v1.Platform, args []string, created time.Time) (v1.Image, error) {
	ast, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, fmt.Errorf("reading the Dockerfile: %w", err)
	}
	stages, _, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the Dockerfile: %w", err)
	}
	if len(stages) != 1 || stages[0].BaseName != "scratch" {
		return nil, errors.New("the Dockerfile must have one stage, FROM scratch")
	}
	r := &recipe{context: context, created: created, given: map[string]string{}}
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		r.given[key] = value
	}
	for _, command := range stages[0].Commands {
		if err := r.follow(command); err != nil {
			return nil, fmt.Errorf("%s in line %d of the Dockerfile: %w", command.Name(), command.Location()[0].Start.Line, err)
		}
	}
	if len(r.given) > 0 {
		return nil, fmt.Errorf("the Dockerfile has no ARG for %v", r.given)
	}
	return r.image(platform)
}

func (r *recipe) follow(command instructions.Command) error {
	if c, ok := command.(instructions.SupportsSingleWordExpansion); ok {
		if err := c.Expand(r.expand); err != nil {
			return err
		}
	}
	switch c := command.(type) {
	case *instructions.ArgCommand:
		return r.arg(c)
	case *instructions.LabelCommand:
		if r.config.Labels == nil {
			r.config.Labels = map[string]string{}
		}
		for _, label := range c.Labels {
			r.config.Labels[label.Key] = label.Value
		}
	case *instructions.EnvCommand:
		for _, variable := range c.Env {
			r.env = append(r.env, variable.String())
			r.config.Env = append(r.config.Env, variable.String())
		}
	case *instructions.UserCommand:
		r.config.User = c.User
	case *instructions.EntrypointCommand:
		if c.PrependShell {
			return errors.New("there is no shell in the image; write a list")
		}
		r.config.Entrypoint = c.CmdLine
	case *instructions.CopyCommand:
		layer, err := copyLayer(r.context, c, r.created)
		if err != nil {
			return err
		}
		r.layers = append(r.layers, mutate.Addendum{
			Layer: layer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: c.String()},
		})
	default:
		return errors.New("the packer does not know this instruction")
	}
	return nil
}

// arg takes the value that was given for it. Every ARG needs one: an empty label tells nobody anything.
func (r *recipe) arg(c *instructions.ArgCommand) error {
	for _, arg := range c.Args {
		value, ok := r.given[arg.Key]
		switch {
		case ok:
			delete(r.given, arg.Key)
		case arg.Value != nil:
			value = *arg.Value
		default:
			return fmt.Errorf("no value for %s was given", arg.Key)
		}
		r.env = append(r.env, arg.Key+"="+value)
	}
	return nil
}

func (r *recipe) expand(word string) (string, error) {
	value, unknown, err := shell.NewLex('\\').ProcessWord(word, shell.EnvsFromSlice(r.env))
	if err == nil && len(unknown) > 0 {
		err = fmt.Errorf("nothing says what %v is", unknown)
	}
	return value, err
}

// image puts it together.
func (r *recipe) image(platform v1.Platform) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(img, r.layers...)
	if err != nil {
		return nil, fmt.Errorf("adding layers: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = platform.OS, platform.Architecture
	file.Created = v1.Time{Time: r.created}
	file.Config = r.config
	return mutate.ConfigFile(img, file)
}
