package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

func typicalRecord() *kgo.Record {
	value := fmt.Sprintf(`{"id":1,"customer":"customer 17","total":12.25,"paid":true,"at":"2025-03-01T12:00:00.123Z","lines":[{"sku":"a-1","n":2},{"sku":"b-1","n":1}],"note":"%s"}`,
		strings.Repeat("some text ", 15))
	return &kgo.Record{Topic: "orders", Partition: 3, Offset: 12345678, LeaderEpoch: 4, Timestamp: time.UnixMilli(1740787200123), Key: []byte("1"), Value: []byte(value)}
}

// A typical record becomes a document without an allocation.
func TestDocumentsDoNotAllocate(t *testing.T) {
	d, err := newDocuments(resource{Topic: "orders"}, fallbackKey(), nil)
	require.NoError(t, err)
	rec := typicalRecord()
	buf, err := d.append(t.Context(), nil, rec)
	require.NoError(t, err)
	require.True(t, json.Valid(buf))
	require.Zero(t, testing.AllocsPerRun(100, func() { buf, _ = d.append(t.Context(), buf[:0], rec) }))
}

func BenchmarkDocument(b *testing.B) {
	d, err := newDocuments(resource{Topic: "orders"}, fallbackKey(), nil)
	require.NoError(b, err)
	rec := typicalRecord()
	var buf []byte
	b.SetBytes(int64(len(rec.Value)))
	n, before := 0, cpu(b)
	for b.Loop() {
		n++
		if len(buf) > 1<<20 {
			buf = buf[:0]
		}
		buf, err = d.append(b.Context(), buf, rec)
	}
	require.NoError(b, err)
	b.ReportMetric(float64(cpu(b)-before)/float64(n), "cpu-ns/op")
}

// cpu is the processor time that this process has taken.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// badOf is the bad message that an error is.
func badOf(t *testing.T, err error) *codec.BadMessage {
	t.Helper()
	var bad *codec.BadMessage
	require.ErrorAs(t, err, &bad)
	return bad
}
