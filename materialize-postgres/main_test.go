package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestMain(m *testing.M) {
	os.Exit(child.Main(m, 0, map[string]func(){child.Connector: main}))
}

// startProcess starts the connector as a process of its own.
func startProcess(t testing.TB, codec frame.Codec) sinktest.Process {
	t.Helper()
	return sinktest.StartProcess(t, child.Self(t, child.Connector), codec)
}

// startHere starts the connector in the test's own process, which is cheaper. Killing it cancels whatever it does.
func startHere(t testing.TB, codec frame.Codec) sinktest.Process {
	t.Helper()
	in, requests, err := os.Pipe()
	require.NoError(t, err)
	responses, out, err := os.Pipe()
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	var failed error
	go func() {
		defer close(done)
		failed = materialize.Serve(ctx, sink{}, logrus.NewEntry(process.Discard()), codec, in, out)
		_ = out.Close()
		_ = in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = responses.Close()
	})
	return sinktest.Process{Stdin: requests, Stdout: responses, Kill: cancel, Wait: func() error {
		<-done
		if failed != nil {
			return errors.New(usererr.Message(failed))
		}
		return nil
	}}
}

// database is a fresh database on the shared server.
type database struct {
	pg   *server.PostgresServer
	name string
}

func newDatabase(t testing.TB) database {
	t.Helper()
	pg := server.SharedPostgres(t)
	return database{pg, pg.NewDatabase(t)}
}

func (d database) exec(t testing.TB, sql ...string) string {
	t.Helper()
	return d.pg.ExecIn(t, d.name, sql...)
}

// waits polls until a query prints what is wanted.
func (d database) waits(t testing.TB, query, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return d.exec(t, query) == want }, time.Minute, 20*time.Millisecond, query)
}

// config is an endpoint configuration of the database; change may alter it.
func (d database) config(change func(map[string]any)) json.RawMessage {
	c := map[string]any{
		"address": fmt.Sprintf("%s:%d", d.pg.Host(), d.pg.Port()), "database": d.name, "user": "postgres", "password": "secret",
	}
	if change != nil {
		change(c)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return raw
}

func (d database) sinkCase() sinktest.Case {
	return sinktest.Case{
		Start:      startProcess,
		Config:     d.config(nil),
		HardDelete: d.config(func(c map[string]any) { c["hardDelete"] = true }),
		Resource: func(table string, delta bool) json.RawMessage {
			return json.RawMessage(fmt.Sprintf(`{"table":%s,"deltaUpdates":%s}`, strconv.Quote(table), strconv.FormatBool(delta)))
		},
		Rows: func(t testing.TB, table string) []json.RawMessage {
			t.Helper()
			var out []json.RawMessage
			text := d.exec(t, fmt.Sprintf("SELECT row_to_json(t) FROM public.%s t", quote(table)))
			for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
				if line != "" {
					out = append(out, json.RawMessage(line))
				}
			}
			return out
		},
	}
}
