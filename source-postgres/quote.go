package main

import "strings"

// quoteIdent quotes a name for SQL.
func quoteIdent(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteTable quotes a table's qualified name.
func quoteTable(schema, name string) string { return quoteIdent(schema) + "." + quoteIdent(name) }

// quoteLiteral quotes a string constant, for statements that take no parameters.
func quoteLiteral(s string) string {
	quoted := `'` + strings.ReplaceAll(s, `'`, `''`) + `'`
	if strings.ContainsRune(s, '\\') {
		quoted = ` E` + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// quoteIdents quotes names and joins them by commas.
func quoteIdents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteIdent(name)
	}
	return strings.Join(quoted, ", ")
}
