package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// DefaultInterval is the least time between two starts of a capture that ends by itself.
const DefaultInterval = 5 * time.Minute

// Load reads a pipeline file and checks it. Errors are for people.
func Load(file string, opts Options) (*Pipeline, error) {
	s := &source{file: file, opts: opts}
	root, err := s.readYAML()
	if err != nil {
		return nil, err
	}
	p := &Pipeline{File: file, Collections: map[string]*Collection{}}
	if err := s.members(root, "the pipeline", map[string]field{
		"captures":         s.named("captures", func(n string, v *yaml.Node) error { return s.capture(p, n, v) }),
		"collections":      s.named("collections", func(n string, v *yaml.Node) error { return s.collection(p, n, v) }),
		"materializations": s.named("materializations", func(n string, v *yaml.Node) error { return s.materialization(p, n, v) }),
		"log":              s.log(p),
		"tests":            ignore,
	}); err != nil {
		return nil, err
	}
	sort.Slice(p.Captures, func(i, j int) bool { return p.Captures[i].Name < p.Captures[j].Name })
	sort.Slice(p.Materializations, func(i, j int) bool { return p.Materializations[i].Name < p.Materializations[j].Name })
	if err := p.check(); err != nil {
		return p, err
	}
	p.setDepths()
	return p, nil
}

// setDepths tells collections how deep their fields are wanted.
func (p *Pipeline) setDepths() {
	for _, m := range p.Materializations {
		for _, b := range m.Bindings {
			c := p.Collections[b.Source]
			if b.Fields.Depth < 0 || c.Depth < 0 {
				c.Depth = -1
				continue
			}
			c.Depth = max(c.Depth, b.Fields.Depth)
		}
	}
}

// LoadConfig reads one connector's configuration, JSON or YAML, from a file.
func LoadConfig(file string, opts Options) (json.RawMessage, error) {
	s := &source{file: file, opts: opts}
	root, err := s.readYAML()
	if err != nil {
		return nil, err
	}
	return s.config(root)
}

// named reads a mapping of names to definitions. An empty one (only comments below it) is none.
func (s *source) named(what string, read func(name string, value *yaml.Node) error) field {
	return func(n *yaml.Node) error {
		if n.Tag == "!!null" {
			return nil
		}
		return s.each(n, what, func(key, value *yaml.Node) error {
			if err := checkName(key.Value); err != "" {
				return s.fail(key, "the name %q %s", key.Value, err)
			}
			return read(key.Value, value)
		})
	}
}

// log reads what the log keeps.
func (s *source) log(p *Pipeline) field {
	r := &p.Retention
	retention := func(n *yaml.Node) error {
		err := s.members(n, "retention", map[string]field{
			"time": func(n *yaml.Node) (err error) {
				if r.Time, err = ParseAge(n.Value); err != nil || r.Time == 0 {
					return s.fail(n, "time of retention is %q: it must be a duration such as 90m, 12h or 7d", n.Value)
				}
				return nil
			},
			"size": func(n *yaml.Node) (err error) {
				if r.Bytes, err = ParseSize(n.Value); err != nil {
					return s.fail(n, "size of retention is %q: %v", n.Value, err)
				}
				return nil
			},
			"unread": func(n *yaml.Node) error {
				if n.Value != "hold" && n.Value != "drop" {
					return s.fail(n, "unread is %q: it must be hold (keep what a materialization has not read, whatever the limits say) or drop", n.Value)
				}
				r.DropUnread = n.Value == "drop"
				return nil
			},
		})
		if err == nil && !r.Limited() {
			err = s.fail(n, "retention needs a time (such as 7d), a size (such as 50GB), or both")
		}
		return err
	}
	return func(n *yaml.Node) error { return s.logOn(p, n, retention) }
}

func (s *source) capture(p *Pipeline, name string, n *yaml.Node) error {
	c := &Capture{Name: name, Interval: DefaultInterval, Shards: 1, At: s.at(n)}
	var disabled bool
	fields := map[string]field{
		"endpoint": s.endpoint(&c.Endpoint),
		"interval": func(n *yaml.Node) (err error) {
			if c.Interval, err = time.ParseDuration(n.Value); err != nil || c.Interval < 0 {
				return s.fail(n, "interval must be a duration such as 30s or 5m")
			}
			return nil
		},
		"bindings":     s.bindings(func(n *yaml.Node) error { return s.captureBinding(c, n) }),
		"shards":       s.shards(&c.Shards, &disabled),
		"autoDiscover": ignore,
	}
	if err := s.members(n, "the capture "+name, fields); err != nil {
		return err
	}
	if err := s.complete(n, "capture", name, &c.Endpoint); err != nil || disabled {
		return err
	}
	p.Captures = append(p.Captures, c)
	return nil
}

func (s *source) captureBinding(c *Capture, n *yaml.Node) error {
	var b CaptureBinding
	var disabled bool
	err := s.members(n, "a binding of the capture "+c.Name, map[string]field{
		"resource": s.json(&b.Resource, "resource"), "target": s.text(&b.Target, "target"),
		"backfill": s.counter(&b.Backfill, "backfill"), "disable": s.boolean(&disabled, "disable"),
	})
	if err != nil || disabled {
		return err
	}
	if b.Resource == nil || b.Target == "" {
		return s.fail(n, "a binding of the capture %s needs a resource and a target (the name of a collection)", c.Name)
	}
	c.Bindings = append(c.Bindings, b)
	return nil
}

func (s *source) collection(p *Pipeline, name string, n *yaml.Node) error {
	c := &Collection{Name: name, At: s.at(n), Projections: map[string]string{}}
	p.Collections[name] = c
	err := s.members(n, "the collection "+name, map[string]field{
		"key":         s.texts(&c.Key, "key"),
		"schema":      s.schema(&c.Schema),
		"writeSchema": s.schema(&c.Schema),
		"readSchema":  ignore, // inferred
		"projections": func(n *yaml.Node) error { return s.projections(c, n) },
		"journals":    ignore,
		"derive": func(n *yaml.Node) error {
			return s.fail(n, "derivations are not supported: capture the collection %s instead", name)
		},
	})
	if err != nil {
		return err
	}
	if len(c.Key) == 0 || c.Schema == nil {
		return s.fail(n, "the collection %s needs a key (a list of JSON pointers such as /id) and a schema", name)
	}
	for _, pointer := range c.Key {
		if !strings.HasPrefix(pointer, "/") {
			return s.fail(n, "the key %q of the collection %s must be a JSON pointer such as /id", pointer, name)
		}
	}
	return nil
}

func (s *source) projections(c *Collection, n *yaml.Node) error {
	return s.each(n, "projections", func(key, value *yaml.Node) error {
		var pointer string
		if value.Kind == yaml.MappingNode {
			if err := s.members(value, "a projection", map[string]field{"location": s.text(&pointer, "location"), "partition": ignore}); err != nil {
				return err
			}
		} else if err := s.text(&pointer, "a projection")(value); err != nil {
			return err
		}
		c.Projections[key.Value] = pointer
		return nil
	})
}

func (s *source) materialization(p *Pipeline, name string, n *yaml.Node) error {
	m := &Materialization{Name: name, Shards: 1, At: s.at(n)}
	var disabled bool
	fields := map[string]field{
		"endpoint": s.endpoint(&m.Endpoint),
		"bindings": s.bindings(func(n *yaml.Node) error { return s.materializationBinding(m, n) }),
		"shards":   s.shards(&m.Shards, &disabled),
	}
	if err := s.members(n, "the materialization "+name, fields); err != nil {
		return err
	}
	if err := s.complete(n, "materialization", name, &m.Endpoint); err != nil {
		return err
	}
	if disabled {
		p.Paused = append(p.Paused, m)
	} else {
		p.Materializations = append(p.Materializations, m)
	}
	return nil
}

func (s *source) materializationBinding(m *Materialization, n *yaml.Node) error {
	b := MaterializationBinding{Fields: Fields{Depth: 1}, At: s.at(n)}
	var disabled bool
	var priority uint32
	err := s.members(n, "a binding of the materialization "+m.Name, map[string]field{
		"resource": s.json(&b.Resource, "resource"), "source": s.sourceName(&b.Source), "fields": s.fields(&b.Fields),
		"backfill": s.counter(&b.Backfill, "backfill"), "disable": s.boolean(&disabled, "disable"), "priority": s.counter(&priority, "priority"),
	})
	if err != nil {
		return err
	}
	if disabled {
		m.Paused = append(m.Paused, b)
		return nil
	}
	if b.Resource == nil || b.Source == "" {
		return s.fail(n, "a binding of the materialization %s needs a resource and a source (the name of a collection)", m.Name)
	}
	b.Priority = int32(min(priority, 1<<30))
	m.Bindings = append(m.Bindings, b)
	return nil
}

func (s *source) sourceName(dst *string) field {
	return func(n *yaml.Node) error {
		if n.Kind == yaml.MappingNode {
			return s.members(n, "source", map[string]field{"name": s.text(dst, "name")})
		}
		return s.text(dst, "source")(n)
	}
}

func (s *source) fields(f *Fields) field {
	return func(n *yaml.Node) error {
		f.Require = map[string]json.RawMessage{}
		require := func(n *yaml.Node) error {
			return s.each(n, "require", func(key, value *yaml.Node) (err error) {
				f.Require[key.Value], err = s.toJSON(value, false)
				return err
			})
		}
		return s.members(n, "fields", map[string]field{
			"recommended": s.depth(&f.Depth), "require": require, "include": require,
			"exclude": s.texts(&f.Exclude, "exclude"), "groupBy": s.texts(&f.GroupBy, "groupBy"),
		})
	}
}

func (s *source) depth(dst *int) field {
	return func(n *yaml.Node) error {
		depth, err := strconv.Atoi(n.Value)
		switch {
		case n.Tag == "!!bool" && n.Value == "false":
			*dst = 0
		case n.Tag == "!!bool":
			*dst = 1
		case err == nil && depth >= 0:
			*dst = depth
		default:
			return s.fail(n, "recommended must be true, false, or how deep fields are taken (1 is the top level)")
		}
		return nil
	}
}

func (s *source) bindings(read func(*yaml.Node) error) field {
	return func(n *yaml.Node) error { return s.list(n, "bindings", read) }
}

// maxShards bounds how many processes of one task there can be; each is a connector.
const maxShards = 1000

// shards reads how many a task has: a number, or the mapping of a catalog with the number in it.
func (s *source) shards(count *int, disabled *bool) field {
	number := func(n *yaml.Node) (err error) {
		if *count, err = strconv.Atoi(n.Value); err != nil || *count < 1 || *count > maxShards {
			return s.fail(n, "shards is %q: it must be a whole number from 1 to %d", n.Value, maxShards)
		}
		return nil
	}
	return func(n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode {
			return number(n)
		}
		return s.members(n, "shards", map[string]field{"count": number, "disable": s.boolean(disabled, "disable"), "logLevel": ignore, "minTxnDuration": ignore, "maxTxnDuration": ignore})
	}
}

func (s *source) endpoint(e *Endpoint) field {
	config := func(n *yaml.Node) (err error) { e.Config, err = s.config(n); return err }
	return func(n *yaml.Node) error {
		if len(n.Content) > 2 {
			return s.fail(n, "an endpoint is one of local, connector and airbyte")
		}
		return s.members(n, "endpoint", map[string]field{
			"airbyte": s.airbyte(e),
			"connector": func(n *yaml.Node) error {
				return s.members(n, "connector", map[string]field{"image": s.text(&e.Image, "image"), "config": config})
			},
			"local": func(n *yaml.Node) error {
				proto := false
				err := s.members(n, "local", map[string]field{
					"command": s.texts(&e.Command, "command"), "config": config, "protobuf": s.boolean(&proto, "protobuf"), "env": s.env(e),
				})
				if e.Codec = frame.JSON; proto {
					e.Codec = frame.Proto
				}
				return err
			},
		})
	}
}

func (s *source) env(e *Endpoint) field {
	return func(n *yaml.Node) error {
		e.Env = map[string]string{}
		return s.each(n, "env", func(key, value *yaml.Node) (err error) {
			e.Env[key.Value], err = s.expand(value)
			return err
		})
	}
}

// config reads an endpoint's configuration, inline or from the file that it names.
func (s *source) config(n *yaml.Node) (json.RawMessage, error) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		return LoadConfig(s.near(n.Value), s.opts)
	}
	if n.Kind != yaml.MappingNode {
		return nil, s.fail(n, "config must be a mapping, or the name of a file that holds one")
	}
	if err := s.decrypt(n); err != nil {
		return nil, err
	}
	return s.toJSON(n, true)
}

// schema reads a JSON schema, inline or from the file that it names.
func (s *source) schema(dst *json.RawMessage) field {
	return func(n *yaml.Node) (err error) {
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			other := &source{file: s.near(n.Value), opts: s.opts}
			if n, err = other.readYAML(); err != nil {
				return err
			}
			*dst, err = other.toJSON(n, false)
			return err
		}
		*dst, err = s.toJSON(n, false)
		return err
	}
}

func (s *source) json(dst *json.RawMessage, what string) field {
	return func(n *yaml.Node) (err error) {
		if n.Kind != yaml.MappingNode {
			return s.fail(n, "%s must be a mapping", what)
		}
		*dst, err = s.toJSON(n, false)
		return err
	}
}

// complete checks an endpoint as a whole and finds its command.
func (s *source) complete(n *yaml.Node, kind, name string, e *Endpoint) error {
	switch {
	case e.Image == "" && len(e.Command) == 0:
		return s.fail(n, "the %s %s needs an endpoint: local with a command, connector with an image, or airbyte with either", kind, name)
	case e.Image != "" && len(e.Command) > 0:
		return s.fail(n, "the %s %s has a command and an image: choose one", kind, name)
	}
	if e.Config == nil {
		e.Config = json.RawMessage("{}")
	}
	if e.Image == "" {
		if err := s.find(n, kind, name, e); err != nil {
			return err
		}
	}
	if len(e.adapter) == 0 {
		return nil
	}
	if kind != "capture" {
		return s.fail(n, "the %s %s cannot be a source of Airbyte", kind, name)
	}
	if err := e.AdaptAirbyte(e.adapter); err != nil {
		return s.fail(n, "%s", usererr.Message(err))
	}
	return nil
}

// find makes a command's path absolute, and looks whether it is there.
func (s *source) find(n *yaml.Node, kind, name string, e *Endpoint) error {
	if command := e.Command[0]; strings.ContainsRune(command, filepath.Separator) {
		abs, err := filepath.Abs(s.near(command))
		if err != nil {
			return fmt.Errorf("finding %q: %w", command, err)
		}
		e.Command[0] = abs
	}
	if _, err := exec.LookPath(e.Command[0]); err != nil {
		return usererr.New(err, "%s: the %s %s cannot be started: %s", s.at(n), kind, name, CommandProblem(e.Command[0], err))
	}
	return nil
}

func suggestion(name string, fields map[string]field) string {
	for known := range fields {
		if strings.EqualFold(known, name) {
			return "; did you mean " + known + "?"
		}
	}
	return "; known are " + strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}
