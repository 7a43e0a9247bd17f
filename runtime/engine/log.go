package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/kafkalog"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/reduce"
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
	return besideFolder(o.DataDir, func() (*kafkalog.Log, error) { return o.openKafka(ctx, entry, fenced) })
}

// OpenRecords opens a pipeline's log to change what it remembers, while nobody runs the pipeline. One on Kafka is taken over from whoever does.
func OpenRecords(ctx context.Context, p *pipeline.Pipeline, dataDir string, logger *logrus.Logger) (wal.Engine, error) {
	if p.Kafka == nil {
		return wal.Open(wal.Options{Dir: dataDir, Log: logrus.NewEntry(logger)})
	}
	return besideFolder(dataDir, func() (*kafkalog.Log, error) {
		return kafkalog.Open(ctx, kafkalog.Options{Kafka: p.Kafka, Log: logrus.NewEntry(logger)})
	})
}

// besideFolder opens a log elsewhere, with the data folder locked.
func besideFolder(dataDir string, open func() (*kafkalog.Log, error)) (wal.Engine, error) {
	folder, err := wal.Lock(dataDir)
	if err != nil {
		return nil, err
	}
	log, err := open()
	if err != nil {
		_ = folder.Close() // the error is known
		return nil, err
	}
	return &inFolder{log, folder}, nil
}

// bounded is the log if old documents are to be dropped from it by us. Topics of Kafka that may drop what nobody has read do so by themselves.
func (o *Options) bounded(log wal.Engine) (wal.Bounded, bool) {
	rule := o.Pipeline.Retention
	if !rule.Limited() || o.Pipeline.Kafka != nil && rule.DropUnread {
		return nil, false
	}
	bounded, ok := log.(wal.Bounded)
	return bounded, ok
}

// inFolder is a log elsewhere, with the data folder that its process has beside it.
type inFolder struct {
	*kafkalog.Log
	folder *wal.Folder
}

// Close implements wal.Engine.
func (l *inFolder) Close() error {
	err := l.Log.Close()
	if closeErr := l.folder.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (o *Options) openKafka(ctx context.Context, entry *logrus.Entry, fenced func(error)) (*kafkalog.Log, error) {
	keys, err := keysOf(o.Pipeline)
	if err != nil {
		return nil, err
	}
	var tasks []string
	for _, u := range units(o.Pipeline) {
		tasks = append(tasks, u.task())
	}
	return kafkalog.Open(ctx, kafkalog.Options{
		Kafka: o.Pipeline.Kafka, Retention: o.Pipeline.Retention, Collections: keys, Tasks: tasks, Joined: o.Join, Pipeline: o.fingerprint, Log: entry, Now: o.Now, OnFenced: fenced,
	})
}

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
		if err := checkCompact(p.Kafka, def); err != nil {
			return nil, err
		}
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

// checkCompact refuses to compact the topic of a collection whose documents are not whole: one that was followed by others still counts.
func checkCompact(k *pipeline.Kafka, def *pipeline.Collection) error {
	if !slices.Contains(k.Compact, def.Name) {
		return nil
	}
	plan, err := reduce.Compile(def.Schema)
	if err != nil {
		return usererr.New(err, "%s: the collection %s cannot be used: %v", def.At, def.Name, err)
	}
	if !plan.Replaces("") {
		return usererr.New(nil, "%s: the collection %s cannot be compacted (topics.compact of the log): its documents are reduced by its schema's annotations, so that one counts although others of the same key follow it: leave it out",
			def.At, def.Name)
	}
	return nil
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
