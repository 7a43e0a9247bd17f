package schema_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Whatever prints a configuration, or something that holds one, does not print its secrets.
func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	cfg, err := schema.Parse[login](json.RawMessage(`{"password": "hunter2"}`), "the configuration")
	require.NoError(t, err)
	require.Equal(t, "hunter2", cfg.Password.Reveal())
	private := struct{ cfg *login }{&cfg}
	deep := struct{ cfg login }{cfg}

	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%c"} {
		for _, v := range []any{cfg, &cfg, cfg.Password, &cfg.Password, private, deep, []any{cfg}, map[string]any{"a": cfg}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, v := range []any{cfg, cfg.Password, map[string]any{"a": &cfg}} {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		out.Write(text)
	}
	for _, formatter := range []logrus.Formatter{&logrus.JSONFormatter{}, &logrus.TextFormatter{}} {
		log := logrus.New()
		log.SetOutput(io.MultiWriter(&out))
		log.SetFormatter(formatter)
		log.WithFields(logrus.Fields{"config": cfg, "password": cfg.Password, "deep": deep}).Error(cfg, deep, cfg.Password)
	}
	out.WriteString(usererr.New(errors.New("x"), "%v", cfg).Error())
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "hunter2"))
	require.Contains(t, out.String(), "(hidden)")

	var none schema.Secret
	require.True(t, none.IsZero())
	require.Empty(t, none.Reveal()+none.String())
	require.True(t, schema.NewSecret("").IsZero())
}
