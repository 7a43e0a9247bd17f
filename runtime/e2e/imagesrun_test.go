package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// TestImages drives the image of every connector in both codecs: its specification, and from each source a discovery and a short
// capture of a real server on the loopback. It runs as nobody, without capabilities, on a file system that cannot be written.
func TestImages(t *testing.T) {
	t.Parallel()
	docker := engine(t)
	for name := range imageNames(t) {
		require.Contains(t, docker.output(t, name, "", "version"), name+" ", "an image knows what it is")
	}
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		for name, protocol := range imageNames(t) {
			switch protocol {
			case "capture":
				res := &capturepb.Response{}
				docker.ask(t, name, codec, &capturepb.Request{Spec: &capturepb.Request_Spec{}}, res)
				require.EqualValues(t, 3032023, res.GetSpec().GetProtocol(), name)
			case "materialize":
				res := &materializepb.Response{}
				docker.ask(t, name, codec, &materializepb.Request{Spec: &materializepb.Request_Spec{}}, res)
				require.EqualValues(t, 3032023, res.GetSpec().GetProtocol(), name)
			}
		}
	}
	t.Run("source-postgres", func(t *testing.T) {
		t.Parallel()
		source := newSide(t, server.SharedPostgres(t))
		source.exec(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders VALUES (1, 'first')")
		config := ownSlot(source)
		require.Contains(t, docker.output(t, "source-postgres", asJSON(t, config), "discover", "--config", "-"), "orders")
		docker.capture(t, "source-postgres", config, `"name":"first"`)
	})
	t.Run("source-mysql", func(t *testing.T) {
		t.Parallel()
		origin := newMySQLSide(t, server.SharedMySQL(t, mysqld.MariaDB))
		for _, text := range []string{"CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders VALUES (1, 'first')"} {
			_, err := origin.db.ExecContext(t.Context(), text)
			require.NoError(t, err)
		}
		docker.capture(t, "source-mysql", map[string]any{
			"address": origin.server.Address(), "user": captureUser, "password": mysqld.Password, "databases": []string{origin.database},
			"advanced": map[string]any{"minRetention": "0s"},
		}, `"name":"first"`)
	})
	t.Run("source-kafka", func(t *testing.T) {
		t.Parallel()
		cluster := server.Kafka(t, kafkad.Options{Settings: map[string]string{"auto.create.topics.enable": "true"}})
		require.NoError(t, newKcat(t, cluster.Addresses()).produce(t.Context(), "payments", `k:{"n":1,"text":"payment"}`))
		docker.capture(t, "source-kafka", map[string]any{
			"bootstrapServers": cluster.Addresses(), "topics": map[string]any{"include": []string{"payments"}},
		}, `"text":"payment"`)
	})
	t.Run("materialize-postgres", func(t *testing.T) {
		t.Parallel()
		docker.output(t, "materialize-postgres", asJSON(t, newSide(t, server.SharedPostgres(t)).login()), "check", "--config", "-")
	})
	t.Run("materialize-s3-parquet", func(t *testing.T) {
		t.Parallel()
		store := server.S3(t)
		docker.output(t, "materialize-s3-parquet", asJSON(t, map[string]any{
			"bucket": store.NewBucket(t), "endpoint": store.Endpoint(), "region": "us-east-1", "advanced": map[string]any{"pathStyle": true},
			"credentials": map[string]any{"accessKeyId": server.S3AccessKey, "secretAccessKey": server.S3SecretKey},
		}), "check", "--config", "-")
	})
}

// ownSlot is a source's configuration for a capture whose name others on the server have as well.
func ownSlot(s side) map[string]any {
	config := s.login()
	config["advanced"] = map[string]any{"slotName": s.database + "_image"}
	return config
}

func asJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	require.NoError(t, err)
	return string(text)
}

// ask sends one request to an image and reads its answer.
func (c containers) ask(t testing.TB, name string, codec frame.Codec, req, res proto.Message) {
	t.Helper()
	cmd := c.command(t, name, []string{"--env", "SLUICE_CODEC=" + codec.String()})
	text, err := frame.Append(nil, codec, req)
	require.NoError(t, err)
	cmd.Stdin = strings.NewReader(string(text))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s: %s", name, stderr.String())
	require.NoError(t, frame.NewReader(strings.NewReader(string(out)), codec, 0).Read(res), name)
}

// capture discovers what a source's image can capture, captures it in both codecs until a document has the text, and ends the container by
// a signal, as a runtime does.
func (c containers) capture(t *testing.T, name string, config any, text string) {
	t.Helper()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		start := func() *session.Session {
			cmd := c.command(t, name, []string{"--env", "SLUICE_CODEC"})
			cmd.Stderr = os.Stderr
			return session.Command(t, cmd, codec)
		}
		s := start()
		task := s.Task(config)
		s.CloseRequests()
		require.NoError(t, s.Wait())
		s = start()
		s.Open(task, nil)
		for found := false; !found; {
			tx, err := s.Transaction()
			require.NoError(t, err)
			s.Ack(1)
			for _, d := range tx.Documents {
				found = found || strings.Contains(string(d.Doc), text)
			}
		}
		require.NoError(t, s.Stop(), "a stop is no failure")
	}
}

// TestImagePipeline runs images by `sluice run`, which knows them by their names only. Both containers are killed on the way, then
// the runtime, whose containers do not outlive it for long. Afterwards the copy is the source.
func TestImagePipeline(t *testing.T) {
	t.Parallel()
	engine(t)
	w := newWorld(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders SELECT i, 'order ' || i FROM generate_series(1, 5000) i")
	w.discover(t, "orders")
	w.materialize(t, "e2e/"+w.copy.database, nil, nil)
	for _, capture := range w.catalog.Captures {
		capture.Endpoint = inImage("source-postgres", capture.Endpoint)
	}
	for _, materialization := range w.catalog.Materializations {
		materialization.Endpoint = inImage("materialize-postgres", materialization.Endpoint)
	}
	require.NoError(t, w.catalog.Write(w.pipeline()))
	flags := []string{"--network", "host"}
	for _, option := range []string{"--tmpfs=/tmp", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"} {
		flags = append(flags, "--docker-option", option)
	}
	w.restart(t, launch.Options{Flags: flags})
	w.same(t, softly(pairOf("orders")))

	for i, name := range []string{"source-postgres", "materialize-postgres"} {
		first := w.container(t, name)
		docker(t, "kill", first)
		w.source.exec(t, fmt.Sprintf("INSERT INTO orders SELECT i, 'later' FROM generate_series(%d, %d) i", 10_000*(i+1), 10_000*(i+1)+999), "UPDATE orders SET name = name || '!' WHERE id % 7 = 0", "DELETE FROM orders WHERE id % 11 = 0")
		w.same(t, softly(pairOf("orders")))
		require.NotEqual(t, first, w.container(t, name))
	}
	killed := []string{w.container(t, "source-postgres"), w.container(t, "materialize-postgres")}
	w.sluice.Kill()
	w.source.exec(t, "UPDATE orders SET name = 'last' WHERE id % 3 = 0")
	w.restart(t, launch.Options{Flags: flags})
	w.same(t, softly(pairOf("orders")))
	require.NotContains(t, w.log(), "there is no folder for temporary files")
	require.Contains(t, w.log(), "sluice/source-postgres:local was killed (SIGKILL)")
	require.NoError(t, w.sluice.Stop())
	running := docker(t, "ps", "--quiet", "--no-trunc")
	for _, id := range killed {
		require.NotContains(t, running, id, "what a killed runtime leaves behind is removed")
	}
	for _, name := range []string{"source-postgres", "materialize-postgres"} {
		require.Empty(t, w.containers(t, name), "a runtime that is stopped leaves nothing behind")
	}
}

// inImage is an endpoint whose program is an image's.
func inImage(name string, e launch.Endpoint) launch.Endpoint {
	return launch.Endpoint{Connector: launch.Image{Image: image(name), Config: e.Local.Config}}
}

// docker runs a command of the engine's client, and returns what it prints; not its warnings, such as of how the machine forwards packets.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	require.NoError(t, err, "docker %v: %s%s", args, out, &warnings)
	return strings.TrimSpace(string(out))
}

// containers are those of this pipeline that run an image.
func (w *world) containers(t testing.TB, name string) string {
	t.Helper()
	database := w.source.database
	if strings.HasPrefix(name, "materialize-") {
		database = w.copy.database
	}
	return docker(t, "ps", "--quiet", "--no-trunc", "--filter", "ancestor="+image(name), "--filter", "name=e2e_"+database)
}

// container is the one, as soon as there is one.
func (w *world) container(t testing.TB, name string) (id string) {
	t.Helper()
	eventually(t, arrival, func() bool {
		id = w.containers(t, name)
		return id != "" && !strings.Contains(id, "\n")
	}, func() string { return fmt.Sprintf("the containers of %s are %q", name, id) })
	return id
}

// TestImageWithoutTemporaryFolder: on a file system that cannot be written, source-postgres cannot keep large transactions; it says so,
// with the remedy, and captures all the same. With a folder it keeps them.
func TestImageWithoutTemporaryFolder(t *testing.T) {
	t.Parallel()
	c := engine(t)
	pg := server.SharedPostgres(t)
	const warning = "there is no folder for temporary files"
	for options, warns := range map[string]bool{"": true, "--tmpfs=/tmp": false} {
		source := newSide(t, pg)
		source.exec(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders VALUES (1, 'first')")
		log, err := os.Create(filepath.Join(t.TempDir(), "log"))
		require.NoError(t, err)
		defer log.Close()
		start := func() *session.Session {
			cmd := c.command(t, "source-postgres", append(strings.Fields(options), "--env", "SLUICE_CODEC"))
			cmd.Stderr = log
			return session.Command(t, cmd, frame.Proto)
		}
		s := start()
		task := s.Task(ownSlot(source))
		s.CloseRequests()
		require.NoError(t, s.Wait())
		s = start()
		s.Open(task, nil)
		// Several times what the server decodes in memory, so that it sends pieces before the end if it may.
		source.exec(t, "INSERT INTO orders SELECT i, repeat('x', 1000) FROM generate_series((SELECT max(id) FROM orders) + 1, (SELECT max(id) FROM orders) + 8000) i")
		rows := 0
		for rows < 8000 {
			tx, err := s.Transaction()
			require.NoError(t, err)
			s.Ack(1)
			rows += len(tx.Documents)
		}
		require.NoError(t, s.Stop())
		text, err := os.ReadFile(log.Name())
		require.NoError(t, err)
		require.Equal(t, warns, strings.Contains(string(text), warning), "%q: %s", options, text)
		if warns {
			require.Contains(t, string(text), "--tmpfs /tmp")
		}
	}
}

// TestImageOfSluice runs a pipeline inside of the image of sluice, with connectors mounted into it as the documentation says.
func TestImageOfSluice(t *testing.T) {
	t.Parallel()
	c := engine(t)
	w := newWorld(t, "CREATE TABLE orders (id int PRIMARY KEY, name text)", "INSERT INTO orders VALUES (1, 'first')")
	w.discover(t, "orders")
	w.materialize(t, "e2e/"+w.copy.database, nil, nil)
	for _, capture := range w.catalog.Captures {
		capture.Endpoint.Local.Command = []string{"source-postgres"}
		capture.Endpoint.Local.Config = w.source.login()
	}
	for _, materialization := range w.catalog.Materializations {
		materialization.Endpoint.Local.Command = []string{"materialize-postgres"}
	}
	require.NoError(t, w.catalog.Write(w.pipeline()))
	require.NoError(t, os.Chmod(w.pipeline(), 0o644)) // the image's user is nobody
	cmd := c.command(t, "sluice", []string{
		"--tmpfs", "/tmp", "--volume", "/data", "--volume", string(w.bins) + ":/connectors:ro", "--volume", w.pipeline() + ":/pipeline.yaml:ro",
	}, "run", "/pipeline.yaml", "--data", "/data/shop")
	log, err := os.Create(w.logFile())
	require.NoError(t, err)
	defer log.Close()
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	w.same(t, softly(pairOf("orders")))
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), w.log())

	// An image has no docker client, so there are no images in images, and it says so.
	for _, capture := range w.catalog.Captures {
		capture.Endpoint = inImage("source-postgres", capture.Endpoint)
	}
	require.NoError(t, w.catalog.Write(w.pipeline()))
	ctx, cancel := context.WithTimeout(t.Context(), arrival)
	defer cancel()
	out, err := c.command(t, "sluice", nil, "spec", image("source-postgres")).CombinedOutput()
	require.Error(t, err)
	require.NoError(t, ctx.Err())
	require.Contains(t, string(out), "there is no program docker to run it")
}

// TestImageConformance runs `sluice test` against images, as the documentation says: of a source and of a destination, which keep every rule in both
// codecs. Rules that ask nothing of an image which they do not ask of its program, which TestConformance tests, are left out of the longer one.
func TestImageConformance(t *testing.T) {
	t.Parallel()
	engine(t)
	bins := binaries(t)
	pg := server.SharedPostgres(t)
	test := func(name string, config map[string]any, skipped []string, flags ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "config.json")
			require.NoError(t, os.WriteFile(file, []byte(asJSON(t, config)), 0o600))
			args := []string{"test", image(name), "--config", file, "--output", "json", "--network", "host"}
			for _, option := range hardenedOptions() {
				args = append(args, "--docker-option="+option)
			}
			cmd := exec.CommandContext(t.Context(), bins.Sluice(), append(args, flags...)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			began := time.Now()
			out, err := cmd.Output()
			took := time.Since(began)
			require.NoError(t, err, "%s\n%s", out, stderr.String())
			var report struct {
				Findings []struct{ Rule, Outcome, Detail string }
			}
			require.NoError(t, json.Unmarshal(out, &report), "%s", out)
			require.Greater(t, len(report.Findings), 15)
			for _, f := range report.Findings {
				want := "pass"
				if slices.Contains(skipped, f.Rule) {
					want = "skip"
				}
				require.Equal(t, want, f.Outcome, "%s: %s", f.Rule, f.Detail)
			}
			t.Logf("%d rules in %s", len(report.Findings), took.Round(time.Second))
		})
	}
	source := newSide(t, pg)
	fill := []string{`CREATE TABLE items (id int PRIMARY KEY, name varchar(20), price numeric(10,2))`}
	for i := range 40 {
		fill = append(fill, fmt.Sprintf(`INSERT INTO items VALUES (%d, 'item', 1.50)`, i))
	}
	source.exec(t, fill...)
	config := conformanceLogin(t, source)
	config["advanced"] = map[string]any{"slotName": source.database + "_image", "backfillChunkRows": 20, "backfillWorkers": 1}
	test("source-postgres", config, []string{"huge-frame", "memory"}, "--quiet", "1s")
	destination := newSide(t, pg)
	rows := fmt.Sprintf(`psql -At '%s' -c 'SELECT row_to_json(t) FROM {table} t'`, destination.server.URL(destination.database))
	test("materialize-postgres", conformanceLogin(t, destination), nil, "--verify", rows,
		"--only", "frame,codecs-agree,lenient,cut-frame,wrong-order,exit-code,transactions,load,many-loads,exactly-once,fence,slow-reader,stored,log-format,no-secrets")
}

// hardenedOptions are hardened, each as one word.
func hardenedOptions() []string {
	return []string{"--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"}
}
