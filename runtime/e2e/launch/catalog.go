// Package launch writes pipeline files and runs the built binaries on them, for the demo, the end-to-end tests and the
// benchmarks. It sees sluice and its connectors from outside only: as files, processes and exit codes.
package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// A Catalog is a pipeline file. It has those members that its users set; the schemas of collections pass through.
type Catalog struct {
	Captures         map[string]*Capture         `yaml:"captures,omitempty"`
	Collections      map[string]*Collection      `yaml:"collections,omitempty"`
	Materializations map[string]*Materialization `yaml:"materializations,omitempty"`
	Log              any                         `yaml:"log,omitempty"` // an address, or a mapping; nil is the data folder
}

// Capture reads a database into collections.
type Capture struct {
	Endpoint Endpoint         `yaml:"endpoint"`
	Interval string           `yaml:"interval,omitempty"`
	Bindings []CaptureBinding `yaml:"bindings"`
	Shards   *Shards          `yaml:"shards,omitempty"`
}

// Shards switches a task off without taking it out of the file, or says how many shards it has.
type Shards struct {
	Disable bool `yaml:"disable,omitempty"`
	Count   int  `yaml:"count,omitempty"`
}

// CaptureBinding is one table of a capture.
type CaptureBinding struct {
	Resource map[string]any `yaml:"resource"`
	Target   string         `yaml:"target"`
	Backfill int            `yaml:"backfill,omitempty"`
	Disable  bool           `yaml:"disable,omitempty"`
}

// Collection is a keyed set of documents.
type Collection struct {
	Key    []string `yaml:"key"`
	Schema any      `yaml:"schema"`
}

// Materialization writes collections into a database.
type Materialization struct {
	Endpoint Endpoint                 `yaml:"endpoint"`
	Bindings []MaterializationBinding `yaml:"bindings"`
	Shards   int                      `yaml:"shards,omitempty"`
}

// MaterializationBinding is one collection going into one table.
type MaterializationBinding struct {
	Resource map[string]any `yaml:"resource"`
	Source   string         `yaml:"source"`
	Backfill int            `yaml:"backfill,omitempty"`
}

// Endpoint is a connector that runs as a local process, or as an image.
type Endpoint struct {
	Local     Local `yaml:"local,omitempty"`
	Connector Image `yaml:"connector,omitempty"`
}

// Image is an image and its configuration.
type Image struct {
	Image  string `yaml:"image"`
	Config any    `yaml:"config"`
}

// Local is a program and its configuration.
type Local struct {
	Command  []string          `yaml:"command"`
	Protobuf bool              `yaml:"protobuf,omitempty"` // the codec; otherwise JSON
	Env      map[string]string `yaml:"env,omitempty"`
	Config   any               `yaml:"config"` // a mapping, or the name of a file
}

// Discover runs `sluice discover` on a source connector, for a capture of some name, and reads what it printed. The
// configuration is written to a file in the folder, to which the catalog refers.
func Discover(ctx context.Context, bins Binaries, connector, name string, config map[string]any, folder string) (*Catalog, error) {
	file := filepath.Join(folder, "source.yaml")
	if err := writeYAML(file, config); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bins.Sluice(), "discover", bins.Path(connector), "--config", file, "--name", name)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("running sluice discover: %w\n%s", err, stderr.Bytes())
	}
	return Parse(stdout.Bytes())
}

// Parse reads a catalog's YAML.
func Parse(text []byte) (*Catalog, error) {
	var c Catalog
	if err := yaml.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("reading a catalog: %w\n%s", err, text)
	}
	return &c, nil
}

// Write saves the catalog, which holds passwords, for the owner's eyes only.
func (c *Catalog) Write(file string) error { return writeYAML(file, c) }

func writeYAML(file string, value any) error {
	text, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return os.WriteFile(file, text, 0o600)
}

// Capture returns the only capture.
func (c *Catalog) Capture() (*Capture, error) {
	if len(c.Captures) != 1 {
		return nil, fmt.Errorf("the catalog has %d captures, not one", len(c.Captures))
	}
	for _, capture := range c.Captures {
		return capture, nil
	}
	return nil, errors.ErrUnsupported // not reached
}

// Keep drops the bindings of the only capture whose tables are not named.
func (c *Catalog) Keep(tables ...string) error {
	capture, err := c.Capture()
	if err != nil {
		return err
	}
	var kept []CaptureBinding
	for _, table := range tables {
		at := slices.IndexFunc(capture.Bindings, func(b CaptureBinding) bool { return b.Table() == table })
		if at < 0 {
			return fmt.Errorf("no binding of the capture is the table %s", table)
		}
		kept = append(kept, capture.Bindings[at])
	}
	for _, b := range capture.Bindings {
		if !slices.ContainsFunc(kept, func(k CaptureBinding) bool { return k.Target == b.Target }) {
			delete(c.Collections, b.Target)
		}
	}
	capture.Bindings = kept
	return nil
}

// Table is the name of the captured table, without its schema, or of the captured topic.
func (b CaptureBinding) Table() string {
	if topic, ok := b.Resource["topic"].(string); ok {
		return topic
	}
	table, _ := b.Resource["stream"].(string)
	return table
}

// Materialize adds a materialization of the collections that the only capture writes, each into a table of the captured
// table's name. Change, which may be nil, may alter a binding before it is added, or say false to leave it out.
func (c *Catalog) Materialize(name string, endpoint Endpoint, change func(table string, b *MaterializationBinding) bool) error {
	capture, err := c.Capture()
	if err != nil {
		return err
	}
	m := &Materialization{Endpoint: endpoint}
	for _, from := range capture.Bindings {
		b := MaterializationBinding{Resource: map[string]any{"table": from.Table()}, Source: from.Target}
		if change == nil || change(from.Table(), &b) {
			m.Bindings = append(m.Bindings, b)
		}
	}
	if c.Materializations == nil {
		c.Materializations = map[string]*Materialization{}
	}
	c.Materializations[name] = m
	return nil
}

// Parquet is the endpoint of materialize-s3-parquet into a folder, where new files appear after each interval, such as 1s; 0s is as soon as possible.
func Parquet(bins Binaries, folder, interval string) Endpoint {
	return Endpoint{Local: Local{
		Command: []string{bins.Path(MaterializeParquet)}, Protobuf: true,
		Config: map[string]any{"bucket": "file://" + folder, "uploadInterval": interval},
	}}
}

// IntoPath makes a binding one of materialize-s3-parquet, for Materialize.
func IntoPath(table string, b *MaterializationBinding) bool {
	b.Resource = map[string]any{"path": table}
	return true
}

// DuckDB prints the statements of `sluice sql duckdb` for a materialization of a pipeline, by its file or with more flags.
func DuckDB(ctx context.Context, bins Binaries, pipeline, materialization string, flags ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bins.Sluice(), append([]string{"sql", "duckdb", pipeline, "--materialization", materialization}, flags...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running sluice sql duckdb: %w\n%s", err, stderr.Bytes())
	}
	return stdout.String(), nil
}

// Binaries is the folder with the built programs.
type Binaries string

// Path is the path of a program.
func (b Binaries) Path(program string) string { return filepath.Join(string(b), program) }

// Sluice is the path of the runtime.
func (b Binaries) Sluice() string { return b.Path("sluice") }

// Check says which of the programs that a Postgres pipeline needs are not there.
func (b Binaries) Check() error {
	var missing []string
	for _, program := range []string{"sluice", SourcePostgres, MaterializePostgres, MaterializeParquet} {
		if _, err := exec.LookPath(b.Path(program)); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s has no %s: run `make build` first", string(b), strings.Join(missing, ", "))
	}
	return nil
}

// The connectors' programs.
const (
	SourcePostgres      = "source-postgres"
	SourceMySQL         = "source-mysql"
	SourceKafka         = "source-kafka"
	MaterializePostgres = "materialize-postgres"
	MaterializeParquet  = "materialize-s3-parquet"
)
