package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// Tables with all kinds of keys, divided into many ranges: together these have the rows that a plain SELECT has, each once, whatever
// the collation says of case, accents, spaces at the end, and characters that it does not know (hard case 29).
func TestRangesOfKeys(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		d := db.driver()
		d.rangeRows = 60
		text := func(typ string) string { return "k " + typ + " PRIMARY KEY" }
		kinds := map[string]struct {
			columns string
			ranges  int // at least
		}{
			"insensitive": {text("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"), 4},
			"unicode":     {text("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"), 4},
			"sorted":      {text("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"), 4},
			"latin":       {text("VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german2_ci"), 4},
			"padded":      {text("CHAR(40) CHARACTER SET latin1 COLLATE latin1_bin"), 4},
			"utf16":       {text("VARCHAR(40) CHARACTER SET utf16"), 4},
			"utf16_bin":   {text("VARCHAR(40) CHARACTER SET utf16 COLLATE utf16_bin"), 4},
			"utf16le":     {text("VARCHAR(40) CHARACTER SET utf16le"), 4},
			"utf32":       {text("VARCHAR(40) CHARACTER SET utf32 COLLATE utf32_unicode_ci"), 4},
			"ucs2":        {text("VARCHAR(40) CHARACTER SET ucs2"), 4},
			"cyrillic":    {text("VARCHAR(40) CHARACTER SET cp1251"), 4},
			"chinese":     {text("VARCHAR(40) CHARACTER SET gbk"), 4},
			"japanese":    {text("VARCHAR(40) CHARACTER SET cp932"), 4},
			"raw":         {text("VARBINARY(40)"), 4},
			"composite":   {"k VARCHAR(40) CHARACTER SET utf8mb4, n INT DEFAULT 7, PRIMARY KEY (k, n)", 4},
			"few":         {"n INT AUTO_INCREMENT UNIQUE, s VARCHAR(5) CHARACTER SET utf8mb4 DEFAULT 'x', k VARCHAR(40), PRIMARY KEY (s, n)", 1},
			"numeric_key": {"n INT AUTO_INCREMENT UNIQUE, k VARCHAR(40), m DECIMAL(20, 3) DEFAULT (RAND() * 100000), PRIMARY KEY (m, n)", 4},
		}
		if flavor == mysqld.MySQL {
			kinds["newer"] = kinds["unicode"]
			k := kinds["newer"]
			k.columns = text("VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci")
			kinds["newer"] = k
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for name, kind := range kinds {
			name = "by_" + name
			letters := []string{"a", "A", "b", "Z", "z", "0", "9", "-", "_", " ", "ß", "é", "É", "ä", "Ω", "日", "😀", "~"}
			if strings.Contains(kind.columns, "latin1") {
				letters = slices.DeleteFunc(letters, func(l string) bool { return l == "Ω" || l == "日" || l == "😀" })
			}
			values := []string{"('')"}
			for i := range 600 {
				var v strings.Builder
				if i%3 > 0 {
					v.WriteString("user-") // most begin alike
				}
				for j := range 1 + rnd.IntN(8) {
					l := letters[rnd.IntN(len(letters))]
					if j == 0 && strings.Contains("ßéÉä", l) {
						l = "e" // where such a letter lies among others is not guessed, so parts would be uneven
					}
					v.WriteString(l)
				}
				values = append(values, "('"+v.String()+"')")
			}
			db.exec("CREATE TABLE "+name+" ("+kind.columns+")", "INSERT IGNORE INTO "+name+" (k) VALUES "+strings.Join(values, ", "), "ANALYZE TABLE "+name)
			table := db.tables(d, name)[0]
			table.Rows = 600 // the server's estimate comes when it likes
			plan, err := d.Plan(t.Context(), table)
			require.NoError(t, err)
			require.GreaterOrEqual(t, len(plan.Ranges), kind.ranges, "%s: %s", name, plan.Ranges)

			want := db.query("SELECT HEX(k) FROM " + name)
			seen := map[string]int{}
			most := 0
			for _, r := range plan.Ranges {
				got := 0
				for r != "" {
					scanned, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 17, MaxBytes: 1 << 20}, func(row cdc.Row) error {
						seen[cdctest.Fields(t, row)]++
						got++
						return nil
					})
					require.NoError(t, err, "%s: %s", name, r)
					r = scanned.Rest
				}
				most = max(most, got)
			}
			total := 0
			for row, n := range seen {
				require.Equal(t, 1, n, "%s: %s", name, row)
				require.True(t, json.Valid([]byte(row)))
				total += n
			}
			require.Equal(t, len(want), total, "%s: %s", name, plan.Ranges)
			if kind.ranges > 1 {
				require.Less(t, most, total*2/3, "%s: %s", name, plan.Ranges)
			}
		}
	})
}

// A guess lies between what it is made of, or is at least a text.
func TestInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		low, high, want string
		further         int
	}{
		{"a", "z", "m", 0},
		{"user-1", "user-9", "user-5", 0},
		{"a", "b", "", 0},
		{"a", "b", "aO", 1},
		{"A", "z", "m", 0},
		{"", "~", "O", 0},
		{"é1", "é9", "é5", 0},
		{"日", "本", "O", 0},
		{"日", "本", "", 1},
		{"日", "本", "日O", 3},
		{"x", "x", "xO", 0},
		{"z", "B", "n", 0},
		{"user-", "z", "user-O", 5},
		{"user-", "z", "", 6},
	} {
		require.Equal(t, c.want, string(inTheMiddle([]byte(c.low), []byte(c.high), guess{c.further, 4}, false)), fmt.Sprint(c))
	}
	require.Equal(t, []byte{7, 0x7f}, inTheMiddle([]byte{7}, []byte{7, 0xff}, guess{0, 4}, true))
	require.Equal(t, []byte{0x80}, inTheMiddle([]byte{1}, []byte{0xff}, guess{0, 4}, true))
}
