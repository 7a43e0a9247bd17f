package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// newTask is a task with one table of orders.
func newTask(t *testing.T, db database, config json.RawMessage) *sinktest.Runtime {
	t.Helper()
	c := db.sinkCase()
	r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/sink", Config: config, Bindings: []sinktest.Binding{
		{Collection: orders(), Resource: c.Resource("orders", false)},
	}})
	for i := range 20 {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":"n"}`, i)})
	}
	return r
}

// What people read when they configured something wrong.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	set := func(name string, value any) json.RawMessage {
		return db.config(func(c map[string]any) { c[name] = value })
	}
	db.exec(t, "CREATE ROLE "+db.name+"_reader LOGIN PASSWORD 'secret'", "REVOKE ALL ON SCHEMA public FROM PUBLIC",
		"REVOKE TEMPORARY ON DATABASE "+db.name+" FROM PUBLIC")
	t.Cleanup(func() { db.exec(t, "DROP ROLE "+db.name+"_reader") })
	for name, c := range map[string]struct {
		config json.RawMessage
		texts  []string
	}{
		"wrong password":   {set("password", "s3cr3t-wrong"), []string{`refused user "postgres": the password is wrong`}},
		"wrong database":   {set("database", "nowhere"), []string{`There is no database "nowhere"`}},
		"wrong host":       {db.config(func(c map[string]any) { c["address"] = "no-such-host.invalid"; c["sslmode"] = "disable" }), []string{`The host "no-such-host.invalid" cannot be found`}},
		"wrong port":       {set("address", "127.0.0.1:1"), []string{"The server at 127.0.0.1:1 cannot be reached"}},
		"no TLS":           {set("sslmode", "verify-full"), []string{"does not speak TLS, and sslmode is verify-full"}},
		"unknown field":    {set("adress", "x"), []string{`The field "adress" of the endpoint configuration is unknown`, "address"}},
		"unknown mode":     {set("sslmode", "prefer"), []string{"sslmode", "verify-full"}},
		"no certificate":   {set("sslRootCert", "nonsense"), []string{"The SSL root certificate holds no certificate"}},
		"bad duration":     {set("advanced", map[string]any{"lockTimeout": "soon"}), []string{`advanced.lockTimeout "soon" is not a duration`}},
		"everything wrong": {json.RawMessage(`{"address":"a:b:c","password":""}`), []string{"1. database is required.", "user is required.", "password is required, unless you log in with a certificate (sslCert).", `The address "a:b:c" is not of the form`}},
		"no privileges":    {set("user", db.name+"_reader"), []string{"may not create tables in schema \"public\". GRANT CREATE", "may not create temporary tables"}},
		"no schema": {
			db.config(func(c map[string]any) { c["user"] = db.name + "_reader"; c["schema"] = "elsewhere" }),
			[]string{`There is no schema "elsewhere"`, "may not create it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newTask(t, db, c.config).Apply()
			require.Error(t, err)
			for _, text := range c.texts {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "s3cr3t-wrong")
		})
	}
}

func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS("127.0.0.1"))
	db := database{pg, pg.NewDatabase(t)}
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	with := func(mode, cert, host string) error {
		_, err := newTask(t, db, db.config(func(c map[string]any) {
			c["sslmode"], c["sslRootCert"] = mode, cert
			c["address"] = fmt.Sprintf("%s:%d", host, pg.Port())
		})).Apply()
		return err
	}
	require.ErrorContains(t, with("verify-full", "", "127.0.0.1"), "signed by an authority that is not trusted. Set sslRootCert")
	require.ErrorContains(t, with("verify-ca", "", "127.0.0.1"), "signed by an authority that is not trusted")
	require.ErrorContains(t, with("verify-full", string(ca), "localhost"), "is not made for the name")
	require.NoError(t, with("verify-ca", string(ca), "localhost"))
	require.NoError(t, with("verify-full", string(ca), "127.0.0.1"))
	require.NoError(t, with("require", "", "127.0.0.1"))
}

// An address that is not of this machine is verified unless somebody says otherwise.
func TestTLSIsVerifiedByDefault(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"localhost": "disable", "127.0.0.1:5433": "disable", "[::1]:5432": "disable", "::1": "disable",
		"db.example.com": "verify-full", "10.0.0.1:5432": "verify-full", "localhost.example.com": "verify-full",
	} {
		addr, err := config{Address: address}.address()
		require.NoError(t, err)
		require.Equal(t, want, config{Address: address}.tls(addr).Mode, address)
	}
	options, err := config{Address: "db.example.com", User: "u", Database: "d"}.options()
	require.NoError(t, err)
	require.False(t, options.TLSConfig.InsecureSkipVerify)
	require.Equal(t, "db.example.com", options.TLSConfig.ServerName)
	require.Empty(t, options.Fallbacks, "nothing may fall back to an unprotected connection")
}

// What a role sets for its sessions neither ends ours nor changes what their values mean.
func TestSettingsOfTheRole(t *testing.T) {
	t.Parallel()
	all := server.Versions()
	pg := server.Postgres(t, server.WithVersion(all[len(all)-1])) // which has the most timeouts
	db := database{pg, pg.NewDatabase(t)}
	const role = "hasty"
	db.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'", "GRANT ALL ON SCHEMA public TO "+role)
	for name, value := range map[string]string{
		"statement_timeout": "'100ms'", "idle_in_transaction_session_timeout": "'100ms'", "idle_session_timeout": "'100ms'", "transaction_timeout": "'100ms'",
		"array_nulls": "off", "datestyle": "'SQL, DMY'", "intervalstyle": "'sql_standard'", "timezone": "'Asia/Kathmandu'",
	} {
		if db.exec(t, "SELECT 1 FROM pg_settings WHERE lower(name) = '"+name+"'") != "" {
			db.exec(t, "ALTER ROLE "+role+" SET "+name+" = "+value)
		}
	}
	r := newTask(t, db, db.config(func(c map[string]any) {
		c["user"], c["advanced"] = role, map[string]any{"nativeArrays": true}
	}))
	list, day, span := fieldOf("list", "array"), fieldOf("day", "string:date"), fieldOf("span", "string:duration")
	list.Items = []string{"string", "null"}
	r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, list, day, span)
	r.Log = []sinktest.Change{{Doc: `{"id":1,"list":["a\\",null],"day":"2024-02-01","span":"P1M2DT3S"}`}, {Doc: `{"id":1,"note":"n"}`}}
	r.Batch = 1
	r.MustApply()
	// Every statement that stores a row takes longer than the role allows.
	db.exec(t, "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'",
		"CREATE TRIGGER slow AFTER INSERT OR UPDATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION slow()")
	require.NoError(t, r.Run())
	require.Equal(t, "1", db.exec(t, `SELECT count(*) FROM orders WHERE list = ARRAY['a\', NULL] AND day = '2024-02-01' AND span = '1 mon 2 days 3 seconds' AND note = 'n'`))
}

func TestReadOnlyDestination(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.MustApply()
	db.exec(t, "ALTER DATABASE "+db.name+" SET default_transaction_read_only = on")
	_, err := r.Apply()
	require.ErrorContains(t, err, "The destination is read-only")
	require.ErrorContains(t, r.Run(), "The destination is read-only: it is a standby, or default_transaction_read_only is on")
}

func TestLockedTable(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(func(c map[string]any) { c["advanced"] = map[string]any{"lockTimeout": "1s"} }))
	r.MustApply()
	other := db.connect(t)
	defer other.close()
	require.NoError(t, other.exec(t.Context(), "BEGIN; LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE"))
	start := time.Now()
	require.ErrorContains(t, r.Run(), "locked by another session, longer than the lock timeout")
	require.Less(t, time.Since(start), 30*time.Second)
	require.NoError(t, other.exec(t.Context(), "ROLLBACK"))
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, "orders", false)
}

// A statement that does not end is given up from our side, whatever the server does (hard case 61).
func TestStatementDeadline(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(func(c map[string]any) {
		c["advanced"] = map[string]any{"statementTimeout": "2s", "lockTimeout": "1h"}
	}))
	r.MustApply()
	other := db.connect(t)
	defer other.close()
	require.NoError(t, other.exec(t.Context(), "BEGIN; LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE"))
	require.ErrorContains(t, r.Run(), "The destination did not finish a statement within 2s")
	require.NoError(t, other.exec(t.Context(), "ROLLBACK"))
	require.NoError(t, r.Run())
}

// The disk is a real one of 24 megabytes, and becomes full.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	dir := filepath.Join(t.TempDir(), "small")
	require.NoError(t, os.Mkdir(dir, 0o777))
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=24m,mode=777", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small disk can only be mounted by root: %s", out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
	openPath(t, dir, db.pg.DataDir())
	space := db.name + "_small"
	db.exec(t, fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", space, dir))
	r := newTask(t, db, db.config(nil))
	r.MustApply()
	t.Cleanup(func() { db.exec(t, "DROP TABLE orders", "DROP TABLESPACE "+space) })
	db.exec(t, "ALTER TABLE orders SET TABLESPACE "+space)
	require.NoError(t, r.Run())
	for i := range 300 {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":%q}`, 100+i, incompressible(i))})
	}
	r.Batch = 500
	require.ErrorContains(t, r.Run(), "The destination's disk is full")
	require.Equal(t, "20", db.exec(t, "SELECT count(*) FROM orders"), "nothing of the transaction is left")
	db.exec(t, "ALTER TABLE orders SET TABLESPACE pg_default")
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, "orders", false)
}

// openPath lets the server's user reach a folder inside the test's own.
func openPath(t *testing.T, dir, dataDir string) {
	t.Helper()
	for d := filepath.Dir(dir); len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		require.NoError(t, os.Chmod(d, 0o755))
	}
	require.NoError(t, exec.CommandContext(t.Context(), "chown", "--reference="+dataDir, dir).Run())
}

func incompressible(seed int) string {
	var b strings.Builder
	v := uint64(seed)*2862933555777941757 + 3037000493
	for b.Len() < 100_000 {
		v = v*6364136223846793005 + 1442695040888963407
		fmt.Fprintf(&b, "%016x", v)
	}
	return b.String()
}

// Tables that are not ours, or not what they were.
func TestTablesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	db.exec(t, "CREATE TABLE orders (id bigint PRIMARY KEY)")
	_, err := r.Apply()
	require.ErrorContains(t, err, "Table public.orders exists already and was not created by this materialization")
	db.exec(t, "DROP TABLE orders", "CREATE VIEW orders AS SELECT 1 AS id")
	_, err = r.Apply()
	require.ErrorContains(t, err, "is not a table")
	db.exec(t, "DROP VIEW orders")
	r.MustApply()

	other := newTask(t, db, db.config(nil))
	other.Task.Name = "acme/other"
	_, err = other.Apply()
	require.ErrorContains(t, err, `Table public.orders belongs to materialization "acme/sink"`)

	delta := newTask(t, db, db.config(nil))
	delta.Task.Bindings[0].Resource = json.RawMessage(`{"table":"orders","deltaUpdates":true}`)
	_, err = delta.Apply()
	require.ErrorContains(t, err, "is to take delta updates, but holds one row per key. Increase the binding's backfill counter")

	retyped := newTask(t, db, db.config(nil))
	retyped.Task.Bindings[0].Collection.Columns[0].Types = []string{"boolean"}
	_, err = retyped.Apply()
	require.ErrorContains(t, err, `Column "id" of public.orders is of type bigint, which cannot be changed to boolean without losing values. Increase the binding's backfill counter`)
	retyped.Task.Bindings[0].Backfill = 1
	require.Equal(t, `Emptied table public.orders for backfill 1. Altered table public.orders: ALTER COLUMN "id" TYPE boolean USING NULL.`, retyped.MustApply())

	rekeyed := newTask(t, db, db.config(nil))
	rekeyed.Task.Bindings[0].Backfill = 1
	rekeyed.Task.Bindings[0].Collection.Columns[0].Types = []string{"boolean"}
	rekeyed.Task.Bindings[0].Collection.Columns[1] = sinktest.Column{Name: "note", Types: []string{"string"}, Key: true}
	_, err = rekeyed.Apply()
	require.ErrorContains(t, err, `The primary key of public.orders is (id), but the collection's key is (id, note). Increase the binding's backfill counter`)

	require.NoError(t, runWith(retyped, `{"id":true}`))
	db.exec(t, "DROP TABLE orders")
	require.ErrorContains(t, runWith(retyped, `{"id":false}`), "Table public.orders does not exist. If it was dropped by hand")
	_, err = retyped.Apply()
	require.ErrorContains(t, err, "Table public.orders does not exist. If it was dropped by hand, increase the binding's backfill counter")
	retyped.Task.Bindings[0].Backfill++
	require.Equal(t, "Created table public.orders.", retyped.MustApply())
}

func TestUnstorableValue(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = []sinktest.Change{{Doc: `{"id":18446744073709551615,"note":"n"}`}}
	r.MustApply()
	err := r.Run()
	require.ErrorContains(t, err, `The value 18446744073709551615 of field "id" cannot be stored in column "id" of public.orders, which is of type bigint: it is not an integer between`)
	require.ErrorContains(t, err, "The row's key is [18446744073709551615]")
	require.ErrorContains(t, err, "castToString")
}

// A value that only the server can judge, in a column of a foreign type, is named with its row as well: as a new row, as a change, as
// one of many appended, and in a history.
func TestUncastableValue(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{"a row a key": ``, "every change": `,"deltaUpdates":true`, "history": `,"history":"scd2"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'glad')", "CREATE DOMAIN small AS varchar(4) CHECK (VALUE <> 'no')")
			r := newTask(t, db, db.config(nil))
			b := &r.Task.Bindings[0]
			b.Resource = json.RawMessage(`{"table":"orders"` + more + `}`)
			for field, config := range map[string]string{"how": `{"columnType":"public.mood"}`, "what": `{"columnType":"public.small"}`, "size": `{"columnType":"numeric(4,2)"}`} {
				b.Collection.Columns = append(b.Collection.Columns, sinktest.Column{Name: field, Types: []string{"string", "null"}, May: true, Config: config})
			}
			if name == "history" {
				b.Collection.Columns = append(b.Collection.Columns, sinktest.Column{Name: "_meta/source/ts_ms", Pointer: "/_meta/source/ts_ms", Types: []string{"integer"}, May: true})
			}
			doc := func(id int, how, what, size string) sinktest.Change {
				return sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"how":%q,"what":%q,"size":%q,"_meta":{"op":"u","source":{"ts_ms":%d}}}`, id, how, what, size, id)}
			}
			r.MustApply()
			stored := 0
			for round := range 2 { // of new rows, then of rows that are there
				good := []sinktest.Change{doc(1, "sad", "four", "12.34"), doc(2, "glad", "yes", "0.5")}
				for _, c := range []struct {
					bad  sinktest.Change
					text string
				}{
					{doc(2, "merry", "yes", "1"), `The value "merry" of field "how" cannot be stored in column "how" of public.orders, which is of type public.mood: invalid input value for enum public.mood: "merry". The row's key is [2]. Correct the value, or set castToString`},
					{doc(2, "glad", "no", "1"), `The value "no" of field "what" cannot be stored in column "what" of public.orders, which is of type public.small: value for domain public.small violates check constraint "small_check". The row's key is [2]`},
					{doc(2, "glad", "yes", "123.4"), `The value 123.4 of field "size" cannot be stored in column "size" of public.orders, which is of type numeric(4,2): numeric field overflow`},
				} {
					r.Log = append(r.Log[:stored:stored], good[0], c.bad)
					require.ErrorContains(t, r.Run(), c.text, "round %d", round)
				}
				r.Log = append(r.Log[:stored:stored], good...)
				require.NoError(t, r.Run())
				stored = len(r.Log)
			}
		})
	}
}

// So is a key of which only the server can say that it is none, when it is looked for, and when it is deleted.
func TestUncastableKey(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
	r := newTask(t, db, db.config(func(c map[string]any) { c["hardDelete"] = true }))
	r.Task.Bindings[0].Collection.Columns[0] = sinktest.Column{Name: "id", Types: []string{"string"}, Key: true, Config: `{"columnType":"public.mood"}`}
	r.Log = []sinktest.Change{{Doc: `{"id":"sad","note":"a"}`}}
	r.MustApply()
	require.NoError(t, r.Run())
	const text = `The value "merry" of field "id" cannot be stored in column "id" of public.orders, which is of type public.mood: invalid input value for enum public.mood: "merry". The row's key is ["merry"].`
	require.ErrorContains(t, addTo(r, `{"id":"merry","note":"a"}`), text)

	p := sinktest.Start(t, db.sinkCase(), r.Codec)
	require.NoError(t, r.Open(p))
	require.NotNil(t, p.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged())
	require.NotNil(t, p.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
	gone := &materializepb.Request_Store{KeyPacked: tuple.AppendString(nil, "merry"), ValuesPacked: tuple.AppendString(tuple.AppendString(nil, "d"), "a"), Exists: true, Delete: true}
	require.NoError(t, p.Send(&materializepb.Request{Store: gone}))
	require.NotNil(t, p.MustCall(startCommit(2)).GetStartedCommit())
	_, err := p.Call(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}})
	require.ErrorContains(t, err, text)
}

// What tables of people refuse, and values for which only the server has a limit, is said in words, with what to do.
func TestRefusedRows(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	narrow := fieldOf("narrow", "string:number")
	narrow.Config = `{"columnType":"numeric(4,2)"}`
	r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, fieldOf("object", "object"), narrow)
	r.Log = []sinktest.Change{{Doc: `{"id":1,"narrow":"12.34"}`}}
	r.MustApply()
	require.NoError(t, r.Run())
	for _, id := range []int{1, 2} { // a row that is there, and a new one
		require.ErrorContains(t, addTo(r, fmt.Sprintf(`{"id":%d,"narrow":"123.4"}`, id)), fmt.Sprintf(
			`The value 123.4 of field "narrow" cannot be stored in column "narrow" of public.orders, which is of type numeric(4,2): numeric field overflow. The row's key is [%d].`, id))
		require.ErrorContains(t, addTo(r, fmt.Sprintf(`{"id":%d,"object":{"a":1e200000}}`, id)), "The destination refuses a value: value overflows numeric format (COPY ")
	}
	changes := newTask(t, db, db.config(nil))
	changes.Task.Name, changes.Task.Bindings[0].Resource = "acme/changes", json.RawMessage(`{"table":"changes","deltaUpdates":true}`)
	changes.Task.Bindings[0].Collection.Columns = append(changes.Task.Bindings[0].Collection.Columns, fieldOf("object", "object"))
	changes.Log = []sinktest.Change{{Doc: `{"id":1,"object":{"a":1e200000}}`}}
	changes.MustApply()
	require.ErrorContains(t, changes.Run(), "The destination refuses a value: value overflows numeric format (COPY changes, line 1, column object)")
	db.exec(t, "ALTER TABLE orders ADD CONSTRAINT mine CHECK (note <> 'bad')", "CREATE TABLE others (id bigint PRIMARY KEY)", "INSERT INTO others VALUES (1)",
		"ALTER TABLE orders ADD CONSTRAINT theirs FOREIGN KEY (id) REFERENCES others (id) DEFERRABLE INITIALLY DEFERRED")
	require.ErrorContains(t, addTo(r, `{"id":1,"note":"bad"}`), `The destination refuses a row: new row for relation "orders" violates check constraint "mine". Failing row contains (1, null, 12.34, bad, null). Correct the row at its source`)
	require.ErrorContains(t, addTo(r, `{"id":3}`), `The destination refuses a row: insert or update on table "orders" violates foreign key constraint "theirs". Key (id)=(3) is not present in table "others". Correct the row at its source, or change the table so that it takes it.`)

	db.exec(t, "CREATE TABLE audit (id bigint)", "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NEW; END'",
		"CREATE TRIGGER note BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note()")
	require.ErrorContains(t, addTo(r, `{"id":1,"note":"x"}`), `A trigger's function in the destination fails: relation "audit" does not exist (PL/pgSQL function public.note() line 1 at SQL statement`)
	db.exec(t, "ALTER FUNCTION note() SET search_path = public")
	require.NoError(t, addTo(r, `{"id":1,"note":"x"}`), "the advice works")
	require.Equal(t, "1", db.exec(t, "SELECT id FROM audit"))
}

// The limits of a table: columns of its key, columns, bytes of a row.
func TestLimitsOfTables(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = nil
	columns := r.Task.Bindings[0].Collection.Columns
	var keys, fields []sinktest.Column
	for i := range 33 {
		keys = append(keys, sinktest.Column{Name: fmt.Sprintf("k%d", i), Types: []string{"integer"}, Key: true})
	}
	doc := []string{`"id":1`}
	for i := range 1598 - len(columns) {
		fields = append(fields, fieldOf(fmt.Sprintf("f%04d", i), "integer"))
		doc = append(doc, fmt.Sprintf(`"f%04d":%d`, i, i))
	}
	r.Task.Bindings[0].Collection.Columns = keys
	_, err := r.Apply()
	require.ErrorContains(t, err, `The key of collection "acme/orders" has 33 fields, but a primary key can have 32 columns in Postgres`)
	r.Task.Bindings[0].Collection.Columns = keys[:32]
	r.MustApply()
	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"wide"}`)
	r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), append(fields, fieldOf("last", "integer"), fieldOf("one", "integer"), fieldOf("more", "integer"))...)
	_, err = r.Apply()
	require.ErrorContains(t, err, "A table can have 1600 columns in Postgres, and this collection has more fields. Exclude some of them.")
	r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), append(fields, fieldOf("last", "integer"), fieldOf("one", "integer"))...)
	r.MustApply()
	require.NoError(t, addTo(r, "{"+strings.Join(doc[:900], ",")+"}"))
	require.NoError(t, addTo(r, `{"id":1,"last":7}`))
	require.Equal(t, "1600|898|7", db.exec(t, "SELECT (SELECT count(*) FROM pg_attribute WHERE attrelid = 'wide'::regclass AND attnum > 0), f0898, last FROM wide"))
	require.ErrorContains(t, addTo(r, "{"+strings.Join(doc, ",")+"}"), "A value is too large for the destination: row is too big")
}

// Keys that a column takes for one are never merged by one statement: somebody has to decide.
func TestKeysThatAreOne(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings[0].Collection.Columns[0] = sinktest.Column{Name: "id", Types: []string{"string"}, Format: "number", Key: true}
	r.Log = []sinktest.Change{{Doc: `{"id":"1.0","note":"a"}`}, {Doc: `{"id":"1.00","note":"b"}`}}
	r.MustApply()
	require.ErrorContains(t, r.Run(), "Two keys of the collection are one in the destination, such as 1.0 and 1.00 in a column of numbers. Set castToString")
	require.Equal(t, "0", db.exec(t, "SELECT count(*) FROM orders"))

	log := r.Log
	r.Log = log[:1]
	require.NoError(t, r.Run())
	r.Log = append(log[:1:1], log...) // both are known now
	require.ErrorContains(t, r.Run(), "Two keys of the collection are one in the destination")
	r.Task.Bindings[0].Collection.Columns[0].Config = `{"castToString":true}`
	r.Task.Bindings[0].Backfill = 1
	r.MustApply()
	require.NoError(t, r.Run())
	require.Equal(t, "1.0|a\n1.00|b", db.exec(t, "SELECT id, note FROM orders ORDER BY id"))
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, resource{Table: strings.Repeat("x", 64)}.Validate(), "has 64 bytes; Postgres allows 63")
	require.ErrorContains(t, resource{}.Validate(), "table is required")
	require.Len(t, columnName(strings.Repeat("x", 64)), 63)
	require.NotEqual(t, columnName(strings.Repeat("x", 64)), columnName(strings.Repeat("x", 65)))
	require.LessOrEqual(t, len(columnName(strings.Repeat("ü", 40))), 63)
	require.Equal(t, "ctid_", columnName("ctid"))
}

// runWith appends a document to the log and runs.
func runWith(r *sinktest.Runtime, doc string) error {
	r.Log = []sinktest.Change{{Doc: doc}}
	return r.Run()
}
