package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// connectError is what a person reads when connecting with a configuration fails.
func connectError(t *testing.T, cfg config) string {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		return usererr.Message(err)
	}
	d, _, err := connect(t.Context(), testEnv(t), cfg)
	if err == nil {
		_ = d.Close()
	}
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
	return usererr.Message(err)
}

func TestConnectErrors(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := listener.Addr().String()
	require.NoError(t, listener.Close())
	for name, c := range map[string]struct {
		change func(*config)
		want   string
	}{
		"wrong password":    {func(c *config) { c.Password = schema.NewSecret("wrong") }, `does not accept the password of user "postgres". Check user and password.`},
		"no such user":      {func(c *config) { c.User = "nobody" }, `does not accept the password of user "nobody"`},
		"no such database":  {func(c *config) { c.Database = "Nowhere" }, `has no database "Nowhere". Check the name; upper and lower case matter.`},
		"unknown host":      {func(c *config) { c.Address, c.SSLMode = "no-such-host.invalid", endpoint.Disable }, `The host name of the address no-such-host.invalid is not known.`},
		"nothing listens":   {func(c *config) { c.Address = closed }, "Nothing listens at " + closed},
		"TLS is not on":     {func(c *config) { c.SSLMode = endpoint.Require }, "does not offer TLS. Switch it on there (ssl = on), or, if the network between is yours, set sslmode to disable."},
		"no address":        {func(c *config) { c.Address = "" }, "Enter the server's address"},
		"a URL":             {func(c *config) { c.Address = "postgres://h/db" }, `is not a host name or an IP address. Enter just host or host:port, without a scheme, user or path.`},
		"a path":            {func(c *config) { c.Address = "/run/postgresql" }, `is a Unix socket, not a host name or an IP address. Have the server listen on TCP`},
		"several hosts":     {func(c *config) { c.Address = "a,b:5433" }, `The address "a,b:5433" names several hosts. Enter one:`},
		"a wrong port":      {func(c *config) { c.Address = "localhost:70000" }, `The port "70000" of the address is not a number between 1 and 65535.`},
		"a pooler":          {func(c *config) { c.Address = "aws-0-eu-central-1.pooler.supabase.com:6543" }, "is a connection pooler, which cannot carry a replication stream."},
		"a bad mode":        {func(c *config) { c.SSLMode = "prefer" }, `The SSL mode "prefer" does not exist. Choose disable, require, verify-ca or verify-full.`},
		"a bad certificate": {func(c *config) { c.SSLRootCert = "certificate" }, "The SSL root certificate holds no certificate."},
		"a bad slot name":   {func(c *config) { c.Advanced.SlotName = "My-Slot" }, `The slot name "My-Slot" is not possible`},
		"a bad duration":    {func(c *config) { c.Advanced.StatementTimeout = "long" }, `The statement timeout "long" is not a duration.`},
		"bad lossless":      {func(c *config) { c.Advanced.Lossless = []string{"json", "dates"} }, `The entry "dates" of lossless does not exist. Choose from times, arrays and json.`},
		"bad globs":         {func(c *config) { c.Advanced.SkipBackfills = []string{"orders"} }, `The entry "orders" of skipBackfills names no table: write schema.table.`},
		"a bad loss":        {func(c *config) { c.Advanced.OnSlotLoss = "ignore" }, `The choice "ignore" of onSlotLoss does not exist. Choose backfill or stop.`},
		"a bad streaming":   {func(c *config) { c.Advanced.StreamTransactions = "parallel" }, `The choice "parallel" of streamTransactions does not exist. Choose on or off.`},
		"a bad lag":         {func(c *config) { c.Advanced.OnSlotLag, c.Advanced.MaxSlotLagBytes = "skip", 1 }, `The choice "skip" of onSlotLag does not exist. Choose warn, stop or drop.`},
		"no limit of lag":   {func(c *config) { c.Advanced.OnSlotLag = "drop" }, `The choice "drop" of onSlotLag needs a limit in maxSlotLagBytes.`},
		"a negative limit":  {func(c *config) { c.Advanced.MaxSlotLagBytes = -1 }, `The limit of slot lag must not be negative, but is -1.`},
		"a hasty heartbeat": {func(c *config) { c.Advanced.Heartbeat = "10ms" }, `The heartbeat interval "10ms" is not a duration of at least a second. Write it like 30s or 5m.`},
		"many things": {
			func(c *config) { c.Database, c.User, c.Advanced.BackfillWorkers = "", "", -1 },
			"The configuration has these problems:\n1. Enter the name of the database.\n2. Enter the name of the user to connect as.\n3. The number of backfill workers must be between 0 and 64, not -1.",
		},
	} {
		cfg := db.cfg
		c.change(&cfg)
		require.Contains(t, connectError(t, cfg), c.want, name)
	}
}

// TLS is verified unless the user says otherwise, and is never given up silently.
func TestTLS(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS(), server.WithSetting("listen_addresses", "127.0.0.1,127.0.0.2"), server.WithHBA("hostssl all all all scram-sha-256", "hostssl replication all all scram-sha-256"))
	db := databaseOn(t, pg)
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	named := strings.Replace(pg.Address(), "127.0.0.1", "localhost", 1)
	unnamed := strings.Replace(pg.Address(), "127.0.0.1", "127.0.0.2", 1)

	for name, c := range map[string]struct{ address, mode, ca, want string }{
		"plain text is refused":        {pg.Address(), "", "", "may want TLS (sslmode)"},
		"plain text asked for":         {pg.Address(), endpoint.Disable, "", "may want TLS (sslmode)"},
		"unknown authority":            {named, endpoint.VerifyFull, "", "cannot be verified. Put the certificate of its authority into sslRootCert."},
		"another name":                 {unnamed, endpoint.VerifyFull, string(ca), "shows a certificate for another name."},
		"the authority, but another's": {named, endpoint.VerifyCA, otherCertificate, "cannot be verified"},
	} {
		cfg := db.cfg
		cfg.Address, cfg.SSLMode, cfg.SSLRootCert = c.address, c.mode, c.ca
		require.Contains(t, connectError(t, cfg), c.want, name)
	}
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1)")
	for _, c := range []struct{ address, mode, ca string }{
		{named, endpoint.VerifyFull, string(ca)}, {unnamed, endpoint.VerifyCA, string(ca)}, {unnamed, endpoint.Require, ""}, {named, "", string(ca)},
	} {
		d := db.driver(func(cfg *config) { cfg.Address, cfg.SSLMode, cfg.SSLRootCert = c.address, c.mode, c.ca })
		table := db.tables(d, "t")[0]
		s := db.open(d, table)
		rows, _ := db.scanAll(d, table, 10)
		require.NotEmpty(t, rows)
		db.exec("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(10, 20000) g")
		require.Len(t, s.fence(), 19991)
		s.close()
		db.dropSlot(d)
		db.exec("DELETE FROM t WHERE id > 1")
	}
	// A remote address is verified without being asked to.
	remote, err := config{Address: "db.example.com"}.tls(endpoint.Address{Host: "db.example.com"}).Config("db.example.com")
	require.NoError(t, err)
	require.False(t, remote.InsecureSkipVerify)
	require.Equal(t, "db.example.com", remote.ServerName)
}

// checkMessages are the problems that a check finds, as people read them.
func checkMessages(t *testing.T, d *driver, tables ...string) []string {
	t.Helper()
	var ids []cdc.TableID
	for _, name := range tables {
		ids = append(ids, cdc.TableID{Schema: "public", Name: name})
	}
	var out []string
	for _, err := range d.Check(t.Context(), ids) {
		out = append(out, usererr.Message(err))
	}
	return out
}

func TestCheckFindsEverything(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithSetting("wal_level", "replica"))
	db := databaseOn(t, pg)
	db.exec("CREATE ROLE reader LOGIN PASSWORD 'secret'",
		"CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)", "CREATE TABLE c (id int PRIMARY KEY)",
		"GRANT SELECT ON a, c TO reader", "CREATE VIEW v AS SELECT 1 AS x", "CREATE UNLOGGED TABLE u (id int PRIMARY KEY)",
		"CREATE TABLE keyless (id int)", "GRANT SELECT ON keyless TO reader", "CREATE TABLE hidden (id int PRIMARY KEY)",
		"GRANT SELECT ON hidden TO reader", "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
	d := db.driver(func(c *config) { c.User, c.Advanced.PublicationName = "reader", "pub" })
	viaRoot := ", publish_via_partition_root = true"
	switch major := db.pg.Major(); {
	case major < 13:
		viaRoot = ""
	case major >= 18:
		viaRoot += ", publish_generated_columns = stored"
	}
	require.Equal(t, []string{
		`The server's log has not enough in it: wal_level is "replica". Have an administrator run ALTER SYSTEM SET wal_level = logical; and restart the server. (On Amazon RDS, set rds.logical_replication to 1; on Google Cloud SQL, cloudsql.logical_decoding to on.)`,
		`User "reader" may not replicate. Have an administrator run: ALTER ROLE "reader" REPLICATION; (on Amazon RDS: GRANT rds_replication TO "reader";)`,
		`User "reader" may not read table public.b. Have its owner run: GRANT SELECT ON "public"."b" TO "reader";`,
		`The table public.gone does not exist. If it was dropped or renamed, remove it from the capture or discover again.`,
		`Row-level security hides rows of table public.hidden from user "reader", while the log has all of them. Have an administrator run: ALTER ROLE "reader" BYPASSRLS;`,
		`The table public.keyless has no primary key, so Postgres would refuse its updates and deletes once it is published. Give it a primary key, or have its owner run: ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL;`,
		`The table public.u is unlogged or temporary, so its changes are not in the log. Run: ALTER TABLE "public"."u" SET LOGGED;`,
		`public.v is a view, which leaves no changes in the log. Capture the tables behind it.`,
		"User \"reader\" cannot make the publication \"pub\": that needs the CREATE right on the database and the ownership of the tables. Have an administrator run:\n" +
			`CREATE PUBLICATION "pub" FOR TABLE ONLY "public"."a", ONLY "public"."b", ONLY "public"."c", ONLY "public"."gone", ONLY "public"."hidden", ONLY "public"."keyless", ONLY "public"."u", ONLY "public"."v" WITH (publish = 'insert, update, delete, truncate'` + viaRoot + `);`,
	}, checkMessages(t, d, "a", "b", "c", "gone", "hidden", "keyless", "u", "v"))
	require.Empty(t, db.exec("SELECT * FROM pg_publication"), "a check creates nothing")
}

// What the check proposes is enough: an administrator runs it, and a user with no more than that captures.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	role := "least_" + db.cfg.Database
	db.exec("CREATE ROLE "+role+" LOGIN REPLICATION PASSWORD 'secret'", "CREATE SCHEMA s", "CREATE TABLE s.t (id int PRIMARY KEY)", "INSERT INTO s.t VALUES (1)")
	d := db.driver(func(c *config) { c.User, c.Advanced.PublicationName = role, "pub" })
	id := cdc.TableID{Schema: "s", Name: "t"}
	problems := d.Check(t.Context(), []cdc.TableID{id})
	require.Len(t, problems, 2)
	_, statements, _ := strings.Cut(usererr.Message(problems[0]), "run: ")
	db.exec(statements)
	problems = d.Check(t.Context(), []cdc.TableID{id})
	require.Len(t, problems, 1)
	_, statement, _ := strings.Cut(usererr.Message(problems[0]), "run:\n")
	db.exec(statement)
	require.Empty(t, d.Check(t.Context(), []cdc.TableID{id}))

	tables, err := d.Discover(t.Context(), id)
	require.NoError(t, err)
	s := db.open(d, tables...)
	rows, _ := db.scanAll(d, tables[0], 10)
	require.Equal(t, []string{`{"id":1}`}, rows)
	db.exec("INSERT INTO s.t VALUES (2)")
	require.Equal(t, []string{`c t {"id":2}`}, s.fence())

	// The stream says the same as the check, if nobody asked that.
	db.exec("CREATE TABLE s.more (id int PRIMARY KEY)", "GRANT SELECT ON s.more TO "+role)
	more, err := d.Discover(t.Context(), cdc.TableID{Schema: "s", Name: "more"})
	require.NoError(t, err)
	s.close()
	_, err = d.Stream(t.Context(), s.Start(), append(tables, more...))
	require.Equal(t, "The publication \"pub\" could not be extended: must be owner of publication pub. Creating one needs the CREATE right on the database and the ownership of its tables. "+
		"Have an administrator run:\nALTER PUBLICATION \"pub\" ADD TABLE ONLY \"s\".\"more\";", usererr.Message(err))

	// A grant that is taken back stops the backfill with the same words.
	db.exec("REVOKE SELECT ON s.t FROM " + role)
	plan, err := d.Plan(t.Context(), tables[0])
	require.NoError(t, err)
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: tables[0], Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
	require.Equal(t, fmt.Sprintf(`User %q may not read table s.t. Have its owner run: GRANT SELECT ON "s"."t" TO "%s";`, role, role), usererr.Message(err))
}

func TestCheckSlotsAndPublications(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithSetting("max_replication_slots", "1"))
	db := databaseOn(t, pg)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)", "CREATE PUBLICATION partial FOR TABLE t WITH (publish = 'insert')")
	d := db.driver(func(c *config) { c.Advanced.PublicationName = "partial" })
	db.exec("SELECT pg_create_logical_replication_slot('other', 'pgoutput')")
	require.Equal(t, []string{
		`The server has no replication slot left: 1 of 1 are in use. Raise max_replication_slots (it needs a restart), or drop slots that nobody reads: SELECT slot_name FROM pg_replication_slots WHERE NOT active;`,
		`The publication "partial" leaves out some kinds of changes. Have its owner run: ALTER PUBLICATION "partial" SET (publish = 'insert, update, delete, truncate');`,
	}, checkMessages(t, d, "t"))
	db.exec("ALTER PUBLICATION partial SET (publish = 'insert, update, delete, truncate')")
	_, err := d.Stream(t.Context(), cdc.Position{}, db.tables(d, "t"))
	require.Equal(t, "The server has no replication slot left. Raise max_replication_slots there (it needs a restart), or drop slots that nobody reads: SELECT slot_name FROM pg_replication_slots WHERE NOT active;", usererr.Message(err))

	db.exec("SELECT pg_drop_replication_slot('other')", "SELECT pg_create_logical_replication_slot('"+d.slot+"', 'test_decoding')")
	require.Contains(t, checkMessages(t, d, "t")[0], `belongs to database "`+db.cfg.Database+`" and plugin "test_decoding". Choose another name in advanced.slotName.`)
	_, err = d.Stream(t.Context(), cdc.Position{}, db.tables(d, "t"))
	require.Equal(t, `A replication slot "`+d.slot+`" exists already and was not made by this capture. Drop it if nobody needs it, SELECT pg_drop_replication_slot('`+d.slot+`'); or choose another name in advanced.slotName.`, usererr.Message(err))
}

// A slot in use is waited for, since the reader before us may only just be ending, but not for ever (hard case 13).
func TestSlotInUse(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	first := db.open(d, tables...)
	time.AfterFunc(time.Second, first.close)
	second := db.resume(d, first.Start(), tables...)
	require.Empty(t, second.fence())
	_, err := d.Stream(t.Context(), second.Start(), tables)
	require.Regexp(t, `The replication slot "`+d.slot+`" is in use by another process \(replication slot "`+d.slot+`" is active for PID \d+\). Stop the other reader, or, if it hangs, run SELECT pg_terminate_backend\(pid\) for it. Two captures cannot share a slot.`,
		usererr.Message(err))
}

// A capture whose state is gone makes its slot anew; nobody else's slot is touched.
func TestStateGone(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	first := db.open(d, db.tables(d, "t")...)
	first.close()
	require.Equal(t, d.owner(), strings.TrimSpace(db.exec("SELECT obj_description(oid, 'pg_publication') FROM pg_publication")))
	db.exec("INSERT INTO t VALUES (1)")
	second := db.open(d, db.tables(d, "t")...)
	require.Empty(t, second.fence(), "it begins at the present end")
	second.close()

	d.task = "acme/another" // with the same names configured
	_, err := d.Stream(t.Context(), cdc.Position{}, db.tables(d, "t"))
	require.Contains(t, usererr.Message(err), "exists already and was not made by this capture")
}

// A table that was dropped while the capture was stopped does not keep the others from being captured.
func TestResumeWithoutATable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE a (id int PRIMARY KEY)", "CREATE TABLE b (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "a", "b")
	s := db.open(d, tables...)
	s.close()
	db.exec("DROP TABLE b", "INSERT INTO a VALUES (1)")
	s = db.resume(d, s.Start(), tables...)
	require.Equal(t, []string{`c a {"id":1}`}, s.fence())
}

// An ephemeral session leaves nothing behind.
func TestEphemeral(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	env := testEnv(t)
	env.Ephemeral = true
	drv, _, err := connect(t.Context(), env, db.cfg)
	require.NoError(t, err)
	d := drv.(*driver)
	s := db.open(d, db.tables(d, "t")...)
	db.exec("INSERT INTO t VALUES (1)")
	require.Len(t, s.fence(), 1)
	s.close()
	require.NoError(t, d.Close())
	left := "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())"
	eventually(t, "nothing is left", func() bool { return strings.TrimSpace(db.exec(left)) == "0" })
}

// A server that ends the stream is an error of the next read, in words.
func TestServerGoesAway(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	s := db.open(d, db.tables(d, "t")...)
	require.Empty(t, s.fence())
	db.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '" + d.slot + "'")
	var err error
	for err == nil {
		_, err = s.Next(t.Context(), 100*time.Millisecond)
	}
	require.Contains(t, usererr.Message(err), "The server ended the replication stream: terminating connection due to administrator command.")

	// Sessions of the pool are replaced without a word.
	db.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	_, err = d.Discover(t.Context())
	require.NoError(t, err)
}

// Scan says in the core's words what kept it from reading.
func TestScanErrors(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a int, b int)", "INSERT INTO t SELECT g, g, g FROM generate_series(1, 1000) g")
	d := db.driver()
	table := db.tables(d, "t")[0]
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	scan := func(table *cdc.Table) error {
		_, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return nil })
		return err
	}
	require.NoError(t, scan(table))

	failed := errors.New("no more")
	_, err = d.Scan(t.Context(), cdc.Chunk{Table: table, Range: plan.Ranges[0], MaxRows: 10, MaxBytes: 1 << 20}, func(cdc.Row) error { return failed })
	require.ErrorIs(t, err, failed)

	db.exec("ALTER TABLE t DROP b")
	require.ErrorIs(t, scan(table), cdc.ErrReshaped, "a column is gone")
	table = db.tables(d, "t")[0]
	require.NoError(t, scan(table))

	db.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	require.ErrorIs(t, scan(table), cdc.ErrInterrupted, "the session was ended")
	require.NoError(t, scan(table))

	db.exec("VACUUM FULL t")
	if d.server.major() >= 14 { // older servers are read by key
		require.ErrorIs(t, scan(table), cdc.ErrRewritten, "the rows are elsewhere")
	}
	plan, err = d.Plan(t.Context(), table)
	require.NoError(t, err)
	db.exec("ALTER TABLE t ALTER a TYPE bigint")
	require.Error(t, scan(table), "a column has another type")

	db.exec("DROP TABLE t")
	require.ErrorIs(t, scan(table), cdc.ErrRewritten, "the table is gone")
	_, err = d.Plan(t.Context(), table)
	require.ErrorIs(t, err, cdc.ErrRewritten)
}

// otherCertificate is of an authority that signed nothing here. It is valid until 2126.
const otherCertificate = `-----BEGIN CERTIFICATE-----
MIIBjzCCATWgAwIBAgIUIL7KRCpwxUg7eU4O9UzXcUIFE8MwCgYIKoZIzj0EAwIw
HDEaMBgGA1UEAwwRQW5vdGhlciBhdXRob3JpdHkwIBcNMjYxMTIxMDg1NDE4WhgP
MjEyNjEwMjgwODU0MThaMBwxGjAYBgNVBAMMEUFub3RoZXIgYXV0aG9yaXR5MFkw
EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqwpzxRnP7lap5b4fAeAy1215rIbQ/e0M
n1mmRoOExWwFNiPQ2jIkoRwKFKv75Ep02l3gl5VDmphkfLazOUg8dqNTMFEwHQYD
VR0OBBYEFDILIkcftYUlzsNsXgTEMJ1uSas2MB8GA1UdIwQYMBaAFDILIkcftYUl
zsNsXgTEMJ1uSas2MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIg
IXGdqVcKlwbBzWB+OYg7tx5xNpnR0lca7ITt0zI7YNMCIQDEeLGxuzlL7KIZFHtB
nVyOL3KnLioDac6rTtJNV7oCug==
-----END CERTIFICATE-----
`

// Text in SQL_ASCII is bytes of which nobody knows what they mean: they are not guessed. (The databases end with the server.)
func TestDatabaseWithoutEncoding(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	name := db.cfg.Database + "_ascii"
	db.exec("CREATE DATABASE " + name + " ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	cfg := db.cfg
	cfg.Database = name
	_, _, err := connect(t.Context(), testEnv(t), cfg)
	require.Equal(t, `The database "`+name+`" has the encoding SQL_ASCII: the server does not know what its text means, and hands out bytes that may be no Unicode. `+
		"Make a database with ENCODING 'UTF8', fill it with pg_dump and pg_restore (with --encoding of what the text really is), and capture that one.", usererr.Message(err))

	cfg.Database = db.cfg.Database + "_latin"
	db.exec("CREATE DATABASE " + cfg.Database + " ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	latin := *db
	latin.cfg = cfg
	latin.exec("CREATE TABLE t (a text)", "INSERT INTO t VALUES (chr(233))")
	d := latin.driver()
	table := latin.tables(d, "t")[0]
	table.Origin = (&snapshot{xmin: 1 << 40, xmax: 1 << 40}).String()
	rows, _ := latin.scanAll(d, table, 10)
	require.Equal(t, []string{`{"a":"é"}`}, rows)
}
