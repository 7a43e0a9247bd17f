package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// toJSON makes JSON of JSON or YAML. Numbers keep their text, and what YAML takes for a date stays the text it was.
func toJSON(text []byte) (json.RawMessage, error) {
	if trimmed := bytes.TrimSpace(text); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid(trimmed) {
		return trimmed, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		if strings.Contains(err.Error(), "anchor '") {
			// The library's words have the value in them, which may be a secret.
			return nil, errAnchor
		}
		return nil, err
	}
	if doc.Kind == 0 {
		return nil, errors.New("it is empty")
	}
	return appendNode(nil, &doc, 0)
}

var errAnchor = errors.New("something begins with * and refers to nothing; put a value that begins with * or & into quotes")

// What a configuration cannot exceed: a few lines of YAML whose aliases refer to one another can.
const (
	maxDepth = 100
	maxSize  = 16 << 20
)

func appendNode(dst []byte, n *yaml.Node, depth int) ([]byte, error) {
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("line %d: it is nested too deeply", n.Line)
	case len(dst) > maxSize:
		return nil, fmt.Errorf("line %d: its aliases make it larger than %d MiB", n.Line, maxSize>>20)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return appendNode(dst, n.Content[0], depth+1)
	case yaml.AliasNode:
		return appendNode(dst, n.Alias, depth+1)
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendNode(dst, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case yaml.MappingNode:
		return appendMapping(dst, n, depth)
	default:
		return appendScalar(dst, n)
	}
}

func appendMapping(dst []byte, n *yaml.Node, depth int) ([]byte, error) {
	seen := make(map[string]bool, len(n.Content)/2)
	dst = append(dst, '{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Tag == "!!merge":
			return nil, fmt.Errorf("line %d: merging by << is not supported", key.Line)
		case key.Kind != yaml.ScalarNode:
			return nil, fmt.Errorf("line %d: the name of a field must be a text", key.Line)
		case seen[key.Value]:
			return nil, fmt.Errorf("line %d: the field %q is there twice", key.Line, key.Value)
		}
		if len(seen) > 0 {
			dst = append(dst, ',')
		}
		seen[key.Value] = true
		name, err := json.Marshal(key.Value)
		if err != nil {
			return nil, err
		}
		dst = append(append(dst, name...), ':')
		if dst, err = appendNode(dst, n.Content[i+1], depth+1); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendScalar(dst []byte, n *yaml.Node) ([]byte, error) {
	var v any = n.Value
	switch n.Tag {
	case "!!null":
		v = nil
	case "!!int", "!!float", "!!bool":
		if json.Valid([]byte(n.Value)) {
			return append(dst, n.Value...), nil
		}
		if err := n.Decode(&v); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	return append(dst, text...), nil
}
