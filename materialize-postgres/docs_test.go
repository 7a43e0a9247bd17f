package main

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/page"
	"github.com/sluicedata/sluice/sdk/testkit/server"
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

// Whoever runs the statements of the user's page has all that a materialization needs.
func TestSetUpOfThePage(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t) // roles and databases belong to the whole server
	pg.Exec(t, "CREATE DATABASE shop")
	db := database{pg, "shop"}
	for _, s := range page.SQL(t, "../docs/connectors/materialize-postgres.md", "## Set up", "…", "of the page") {
		db.exec(t, s)
	}
	r := newTask(t, db, db.config(func(c map[string]any) { c["user"], c["password"] = "sluice", "of the page" }))
	r.MustApply()
}
