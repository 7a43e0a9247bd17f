package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// mysqlSide is a database of a MySQL or MariaDB, with a user that has no more rights than the documentation asks for.
type mysqlSide struct {
	server   *server.MySQLServer
	database string
	db       *sql.DB // of the administrator
}

// captureUser is who the connector connects as, with the password of the administrator.
const captureUser = "sluice"

func newMySQLSide(t testing.TB, s *server.MySQLServer) *mysqlSide {
	t.Helper()
	m := &mysqlSide{server: s, database: strings.ToLower("e2e_" + strings.NewReplacer("/", "_", "=", "_", "-", "_").Replace(t.Name()))}
	admin, err := m.connect("")
	require.NoError(t, err)
	for _, text := range []string{
		"CREATE DATABASE " + m.database + " CHARACTER SET utf8mb4",
		"CREATE USER IF NOT EXISTS " + captureUser + "@'%' IDENTIFIED BY '" + mysqld.Password + "'",
		"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO " + captureUser + "@'%'",
		"GRANT SELECT ON " + m.database + ".* TO " + captureUser + "@'%'",
	} {
		_, err := admin.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
	require.NoError(t, admin.Close())
	m.db, err = m.connect(m.database)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.db.Close() })
	return m
}

// connect is how the administrator connects: in UTC, and without the checks that keep odd values out.
func (m *mysqlSide) connect(database string) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = mysqld.User, mysqld.Password, "tcp", m.server.Address(), database
	cfg.InterpolateParams, cfg.Timeout = true, 5*time.Second
	cfg.Params = map[string]string{"time_zone": "'+00:00'", "sql_mode": "''"}
	cfg.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func (m *mysqlSide) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, text := range statements {
		_, err := m.db.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
}

// query gives a result's rows as texts; nil is null.
func (m *mysqlSide) query(ctx context.Context, text string) ([][]any, error) {
	rows, err := m.db.QueryContext(ctx, text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out [][]any
	for rows.Next() {
		texts := make([]sql.NullString, len(columns))
		into := make([]any, len(columns))
		for i := range texts {
			into[i] = &texts[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]any, len(columns))
		for i, text := range texts {
			if text.Valid {
				row[i] = text.String
			}
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// mysqlWorld is a world whose source is a MySQL. The side w.source is a database beside the copy: mirror puts there what the source
// has, read by another client than the connector's, so that everything that compares tables of Postgres does it here, too.
type mysqlWorld struct {
	*world
	origin *mysqlSide
}

func newMySQLWorld(t testing.TB, origin *mysqlSide, pg *server.PostgresServer) *mysqlWorld {
	t.Helper()
	database := newSide(t, pg)
	return &mysqlWorld{world: newWorldOn(t, binaries(t), database, database), origin: origin}
}

// discover fills the catalog with a capture of the tables.
func (w *mysqlWorld) discover(t testing.TB, tables ...string) {
	t.Helper()
	config := map[string]any{
		"address": w.origin.server.Address(), "user": captureUser, "password": mysqld.Password, "databases": []string{w.origin.database},
		"advanced": map[string]any{"minRetention": "0s", "backfillChunkRows": 1000},
	}
	var err error
	w.catalog, err = launch.Discover(t.Context(), w.bins, launch.SourceMySQL, "e2e/"+w.origin.database, config, w.folder)
	require.NoError(t, err)
	require.NoError(t, w.catalog.Keep(tables...))
}

// mirrored is a column of a table as mirror has it.
type mirrored struct{ name, typ, expression string }

// mirror makes tables of w.source, in the schema public, what those of the origin are.
func (w *mysqlWorld) mirror(t testing.TB, tables ...string) {
	t.Helper()
	conn := w.source.connect(t)
	for _, table := range tables {
		columns, key := w.columns(t, table)
		names, expressions := make([]string, len(columns)), make([]string, len(columns))
		definitions := make([]string, len(columns))
		for i, c := range columns {
			names[i], expressions[i] = c.name, c.expression
			definitions[i] = pgx.Identifier{c.name}.Sanitize() + " " + c.typ
		}
		rows, err := w.origin.query(t.Context(), "SELECT "+strings.Join(expressions, ", ")+" FROM `"+table+"`")
		require.NoError(t, err)
		w.source.exec(t, "DROP TABLE IF EXISTS public."+table,
			"CREATE TABLE public."+table+" ("+strings.Join(definitions, ", ")+", PRIMARY KEY ("+strings.Join(key, ", ")+"))")
		insert := &pgx.Batch{}
		places := make([]string, len(columns))
		for i, c := range columns {
			places[i] = fmt.Sprintf("$%d::text::%s", i+1, c.typ)
		}
		for _, row := range rows {
			insert.Queue("INSERT INTO public."+table+" VALUES ("+strings.Join(places, ", ")+")", row...)
		}
		require.NoError(t, conn.SendBatch(t.Context(), insert).Close())
	}
}

// columns are a table's, and its key: of what type they are in Postgres, and how they are asked for, so that Postgres reads them.
func (w *mysqlWorld) columns(t testing.TB, table string) (columns []mirrored, key []string) {
	t.Helper()
	rows, err := w.origin.query(t.Context(), "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COLUMN_KEY FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '"+
		w.origin.database+"' AND TABLE_NAME = '"+table+"' ORDER BY ORDINAL_POSITION")
	require.NoError(t, err)
	require.NotEmpty(t, rows, table)
	for _, row := range rows {
		name, dataType, columnType := fmt.Sprint(row[0]), strings.ToLower(fmt.Sprint(row[1])), fmt.Sprint(row[2])
		if row[3] == "PRI" {
			key = append(key, name)
		}
		c := mirrored{name: name, typ: "text", expression: "`" + name + "`"}
		switch dataType {
		case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
			if c.typ = "bigint"; dataType == "bigint" && strings.Contains(columnType, "unsigned") {
				c.typ = "numeric"
			}
		case "decimal":
			c.typ = "numeric"
		case "bit":
			c.typ, c.expression = "numeric", c.expression+" + 0"
		case "float":
			c.typ, c.expression = "real", c.expression+" + 0e0"
		case "double":
			c.typ = "double precision"
		case "date", "datetime", "timestamp":
			c.typ, c.expression = momentOf(dataType, c.expression)
		case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob":
			c.typ, c.expression = "bytea", `CONCAT('\\x', HEX(`+c.expression+"))"
		case "json":
			c.typ, c.expression = "jsonb", "CAST("+c.expression+" AS CHAR)"
		case "uuid":
			c.typ = "uuid"
		case "inet4", "inet6":
			c.typ = "inet"
		case "vector":
			c.typ, c.expression = "jsonb", "VECTOR_TO_STRING("+c.expression+")"
		case "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection", "geomcollection":
			c.expression = "ST_AsText(" + c.expression + ")"
		default:
			if !slices.Contains([]string{"time", "enum", "set"}, dataType) {
				c.expression = "CONVERT(" + c.expression + " USING utf8mb4)"
			}
		}
		columns = append(columns, c)
	}
	return columns, key
}

// momentOf is a date or time; of one that does not exist, which Postgres does not have, minus infinity.
func momentOf(dataType, column string) (typ, expression string) {
	value := column
	if typ = "date"; dataType != "date" {
		typ, value = "timestamptz", "CONCAT("+column+", '+00')"
	}
	return typ, fmt.Sprintf("IF(%[1]s IS NULL, NULL, IF(DAYOFMONTH(%[1]s) = 0 OR MONTH(%[1]s) = 0, '-infinity', %[2]s))", column, value)
}

// open implements writable.
func (m *mysqlSide) open(ctx context.Context) (writing, error) {
	db, err := m.connect(m.database)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &mysqlWriting{db: db, conn: conn}, nil
}

type mysqlWriting struct {
	db   *sql.DB
	conn *sql.Conn
	lost bool
}

func (w *mysqlWriting) closed() bool { return w.lost }

func (w *mysqlWriting) close() {
	_ = w.conn.Close()
	_ = w.db.Close()
}

func (w *mysqlWriting) execute(ctx context.Context, transaction []statement, rollback bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := w.run(ctx, transaction, rollback)
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &answer):
		w.lost = true
		w.close()
		return err
	case answer.Number == 1213 || answer.Number == 1205: // a deadlock, or a lock that was waited for too long
		_, err := w.conn.ExecContext(ctx, "ROLLBACK")
		return errors.Join(errConflict, err)
	default:
		return err
	}
}

func (w *mysqlWriting) run(ctx context.Context, transaction []statement, rollback bool) error {
	end := "COMMIT"
	if rollback {
		end = "ROLLBACK"
	}
	for _, s := range append(append([]statement{{"BEGIN", nil}}, transaction...), statement{end, nil}) {
		if _, err := w.conn.ExecContext(ctx, s.SQL, s.Args...); err != nil {
			return err
		}
	}
	return nil
}
