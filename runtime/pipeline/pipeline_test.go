package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// files writes files into a folder and returns the path of the pipeline.
func files(t *testing.T, pipeline string, others map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if others == nil {
		others = map[string]string{}
	}
	others["pipeline.yaml"] = pipeline
	for name, text := range others {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	return filepath.Join(dir, "pipeline.yaml")
}

func getenv(name string) (string, bool) {
	value, ok := map[string]string{"PASSWORD": "s3cret: #x", "EMPTY": ""}[name]
	return value, ok
}

const whole = `
captures:
  acme/source:
    interval: 30s
    autoDiscover: {addNewBindings: true}
    endpoint:
      local:
        command: [bin/source, --flag]
        protobuf: true
        env: {HOME: "/x/${EMPTY}"}
        config: source.yaml
    bindings:
      - {resource: {name: orders}, target: acme/orders, backfill: 2}
      - {resource: {name: old}, target: acme/old, disable: true}
collections:
  acme/orders:
    key: [/id]
    schema: {type: object, properties: {id: {type: integer}}, required: [id]}
    projections: {the_id: /id, total: {location: /sum, partition: false}}
materializations:
  acme/off:
    shards: {disable: true}
    endpoint: {connector: {image: "ghcr.io/acme/x:v1", config: {}}}
    bindings: []
  acme/warehouse:
    endpoint: {connector: {image: "ghcr.io/acme/materialize-x:v1", config: {password: "${PASSWORD}", price: "$${x}", port: 0x10, big: 12345678901234567890, ratio: 1.50, list: [true, null, "5"]}}}
    bindings:
      - source: {name: acme/orders}
        resource: {table: orders}
        fields: {recommended: 3, require: {sum: {a: 1}}, exclude: [x], groupBy: [the_id]}
        priority: 2
`

func TestLoad(t *testing.T) {
	t.Parallel()
	file := files(t, whole, map[string]string{"bin/source": "#!/bin/sh\n", "source.yaml": "address: localhost\npassword: ${PASSWORD}\n"})
	p, err := Load(file, Options{Getenv: getenv})
	require.NoError(t, err)
	require.Len(t, p.Captures, 1)
	c := p.Captures[0]
	require.Equal(t, 30*time.Second, c.Interval)
	require.Equal(t, []string{filepath.Join(filepath.Dir(file), "bin/source"), "--flag"}, c.Endpoint.Command)
	require.Equal(t, frame.Proto, c.Endpoint.Codec)
	require.Equal(t, map[string]string{"HOME": "/x/"}, c.Endpoint.Env)
	require.JSONEq(t, `{"address":"localhost","password":"s3cret: #x"}`, string(c.Endpoint.Config))
	require.Len(t, c.Bindings, 1)
	require.Equal(t, CaptureBinding{Resource: []byte(`{"name":"orders"}`), Target: "acme/orders", Backfill: 2}, c.Bindings[0])
	require.Len(t, p.Materializations, 1)
	m := p.Materializations[0]
	require.Equal(t, "ghcr.io/acme/materialize-x:v1", m.Endpoint.Image)
	require.Equal(t, `{"password":"s3cret: #x","price":"${x}","port":16,"big":12345678901234567890,"ratio":1.50,"list":[true,null,"5"]}`, string(m.Endpoint.Config))
	b := m.Bindings[0]
	require.Equal(t, 3, b.Fields.Depth)
	require.Equal(t, `{"a":1}`, string(b.Fields.Require["sum"]))
	require.Equal(t, []string{"the_id"}, b.Fields.GroupBy)
	require.Equal(t, map[string]string{"the_id": "/id", "total": "/sum"}, p.Collections["acme/orders"].Projections)
}

// A source of Airbyte is a connector by the adapter's command.
func TestAirbyte(t *testing.T) {
	t.Parallel()
	load := func(endpoint string) Endpoint {
		p, err := Load(files(t, "captures: {acme/c: {endpoint: {airbyte: "+endpoint+"}, bindings: [{resource: {}, target: acme/x}]}}\ncollections: {acme/x: {key: [/id], schema: true}}", map[string]string{"bin/source": "#!/bin/sh\n"}),
			Options{Getenv: getenv, Airbyte: []string{"/bin/sluice", "airbyte-adapter"}})
		require.NoError(t, err)
		return p.Captures[0].Endpoint
	}
	e := load(`{command: [bin/source, x], env: {A: b}, timeout: 2h, config: {password: "${PASSWORD}"}}`)
	require.Equal(t, "/bin/sluice airbyte-adapter --timeout 2h --", strings.Join(e.Command[:5], " "))
	require.True(t, filepath.IsAbs(e.Command[5]), e.Command[5])
	require.Equal(t, []string{"x"}, e.Command[6:])
	require.Equal(t, map[string]string{"A": "b"}, e.Env)
	require.Equal(t, "source", e.Label)
	require.JSONEq(t, `{"password":"s3cret: #x"}`, string(e.Config))
	require.Equal(t, frame.Proto, e.Codec)
	e = load(`{image: "airbyte/source-faker:7.2.1"}`)
	require.Equal(t, []string{"/bin/sluice", "airbyte-adapter", "--image", "airbyte/source-faker:7.2.1"}, e.Command)
	require.Empty(t, e.Image)
	require.Equal(t, "airbyte/source-faker:7.2.1", e.Label)
}

func TestErrorsNameFileAndLine(t *testing.T) {
	t.Parallel()
	const capture = "captures:\n  acme/c:\n    endpoint: {local: {command: [sh]}}\n    bindings: [{resource: {a: 1}, target: acme/x}]\n"
	const collection = "collections:\n  acme/x: {key: [/id], schema: {type: object}}\n"
	for name, c := range map[string]struct{ yaml, want string }{
		"empty":                  {"", "is empty"},
		"not YAML":               {"a: [", "is not valid YAML: line 1"},
		"unknown field":          {"captures: {}\ncolections: {}\n", `pipeline.yaml:2: unknown field "colections" in the pipeline; known are captures, collections, log, materializations, tests`},
		"case":                   {"Captures: {}\n", `did you mean captures?`},
		"unknown in a binding":   {"captures:\n  acme/c:\n    bindings:\n      - resource: {}\n        traget: x\n", `pipeline.yaml:5: unknown field "traget" in a binding of the capture acme/c`},
		"twice":                  {"captures: {}\ncaptures: {}\n", `pipeline.yaml:2: "captures" stands twice in the pipeline`},
		"nothing to run":         {"captures: {}\n", "there is nothing to run"},
		"no endpoint":            {"captures:\n  acme/c:\n    bindings: []\n", "pipeline.yaml:3: the capture acme/c needs an endpoint"},
		"no target":              {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh]}}\n    bindings: [{resource: {a: 1}, target: acme/y}]\n", "pipeline.yaml:3: the capture acme/c writes to the collection acme/y, which is not defined"},
		"bad name":               {"captures:\n  'a b':\n    {}\n", `pipeline.yaml:2: the name "a b" may have letters`},
		"bad interval":           {"captures:\n  acme/c:\n    interval: often\n", "pipeline.yaml:3: interval must be a duration such as 30s or 5m"},
		"missing binary":         {"captures:\n  acme/c:\n    endpoint: {local: {command: [bin/none]}}\n", "the capture acme/c cannot be started: there is no file"},
		"not on the PATH":        {"captures:\n  acme/c:\n    endpoint: {local: {command: [no-such-program]}}\n", "there is no program no-such-program on the PATH"},
		"not executable":         {"captures:\n  acme/c:\n    endpoint: {local: {command: [plain/file]}}\n", "is not executable (chmod +x it"},
		"a folder":               {"captures:\n  acme/c:\n    endpoint: {local: {command: [plain/]}}\n", "is a folder, not a program"},
		"key without a slash":    {capture + "collections:\n  acme/x: {key: [id], schema: true}\n", `the key "id" of the collection acme/x must be a JSON pointer`},
		"no key":                 {capture + "collections:\n  acme/x: {schema: true}\n", "pipeline.yaml:6: the collection acme/x needs a key"},
		"derivation":             {capture + "collections:\n  acme/x: {derive: {}}\n", "derivations are not supported"},
		"unset variable":         {"captures:\n  acme/c:\n    endpoint:\n      local:\n        command: [sh]\n        config:\n          password: ${NONE}\n", "pipeline.yaml:7: the environment variable NONE is not set"},
		"open brace":             {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh], config: {a: '${X'}}}\n", "${ without its closing brace"},
		"sops":                   {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh], config: {a: 1, sops: {mac: x}}}}\n", "cannot be used: it is not encrypted for one group of age keys"},
		"missing config":         {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh], config: none.yaml}}\n", "none.yaml: no such file or directory"},
		"config of another kind": {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh], config: [1]}}\n", "config must be a mapping, or the name of a file"},
		"infinity":               {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh], config: {a: .inf}}}\n", "has no form in JSON"},
		"two endpoints":          {"captures:\n  acme/c:\n    endpoint: {local: {command: [sh]}, connector: {image: x}}\n", "pipeline.yaml:3: an endpoint is one of local, connector and airbyte"},
		"airbyte: two":           {"captures:\n  acme/c:\n    endpoint: {airbyte: {command: [sh], image: x}}\n", "the capture acme/c has a command and an image: choose one"},
		"airbyte: none":          {"captures:\n  acme/c:\n    endpoint: {airbyte: {config: {}}}\n", "the capture acme/c needs an endpoint: local with a command, connector with an image, or airbyte with either"},
		"airbyte: time":          {"captures:\n  acme/c:\n    endpoint: {airbyte: {command: [sh], timeout: long}}\n", "pipeline.yaml:3: timeout must be a duration such as 30m or 2h: how long the source may say nothing"},
		"airbyte: env":           {"captures:\n  acme/c:\n    endpoint: {airbyte: {image: x, env: {A: b}}}\n", "pipeline.yaml:3: env is for a command. Give an image its environment by --docker-option=--env=NAME=VALUE."},
		"airbyte: destination":   {capture + collection + "materializations:\n  acme/m:\n    endpoint: {airbyte: {command: [sh]}}\n    bindings: []\n", "the materialization acme/m cannot be a source of Airbyte"},
		"backfill":               {"captures:\n  acme/c:\n    bindings: [{backfill: -1}]\n", "backfill must be a whole number, zero or more"},
		"no source":              {capture + collection + "materializations:\n  acme/m:\n    endpoint: {local: {command: [sh]}}\n    bindings: [{resource: {}, source: acme/z}]\n", "reads the collection acme/z, which is not defined"},
		"one name for two":       {capture + collection + "materializations:\n  acme/c:\n    endpoint: {local: {command: [sh]}}\n    bindings: [{resource: {}, source: acme/x}]\n", "a capture and a materialization are both called acme/c"},
		"two problems":           {strings.ReplaceAll(capture, "bindings: [", "bindings: [{resource: {b: 1}, target: acme/q}, "), "the pipeline cannot run:\n1. "},
		"recommended":            {"materializations:\n  acme/m:\n    bindings: [{fields: {recommended: much}}]\n", "recommended must be true, false, or how deep"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(files(t, c.yaml, map[string]string{"plain/file": "x"}), Options{Getenv: getenv, Airbyte: []string{"adapter"}})
			require.Error(t, err)
			require.Contains(t, usererr.Message(err), c.want)
			require.NotContains(t, usererr.Message(err), "yaml.")
		})
	}
	_, err := Load(files(t, "captures: {a: {endpoint: {airbyte: {}}}}", nil), Options{})
	require.ErrorContains(t, err, "this program cannot run sources of Airbyte")
	_, err = Load("/no/such/file.yaml", Options{})
	require.Equal(t, "cannot read /no/such/file.yaml: no such file or directory", usererr.Message(err))
}

// FuzzLoad demands that no text makes reading fail otherwise than with an error.
func FuzzLoad(f *testing.F) {
	f.Add(whole)
	f.Add("a: &a [*a]")
	f.Add("captures: {x: {endpoint: {local: {config: &c {a: *c}}}}}")
	f.Fuzz(func(t *testing.T, text string) {
		file := filepath.Join(t.TempDir(), "p.yaml")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, _ = Load(file, Options{Getenv: getenv})
	})
}

func TestLogOnKafka(t *testing.T) {
	t.Parallel()
	load := func(log string) (*Pipeline, error) {
		return Load(files(t, "captures:\n  a:\n    endpoint: {local: {command: [cat]}}\n    bindings: [{resource: {}, target: c}]\ncollections:\n  c: {key: [/id], schema: {}}\nlog: "+log+"\n", nil), Options{Getenv: getenv})
	}
	p, err := load("kafka://localhost:1,127.0.0.1:2")
	require.NoError(t, err)
	k := p.Kafka
	require.Equal(t, "kafka://localhost:1,127.0.0.1:2", k.String())
	require.Equal(t, []any{"pipeline", 3, 0, int64(16 << 20), 15 * time.Minute, false, "disable"}, []any{k.Prefix, k.Partitions, k.Replication, k.MaxDocument, k.TransactionTimeout, k.Adopt, k.TLS.Mode})
	p, err = load(`{url: "kafka://kafka.example.com", topics: {prefix: shop, partitions: 12, replication: 3, maxDocument: 1MB, adopt: true}, transactionTimeout: 1h,
  retention: {time: 7d, unread: drop}, credentials: {method: PLAIN, username: u, password: "${PASSWORD}"}, tls: {mode: require}}`)
	require.NoError(t, err)
	k = p.Kafka
	require.Equal(t, []any{"shop", 12, 3, int64(1e6), time.Hour, true, "require"}, []any{k.Prefix, k.Partitions, k.Replication, k.MaxDocument, k.TransactionTimeout, k.Adopt, k.TLS.Mode})
	require.Equal(t, "kafka.example.com:9092", k.Brokers[0].String())
	require.Equal(t, "s3cret: #x", k.Credentials.Password.Reveal())
	only, err := LoadLog(p.File, Options{Getenv: getenv})
	require.NoError(t, err)
	require.Equal(t, k, only)
	p, err = load("{retention: {time: 7d}}")
	require.NoError(t, err)
	require.Nil(t, p.Kafka)
	for log, want := range map[string]string{
		"redis://x":                     "pipeline.yaml:7: the log must be an address such as kafka://broker1:9092,broker2:9092, or a mapping; without it, it is kept in the data folder",
		"kafka://u:hidden@x":            "pipeline.yaml:7: the log's address holds a login, and addresses are shown in logs: write it in credentials of a mapping, beside url",
		"kafka://x:port":                `the log's address cannot be used: The port "port" of the address is not a number`,
		"{topics: {partitions: 3}}":     "the log has no url such as kafka://broker:9092, without which it is kept in the data folder: that has neither topics nor a login",
		"{url: kafka://x, user: u}":     `unknown field "user" in log`,
		"{url: kafka://x, tls: 1}":      "tls of the log must be a mapping",
		"{url: kafka://x, tls: {x: 1}}": "tls of the log",
		"{url: kafka://x, tls: {mode: disable}, credentials: {username: u}}": "There are credentials, but no method to log in with",
		"{url: kafka://x, topics: {partitions: 0}}":                          `partitions of the log's topics is "0": it must be a whole number from 1 to 10000`,
		"{url: kafka://x, topics: {replication: all}}":                       `replication of the log's topics is "all": it must be a whole number from 1 to 100`,
		"{url: kafka://x, topics: {prefix: a/b}}":                            `prefix of the log's topics is "a/b": it must be made of letters, digits, dots, dashes and underscores, at most 100`,
		"{url: kafka://x, topics: {maxDocument: big}}":                       `maxDocument of the log's topics is "big": it must be a size such as 1MB or 64MB, at most 1GiB`,
		"{url: kafka://x, topics: {compact: [c, none]}}":                     "compact of the log's topics names the collection none, which is not defined",
		"{url: kafka://x, sessionTimeout: 1s}":                               `sessionTimeout of the log is "1s": it must be a duration of 6s or more, such as 10s`,
		"{url: kafka://x, transactionTimeout: soon}":                         `transactionTimeout of the log is "soon": it must be a duration of a second or more, such as 15m`,
	} {
		_, err := load(log)
		require.Error(t, err, log)
		require.Contains(t, usererr.Message(err), want)
		require.NotContains(t, usererr.Message(err), "hidden")
	}
	for file, want := range map[string]string{"a/shop.yaml": "shop", "-.yaml": "sluice", "my shop!.v2.yaml": "my-shop-.v2"} {
		require.Equal(t, want, prefixOf(file))
	}
}

func TestShards(t *testing.T) {
	t.Parallel()
	load := func(capture, materialization, log string) (*Pipeline, error) {
		return Load(files(t, "captures:\n  a:\n    endpoint: {local: {command: [cat]}}\n    bindings: [{resource: {}, target: c}]\n    shards: "+capture+
			"\nmaterializations:\n  m:\n    endpoint: {local: {command: [cat]}}\n    bindings: [{resource: {}, source: c}]\n    shards: "+materialization+
			"\ncollections:\n  c: {key: [/id], schema: {}}\n"+log+"\n", nil), Options{})
	}
	p, err := load("4", "{count: 2}", "log: kafka://localhost")
	require.NoError(t, err)
	require.Equal(t, []int{4, 2}, []int{p.Captures[0].Shards, p.Materializations[0].Shards})
	one, err := p.Fingerprint("prefix")
	require.NoError(t, err)
	require.Len(t, one, 32)
	same, err := load("4", "{count: 2, disable: false} # a comment\n", "log: kafka://elsewhere")
	require.NoError(t, err)
	again, err := same.Fingerprint("prefix")
	require.NoError(t, err)
	require.Equal(t, one, again, "where lines and the log are makes no difference to what tasks do")
	other, err := p.Fingerprint("other")
	require.NoError(t, err)
	require.NotEqual(t, one, other)
	p.Captures[0].Endpoint.Config = []byte(`{"password":"x"}`)
	changed, err := p.Fingerprint("prefix")
	require.NoError(t, err)
	require.NotEqual(t, one, changed)

	p, err = load("{disable: false}", "1", "")
	require.NoError(t, err)
	require.Equal(t, []int{1, 1}, []int{p.Captures[0].Shards, p.Materializations[0].Shards})
	for _, c := range [][4]string{
		{"0", "1", "", `pipeline.yaml:5: shards is "0": it must be a whole number from 1 to 1000`},
		{"1", "{count: many}", "", `pipeline.yaml:10: shards is "many": it must be a whole number from 1 to 1000`},
		{"2", "1", "", "pipeline.yaml:3: the capture a has 2 shards, which takes a log on Kafka (log: kafka://…): the one in the data folder has whole tasks"},
		{"1", "2", "", "pipeline.yaml:8: the materialization m has 2 shards, which takes a log on Kafka (log: kafka://…): the one in the data folder has whole tasks"},
		{"1", "4", "log: kafka://localhost", "pipeline.yaml:8: the materialization m has 4 shards, but topics of the log have 3 partitions, each of which is read by one shard: lower shards, or set topics.partitions of the log to more and begin with a new topics.prefix"},
	} {
		_, err := load(c[0], c[1], c[2])
		require.Error(t, err)
		require.Contains(t, usererr.Message(err), c[3])
	}
}
