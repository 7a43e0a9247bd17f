package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Which topics are discovered: patterns to include and exclude; the cluster's own only by their names.
func TestSelection(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		include, exclude string // patterns
		topic            string
		internal, want   bool
	}{
		{"", "", "orders", false, true},
		{"", "", "__consumer_offsets", true, false},
		{"", "", "__amazon_msk_canary", false, false},
		{"", "", "_confluent-metrics", false, false},
		{"", "", "_schemas", false, false},
		{"", "", "_mine", false, true},
		{"orders*", "", "orders.eu", false, true},
		{"orders*", "", "my.orders", false, false},
		{"*.e?", "", "orders.eu", false, true},
		{"*.e?", "", "orders.e", false, false},
		{"a,orders", "", "orders", false, true},
		{"", "*.test", "orders.test", false, false},
		{"", "*.test", "orders", false, true},
		{"orders*", "*.test", "orders.test", false, false},
		{"orders.test", "*.test", "orders.test", false, false},
		{"*", "", "__consumer_offsets", true, false},
		{"__consumer_offsets", "", "__consumer_offsets", true, true},
		{"_schemas", "", "_schemas", false, true},
	} {
		patterns := func(list string) []string { return strings.FieldsFunc(list, func(r rune) bool { return r == ',' }) }
		s := selection{Include: patterns(c.include), Exclude: patterns(c.exclude)}
		require.Equal(t, c.want, s.selects(c.topic, c.internal), "%+v", c)
	}
}

// Discovery tells of each topic how many partitions it has, how many bytes are in it, whether it is compacted, and the key that is proposed.
func TestDiscoveryTellsOfTopics(t *testing.T) {
	t.Parallel()
	b := shared(t)
	plain, compacted := b.topic(3), b.topic(1, "cleanup.policy", "compact")
	value := `{"text":"` + strings.Repeat("x", 5000) + `"}`
	for p := range int32(3) {
		b.produce(&kgo.Record{Topic: plain, Partition: p, Value: []byte(value)})
	}
	b.produce(&kgo.Record{Topic: compacted, Key: []byte("k"), Value: []byte("{}")})
	logger, said := logtest.NewNullLogger()
	_, err := source{}.Discover(t.Context(), capture.Env{Log: logrus.NewEntry(logger)}, b.config(plain, compacted))
	require.NoError(t, err)
	told := map[any]logrus.Fields{}
	for _, e := range said.AllEntries() {
		if e.Message == "found a topic" {
			told[e.Data["topic"]] = e.Data
		}
	}
	require.Len(t, told, 2)
	bytes, ok := told[plain]["bytes"].(int64)
	require.True(t, ok)
	require.Greater(t, bytes, int64(300), "batches of one record each, perhaps compressed")
	require.Equal(t, 3, told[plain]["partitions"])
	require.Equal(t, false, told[plain]["compacted"])
	require.Equal(t, "/_meta/partition /_meta/offset", told[plain]["key"])
	require.Equal(t, 1, told[compacted]["partitions"])
	require.Equal(t, true, told[compacted]["compacted"])
	require.Equal(t, "/_key", told[compacted]["key"])
}

// A registry behind an authority of its own, which wants a login: discovery and capture read its schemas; what is wrong is said.
func TestRegistryWithLoginAndAuthority(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	at, err := url.Parse(fake.URL())
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(at)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "key" || password != "the secret" {
			http.Error(w, `{"error_code":40101,"message":"who are you"}`, http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(secure.Close)
	_, b := faulty(t, "t")
	fake.SeedSchema("t-value", 1, avroID, sr.Schema{Schema: avroSchema, Type: sr.TypeAvro})
	b.produce(&kgo.Record{Topic: "t", Value: avroValue(1)})
	cfg := b.config("t")
	cfg.SchemaRegistry = registryConfig{
		Endpoint: secure.URL, Username: "key", Password: schema.NewSecret("the secret"),
		RootCert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})),
	}
	require.NoError(t, cfg.Validate())
	require.JSONEq(t, `{"type":"integer"}`, string(b.discovered(t.Context(), cfg)["t"]["id"]))
	r := open(t, cfg, nil)
	r.until(1)
	require.Contains(t, string(r.docs[0]), `{"id":1,"customer":"customer 1 of London","email":"customer1@example.com","amount":"655.37","status":"PAID","created":"2025-10-09T08:53:20.124456Z",`+
		`"weight":0.25,"express":true,"note":"leave it at the door, please","quantity":1,"_meta":{`)
	require.NoError(t, r.Stop())

	discover := func(change func(*registryConfig)) string {
		t.Helper()
		wrong := cfg
		change(&wrong.SchemaRegistry)
		_, err := source{}.Discover(t.Context(), capture.Env{Log: logrus.NewEntry(logrus.New())}, wrong)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "the secret")
		return usererr.Message(err)
	}
	require.Contains(t, discover(func(c *registryConfig) { c.RootCert = "" }), "is not signed by an authority that is trusted here")
	require.Contains(t, discover(func(c *registryConfig) { c.Password = schema.NewSecret("another") }), "does not accept the user and password")
}
