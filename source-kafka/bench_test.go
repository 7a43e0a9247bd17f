package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// BenchmarkRecords captures a topic of records of 300 bytes of JSON, in four partitions, as producers compress them or not. The
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
	for name, codec := range map[string]kgo.CompressionCodec{"json": kgo.NoCompression(), "json-lz4": kgo.Lz4Compression()} {
		topic := "bench-" + name
		s.create(topic, 4)
		fill(b, s.brokers, topic, rows, codec)
		file := filepath.Join(b.TempDir(), name+".json")
		require.NoError(b, os.WriteFile(file, session.Config(b, s.config(topic)), 0o600))
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
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name, result.Ratio, ratio.AtLeast, 0.8, result.String()))
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, 2,
					fmt.Sprintf("CPU seconds a million records, against %.2f", result.Limit.CPUPerMillion())))
				require.NoError(b, ratio.Print(os.Stdout, "source-kafka/"+name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 100, "MB"))
			}
		})
	}
}

// fill writes records of 300 bytes.
func fill(b *testing.B, brokers, topic string, rows int, codec kgo.CompressionCodec) {
	b.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.ProducerBatchCompression(codec), kgo.MaxBufferedRecords(50_000))
	require.NoError(b, err)
	defer client.Close()
	var failed error
	for i := range rows {
		value := fmt.Appendf(nil, `{"id":%d,"customer":"customer %d","total":%d.25,"paid":%t,"at":"2025-03-01T12:%02d:%02d.123Z","lines":[{"sku":"a-%d","n":2},{"sku":"b-%d","n":1}],"note":"%s"}`,
			i, i%5000, i%977, i%3 == 0, i/60%60, i%60, i%100, i%1000, strings.Repeat("some text ", 16))
		value = append(value[:298], `"}`...)
		client.Produce(b.Context(), &kgo.Record{Key: strconv.AppendInt(nil, int64(i), 10), Value: value}, func(_ *kgo.Record, err error) {
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
