package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/page"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// Whoever runs the statements of the user's page has all that a capture needs, and with the last ones nothing of it is left.
func TestSetUpOfThePage(t *testing.T) {
	t.Parallel()
	db := databaseOn(t, server.Postgres(t)) // roles belong to the whole server
	db.exec("CREATE TABLE orders (id int PRIMARY KEY)")
	statements := page.SQL(t, "../docs/connectors/source-postgres.md", "## Set up", "…", "of the page")
	giveUp := slices.IndexFunc(statements, func(s string) bool { return strings.Contains(s, "pg_drop_replication_slot") })
	standby := slices.IndexFunc(statements, func(s string) bool { return strings.HasPrefix(s, "DROP PUBLICATION") }) + 1
	require.Positive(t, giveUp)
	for _, s := range statements[:giveUp] {
		if db.pg.Major() < 13 && strings.Contains(s, "publish_via_partition_root") {
			s, _, _ = strings.Cut(s, " WITH ")
		}
		db.exec(s)
	}
	const made = "sluice_acme_shop_1a2b3c4d"
	d := db.driver(func(c *config) {
		c.User, c.Password = "sluice", schema.NewSecret("of the page")
		c.Advanced.PublicationName, c.Advanced.SlotName = "sluice", made
	})
	require.Empty(t, d.Check(t.Context(), []cdc.TableID{{Schema: "public", Name: "orders"}}))
	s := db.open(d, db.tables(d, "orders")...)
	db.exec("INSERT INTO orders VALUES (1)")
	require.Equal(t, []string{`c orders {"id":1}`}, s.fence())
	s.close()
	eventually(t, "the server has noticed that nobody reads the slot", func() bool {
		return db.exec("SELECT active FROM pg_replication_slots WHERE slot_name = '"+made+"'") == "f"
	})
	db.exec("CREATE PUBLICATION " + made)
	db.exec(statements[giveUp:standby]...)
	require.Empty(t, db.exec("SELECT slot_name FROM pg_replication_slots"))
}
