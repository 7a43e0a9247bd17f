package main

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// Tables with keys of numbers, times, identifiers and addresses are divided into ranges about as large as each other, also where one value
// lies far from the others; together these have each row once.
func TestRangesOfNumbers(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		d := db.driver(func(c *config) { c.Advanced.ZeroDates = zeroText })
		d.rangeRows = 60
		kinds := map[string]struct{ typ, value string }{ // value of n, which goes from 0 to 600
			"even":        {"BIGINT", "n * 3"},
			"far_above":   {"BIGINT UNSIGNED", "IF(n = 600, 18446744073709551615, n)"},
			"far_below":   {"BIGINT", "IF(n = 0, -9223372036854775808, n)"},
			"decimals":    {"DECIMAL(65, 30)", "n / 1000"},
			"doubles":     {"DOUBLE", "n / 7 - 40"},
			"floats":      {"FLOAT", "n / 7 - 40"},
			"bits":        {"BIT(60)", "n * 1000003"},
			"dates":       {"DATE", "IF(n = 0, '0000-00-00', DATE_ADD('2019-12-30', INTERVAL n DAY))"},
			"datetimes":   {"DATETIME(3)", "DATE_ADD('2024-01-30 23:59:59.5', INTERVAL n * 7001 SECOND)"},
			"timestamps":  {"TIMESTAMP", "DATE_ADD('2024-01-30 23:59:59', INTERVAL n * 7001 SECOND)"},
			"times":       {"TIME", "SEC_TO_TIME(n * 5000 - 1500000)"},
			"random":      {"BINARY(16)", "UNHEX(LEFT(SHA2(n, 256), 32))"},
			"texts":       {"CHAR(36) CHARACTER SET ascii", "INSERT(INSERT(INSERT(INSERT(LEFT(SHA2(n, 256), 32), 21, 0, '-'), 17, 0, '-'), 13, 0, '-'), 9, 0, '-')"},
			"few_digits":  {"DECIMAL(5, 2)", "n"},
			"negative":    {"DECIMAL(20, 10)", "-n / 3"},
			"large_years": {"DATE", "DATE_ADD('0001-01-01', INTERVAL n * 5 MONTH)"},
		}
		if flavor == mysqld.MariaDB {
			kinds["uuids"] = struct{ typ, value string }{"UUID", "INSERT(LEFT(SHA2(n, 256), 32), 13, 1, '4')"}
			kinds["newer_uuids"] = struct{ typ, value string }{"UUID", "INSERT(INSERT(LEFT(SHA2(n, 256), 32), 13, 1, '7'), 17, 1, '8')"}
			kinds["inet4s"] = struct{ typ, value string }{"INET4", "CONCAT('10.', n DIV 200, '.7.', n % 200)"}
			kinds["inet6s"] = struct{ typ, value string }{"INET6", "CONCAT('fe80::', HEX(n), ':1')"}
		}
		db.exec("CREATE TABLE numbers (n BIGINT PRIMARY KEY)", "INSERT INTO numbers VALUES (0)"+manyRows(600))
		for name, kind := range kinds {
			name = "by_" + name
			db.exec("SET sql_mode = ''", "CREATE TABLE "+name+" (k "+kind.typ+" PRIMARY KEY)", "INSERT INTO "+name+" SELECT "+kind.value+" FROM numbers", "ANALYZE TABLE "+name)
			table := db.tables(d, name)[0]
			table.Rows = 600 // the server's estimate comes when it likes
			plan, total, most := db.scanRanges(d, table)
			require.Equal(t, 601, total, name)
			require.GreaterOrEqual(t, len(plan), 4, "%s: %s", name, plan)
			require.Less(t, most, 250, "%s: %s", name, plan)
		}
	})
}

// Tables whose keys begin with an enumeration or a set: these sort by their members' numbers, which no comparison of texts has. Each row comes
// once, also with the last of 64 members, with values that are no members, and with an enumeration of very many. Ranges are found by the
// index for enumerations alone.
func TestRangesOfMembers(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		d := db.driver()
		d.rangeRows = 60
		members := func(from, to int) string {
			var list []string
			for i := from; i <= to; i++ {
				list = append(list, fmt.Sprintf("'m%d'", 1000-i)) // not as texts sort
			}
			return "(" + strings.Join(list, ", ") + ")"
		}
		kinds := map[string]struct {
			typ, value string // value of n, which goes from 0 to 600
			ranges     int
		}{
			"two":           {"ENUM" + members(1, 2), "1 + n % 2", 2},
			"many":          {"ENUM" + members(1, 255), "1 + n % 255", 4},
			"no_member":     {"ENUM('b', '', 'a')", "IF(n % 4 = 0, 'x', n % 4)", 3},
			"one":           {"ENUM('b', 'a')", "1", 1},
			"too_many":      {"ENUM" + members(1, 300), "1 + n % 300", 1},
			"small_set":     {"SET('c', 'b', 'a')", "n % 8", 1},
			"set_of_all":    {"SET" + members(1, 64), "18446744073709551615 - n", 1},
			"set_of_others": {"SET" + members(1, 64), "IF(n % 2, n, 9223372036854775808 + n)", 1},
		}
		db.exec("CREATE TABLE numbers (n INT PRIMARY KEY)", "INSERT INTO numbers VALUES (0)"+manyRows(600))
		for name, kind := range kinds {
			name = "by_" + name
			db.exec("SET sql_mode = ''", "CREATE TABLE "+name+" (k "+kind.typ+", n INT, PRIMARY KEY (k, n))", "INSERT INTO "+name+" SELECT "+kind.value+", n FROM numbers", "ANALYZE TABLE "+name)
			table := db.tables(d, name)[0]
			table.Rows = 600 // the server's estimate comes when it likes
			plan, total, most := db.scanRanges(d, table)
			require.Equal(t, 601, total, name)
			require.GreaterOrEqual(t, len(plan), kind.ranges, "%s: %s", name, plan)
			if kind.ranges > 1 {
				require.Less(t, most, 310, "%s: %s", name, plan)
			}
			if kind.ranges == 4 {
				chosen := db.query("EXPLAIN FORMAT=TRADITIONAL SELECT * FROM " + name + " WHERE " + keyTerm{name: "k", kind: kindEnum, most: 255}.compared(">", "240") + " ORDER BY k, n LIMIT 10")
				require.Contains(t, chosen[0], "range", "the server finds it by the index")
			}
		}
	})
}

// manyRows is what follows the first row of an INSERT: numbers up to one.
func manyRows(last int) string {
	var b strings.Builder
	for n := range last {
		fmt.Fprintf(&b, ", (%d)", n+1)
	}
	return b.String()
}

// scanRanges reads a table range by range. It returns the ranges, how many rows there are, each of which has to come once, and how many the largest range has.
func (db *database) scanRanges(d *driver, table *cdc.Table) (ranges []cdc.Range, total, most int) {
	db.t.Helper()
	plan, err := d.Plan(db.t.Context(), table)
	require.NoError(db.t, err)
	seen := map[string]bool{}
	for _, r := range plan.Ranges {
		before := len(seen)
		for r != "" {
			scanned, err := d.Scan(db.t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 17, MaxBytes: 1 << 20}, func(row cdc.Row) error {
				text := cdctest.Fields(db.t, row)
				require.False(db.t, seen[text], "%s: %s", r, text)
				seen[text] = true
				return nil
			})
			require.NoError(db.t, err, "%s", r)
			r = scanned.Rest
		}
		most = max(most, len(seen)-before)
	}
	return plan.Ranges, len(seen), most
}

// What is guessed lies between what it is made of, nearer to where it is sent, and is what the server takes for a value of the type.
func TestScales(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind      kind
		low, high string
		want      []string
	}{
		{kindInt, "-10", "20", []string{"5", "13", "16"}},
		{kindUint, "0", "18446744073709551615", []string{"9223372036854775808"}},
		{kindDecimal, "0", "0.5", []string{"0.250000000000000000000000000000"}},
		{kindDouble, "1e80", "3e80", []string{"2e+80"}},
		{kindDouble, "1e-300", "3", nil},
		{kindDate, "2024-02-29", "2024-03-01", []string{"2024-02-28"}},
		{kindDate, "0000-00-00", "0002-00-00", []string{"0001-01-01"}},
		{kindDatetime, "2024-01-01 00:00:00.000", "2024-01-01 00:01:00.000", []string{"2024-01-01 00:00:30", "2024-01-01 00:00:45"}},
		{kindDate, "nothing", "2024-03-01", nil},
		{kindTime, "-838:59:59", "838:59:59", []string{"00:00:00", "419:29:59"}},
		{kindTime, "-10:00:00", "-08:00:00.5", []string{"-09:00:00"}},
		{kindUUID, "00000000-0000-4000-8000-000000000000", "00000000-0000-4000-8000-800000000000", []string{"00000000-0000-4000-8000-400000000000"}},
		{kindUUID, "00000000-0000-7000-8000-000000000000", "80000000-0000-7000-8000-000000000000", []string{"40000000-0000-7000-8000-000000000000"}},
		{kindUUID, "nothing", "80000000-0000-7000-8000-000000000000", nil},
		{kindInet4, "10.0.0.0", "10.0.0.8", []string{"10.0.0.4", "10.0.0.6"}},
		{kindInet6, "::", "::8:0", []string{"::4:0"}},
		{kindInet4, "nothing", "10.0.0.8", nil},
	} {
		k := keyTerm{kind: c.kind}
		require.True(t, k.divisible())
		next := k.guesses([]byte(c.low), []byte(c.high))
		for i, want := range c.want {
			require.Equal(t, want, string(next(i > 0)), "%+v", c)
		}
		if c.want == nil {
			require.Nil(t, next(false), "%+v", c)
		}
	}
	next := keyTerm{kind: kindInt}.guesses([]byte("0"), []byte("256"))
	require.Equal(t, []string{"128", "64", "32"}, []string{string(next(false)), string(next(false)), string(next(false))})
	for range maxBisections {
		next(false)
	}
	require.Nil(t, next(false), "it ends")
	require.Nil(t, addressAt(big.NewRat(1<<40, 1), []byte("10.0.0.1")))
}
