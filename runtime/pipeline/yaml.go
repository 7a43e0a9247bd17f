package pipeline

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/runtime/sops"
	"github.com/sluicedata/sluice/sdk/reference"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// source is one file being read.
type source struct {
	file   string
	opts   Options
	values int // converted to JSON so far
	// secret are texts that were encrypted. What stands behind ${ in one is perhaps no name but a part of a password: no error shows it.
	secret map[*yaml.Node]bool
}

// maxValues bounds what a file can become: anchors that refer to each other grow without end.
const maxValues = 2_000_000

// readYAML parses a file of exactly one document.
func (s *source) readYAML() (*yaml.Node, error) {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return nil, usererr.New(err, "cannot read %s: %v", s.file, reason(err))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, usererr.New(err, "%s is not valid YAML: %s", s.file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) == 0 {
		return nil, usererr.New(nil, "%s is empty", s.file)
	}
	return doc.Content[0], s.decrypt(doc.Content[0])
}

// decrypt takes the encryption of a mapping away that sops has encrypted; others it leaves alone.
func (s *source) decrypt(n *yaml.Node) error {
	if !sops.Encrypted(n) {
		return nil
	}
	opened, err := sops.Decrypt(n, sops.Keys{LookupEnv: s.opts.Getenv})
	if err != nil {
		return usererr.New(err, "%s cannot be used: %s", s.at(n), usererr.Message(err))
	}
	if s.secret == nil {
		s.secret = map[*yaml.Node]bool{}
	}
	for _, value := range opened {
		s.secret[value] = true
	}
	return nil
}

// reason is a file system error without the path, which the sentence around it names.
func reason(err error) error {
	if pathErr, ok := err.(*os.PathError); ok { //nolint:errorlint // os returns it unwrapped
		return pathErr.Err
	}
	return err
}

func (s *source) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", s.file, n.Line) }

// fail makes an error about a place in the file.
func (s *source) fail(n *yaml.Node, format string, args ...any) error {
	return usererr.New(nil, "%s: %s", s.at(n), fmt.Sprintf(format, args...))
}

// A field says how one member of a mapping is read.
type field func(value *yaml.Node) error

// ignore accepts a member that has a meaning elsewhere and none here.
func ignore(*yaml.Node) error { return nil }

// members reads a mapping whose members are all known. what names the mapping in errors.
func (s *source) members(n *yaml.Node, what string, fields map[string]field) error {
	return s.each(n, what, func(key, value *yaml.Node) error {
		read, ok := fields[key.Value]
		if !ok {
			return s.fail(key, "unknown field %q in %s%s", key.Value, what, suggestion(key.Value, fields))
		}
		return read(value)
	})
}

// each visits the members of a mapping and refuses names that come twice.
func (s *source) each(n *yaml.Node, what string, visit func(key, value *yaml.Node) error) error {
	n = deref(n)
	if n.Kind != yaml.MappingNode {
		return s.fail(n, "%s must be a mapping (name: value)", what)
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i], deref(n.Content[i+1])
		if seen[key.Value] {
			return s.fail(key, "%q stands twice in %s", key.Value, what)
		}
		seen[key.Value] = true
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// list visits the elements of a sequence.
func (s *source) list(n *yaml.Node, what string, visit func(value *yaml.Node) error) error {
	if n.Kind != yaml.SequenceNode {
		return s.fail(n, "%s must be a list", what)
	}
	for _, value := range n.Content {
		if err := visit(deref(value)); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) text(dst *string, what string) field {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Value == "" {
			return s.fail(n, "%s must be a text that is not empty", what)
		}
		*dst = n.Value
		return nil
	}
}

func (s *source) texts(dst *[]string, what string) field {
	return func(n *yaml.Node) error {
		return s.list(n, what, func(n *yaml.Node) error {
			var one string
			if err := s.text(&one, "an element of "+what)(n); err != nil {
				return err
			}
			*dst = append(*dst, one)
			return nil
		})
	}
}

func (s *source) boolean(dst *bool, what string) field {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			return s.fail(n, "%s must be true or false", what)
		}
		*dst = n.Value == "true" || n.Value == "True" || n.Value == "TRUE"
		return nil
	}
}

func (s *source) counter(dst *uint32, what string) field {
	return func(n *yaml.Node) error {
		v, err := strconv.ParseUint(n.Value, 10, 32)
		if n.Kind != yaml.ScalarNode || err != nil {
			return s.fail(n, "%s must be a whole number, zero or more", what)
		}
		*dst = uint32(v)
		return nil
	}
}

// toJSON converts a value, keeping the order of members and the spelling of numbers. With expand, references in
// texts (package reference) are resolved.
func (s *source) toJSON(n *yaml.Node, expand bool) (json.RawMessage, error) {
	return s.appendJSON(nil, n, expand, 0)
}

func (s *source) appendJSON(dst []byte, n *yaml.Node, expand bool, depth int) ([]byte, error) {
	n = deref(n)
	if s.values++; depth > 1000 || s.values > maxValues {
		return nil, s.fail(n, "the value is nested too deeply or too large")
	}
	var err error
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		first := true
		err := s.each(n, "the mapping", func(key, value *yaml.Node) error {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(appendString(dst, key.Value), ':')
			dst, err = s.appendJSON(dst, value, expand, depth+1)
			return err
		})
		return append(dst, '}'), err
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, value := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = s.appendJSON(dst, value, expand, depth+1); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	default:
		return s.appendScalar(dst, n, expand)
	}
}

func (s *source) appendScalar(dst []byte, n *yaml.Node, expand bool) ([]byte, error) {
	value := n.Value
	if expand && reference.Used(value) {
		var err error
		if value, err = s.expand(n); err != nil {
			return nil, err
		}
	}
	switch n.Tag {
	case "!!null":
		return append(dst, "null"...), nil
	case "!!bool":
		b, err := strconv.ParseBool(strings.ToLower(value))
		if err != nil {
			return nil, s.fail(n, "%q is not true or false", n.Value)
		}
		return strconv.AppendBool(dst, b), nil
	case "!!int":
		return s.appendInt(dst, n, value)
	case "!!float":
		if json.Valid([]byte(value)) {
			return append(dst, value...), nil
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, s.fail(n, "%q has no form in JSON", n.Value)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64), nil
	}
	return appendString(dst, value), nil
}

func (s *source) appendInt(dst []byte, n *yaml.Node, value string) ([]byte, error) {
	if json.Valid([]byte(value)) {
		return append(dst, value...), nil
	}
	i, err := strconv.ParseInt(value, 0, 64)
	if err != nil {
		return nil, s.fail(n, "%q is not a whole number", n.Value)
	}
	return strconv.AppendInt(dst, i, 10), nil
}

// expand resolves the references of a text.
func (s *source) expand(n *yaml.Node) (string, error) {
	text, err := reference.Surroundings{LookupEnv: s.opts.Getenv, Dir: filepath.Dir(s.file)}.Resolve(n.Value)
	switch {
	case err != nil && s.secret[n]:
		return "", s.fail(n, "the value was encrypted and has a ${…} that stands for nothing: set the variable or the file that it names, or write $${ for the two characters themselves")
	case err != nil:
		return "", s.fail(n, "%v", err)
	}
	return text, nil
}

func appendString(dst []byte, s string) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return append(dst, `""`...) // cannot happen with a string
	}
	return append(dst, text...)
}

func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// near is the path of a file that this file refers to.
func (s *source) near(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(s.file), path)
}
