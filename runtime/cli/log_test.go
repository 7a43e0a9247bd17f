package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/inspect"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/process"
)

func TestLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, data := filepath.Join(dir, "shop.yaml"), filepath.Join(dir, "shop.data") // the file itself is not read
	now := time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)
	log, err := wal.Open(wal.Options{Dir: data, Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1, Now: func() time.Time { return now }})
	require.NoError(t, err)
	w, err := log.Writer("acme/source")
	require.NoError(t, err)
	for _, doc := range []string{`{"id":1}`, `{"id":2}`, `{"id":3}`} {
		b := &wal.Block{}
		b.Add([]byte(doc))
		require.NoError(t, w.Append("acme/orders", b))
		require.NoError(t, w.Commit(t.Context(), nil))
		now = now.Add(time.Hour)
	}
	cat := func(args ...string) {
		t.Helper()
		code, out, errs := sluice(t, append([]string{"log", "cat", file, "acme/orders"}, args...)...)
		require.Zero(t, code, errs)
		require.Equal(t, "{\"id\":2}\n", out)
	}
	between := []string{"--from", "2026-11-20T09:00:00Z", "--to", "2026-11-20T10:00:00Z"}

	server, err := inspect.Serve(t.Context(), data, log, process.Discard())
	require.NoError(t, err)
	cat(between...)
	require.NoError(t, server.Close())
	require.NoError(t, log.Close())
	cat(between...)
	cat("--from", "2026-11-20T08:30:00Z", "--limit", "1")

	code, out, errs := sluice(t, "log", "cat", file, "acme/orders", "-o", filepath.Join(dir, "out"))
	require.Zero(t, code, errs)
	require.Empty(t, out)
	text, err := os.ReadFile(filepath.Join(dir, "out"))
	require.NoError(t, err)
	require.Equal(t, "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n", string(text))

	code, out, errs = sluice(t, "log", "ls", file)
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^acme/orders +78 B +3 +3 +2026-11-20T\d\d:00:00.000\S+ +2026-11-20T\d\d:00:00.000\S+ +0 of 0$`, out)
	code, out, errs = sluice(t, "log", "stats", file, "acme/orders")
	require.Zero(t, code, errs)
	require.Regexp(t, `^acme/orders\n  captured by acme/source: 78 B in positions 0 to 78, 3 documents in 3 commits from 2026-11-20T`, out)
	code, out, errs = sluice(t, "log", "stats", file, "--json")
	require.Zero(t, code, errs)
	require.Contains(t, out, `"documents": 3`)
}

func TestLogProblems(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, data := filepath.Join(dir, "shop.yaml"), filepath.Join(dir, "shop.data")
	_, _, errs := sluice(t, "log", "ls", file)
	require.Contains(t, errs, "there is no log in the data folder "+data+" (no such file or directory): no sluice run has used it yet")
	log, err := wal.Open(wal.Options{Dir: data, Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1})
	require.NoError(t, err)
	require.NoError(t, log.Close())
	for want, args := range map[string][]string{
		`the log has no collection "a/b": it is empty`: {"stats", file, "a/b"},
		`--from "yesterday" is no time: write a time (2026-11-20T08:00:00Z), a day (2026-11-20, from its beginning here), or how long ago (90m, 7d)`: {"cat", file, "a/b", "--from", "yesterday"},
		`--to "1 week" is no time: write`:                            {"cat", file, "a/b", "--to", "1 week"},
		"cannot write to /nowhere/at/all: no such file or directory": {"cat", file, "a/b", "-o", "/nowhere/at/all"},
	} {
		code, _, errs := sluice(t, append([]string{"log"}, args...)...)
		require.Equal(t, 1, code, want)
		require.Contains(t, errs, want)
	}
}

func TestParseWhen(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"": {}, "2026-11-20": time.Date(2026, 11, 20, 0, 0, 0, 0, zone), "2026-11-20T08:00:00Z": time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC),
		"2026-11-20 08:00": time.Date(2026, 11, 20, 8, 0, 0, 0, zone), "90m": now.Add(-90 * time.Minute), "7d": now.AddDate(0, 0, -7), "1.5d": now.Add(-36 * time.Hour),
	} {
		got, err := parseWhen("--from", text, now)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%s: %s", text, got)
	}
	for _, text := range []string{"-1h", "d", "NaNd", "1e300d", "tomorrow"} {
		_, err := parseWhen("--from", text, now)
		require.Error(t, err, text)
	}
}

func TestParseBeginning(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]*materialize.Beginning{
		"": nil, "now": {Time: now}, "2h": {Time: now.Add(-2 * time.Hour)}, "checkpoint:acme/old": {Checkpoint: "acme/old"},
		"acme/new=checkpoint:acme/old": {Materialization: "acme/new", Checkpoint: "acme/old"}, "acme/new=now": {Materialization: "acme/new", Time: now},
	} {
		got, err := parseBeginning(text, now)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	_, err := parseBeginning("soon", now)
	require.ErrorContains(t, err, `--from "soon" is no time`)
	for _, text := range []string{"acme/copy=", "checkpoint:", "acme/copy=checkpoint:", "=2h"} { // such as of a variable that is not set
		_, err = parseBeginning(text, now)
		require.ErrorContains(t, err, fmt.Sprintf("--from %q says only a part of where a materialization begins: write WHEN or NAME=WHEN, with a time, now, or checkpoint:NAME", text))
	}
	_, err = parseBeginning("2026-11-23", now)
	require.ErrorContains(t, err, `--from "2026-11-23" has not come yet`)
}

// TestJoinProblems: processes that share a pipeline have its log on Kafka, and a retention that needs no one of them to know of all.
func TestJoinProblems(t *testing.T) {
	t.Parallel()
	for log, want := range map[string]string{
		"": "--join shares a pipeline through its log on Kafka, and the log of FILE is in the data folder of one process: write log: kafka://… into the file",
		"log: {url: kafka://127.0.0.1:1, retention: {time: 7d}}\n": "the log of FILE has a retention that keeps what a materialization has not read, which only a process that runs all of them knows: " +
			"with --join write unread: drop beside it, which leaves it to the topics, or leave it out",
	} {
		file := filepath.Join(t.TempDir(), "shop.yaml")
		text := log + "collections: {acme/things: {key: [/id], schema: {type: object, properties: {id: {type: integer}}, required: [id]}}}\n" +
			"materializations: {acme/sink: {endpoint: {local: {command: [/bin/false], config: {}}}, bindings: [{resource: {table: t}, source: acme/things}]}}\n"
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		code, _, errs := sluice(t, "run", file, "--join")
		require.Equal(t, 1, code)
		require.Contains(t, errs, strings.ReplaceAll(want, "FILE", file))
	}
}

func TestLogForgetProblems(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "shop.yaml")
	code, _, errs := sluice(t, "log", "forget", file, "acme/old")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "there is no log in the data folder")
	log, err := wal.Open(wal.Options{Dir: filepath.Join(filepath.Dir(file), "shop.data"), Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1})
	require.NoError(t, err)
	_, _, errs = sluice(t, "log", "forget", file, "acme/old")
	require.Contains(t, errs, "is in use by another sluice run")
	require.NoError(t, log.Close())
	_, _, errs = sluice(t, "log", "forget", file, "acme/old")
	require.Contains(t, errs, "cannot read "+file+": no such file or directory", "only the file tells what was given up")
	const pipeline = `
captures: {acme/shop: {endpoint: {local: {command: ["true"]}}, bindings: [{resource: {name: orders}, target: acme/orders}]}}
collections: {acme/orders: {key: [/id], schema: {type: object, properties: {id: {type: integer}}, required: [id]}}}
`
	require.NoError(t, os.WriteFile(file, []byte(pipeline), 0o600))
	_, _, errs = sluice(t, "log", "forget", file, "acme/old")
	require.Contains(t, errs, "the log knows no materialization acme/old: sluice log stats shows those that it knows")

	// One that is in the file is not given up, also where it is disabled.
	log, err = wal.Open(wal.Options{Dir: filepath.Join(filepath.Dir(file), "shop.data"), Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1})
	require.NoError(t, err)
	require.NoError(t, log.Put(t.Context(), wal.Records{"materialization/acme/old/spec": {}}))
	require.NoError(t, log.Close())
	for _, shards := range []string{"", "shards: {disable: true}, "} {
		require.NoError(t, os.WriteFile(file, []byte(pipeline+`materializations: {acme/old: {`+shards+`endpoint: {local: {command: ["true"]}}, bindings: [{resource: {table: orders}, source: acme/orders}]}}`), 0o600))
		code, _, errs = sluice(t, "log", "forget", file, "acme/old")
		require.Equal(t, 1, code)
		require.Contains(t, errs, "the pipeline's file still has the materialization acme/old ("+file+":4), which would begin anew: it is forgotten only when it was given up. Take it out of the file first")
	}
	require.NoError(t, os.WriteFile(file, []byte(pipeline), 0o600))
	code, _, errs = sluice(t, "log", "forget", file, "acme/old")
	require.Zero(t, code, errs)
	_, _, errs = sluice(t, "log", "forget", file, "acme/old")
	require.Contains(t, errs, "the log knows no materialization acme/old")
}
