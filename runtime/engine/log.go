package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/kafkalog"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// openLog opens the pipeline's log, with all of its tasks: in the data folder, or in Kafka, where fenced is told if another process takes one
// over. The folder is this process' in both cases.
func (o *Options) openLog(ctx context.Context, fenced func(error)) (wal.Engine, error) {
	entry := logrus.NewEntry(o.Logger)
	if o.Pipeline.Kafka == nil {
		return wal.Open(wal.Options{Dir: o.DataDir, Log: entry, MinFreeBytes: o.MinFreeBytes, FreeBytes: o.FreeBytes, Now: o.Now})
	}
	folder, err := wal.Lock(o.DataDir)
	if err != nil {
		return nil, err
	}
	log, err := o.openKafka(ctx, entry, fenced)
	if err != nil {
		_ = folder.Close() // the error is known
		return nil, err
	}
	return &inFolder{log, folder}, nil
}

// inFolder is a log elsewhere, with the data folder that its process has beside it.
type inFolder struct {
	wal.Engine
	folder *wal.Folder
}

// Close implements wal.Engine.
func (l *inFolder) Close() error {
	err := l.Engine.Close()
	if closeErr := l.folder.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (o *Options) openKafka(ctx context.Context, entry *logrus.Entry, fenced func(error)) (wal.Engine, error) {
	keys, err := keysOf(o.Pipeline)
	if err != nil {
		return nil, err
	}
	var tasks []string
	for _, c := range o.Pipeline.Captures {
		tasks = append(tasks, captureTask(c.Name))
	}
	for _, m := range o.Pipeline.Materializations {
		tasks = append(tasks, materializationTask(m.Name))
	}
	return kafkalog.Open(ctx, kafkalog.Options{
		Kafka: o.Pipeline.Kafka, Retention: o.Pipeline.Retention, Collections: keys, Tasks: tasks, Log: entry, Now: o.Now, OnFenced: fenced,
	})
}

func captureTask(name string) string         { return "capture/" + name }
func materializationTask(name string) string { return "materialization/" + name }

// keysOf are the keys of a pipeline's collections, for [kafkalog.Options]. It refuses what a log of partitions cannot do: documents
// are in order within the key's partition, so those that are grouped by something else have no order. Errors are for people.
func keysOf(p *pipeline.Pipeline) (map[string]kafkalog.Key, error) {
	keys := map[string]kafkalog.Key{}
	for _, name := range slices.Sorted(maps.Keys(p.Collections)) {
		def := p.Collections[name]
		shape, err := schema.Parse(def.Schema)
		if err != nil {
			return nil, usererr.New(err, "%s: the collection %s cannot be used: %v", def.At, name, err)
		}
		spec, err := specs.Collection(def, shape)
		if err != nil {
			return nil, usererr.New(err, "%s: the collection %s cannot be used: %v", def.At, name, err)
		}
		key := kafkalog.Key{Pointers: def.Key, Defaults: make([][]byte, len(def.Key))}
		for i, pointer := range def.Key {
			for _, projection := range spec.Projections {
				if projection.Ptr == pointer {
					key.Defaults[i] = projection.Inference.GetDefaultJson()
				}
			}
		}
		keys[name] = key
		for _, m := range p.Materializations {
			for _, b := range m.Bindings {
				if b.Source != name || len(b.Fields.GroupBy) == 0 || p.Kafka.Partitions == 1 {
					continue
				}
				grouped, err := host.KeyFields(spec, &b.Fields, nil)
				if err != nil {
					continue // validating the binding says so
				}
				if missing := missingKey(def, grouped, func(field string) string { return specs.Projection(spec, field).GetPtr() }); missing != "" {
					return nil, usererr.New(nil, "%s: the materialization %s groups the collection %s by fields without its key %s, and a log on Kafka has an order within a key only: add that to groupBy, or set topics.partitions of the log to 1 and begin with a new topics.prefix",
						b.At, m.Name, name, missing)
				}
			}
		}
	}
	return keys, nil
}

// missingKey is a part of a collection's key of which none of the fields is; "" if there is none.
func missingKey(def *pipeline.Collection, fields []string, pointer func(field string) string) string {
	for _, part := range def.Key {
		if !slices.ContainsFunc(fields, func(field string) bool { return pointer(field) == part }) {
			return part
		}
	}
	return ""
}
