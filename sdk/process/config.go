package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sluicedata/sluice/sdk/reference"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// configVariable is the environment variable that stands in for --config.
const configVariable = "SLUICE_CONFIG"

// ConfigFlag gives a command the flag --config, whose value ReadConfig takes.
func ConfigFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "",
		"file with the endpoint's configuration, YAML or JSON; - reads standard input (default: what "+configVariable+" says)")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml", "json") // it exists
}

// ReadConfig reads an endpoint's configuration, YAML or JSON, as JSON, and resolves its references (package reference) to
// environment variables and files. The name is that of a file, or "-" for Stdin. Without a name the environment variable
// SLUICE_CONFIG is the configuration itself or, if it is no mapping, the name of a file.
func (p *Process) ReadConfig(name string) (json.RawMessage, error) {
	text, err := p.config(&name)
	if err != nil {
		return nil, err
	}
	around := reference.Surroundings{LookupEnv: p.LookupEnv}
	if name != "" && name != "-" {
		around.Dir = filepath.Dir(name)
	}
	return resolve(text, around)
}

// config is the configuration before its references are resolved. It sets name to the file that SLUICE_CONFIG names.
func (p *Process) config(name *string) (json.RawMessage, error) {
	if *name != "" {
		return p.ReadFile(*name)
	}
	value, ok := p.LookupEnv(configVariable)
	if !ok || value == "" {
		return nil, usererr.New(nil, "There is no configuration. Name its file with --config, give it on standard input with --config -, or put it into the environment variable %s.", configVariable)
	}
	text, err := toJSON([]byte(value))
	if err != nil {
		return nil, usererr.New(err, "The environment variable %s is neither JSON nor YAML: %v.", configVariable, err)
	}
	var file string
	if json.Unmarshal(text, &file) == nil && file != "" {
		*name = file
		return p.ReadFile(file)
	}
	return text, nil
}

// ReadFile reads a file, YAML or JSON, as JSON. The name "-" means Stdin.
func (p *Process) ReadFile(name string) (json.RawMessage, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(p.Stdin)
		name = "standard input"
	} else {
		text, err = os.ReadFile(name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, usererr.New(err, "There is no file %s.", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	out, err := toJSON(text)
	if err != nil {
		return nil, usererr.New(err, "%s is neither JSON nor YAML: %v.", name, err)
	}
	return out, nil
}

// resolve resolves the references in the texts of a JSON value. Names of fields are left as they are.
func resolve(text json.RawMessage, around reference.Surroundings) (json.RawMessage, error) {
	if !reference.Used(string(text)) {
		return text, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	r := resolver{in: d, around: around}
	if err := r.value(""); err != nil {
		return nil, err
	}
	return r.out, nil
}

// resolver copies a JSON value token by token.
type resolver struct {
	in     *json.Decoder
	out    []byte
	around reference.Surroundings
}

// value copies the next value; at is where it is, for messages.
func (r *resolver) value(at string) error {
	token, err := r.in.Token()
	if err != nil {
		return fmt.Errorf("reading the configuration again: %w", err)
	}
	switch v := token.(type) {
	case json.Delim:
		return r.nested(v, at)
	case string:
		text, err := r.around.Resolve(v)
		if err != nil {
			return usererr.New(nil, "The field %q of the configuration: %v.", at, err)
		}
		token = text
	}
	return r.scalar(token)
}

func (r *resolver) nested(begin json.Delim, at string) error {
	r.out = append(r.out, byte(begin))
	for i := 0; r.in.More(); i++ {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		inner := strconv.Itoa(i + 1)
		if begin == '{' {
			name, err := r.in.Token()
			if err != nil {
				return fmt.Errorf("reading the configuration again: %w", err)
			}
			if err := r.scalar(name); err != nil {
				return err
			}
			r.out = append(r.out, ':')
			inner = fmt.Sprint(name)
		}
		if at != "" {
			inner = at + "." + inner
		}
		if err := r.value(inner); err != nil {
			return err
		}
	}
	end, err := r.in.Token()
	if err != nil {
		return fmt.Errorf("reading the configuration again: %w", err)
	}
	if d, ok := end.(json.Delim); ok {
		r.out = append(r.out, byte(d))
	}
	return nil
}

func (r *resolver) scalar(token json.Token) error {
	text, err := json.Marshal(token)
	if err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	r.out = append(r.out, text...)
	return nil
}
