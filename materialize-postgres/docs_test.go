package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
)

func TestConfigIsWellFormed(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[config](t)
	schema.CheckConfig[resource](t)
}

// The user's page names every field of the configuration, with its default.
func TestDocumentationNamesEveryField(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/connectors/materialize-postgres.md")
	require.NoError(t, err)
	for _, typ := range []reflect.Type{reflect.TypeFor[config](), reflect.TypeFor[advanced](), reflect.TypeFor[resource]()} {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "advanced" {
				continue
			}
			if typ == reflect.TypeFor[advanced]() {
				name = "advanced." + name
			}
			require.Contains(t, string(page), "`"+name+"`")
			if d := f.Tag.Get("default"); d != "" {
				require.Contains(t, string(page), "`"+d+"`", "the default of %s", name)
			}
		}
	}
}
