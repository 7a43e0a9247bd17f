package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The log has a sign for every number, also for a YEAR, which has none: signs of the columns behind one are their own.
func TestSignsBehindYears(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := newDatabase(t, flavor)
		db.exec("CREATE TABLE t (y YEAR PRIMARY KEY, n INT, u INT UNSIGNED, d DECIMAL(5,2), z YEAR, b BIGINT UNSIGNED, s SMALLINT, f FLOAT UNSIGNED, t TINYINT)")
		d := db.driver()
		s := db.open(d, db.tables(d, "t")...)
		db.exec("INSERT INTO t VALUES (1999, -1, 4294967295, -1.5, 2000, 18446744073709551615, -2, 1.5, -3)")
		require.Equal(t, []string{`c t {"b":18446744073709551615,"d":"-1.50","f":1.5,"n":-1,"s":-2,"t":-3,"u":4294967295,"y":1999,"z":2000}`}, s.fence())
	})
}
