package main

import (
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// statement is what is understood of a statement in the log: enough to know which tables to look at. Rows are decoded by what the
// log itself says of their tables, whatever stands here.
type statement struct {
	verb    string      // ALTER, CREATE, DROP, RENAME, TRUNCATE, DROP DATABASE; INSERT and its like; empty for what concerns no table
	word    string      // of those like INSERT, what they begin with
	names   []string    // … if it is not certain which table they change: all that may be the name of a schema, the default one too
	called  cdc.TableID // … the function that makes the change
	whole   bool        // … a DELETE of all rows
	tables  []cdc.TableID
	to      []cdc.TableID // what each of them is renamed to
	gone    []string      // columns that an ALTER drops
	edits   []edit        // what an ALTER does to columns,
	vague   bool          // unless that is not certain
	columns bool          // an ALTER may change which columns there are
	empty   bool          // rows go without a word: partitions that are dropped, truncated or exchanged, files that are
	filled  bool          // rows come without a word: partitions and files that are put in the place of others
	values  bool          // an ALTER may give the rows that are there other values without a word: columns that get others' names, or are computed otherwise
	narrows bool          // … unless the session's SQL mode is strict: columns that must not be null any more
	engine  bool          // an ALTER may give the table another engine, or begin or end its history
	unless  bool          // a CREATE does nothing where the table exists; the log has it all the same
	swapped []cdc.TableID // the table with whose rows a partition's are exchanged
	made    []cdc.TableID // the table that a partition becomes (MariaDB)
	taken   []cdc.TableID // the table that becomes a partition (MariaDB)
}

// reshapes reports whether a table may have other columns after the statement, or be another one.
func (st statement) reshapes() bool {
	switch st.verb {
	case "ALTER":
		return st.columns || len(st.to) > 0
	case "DROP", "DROP DATABASE", "RENAME", "CREATE":
		return true
	default:
		return false
	}
}

// token is a word, a name, or a character of a statement.
type token struct {
	text   string
	quoted bool
}

func (t token) is(words ...string) bool {
	return !t.quoted && slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, t.text) })
}

// tokens takes a statement apart. Comments are left out, but for those that the server runs; so are the contents of texts.
func tokens(sql string) []token {
	var out []token
	for i := 0; i < len(sql); {
		c := sql[i]
		rest := sql[i:]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*M!"):
			i += strings.IndexByte(rest, '!') + 1
			for i < len(sql) && sql[i] >= '0' && sql[i] <= '9' {
				i++
			}
		case strings.HasPrefix(rest, "*/"):
			i += 2
		case strings.HasPrefix(rest, "/*"):
			i = skipTo(sql, i+2, "*/")
		case c == '#', strings.HasPrefix(rest, "-- "), strings.HasPrefix(rest, "--\n"), strings.HasPrefix(rest, "--\t"):
			i = skipTo(sql, i, "\n")
		case c == '`' || c == '"' || c == '\'':
			var text string
			text, i = quotedToken(sql, i)
			out = append(out, token{text, true})
		case isWord(c):
			from := i
			for i < len(sql) && isWord(sql[i]) {
				i++
			}
			out = append(out, token{text: sql[from:i]})
		default:
			out = append(out, token{text: sql[i : i+1]})
			i++
		}
	}
	return out
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func skipTo(sql string, from int, end string) int {
	if n := strings.Index(sql[from:], end); n >= 0 {
		return from + n + len(end)
	}
	return len(sql)
}

func quotedToken(sql string, from int) (text string, next int) {
	quote := sql[from]
	var b strings.Builder
	for i := from + 1; i < len(sql); i++ {
		switch {
		case sql[i] == '\\' && quote != '`' && i+1 < len(sql):
			i++
		case sql[i] == quote:
			if i+1 >= len(sql) || sql[i+1] != quote {
				return b.String(), i + 1
			}
			i++
		}
		b.WriteByte(sql[i])
	}
	return b.String(), len(sql)
}

// parser reads tokens one after the other.
type parser struct {
	tokens []token
	schema string // of names without one
}

func (p *parser) peek() token {
	if len(p.tokens) == 0 {
		return token{}
	}
	return p.tokens[0]
}

func (p *parser) next() token {
	t := p.peek()
	if len(p.tokens) > 0 {
		p.tokens = p.tokens[1:]
	}
	return t
}

// accept takes the next token if it is one of the words.
func (p *parser) accept(words ...string) bool {
	if p.peek().is(words...) {
		p.next()
		return true
	}
	return false
}

// skip takes all tokens that are one of the words.
func (p *parser) skip(words ...string) {
	for p.accept(words...) {
	}
}

func (p *parser) name() cdc.TableID {
	id := cdc.TableID{Schema: p.schema, Name: p.next().text}
	if p.accept(".") {
		id.Schema, id.Name = id.Name, p.next().text
	}
	return id
}

// parseStatement reads a statement that was run with a default schema.
func parseStatement(sql, schema string) statement {
	p := &parser{tokens: tokens(sql), schema: schema}
	if p.peek().is("SET") && len(p.tokens) > 1 && p.tokens[1].is("STATEMENT") { // MariaDB's SET STATEMENT … FOR …
		for len(p.tokens) > 0 && !p.accept("FOR") {
			p.next()
		}
	}
	verb := strings.ToUpper(p.next().text)
	switch verb {
	case "ALTER":
		st := p.alter()
		// Whether a backslash means something within a text depends on the session, and with it where the text ends.
		if st.verb != "" && strings.Contains(sql, `\`) {
			st.columns, st.vague = true, true
		}
		return st
	case "CREATE":
		replace := false
		for p.peek().is("OR", "REPLACE", "TEMPORARY") {
			if p.peek().is("TEMPORARY") {
				return statement{}
			}
			replace = p.next().is("REPLACE") || replace
		}
		if p.accept("UNIQUE") {
			p.skip("INDEX")
			return p.index()
		}
		if !p.accept("TABLE") {
			return statement{}
		}
		unless := p.peek().is("IF")
		p.skip("IF", "NOT", "EXISTS")
		return statement{verb: "CREATE", tables: []cdc.TableID{p.name()}, empty: replace, unless: unless}
	case "DROP":
		return p.drop()
	case "RENAME":
		return p.rename()
	case "TRUNCATE":
		p.skip("TABLE")
		return statement{verb: verb, tables: []cdc.TableID{p.name()}}
	case "ANALYZE": // MariaDB's, which runs the statement behind it
		if p.accept("FORMAT") {
			p.next()
			p.next()
		}
		if p.peek().is("INSERT", "REPLACE", "UPDATE", "DELETE") {
			return p.change(strings.ToUpper(p.next().text))
		}
		return statement{}
	case "SELECT": // a function that changes tables is logged so: SELECT `schema`.`function`(…)
		if t := p.tokens; len(t) > 3 && t[0].quoted && t[1].is(".") && t[2].quoted && t[3].is("(") {
			return statement{verb: "INSERT", word: verb, called: cdc.TableID{Schema: t[0].text, Name: t[2].text}}
		}
		return statement{}
	case "INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "CALL", "WITH":
		return p.change(verb)
	default:
		return statement{}
	}
}

func (p *parser) alter() statement {
	ignore := false
	for p.peek().is("ONLINE", "OFFLINE", "IGNORE") {
		ignore = p.next().is("IGNORE") || ignore
	}
	if !p.accept("TABLE") {
		return statement{}
	}
	p.skip("IF", "EXISTS")
	out := statement{verb: "ALTER", tables: []cdc.TableID{p.name()}}
	if p.accept("WAIT") {
		p.next()
	}
	p.skip("NOWAIT")
	out.columns = !p.keepsColumns()
	out.edits, out.vague = editsOf(p.tokens)
	out.ofValues(p.tokens)
	if ignore { // MariaDB's: what does not fit is made to, or deleted
		out.values = out.values || out.columns
		out.empty = slices.ContainsFunc(p.tokens, func(t token) bool { return t.is("UNIQUE", "PRIMARY", "PARTITION") })
	}
	depth, partitions := 0, p.ofPartitions()
	for len(p.tokens) > 0 {
		t := p.next()
		if t.is(",") && depth == 0 && !partitions && !p.keepsColumns() {
			out.columns = true
		}
		switch {
		case t.is("("):
			depth++
		case t.is(")"):
			depth--
		case depth > 0:
		case t.is("RENAME"):
			if p.peek().is("COLUMN", "INDEX", "KEY") {
				continue
			}
			p.skip("TO", "AS")
			out.to = []cdc.TableID{p.name()}
		case t.is("DROP", "TRUNCATE", "EXCHANGE") && p.peek().is("PARTITION"), t.is("DISCARD", "IMPORT") && p.peek().is("PARTITION", "TABLESPACE"):
			out.empty, out.filled = true, t.is("EXCHANGE", "IMPORT")
		case partitions && t.is("CONVERT"):
			p.convert(&out)
		case t.is("ENGINE", "VERSIONING"):
			out.engine = true
		case out.empty && t.is("WITH") && p.accept("TABLE"): // EXCHANGE PARTITION p WITH TABLE
			out.swapped = []cdc.TableID{p.name()}
		case t.is("DROP"):
			if p.peek().is("INDEX", "KEY", "PRIMARY", "FOREIGN", "CONSTRAINT", "CHECK", "DEFAULT", "SYSTEM", "PERIOD") {
				continue
			}
			p.skip("COLUMN")
			p.skip("IF", "EXISTS")
			out.gone = append(out.gone, p.next().text)
		}
	}
	return out
}

// convert reads what follows CONVERT: PARTITION p TO TABLE t, or TABLE t TO PARTITION p.
func (p *parser) convert(out *statement) {
	if p.accept("TABLE") {
		out.filled, out.taken = true, []cdc.TableID{p.name()}
		return
	}
	for len(p.tokens) > 0 && !p.accept("TABLE") {
		p.next()
	}
	out.empty, out.made = true, []cdc.TableID{p.name()}
}

// ofValues finds out what an ALTER may do to the values of rows that are there, beyond what the columns' types tell.
func (st *statement) ofValues(tokens []token) {
	for _, clause := range clauses(tokens) {
		has := func(words ...string) bool {
			return slices.ContainsFunc(clause, func(t token) bool { return t.is(words...) })
		}
		p := &parser{tokens: clause}
		switch verb := p.next(); {
		case verb.is("RENAME"):
			st.values = st.values || p.peek().is("COLUMN")
		case verb.is("CHANGE", "MODIFY"):
			p.skip("COLUMN", "IF", "EXISTS")
			name := p.next()
			st.values = st.values || has("AS") || verb.is("CHANGE") && !strings.EqualFold(name.text, p.peek().text)
			st.narrows = st.narrows || has("NOT")
		}
	}
}

// ofPartitions reports whether what follows is about partitions, whose names may be a list: such a clause is the only one.
func (p *parser) ofPartitions() bool {
	if p.peek().is("CONVERT") { // or TO CHARACTER SET
		return len(p.tokens) > 1 && p.tokens[1].is("PARTITION", "TABLE")
	}
	named := len(p.tokens) > 1 && p.tokens[1].is("PARTITION", "TABLESPACE")
	return named && p.peek().is("ADD", "DROP", "TRUNCATE", "REORGANIZE", "COALESCE", "EXCHANGE", "ANALYZE", "OPTIMIZE", "REBUILD", "CHECK", "REPAIR", "DISCARD", "IMPORT")
}

// keepsColumns reports whether the clause of an ALTER TABLE that begins here surely leaves every column as it is. Unique indexes
// are not among these: MariaDB makes hidden columns for some.
func (p *parser) keepsColumns() bool {
	next := token{}
	if len(p.tokens) > 1 {
		next = p.tokens[1]
	}
	switch t := p.peek(); {
	case p.ofPartitions():
		return true
	case t.is("ADD"):
		return next.is("INDEX", "KEY", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK")
	case t.is("DROP"):
		return next.is("FOREIGN", "CHECK")
	case t.is("RENAME", "ALTER"):
		return next.is("INDEX", "KEY")
	default:
		return t.is("PARTITION", "REMOVE", "ENABLE", "DISABLE", "ENGINE", "COMMENT", "AUTO_INCREMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "ALGORITHM", "LOCK", "FORCE",
			"STATS_PERSISTENT", "STATS_AUTO_RECALC", "STATS_SAMPLE_PAGES")
	}
}

func (p *parser) drop() statement {
	if p.peek().is("TEMPORARY") {
		return statement{}
	}
	if p.accept("INDEX") {
		return p.index()
	}
	if p.accept("DATABASE", "SCHEMA") {
		p.skip("IF", "EXISTS")
		return statement{verb: "DROP DATABASE", tables: []cdc.TableID{{Schema: p.next().text}}}
	}
	if !p.accept("TABLE", "TABLES") {
		return statement{}
	}
	p.skip("IF", "EXISTS")
	out := statement{verb: "DROP", tables: []cdc.TableID{p.name()}}
	for p.accept(",") {
		out.tables = append(out.tables, p.name())
	}
	return out
}

// index reads what follows CREATE UNIQUE INDEX or DROP INDEX: it may bring or end a hidden column of MariaDB.
func (p *parser) index() statement {
	for len(p.tokens) > 0 && !p.accept("ON") {
		p.next()
	}
	return statement{verb: "ALTER", tables: []cdc.TableID{p.name()}, columns: true}
}

func (p *parser) rename() statement {
	if !p.accept("TABLE", "TABLES") {
		return statement{}
	}
	out := statement{verb: "RENAME"}
	for {
		p.skip("IF", "EXISTS")
		out.tables = append(out.tables, p.name())
		for len(p.tokens) > 0 && !p.accept("TO") { // WAIT n, NOWAIT
			p.next()
		}
		out.to = append(out.to, p.name())
		if !p.accept(",") {
			return out
		}
	}
}

// change finds the table that a statement changes rows of; none if that cannot be told.
func (p *parser) change(verb string) statement {
	out := statement{verb: "INSERT", word: verb, names: []string{p.schema}}
	for _, t := range p.tokens {
		out.names = append(out.names, t.text)
	}
	p.skip("LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "QUICK", "IGNORE", "HISTORY")
	switch verb {
	case "INSERT", "REPLACE":
		p.skip("INTO")
	case "DELETE":
		if !p.accept("FROM") {
			return out
		}
	case "UPDATE":
	case "LOAD": // DATA INFILE 'file' INTO TABLE t
		for len(p.tokens) > 0 && !p.accept("INTO") {
			p.next()
		}
		if !p.accept("TABLE") {
			return out
		}
	default:
		return out
	}
	changed := p.name()
	if p.peek().is(",", "JOIN", "INNER", "LEFT", "RIGHT", "NATURAL", "CROSS", "STRAIGHT_JOIN", "USING") {
		return out
	}
	out.tables, out.names = []cdc.TableID{changed}, nil
	out.whole = verb == "DELETE" && len(p.tokens) == 0
	return out
}
