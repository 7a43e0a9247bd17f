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
	page, err := os.ReadFile("../docs/connectors/materialize-s3-parquet.md")
	require.NoError(t, err)
	sections := map[reflect.Type]string{
		reflect.TypeFor[config](): "", reflect.TypeFor[resource](): "",
		reflect.TypeFor[advanced](): "advanced.", reflect.TypeFor[credentials](): "credentials.",
	}
	for typ, prefix := range sections {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "advanced" || name == "credentials" {
				continue
			}
			require.Contains(t, string(page), "`"+prefix+name+"`")
			if d := f.Tag.Get("default"); d != "" {
				require.Contains(t, string(page), "`"+d+"`", "the default of %s", name)
			}
		}
	}
}
