package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/page"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// Whoever runs the statements of the user's page has all that a capture needs.
func TestSetUpOfThePage(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := databaseOn(t, server.MySQL(t, flavor, map[string]string{"binlog-format": "MIXED", "binlog-row-metadata": "MINIMAL"}))
		db.exec("CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
		db.exec(page.SQL(t, "../docs/connectors/source-mysql.md", "## Set up", "…", "of the page")...)
		d := db.driver(func(c *config) {
			c.User, c.Password, c.Databases, c.Advanced.MinRetention = "sluice", schema.NewSecret("of the page"), []string{"shop"}, ""
		})
		id := cdc.TableID{Schema: "shop", Name: "orders"}
		require.Empty(t, check(t, d, id))
		found, err := d.Discover(t.Context(), id)
		require.NoError(t, err)
		s := db.open(d, found...)
		db.exec("INSERT INTO shop.orders VALUES (1)")
		require.Equal(t, `c orders {"id":1}`, strings.Join(s.fence(), "\n"))
	})
}
