package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[config](t)
	schema.CheckConfig[resource](t)
	for _, c := range []struct{ name, give, want string }{
		{"nothing", `{}`, "Enter some of the cluster's brokers"},
		{"a scheme", `{"bootstrapServers": "kafka://a:1"}`, "without a scheme"},
		{"a start", `{"bootstrapServers": "a", "startAt": "yesterday"}`, "neither earliest, nor latest, nor a time"},
		{"no method", `{"bootstrapServers": "a", "credentials": {"username": "u"}}`, "no method to log in with"},
		{"no password", `{"bootstrapServers": "a", "credentials": {"method": "PLAIN", "username": "u"}}`, "credentials.password"},
		{"two tokens", `{"bootstrapServers": "a", "credentials": {"method": "OAUTHBEARER", "token": "t", "tokenEndpoint": "https://a"}}`, "either a token"},
		{"no client", `{"bootstrapServers": "a", "credentials": {"method": "OAUTHBEARER", "tokenEndpoint": "https://a"}}`, "credentials.clientId"},
		{"a token in clear text", `{"bootstrapServers": "a", "credentials": {"method": "OAUTHBEARER", "tokenEndpoint": "http://a", "clientId": "i", "clientSecret": "s"}}`, "the client's secret in clear text"},
		{"a password in clear text", `{"bootstrapServers": "a", "schemaRegistry": {"endpoint": "http://a:8081", "username": "u", "password": "p"}}`, "the password in clear text"},
		{"a registry's certificate", `{"bootstrapServers": "a", "schemaRegistry": {"endpoint": "https://a", "rootCert": "x"}}`, "schemaRegistry.rootCert cannot be used"},
		{"half a key", `{"bootstrapServers": "a", "credentials": {"method": "AWS_MSK_IAM", "awsAccessKeyId": "k"}}`, "has two parts"},
		{"a pattern", `{"bootstrapServers": "a", "topics": {"include": ["[a"]}}`, "cannot be used"},
		{"a registry's user", `{"bootstrapServers": "a", "schemaRegistry": {"username": "u"}}`, "schemaRegistry.endpoint"},
		{"a registry's address", `{"bootstrapServers": "a", "schemaRegistry": {"endpoint": "localhost"}}`, "is not one such as https://"},
		{"a login in the registry's address", `{"bootstrapServers": "a", "schemaRegistry": {"endpoint": "https://u:hidden@a:8081"}}`, "\"https://u:xxxxx@a:8081\" holds a login"},
		{"a login in a registry's address that is none", `{"bootstrapServers": "a", "schemaRegistry": {"endpoint": "https://u:hidden@a:port"}}`, "\"…@a:port\" is not one such as"},
		{"a login in the token endpoint", `{"bootstrapServers": "a", "credentials": {"method": "OAUTHBEARER", "tokenEndpoint": "https://u:hidden@a", "clientId": "i", "clientSecret": "s"}}`, "\"https://u:xxxxx@a\" holds a login"},
		{"a fetch size", `{"bootstrapServers": "a", "advanced": {"fetchMaxBytes": 7}}`, "between 65536 and"},
		{"an interval", `{"bootstrapServers": "a", "advanced": {"metadataEvery": "soon"}}`, "is not a duration"},
		{"a certificate", `{"bootstrapServers": "a", "tls": {"rootCert": "x"}}`, "holds no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := schema.Parse[config]([]byte(c.give), "the configuration")
			require.NoError(t, err)
			message := usererr.Message(cfg.Validate())
			require.Contains(t, message, c.want)
			require.NotContains(t, message, "hidden")
		})
	}
	cfg, err := schema.Parse[config]([]byte(`{"bootstrapServers": "localhost, 127.0.0.1:19092", "startAt": "2025-03-01T00:00:00Z",
		"credentials": {"method": "SCRAM-SHA-512", "username": "u", "password": "p"}}`), "the configuration")
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
	require.Equal(t, "disable", cfg.endpointTLS().Mode, "a cluster on this machine, without a word about TLS")
	cfg.BootstrapServers = "localhost,kafka.example.com"
	require.Empty(t, cfg.endpointTLS().Mode, "which is verify-full")
}
