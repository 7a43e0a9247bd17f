package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// BenchmarkRecords captures topics of records of 300 bytes of JSON, in four partitions, as producers compress them or not, and of ten fields
// in Avro, whose one schema comes from franz-go's stand-in for a registry: it is asked for once. The
// limit is a bare franz-go consumer of the same topic, a process of its own as well, which counts records.
//
//	go test ./source-kafka -run '^$' -bench '^BenchmarkRecords$' -benchtime 1x -timeout 30m
func BenchmarkRecords(b *testing.B) {
	rows := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("SLUICE_BENCH_ROWS")); err == nil {
		rows = n
	}
	cluster := server.Kafka(b, kafkad.Options{})
	s := benchAt(b, cluster.Addresses())
	binary := filepath.Join(b.TempDir(), "source-kafka")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stderr = os.Stderr
	require.NoError(b, build.Run())
	registry := srfake.New()
	b.Cleanup(registry.Close)
	registry.SeedSchema("bench-avro-value", 1, avroID, sr.Schema{Schema: avroSchema, Type: sr.TypeAvro})
	for _, kind := range []struct {
		name  string
		value func(i int) []byte
		codec kgo.CompressionCodec
		aim   float64
	}{
		{"json", jsonValue, kgo.NoCompression(), 0.8},
		{"json-lz4", jsonValue, kgo.Lz4Compression(), 0.8},
		{"avro", avroValue, kgo.NoCompression(), 0.5},
	} {
		name, topic := kind.name, "bench-"+kind.name
		s.create(topic, 4)
		fill(b, s.brokers, topic, rows, kind.value, kind.codec)
		file := filepath.Join(b.TempDir(), name+".json")
		cfg := s.config(topic)
		cfg.SchemaRegistry.Endpoint = registry.URL()
		require.NoError(b, os.WriteFile(file, session.Config(b, cfg), 0o600))
		b.Run(name, func(b *testing.B) {
			bare := func(int) (ratio.Run, error) {
				cmd := child.Self(b, "bare consumer", s.brokers, topic, strconv.Itoa(rows))
				cmd.Stderr = os.Stderr
				return ratio.Command(cmd, int64(rows))
			}
			ours := func(int) (ratio.Run, error) {
				cmd := exec.Command(binary, "pull", "--config", file, "--limit", strconv.Itoa(rows))
				var log strings.Builder
				cmd.Stderr = &log
				run, err := ratio.Command(cmd, int64(rows))
				if err != nil {
					err = fmt.Errorf("%w: %s", err, log.String())
				}
				return run, err
			}
			for b.Loop() {
				result, err := ratio.Pairs(5, bare, ours)
				require.NoError(b, err)
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name, result.Ratio, ratio.AtLeast, kind.aim, result.String()))
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, 2,
					fmt.Sprintf("CPU seconds a million records, against %.2f", result.Limit.CPUPerMillion())))
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 100, "MB"))
			}
		})
	}
}

// jsonValue is 300 bytes of JSON.
func jsonValue(i int) []byte {
	value := fmt.Appendf(nil, `{"id":%d,"customer":"customer %d","total":%d.25,"paid":%t,"at":"2025-03-01T12:%02d:%02d.123Z","lines":[{"sku":"a-%d","n":2},{"sku":"b-%d","n":1}],"note":"%s"}`,
		i, i%5000, i%977, i%3 == 0, i/60%60, i%60, i%100, i%1000, strings.Repeat("some text ", 16))
	return append(value[:298], `"}`...)
}

const (
	avroID     = 7
	avroSchema = `{"type":"record","name":"shop.Order","fields":[
		{"name":"id","type":"long"},{"name":"customer","type":"string"},{"name":"email","type":["null","string"]},
		{"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
		{"name":"status","type":{"type":"enum","name":"Status","symbols":["NEW","PAID","SENT"]}},
		{"name":"created","type":{"type":"long","logicalType":"timestamp-micros"}},
		{"name":"weight","type":"double"},{"name":"express","type":"boolean"},
		{"name":"note","type":["null","string"]},{"name":"quantity","type":"int"}]}`
)

// avroValue is a record of avroSchema.
func avroValue(i int) []byte {
	text := func(dst []byte, s string) []byte { return append(binary.AppendVarint(dst, int64(len(s))), s...) }
	v := binary.AppendVarint([]byte{0, 0, 0, 0, avroID}, int64(i))
	v = text(v, fmt.Sprintf("customer %d of London", i%5000))
	v = text(binary.AppendVarint(v, 1), fmt.Sprintf("customer%d@example.com", i%5000))
	v = append(binary.AppendVarint(v, 3), 1, byte(i>>8), byte(i))
	v = binary.AppendVarint(v, int64(i%3))
	v = binary.AppendVarint(v, 1_760_000_000_123_456+int64(i)*1000)
	v = binary.LittleEndian.AppendUint64(v, math.Float64bits(float64(i%1000)/4))
	v = append(v, byte(i%2))
	if i%4 == 0 {
		v = binary.AppendVarint(v, 0)
	} else {
		v = text(binary.AppendVarint(v, 1), "leave it at the door, please")
	}
	return binary.AppendVarint(v, int64(i%20))
}

// fill writes records.
func fill(b *testing.B, brokers, topic string, rows int, value func(i int) []byte, codec kgo.CompressionCodec) {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.ProducerBatchCompression(codec), kgo.MaxBufferedRecords(50_000))
	require.NoError(b, err)
	defer client.Close()
	var failed error
	for i := range rows {
		client.Produce(b.Context(), &kgo.Record{Key: strconv.AppendInt(nil, int64(i), 10), Value: value(i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
	}
	require.NoError(b, client.Flush(b.Context()))
	require.NoError(b, failed)
}

// bareConsumer is the other side of BenchmarkRecords: it reads with the settings that the connector has, and only counts. Its
// arguments are the brokers, the topic, and how many records there are.
func bareConsumer() {
	brokers, topic := os.Args[1], os.Args[2]
	want, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(defaultFetchMaxBytes), kgo.FetchMaxPartitionBytes(defaultFetchMaxBytes/4))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	for n, size := 0, 0; n < want; {
		client.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
			n++
			size += len(r.Value)
		})
	}
}
