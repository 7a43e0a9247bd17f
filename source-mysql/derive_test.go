package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What an ALTER TABLE does to columns is understood, or said not to be.
func TestEdits(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string][]edit{
		"ADD COLUMN c1 INTEGER DEFAULT 7":                              {{op: addColumn, name: "c1", typ: "INTEGER "}},
		"ADD c decimal(5,2) unsigned not null after `x``y`, DROP e":    {{op: addColumn, name: "c", typ: "DECIMAL ( 5 , 2 ) UNSIGNED ", after: "x`y"}, {op: dropColumn, name: "e"}},
		"ADD COLUMN (a INT, KEY k (a), b TEXT)":                        {{op: addColumn, name: "a", typ: "INT "}, {op: addColumn, name: "b", typ: "TEXT "}},
		"MODIFY v VARCHAR(5) NOT NULL DEFAULT 'AFTER' COLLATE x FIRST": {{op: modifyColumn, name: "v", to: "v", typ: "VARCHAR ( 5 ) COLLATE X ", first: true}},
		"CHANGE COLUMN a b ENUM('x','it''s')":                          {{op: modifyColumn, name: "a", to: "b", typ: "ENUM ( 'x' , 'it''s' ) "}},
		"RENAME COLUMN a TO b, RENAME COLUMN b TO a":                   {{op: renameColumn, name: "a", to: "b"}, {op: renameColumn, name: "b", to: "a"}},
		"ALTER COLUMN a SET DEFAULT 5, ADD PRIMARY KEY (a), FORCE":     nil,
	} {
		st := parseStatement("ALTER TABLE t "+sql, "s")
		require.False(t, st.vague, sql)
		require.Equal(t, want, st.edits, sql)
	}
	for _, sql := range []string{
		"ADD COLUMN IF NOT EXISTS a INT", "DROP COLUMN IF EXISTS a", "CONVERT TO CHARACTER SET latin1", "DROP a b", "ADD a", "ADD SYSTEM VERSIONING", "COMMENT 'a\\b'", "something new", "ADD (a INT",
		"RENAME COLUMN a b", "CHANGE a",
	} {
		require.True(t, parseStatement("ALTER TABLE t "+sql, "s").vague, sql)
	}
}

// Statements count only if they lead from what was certain to what the catalog says.
func TestDerive(t *testing.T) {
	t.Parallel()
	from, err := parseLayout(`[{"n":"id","t":"int"},{"n":"a","t":"int"},{"n":"b","t":"int"}]`)
	require.NoError(t, err)
	alter := func(clauses ...string) (out []statement) {
		for _, c := range clauses {
			out = append(out, parseStatement("ALTER TABLE t "+c, "s"))
		}
		return out
	}
	const unknown = "null"
	for _, c := range []struct {
		name        string
		past, ahead []statement
		now, want   string
	}{
		{
			"swapped, then one more", alter("RENAME COLUMN a TO b, RENAME COLUMN b TO a"), alter("ADD c TEXT"), `[{"n":"id","t":"int"},{"n":"b","t":"int"},{"n":"a","t":"int"},{"n":"c","t":"text utf8mb4"}]`,
			`[{"n":"id","t":"int"},{"n":"b","t":"int"},{"n":"a","t":"int"}]`,
		},
		{
			"added, then not null", alter("ADD c BIGINT NULL AFTER id"), alter("MODIFY COLUMN c bigint NOT NULL AFTER a"), `[{"n":"id","t":"int"},{"n":"a","t":"int"},{"n":"c","t":"bigint"},{"n":"b","t":"int"}]`,
			`[{"n":"id","t":"int"},{"n":"c","t":"bigint"},{"n":"a","t":"int"},{"n":"b","t":"int"}]`,
		},
		{"dropped later", alter("DROP a"), alter("DROP b", "ADD a INT"), `[{"n":"id","t":"int"},{"n":"a","t":"int"}]`, `[{"n":"id","t":"int"},{"n":"b","t":"int"}]`},
		{"of a type that nobody knows", alter("ADD c TEXT"), alter("DROP c"), `[{"n":"id","t":"int"},{"n":"a","t":"int"},{"n":"b","t":"int"}]`, unknown},
		{"retyped twice", alter("MODIFY a BIGINT"), alter("MODIFY a SMALLINT"), `[{"n":"id","t":"int"},{"n":"a","t":"smallint"},{"n":"b","t":"int"}]`, unknown},
		{"added again under the name", alter("ADD c TEXT"), alter("DROP c", "ADD c TEXT"), `[{"n":"id","t":"int"},{"n":"a","t":"int"},{"n":"b","t":"int"},{"n":"c","t":"text utf8mb4"}]`, unknown},
		{"the catalog has it otherwise", alter("ADD c INT FIRST"), alter("DROP b"), `[{"n":"id","t":"int"},{"n":"c","t":"int"},{"n":"a","t":"int"}]`, unknown},
		{"the catalog has another type", alter("ADD c INT"), alter("DROP b"), `[{"n":"id","t":"int"},{"n":"a","t":"bigint"},{"n":"c","t":"int"}]`, unknown},
		{"not understood", alter("CONVERT TO CHARACTER SET latin1"), alter("DROP b"), `[{"n":"id","t":"int"},{"n":"a","t":"int"}]`, unknown},
		{"another table", alter("DROP b"), []statement{{verb: "RENAME"}}, `[{"n":"id","t":"int"},{"n":"a","t":"int"}]`, unknown},
		{"no such column", alter("DROP x"), nil, `[{"n":"id","t":"int"},{"n":"a","t":"int"},{"n":"b","t":"int"}]`, unknown},
		{"renamed and more at once", alter("RENAME COLUMN a TO c, DROP b"), nil, `[{"n":"id","t":"int"},{"n":"c","t":"int"}]`, unknown},
	} {
		d := deriveFrom(from)
		for _, st := range c.past {
			d = d.apply(st)
		}
		now, err := parseLayout(c.now)
		require.NoError(t, err)
		stored := parseDerived(d.encode())
		require.Equal(t, d, stored, c.name)
		require.Equal(t, c.want, stored.settle(c.ahead, now).encode(), c.name)
	}
}
