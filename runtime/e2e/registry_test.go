package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// register adds a schema to a registry and returns its id.
func register(t *testing.T, registry, subject, kind, schema string) uint32 {
	t.Helper()
	body, err := json.Marshal(map[string]string{"schemaType": kind, "schema": schema})
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, registry+"/subjects/"+subject+"/versions", bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/vnd.schemaregistry.v1+json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		ID uint32 `json:"id"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	require.Equal(t, http.StatusOK, resp.StatusCode)
	return answer.ID
}

// framed is a record's value that names its schema.
func framed(id uint32, parts ...[]byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, id), slices.Concat(parts...)...)
}

func avroText(s string) []byte {
	return append(binary.AppendVarint(nil, int64(len(s))), s...)
}

// produceFiles writes one record for each value, whose bytes may be any.
func (k kcat) produceFiles(ctx context.Context, t *testing.T, topic string, values ...[]byte) {
	t.Helper()
	folder := t.TempDir()
	args := []string{"-P", "-b", k.brokers, "-t", topic}
	for i, value := range values {
		file := filepath.Join(folder, fmt.Sprintf("%04d", i))
		require.NoError(t, os.WriteFile(file, value, 0o600))
		args = append(args, file)
	}
	out, err := exec.CommandContext(ctx, k.program, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// raw reads the values of a topic to its end.
func (k kcat) raw(t *testing.T, topic string) (values [][]byte) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), k.program, "-C", "-b", k.brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%R%s") // length and bytes
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	for len(out) > 0 {
		size := binary.BigEndian.Uint32(out)
		values = append(values, out[4:4+size])
		out = out[4+size:]
	}
	return values
}

// price is 123.45, as Avro writes a decimal of scale 2 that is not null.
var price = []byte{2, 4, 0x30, 0x39}

// readingOf decodes what the test's own schemas say of a record, of which only the second version has a note and a price.
func readingOf(t *testing.T, record []byte, second uint32) string {
	t.Helper()
	require.Zero(t, record[0])
	id, rest := binary.BigEndian.Uint32(record[1:]), record[5:]
	number := func() int64 {
		n, size := binary.Varint(rest)
		require.Positive(t, size)
		rest = rest[size:]
		return n
	}
	text := func() string {
		size := number()
		found := string(rest[:size])
		rest = rest[size:]
		return found
	}
	key, place, note := number(), text(), "none"
	value := math.Float64frombits(binary.LittleEndian.Uint64(rest))
	rest = rest[8:]
	if id == second {
		if number() == 1 {
			note = text()
		}
		require.Equal(t, price, rest)
		rest = nil
	}
	require.Empty(t, rest)
	return fmt.Sprintf("%d|%s|%v|%s", key, place, value, note)
}

// TestKafkaWithRegistry captures Avro and Protobuf by a registry that is none of ours, into a table and into Parquet files. What another
// client reads from the Avro topic, decoded here, is what both have; a field that a later version of the schema brings becomes a column.
func TestKafkaWithRegistry(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	registry := server.Registry(t)
	cluster := server.Kafka(t, kafkad.Options{Settings: map[string]string{"auto.create.topics.enable": "true", "num.partitions": "3"}})
	client := newKcat(t, cluster.Addresses())
	const readings, events, rows = "readings", "events", 60
	v1 := register(t, registry, readings+"-value", "AVRO", `{"type":"record","name":"Reading","fields":[{"name":"id","type":"long"},{"name":"place","type":"string"},{"name":"value","type":"double"}]}`)
	pb := register(t, registry, events+"-value", "PROTOBUF", `syntax = "proto3"; message Event { int64 id = 1; string what = 2; repeated int32 marks = 3; }`)
	reading := func(id int, more ...[]byte) []byte {
		value := binary.LittleEndian.AppendUint64(nil, math.Float64bits(float64(id)+0.25))
		return slices.Concat(append([][]byte{binary.AppendVarint(nil, int64(id)), avroText(fmt.Sprintf("höhe %d", id)), value}, more...)...)
	}
	var first, second, proto [][]byte
	for id := range rows {
		first = append(first, framed(v1, reading(id-rows/2)))
		proto = append(proto, framed(pb, []byte{0}, []byte{0x08}, binary.AppendUvarint(nil, uint64(id)), []byte{0x12, 2, 'e', byte('a' + id%26)}, []byte{0x1a, 2, 1, 2}))
	}
	client.produceFiles(t.Context(), t, readings, first...)
	client.produceFiles(t.Context(), t, events, proto...)

	database := newSide(t, server.SharedPostgres(t))
	w := newWorldOn(t, bins, database, database)
	var err error
	w.catalog, err = launch.Discover(t.Context(), bins, launch.SourceKafka, "e2e/registry", map[string]any{
		"bootstrapServers": cluster.Addresses(), "topics": map[string]any{"include": []string{readings, events}}, "schemaRegistry": map[string]any{"endpoint": registry},
	}, w.folder)
	require.NoError(t, err)
	w.materialize(t, "e2e/table", nil, nil)
	lake := t.TempDir()
	require.NoError(t, w.catalog.Materialize("e2e/lake", launch.Parquet(bins, lake, "0s"), launch.IntoPath))
	w.start(t)
	w.copy.prints(t, fmt.Sprint(rows), "SELECT count(*) FROM "+readings)

	v2 := register(t, registry, readings+"-value", "AVRO", `{"type":"record","name":"Reading","fields":[{"name":"id","type":"long"},{"name":"place","type":"string"},{"name":"value","type":"double"},
		{"name":"note","type":["null","string"],"default":null},
		{"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}],"default":null}]}`)
	for id := range rows {
		note := []byte{0}
		if id%2 == 0 {
			note = append([]byte{2}, avroText(fmt.Sprintf("note %d", id))...)
		}
		second = append(second, framed(v2, reading(id+rows, note, price)))
	}
	client.produceFiles(t.Context(), t, readings, second...)

	var lines []string
	for _, record := range client.raw(t, readings) {
		lines = append(lines, readingOf(t, record, v2))
	}
	require.Len(t, lines, 2*rows)
	slices.Sort(lines)
	want := strings.Join(lines, "\n")
	row := `id || '|' || place || '|' || value || '|' || COALESCE(note, 'none')`
	w.copy.prints(t, want, `SELECT line FROM (SELECT `+row+` AS line FROM `+readings+`) AS lines ORDER BY line COLLATE "C"`)
	w.copy.prints(t, fmt.Sprintf("%d|%d|ea|ez|[1, 2]", rows, rows*(rows-1)/2), `SELECT count(*), sum(id), min(what), max(what), min(marks::text) FROM `+events)
	w.copy.prints(t, fmt.Sprintf("numeric|123.45|%d", rows), `SELECT pg_typeof(max(price)) || '|' || max(price) || '|' || count(price) FROM `+readings)
	w.copy.prints(t, "bigint|text|double precision|text", `SELECT string_agg(data_type, '|' ORDER BY array_position(ARRAY['id', 'place', 'value', 'note'], column_name::text))
		FROM information_schema.columns WHERE table_name = '`+readings+`' AND column_name IN ('id', 'place', 'value', 'note')`)
	if _, err := duckdb.Find(); err == nil {
		files := func(topic string) string {
			return "read_parquet('" + filepath.Join(lake, topic, "**", "*.parquet") + "', union_by_name = true)"
		}
		got := ""
		eventually(t, arrival, func() bool {
			got = fmt.Sprint(duckdb.Query(t, "", `SELECT string_agg(line, chr(10) ORDER BY line) AS lines FROM (SELECT `+row+` AS line FROM `+files(readings)+`)`)[0]["lines"])
			return got == want
		}, func() string { return "the files hold\n" + got + "\ninstead of\n" + want })
		require.Equal(t, fmt.Sprintf("DECIMAL(9,2)|123.45|%d", rows), duckdb.Query(t, "", `SELECT any_value(typeof(price)) || '|' || max(price) || '|' || count(price) AS price FROM `+files(readings))[0]["price"])
		require.Equal(t, fmt.Sprint(rows*(rows-1)/2), fmt.Sprint(duckdb.Query(t, "", `SELECT CAST(sum(id) AS text) AS ids FROM `+files(events))[0]["ids"]))
	}
	require.NoError(t, w.sluice.Stop())
}
