package main

import (
	"slices"
	"strings"
)

// clauses takes the clauses of an ALTER TABLE apart: they are separated by commas.
func clauses(tokens []token) [][]token {
	var out [][]token
	depth, from := 0, 0
	for i, t := range tokens {
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case t.is(",") && depth == 0:
			out = append(out, tokens[from:i])
			from = i + 1
		}
	}
	return append(out, tokens[from:])
}

// editsOf is what the clauses of an ALTER TABLE do to columns; vague if one of them is not understood for certain.
func editsOf(tokens []token) (edits []edit, vague bool) {
	if first := (&parser{tokens: tokens}); first.ofPartitions() {
		return nil, false
	}
	for _, clause := range clauses(tokens) {
		p := &parser{tokens: clause}
		if p.keepsColumns() {
			continue
		}
		found, ok := p.edit()
		if !ok {
			return nil, true
		}
		edits = append(edits, found...)
	}
	return edits, false
}

// edit reads one clause.
func (p *parser) edit() ([]edit, bool) {
	verb := p.next()
	switch {
	case verb.is("ADD", "DROP") && p.peek().is("PRIMARY", "UNIQUE", "INDEX", "KEY", "CONSTRAINT", "FOREIGN", "CHECK"):
		return nil, true // keys change at most what may be null, which is not derived
	case verb.is("ADD"):
		p.skip("COLUMN")
		if p.peek().is("(") {
			return p.list()
		}
		return p.defined(edit{op: addColumn})
	case verb.is("MODIFY"):
		p.skip("COLUMN")
		e := edit{op: modifyColumn, to: p.peek().text}
		return p.defined(e)
	case verb.is("CHANGE"):
		p.skip("COLUMN")
		old := p.next()
		edits, ok := p.defined(edit{op: modifyColumn})
		if !ok {
			return nil, false
		}
		edits[0].name, edits[0].to = old.text, edits[0].name
		return edits, old.text != ""
	case verb.is("DROP"):
		p.skip("COLUMN")
		name := p.next()
		p.skip("RESTRICT", "CASCADE")
		return []edit{{op: dropColumn, name: name.text}}, name.text != "" && len(p.tokens) == 0
	case verb.is("RENAME") && p.accept("COLUMN"):
		before, to, after := p.next(), p.accept("TO"), p.next()
		return []edit{{op: renameColumn, name: before.text, to: after.text}}, to && after.text != "" && len(p.tokens) == 0
	case verb.is("ALTER"):
		p.skip("COLUMN")
		p.next()
		return nil, p.accept("SET", "DROP") && p.accept("DEFAULT", "VISIBLE", "INVISIBLE")
	default:
		return nil, false
	}
}

// list reads the columns of ADD (a INT, b INT).
func (p *parser) list() ([]edit, bool) {
	if last := len(p.tokens) - 1; last < 1 || !p.tokens[last].is(")") {
		return nil, false
	}
	var out []edit
	for _, column := range clauses(p.tokens[1 : len(p.tokens)-1]) {
		q := &parser{tokens: column}
		if q.peek().is("INDEX", "KEY", "UNIQUE", "PRIMARY", "CONSTRAINT", "FOREIGN", "CHECK", "FULLTEXT", "SPATIAL") {
			continue
		}
		e, ok := q.defined(edit{op: addColumn})
		if !ok {
			return nil, false
		}
		out = append(out, e...)
	}
	return out, true
}

// defined reads a column's name and definition.
func (p *parser) defined(e edit) ([]edit, bool) {
	if p.peek().is("IF", "SYSTEM", "PERIOD") {
		return nil, false
	}
	e.name = p.next().text
	n := len(p.tokens)
	if e.name == "" || n == 0 {
		return nil, false
	}
	switch {
	case p.tokens[n-1].is("FIRST"):
		e.first = true
	case n > 1 && p.tokens[n-2].is("AFTER"):
		e.after = p.tokens[n-1].text
	}
	e.typ = typeWords(p.tokens)
	return []edit{e}, e.typ != ""
}

// typeWords are the words of a definition that say what values the column has.
func typeWords(tokens []token) string {
	end := slices.IndexFunc(tokens, func(t token) bool {
		return t.is("NOT", "NULL", "DEFAULT", "AUTO_INCREMENT", "UNIQUE", "PRIMARY", "KEY", "COMMENT", "COLUMN_FORMAT", "STORAGE", "REFERENCES", "CHECK", "CONSTRAINT",
			"ON", "VISIBLE", "INVISIBLE", "GENERATED", "AS", "VIRTUAL", "STORED", "PERSISTENT", "SRID", "REF_SYSTEM_ID", "FIRST", "AFTER", "WITH", "WITHOUT", "COMPRESSED", "ENCRYPTED")
	})
	if end < 0 {
		end = len(tokens)
	}
	var b strings.Builder
	for i, t := range tokens {
		charset := i >= end && i > 0 && (t.is("COLLATE", "CHARSET", "CHARACTER") || tokens[i-1].is("COLLATE", "CHARSET", "SET"))
		switch {
		case i >= end && !charset:
		case t.quoted:
			b.WriteString("'" + strings.ReplaceAll(t.text, "'", "''") + "' ")
		default:
			b.WriteString(strings.ToUpper(t.text) + " ")
		}
	}
	return b.String()
}
