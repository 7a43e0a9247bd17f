// Package pgtypes is a list of every type of Postgres with values of it, for tests that no type may escape: of what captures
// make of them, and of what comes back when their documents are stored in Postgres again.
//
// It is text only: which statements make the types and rows, and what source-postgres says of them. Who runs them is
// the test's business.
package pgtypes

import (
	"fmt"
	"slices"
	"strings"
)

// Case is a type with values of it.
type Case struct {
	// Type is what a column's definition says.
	Type   string
	Values []Value
	// Since is the first major version that has the type, or all of the values.
	Since int
	// NoKey says why the values are no keys although the server may let the type be one; empty if they are.
	NoKey string
}

// Value is a value as SQL, and what it becomes in a document.
type Value struct {
	SQL string
	// JSON is empty where only the server can say.
	JSON string
	// Exact is the JSON with every kind of lossless text; empty if that is the same.
	Exact string
}

// Want is what the value becomes, with or without lossless text; empty if only the server can say.
func (v Value) Want(exact bool) string {
	if exact && v.Exact != "" {
		return v.Exact
	}
	return v.JSON
}

// v is a value that both options write alike, x one that they do not.
func v(sql, json string) Value        { return Value{SQL: sql, JSON: json} }
func x(sql, json, exact string) Value { return Value{SQL: sql, JSON: json, Exact: exact} }

func oneType(typ string, values ...Value) Case { return Case{Type: typ, Values: values} }

// since is a case for servers of a major version and later ones.
func since(major int, typ string, values ...Value) Case {
	return Case{Type: typ, Values: values, Since: major}
}

// unkeyed is the case without being tested as a key.
func (c Case) unkeyed(why string) Case {
	c.NoKey = why
	return c
}

// Available are the cases of a server: those of single values with the shapes of arrays, and an array of the values of each
// case whose type has arrays. known says whether the server has a type of a name.
func Available(major int, known func(typ string) bool) (cases, lists []Case) {
	for _, c := range slices.Concat(BuiltIn(), Made(), Extensions()) {
		if c.Since > major {
			continue
		}
		cases = append(cases, c)
		// A constructor of arrays takes no arrays or vectors, and types that are not for tables have no arrays.
		if list := arrayOf(c); !slices.Contains([]string{"deep", "int2vector", "oidvector"}, c.Type) && known(list.Type) {
			lists = append(lists, list)
		}
	}
	return append(cases, ArrayShapes()...), lists
}

// arrayOf is a case with an array of all of a case's values.
func arrayOf(c Case) Case {
	var (
		list        []string
		json, exact strings.Builder
		unknown     bool
	)
	for _, v := range c.Values {
		list = append(list, fmt.Sprintf("(%s)::%s", v.SQL, c.Type))
		json.WriteString(v.JSON + ",")
		exact.WriteString(v.Want(true) + ",")
		unknown = unknown || v.JSON == ""
	}
	out := Value{SQL: "ARRAY[" + strings.Join(list, ", ") + ", NULL]::" + c.Type + "[]"}
	if !unknown {
		out.JSON, out.Exact = "["+json.String()+"null]", "["+exact.String()+"null]"
	}
	return Case{Type: c.Type + "[]", Since: c.Since, Values: []Value{out}}
}

// SetupExtensions are statements that make the types of Extensions on a server with the given extensions available. The
// extensions of contrib must be there. Others get a stand-in of the same name, kind, delimiter and notation: a type whose
// values are what was put in, which is all that a connector sees of a type.
func SetupExtensions(available []string) []string {
	out := []string{"CREATE SCHEMA ext"}
	for _, name := range []string{"citext", "hstore", "ltree", "cube", "seg", "isn"} {
		out = append(out, "CREATE EXTENSION "+name+" SCHEMA ext")
	}
	for _, e := range []struct{ extension, typ, options string }{
		{"postgis", "geometry", `DELIMITER = ':', ALIGNMENT = double, STORAGE = main`}, {"vector", "vector", "STORAGE = external"},
	} {
		if slices.Contains(available, e.extension) {
			out = append(out, "CREATE EXTENSION "+e.extension+" SCHEMA ext")
			continue
		}
		name := "ext." + e.typ
		out = append(out, "CREATE TYPE "+name, "CREATE FUNCTION "+name+"_in(cstring) RETURNS "+name+" LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
			"CREATE FUNCTION "+name+"_out("+name+") RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
			"CREATE TYPE "+name+" (INPUT = "+name+"_in, OUTPUT = "+name+"_out, INTERNALLENGTH = VARIABLE, "+e.options+")")
	}
	return append(out, `CREATE DOMAIN shout AS ext.citext COLLATE "C"`)
}

// Table makes a table of some name with a column of each case's type, c0, c1 and so on, behind an integer key id.
func Table(name string, cases []Case) string {
	columns := make([]string, len(cases))
	for i, c := range cases {
		columns[i] = fmt.Sprintf("c%d %s", i, c.Type)
	}
	return "CREATE TABLE " + name + " (id int PRIMARY KEY, " + strings.Join(columns, ", ") + ")"
}

// Rows insert into such a table a row for the first value of every case, one for the second, and so on, and one of nulls.
// The first one has the given id, the others count on.
func Rows(name string, cases []Case, id int) []string {
	var out []string
	for more := true; more; {
		columns, values := []string{"id"}, []string{fmt.Sprint(id + len(out))}
		for i, c := range cases {
			if n := len(out); n < len(c.Values) {
				columns, values = append(columns, fmt.Sprintf("c%d", i)), append(values, c.Values[n].SQL)
			}
		}
		more = len(columns) > 1
		out = append(out, "INSERT INTO "+name+" ("+strings.Join(columns, ", ")+") VALUES ("+strings.Join(values, ", ")+")")
	}
	return out
}
