package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Connect makes a driver for one session, or for one Discover or Check (then of env only Task and Log are set). It should
// be quick and may leave connecting to the driver's methods.
type Connect[C any] func(ctx context.Context, env capture.Env, cfg C) (Driver, Options, error)

// Options are what a connector lets its users choose. The zero value works.
type Options struct {
	// BackfillWorkers is how many chunks are read at once; by default one for each core, two to four.
	BackfillWorkers int
	// ChunkRows and ChunkBytes limit one chunk; by default 20,000 rows and 3 MiB of data. About two chunks for each
	// worker are held in memory.
	ChunkRows, ChunkBytes int
	// SkipBackfills are patterns of tables, "schema.table" with * and ?, of which only changes are captured.
	SkipBackfills []string
	// Rediscovery is how often the bound tables' shapes are looked at, apart from what the log tells; by default every
	// five minutes, give or take half.
	Rediscovery time.Duration
	// OnTruncate is what follows when all rows of a table go at once; by default TruncateIgnore.
	OnTruncate TruncatePolicy
	// StopOnPositionLoss ends the capture when its log is lost (ErrPositionLost). Otherwise a warning says so, and every
	// table is captured anew.
	StopOnPositionLoss bool
	// StatusEvery is how often the log says what the capture is doing; by default every minute.
	StatusEvery time.Duration
	// ReadTimeout is how long the server may be silent before the session ends, if the stream can tell (Heard); by default
	// two minutes. Below zero it may be for ever.
	ReadTimeout time.Duration
	// OnOversizedRow is what becomes of a row that is too large for a document; by default OversizeFail.
	OnOversizedRow OversizePolicy
	// Disconnected reports whether an error of the driver says no more than that the connection to the server is lost, or cannot be made
	// now (package endpoint's Lost knows those of the network), where another session may go on. Nil means never. Connect sets it also
	// if it fails.
	Disconnected func(error) bool
	// SourceSchema are the members of _meta.source by name, a JSON schema each, as one JSON object. Optional.
	SourceSchema json.RawMessage
}

// TruncatePolicy is what follows when rows leave a table without a word for each of them, as by TRUNCATE. A document has a
// key, and the log of a truncation has none, so no deletes can be emitted: whatever the policy, a log line with eventType
// "tableTruncated" says which table, where in the log, and by which transaction.
type TruncatePolicy string

// The policies for truncations.
const (
	TruncateIgnore   TruncatePolicy = "ignore"   // the rows stay in the collection, with a warning
	TruncateBackfill TruncatePolicy = "backfill" // the table's backfill begins anew: what it has now is emitted (again)
	TruncateStop     TruncatePolicy = "stop"     // the capture ends, before anything that follows is emitted
)

func (o Options) withDefaults() Options {
	if o.BackfillWorkers <= 0 {
		o.BackfillWorkers = min(max(runtime.GOMAXPROCS(0), 2), 4)
	}
	if o.ChunkRows <= 0 {
		o.ChunkRows = 20_000
	}
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = 3 << 20
	}
	if o.Rediscovery <= 0 {
		o.Rediscovery = 5 * time.Minute
	}
	if o.StatusEvery <= 0 {
		o.StatusEvery = time.Minute
	}
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 2 * time.Minute
	}
	if o.OnOversizedRow == "" {
		o.OnOversizedRow = OversizeFail
	}
	if o.OnTruncate == "" {
		o.OnTruncate = TruncateIgnore
	}
	return o
}

// Validate reports every problem of the options at once, in words for people. A connector calls it from its
// configuration's Validate.
func (o Options) Validate() error {
	var errs []error
	for _, p := range o.SkipBackfills {
		if _, err := path.Match(p, "x.y"); err != nil || strings.Count(p, ".") != 1 {
			errs = append(errs, usererr.New(err,
				"%q does not name tables whose backfill is skipped: write schema.table; * and ? stand for anything.", p))
		}
	}
	switch o.OnTruncate {
	case "", TruncateIgnore, TruncateBackfill, TruncateStop:
	default:
		errs = append(errs, usererr.New(nil, "The policy for truncations (onTruncate) is %q; it can be %s, %s or %s.",
			o.OnTruncate, TruncateIgnore, TruncateBackfill, TruncateStop))
	}
	switch o.OnOversizedRow {
	case "", OversizeFail, OversizePlaceholder, OversizeSkip:
	default:
		errs = append(errs, usererr.New(nil, "The policy for rows that are too large (onOversizedRow) is %q; it can be %s, %s or %s.",
			o.OnOversizedRow, OversizeFail, OversizePlaceholder, OversizeSkip))
	}
	return usererr.Join("", errs)
}

// disconnected marks an error that says no more than that the connection is lost. The end of a session that catches up is io.EOF itself.
func (o Options) disconnected(err error) error {
	if err == nil || err == io.EOF || o.Disconnected == nil || !o.Disconnected(err) { //nolint:errorlint // a connection's is wrapped
		return err
	}
	return capture.Disconnected(err)
}

// placeholders reports whether documents may have null for values that are too large.
func (o Options) placeholders() bool { return o.OnOversizedRow == OversizePlaceholder }

// skips reports whether a table's backfill is skipped.
func (o Options) skips(id TableID) bool {
	schema, name := strings.ReplaceAll(id.Schema, "/", "_"), strings.ReplaceAll(id.Name, "/", "_")
	return slices.ContainsFunc(o.SkipBackfills, func(p string) bool {
		s, n, _ := strings.Cut(p, ".")
		okSchema, err1 := path.Match(s, schema)
		okName, err2 := path.Match(n, name)
		return okSchema && okName && err1 == nil && err2 == nil
	})
}

// Mode is what of a table is captured.
type Mode string

// The modes of a binding.
const (
	Normal      Mode = ""             // its rows, then its changes
	OnlyChanges Mode = "Only Changes" // only what changes from now on
)

// Resource is the configuration of a binding: one table.
type Resource struct {
	Namespace      string   `json:"namespace" title:"Schema" desc:"Schema of the table." x-schema-name:"true"`
	Stream         string   `json:"stream" title:"Table" desc:"Name of the table." x-collection-name:"true"`
	Mode           Mode     `json:"mode,omitempty" title:"Mode" desc:"What to capture: the table's rows and then its changes (empty), or changes only." enum:",Only Changes"`
	Priority       int      `json:"priority,omitempty" title:"Backfill Priority" desc:"Tables of a higher priority are backfilled first."`
	Columns        []string `json:"columns,omitempty" title:"Columns" desc:"The only columns to capture. Empty means all, also those that are added later."`
	ExcludeColumns []string `json:"excludeColumns,omitempty" title:"Exclude Columns" desc:"Columns that are not captured: not read, and not part of any document. Those of the key cannot be left out."`
	BackfillFilter string   `json:"backfillFilter,omitempty" title:"Backfill Filter" desc:"A condition in the database's SQL, such as created_at > '2024-01-01': the backfill leaves out rows for which it is not true. Changes of all rows are captured."`
}

// Validate checks what the form's types cannot.
func (r Resource) Validate() error {
	var errs []error
	if r.Stream == "" {
		errs = append(errs, usererr.New(nil, "The name of a table (stream) is empty."))
	}
	if r.Namespace == "" {
		errs = append(errs, usererr.New(nil, "The schema (namespace) of table %q is empty.", r.Stream))
	}
	if slices.Contains(r.Columns, "") || slices.Contains(r.ExcludeColumns, "") {
		errs = append(errs, usererr.New(nil, "A name in columns or excludeColumns of table %s is empty.", r.Table()))
	}
	for _, name := range r.Columns {
		if slices.Contains(r.ExcludeColumns, name) {
			errs = append(errs, usererr.New(nil, "The column %q of table %s is in columns and in excludeColumns.", name, r.Table()))
		}
	}
	if r.Mode != Normal && r.Mode != OnlyChanges {
		errs = append(errs, usererr.New(nil, "The mode of table %s is %q; it can be empty or %q.", r.Table(), r.Mode, OnlyChanges))
	}
	return usererr.Join("", errs)
}

// Table is the table that the resource names.
func (r Resource) Table() TableID { return TableID{Schema: r.Namespace, Name: r.Stream} }

// New makes a capture's source of a driver. It is also a capture.Checker.
func New[C capture.Config](spec capture.Spec, connect Connect[C]) capture.Source[C, Resource, TableState] {
	if len(spec.ResourcePath) == 0 {
		spec.ResourcePath = []string{"/namespace", "/stream"}
	}
	return &source[C]{spec: spec, connect: connect}
}

type source[C capture.Config] struct {
	spec    capture.Spec
	connect Connect[C]
}

func (s *source[C]) Spec() capture.Spec { return s.spec }

// Discover proposes a collection for every table that can be captured.
func (s *source[C]) Discover(ctx context.Context, env capture.Env, cfg C) (cs []capture.Collection[Resource], err error) {
	d, opts, err := s.connect(ctx, env, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	tables, err := d.Discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	return collections(tables, opts)
}

// Check reports everything that keeps a capture of the tables from running, all at once.
func (s *source[C]) Check(ctx context.Context, env capture.Env, cfg C, resources []Resource) (err error) {
	d, opts, err := s.connect(ctx, env, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ids := make([]TableID, len(resources))
	for i, r := range resources {
		ids[i] = r.Table()
	}
	errs := append([]error{opts.Validate()}, d.Check(ctx, ids)...)
	tables, err := d.Discover(ctx, ids...)
	if err != nil && len(errs) == 1 { // Check would have said why
		errs = append(errs, fmt.Errorf("looking at the tables' shapes: %w", err))
	}
	errs = append(errs, checkSelections(ctx, d, resources, tables)...)
	return usererr.Join("", errs)
}

// Open starts a session over the bound tables.
func (s *source[C]) Open(
	ctx context.Context, env capture.Env, cfg C, bindings []*capture.Binding[Resource, TableState],
) (capture.Reader, error) {
	if !env.Range.Full() {
		return nil, usererr.New(nil, "This capture was split over several processes, but a log can only be read by one. Merge its shards into one.")
	}
	d, opts, err := s.connect(ctx, env, cfg)
	if err != nil {
		return nil, opts.disconnected(err)
	}
	r, err := open(ctx, session{
		driver:   d,
		opts:     opts.withDefaults(),
		limits:   defaultLimits(),
		env:      env,
		bindings: bindings,
		pool:     newWorkers(ctx, d),
		now:      time.Now,
		rand:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	})
	if err != nil {
		return nil, errors.Join(opts.disconnected(err), d.Close()) // what closing says is no reason
	}
	m := newMonitor(r, env.Outlet)
	m.start(ctx)
	return &sessionReader{reader: r, monitor: m}, nil
}
