package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A chunk is read in one transaction, in this order: lock the table, so that it cannot be rewritten or replaced; take the
// snapshot, note the log's position, and check that the table is what the range was made for; read the rows. The lock comes
// before the snapshot, because rows that a rewrite moved are not visible to a snapshot from before it.

// Scan implements cdc.Driver.
func (d *driver) Scan(ctx context.Context, c cdc.Chunk, yield func(cdc.Row) error) (*cdc.Scanned, error) {
	r, err := decodeRange(c.Range)
	if err != nil {
		return nil, err
	}
	return d.inScan(ctx, c.Table, func(conn *pgx.Conn, p *scanPlan) (*cdc.Scanned, error) {
		s := &scan{d: d, conn: conn.PgConn(), plan: p, chunk: c, rng: r, yield: yield}
		s.row = scanRow{plan: p, oid: r.OID}
		return s.run(ctx)
	})
}

// inScan runs f with a session and the table's plan, and sorts its errors into what the core does about them.
func (d *driver) inScan(ctx context.Context, t *cdc.Table, f func(*pgx.Conn, *scanPlan) (*cdc.Scanned, error)) (*cdc.Scanned, error) {
	conn, _, err := d.conns.get(ctx)
	if err != nil {
		return nil, err
	}
	defer d.conns.put(conn)
	p, err := d.scanPlanOf(ctx, conn, t)
	if err == nil {
		var out *cdc.Scanned
		if out, err = f(conn, p); err == nil {
			return out, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if conn.PgConn().TxStatus() != 'I' && !conn.IsClosed() {
		_, _ = conn.Exec(ctx, "ROLLBACK") // put closes the session if this did not help
	}
	switch state := sqlState(err); {
	case errors.Is(err, cdc.ErrRewritten), errors.Is(err, cdc.ErrReshaped), errors.Is(err, cdc.ErrInterrupted):
		return nil, err
	case state == stateUndefinedTable:
		return nil, fmt.Errorf("scanning table %s: %w: %w", t.ID, cdc.ErrRewritten, err)
	case state == stateUndefinedColumn:
		return nil, fmt.Errorf("scanning table %s: %w: %w", t.ID, cdc.ErrReshaped, err)
	case state == stateQueryCanceled, state == stateSerialization, state == stateDeadlock:
		// The last two are how a standby cancels a query that keeps it from replaying the log: less is read next time.
		if p != nil {
			p.size.shrink()
		}
		return nil, fmt.Errorf("scanning table %s: %w: %w", t.ID, cdc.ErrInterrupted, err)
	case isLost(conn, err):
		return nil, fmt.Errorf("scanning table %s: %w: %w", t.ID, cdc.ErrInterrupted, err)
	case state == stateNoPrivilege:
		return nil, d.noSelect(t.ID, err)
	}
	return nil, fmt.Errorf("scanning table %s: %w", t.ID, err)
}

// scan is the reading of one chunk.
type scan struct {
	d     *driver
	conn  *pgconn.PgConn
	plan  *scanPlan
	chunk cdc.Chunk
	rng   scanRange
	yield func(cdc.Row) error
	row   scanRow
	vals  [][]byte // of the row at hand, hidden columns first

	snap  *snapshot
	sees  cdc.Visibility // what the snapshot sees: itself, but for standbys
	high  cdc.Mark
	units uint64 // pages or rows that the chunk covers
	until uint64 // if it covers a part of one page: the first item behind it; 0 if it covers pages to their end
	rows  int
	bytes int
	last  []string // the last row's key, for ranges of the key
}

func (s *scan) run(ctx context.Context) (*cdc.Scanned, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	sql, params := s.query()
	if err := s.read(ctx, sql, params, slices.Concat(s.plan.keyTypes, s.plan.keyTypes)[:len(params)]); err != nil {
		return nil, err
	}
	s.observe()
	return &cdc.Scanned{Rest: s.rest(), Snapshot: s.sees, High: s.high}, nil
}

// begin opens the transaction and checks what the range says of the relation.
func (s *scan) begin(ctx context.Context) error {
	lockOnly := "ONLY "
	if s.plan.now.root && !s.rng.Pages {
		lockOnly = "" // the partitions too
	}
	floor, epoch, before, place := s.d.floor.get(), s.d.quiet.now(), "", placeOfPrimary
	if s.d.server.standby {
		before, place = replayedBefore, placeOfStandby
	}
	sql := before + "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = " + strconv.FormatInt(s.d.timeout.Milliseconds(), 10) + "; LOCK TABLE " + lockOnly + s.rng.Table + " IN ACCESS SHARE MODE; "
	sql += "SET LOCAL search_path TO " + s.plan.searchPath + "; "
	name := quoteLiteral(s.rng.Table)
	sql += "SELECT " + s.d.snapshotFunction() + ", " + name + "::regclass::oid, coalesce(pg_catalog.pg_relation_filenode(" + name +
		"::regclass), 0), pg_catalog.pg_relation_size(" + name + "::regclass)" + place
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return fmt.Errorf("beginning to read: %w", err)
	}
	row := results[len(results)-1].Rows[0]
	if s.snap, err = parseSnapshot(string(row[0])); err != nil {
		return err
	}
	s.d.observe(s.snap.xmax)
	if s.high, err = s.d.place(row[4:]); err != nil {
		return err
	}
	if s.sees = s.snap; before != "" && string(results[1].Rows[0][0]) == "t" {
		err = s.onStandby(results[1].Rows[0][1], floor)
	} else {
		s.high = s.d.quiet.of(epoch, string(row[0]), s.high)
	}
	if err != nil {
		return err
	}
	if err := s.row.placed(s.high); err != nil {
		return err
	}
	if string(row[1]) != incarnation(s.rng.OID) || (s.rng.Pages && string(row[2]) != incarnation(s.rng.Node)) {
		return fmt.Errorf("reading table %s: %w", s.chunk.Table.ID, cdc.ErrRewritten)
	}
	if s.rng.Open {
		size, err := strconv.ParseUint(string(row[3]), 10, 64)
		if err != nil {
			return fmt.Errorf("reading the size of a table: %w", err)
		}
		s.rng.To, s.rng.Open = max(size/s.d.server.blockSize, s.rng.From), false
	}
	return nil
}

// onStandby makes the snapshot one of a standby, with what that had replayed before.
func (s *scan) onStandby(replayedTo []byte, floor lsn) error {
	before, err := parseLSN(string(replayedTo))
	if err != nil {
		return err
	}
	if before < floor {
		return fmt.Errorf("reading table %s: %w: %w", s.chunk.Table.ID, errWentBack, cdc.ErrInterrupted)
	}
	s.d.floor.raise(before)
	s.sees = &replayed{before: before, xmin: s.snap.xmin}
	return nil
}

// query is the SQL of the chunk's rows.
func (s *scan) query() (sql string, params [][]byte) {
	sql = "SELECT " + s.plan.list + " FROM " + only(s.plan.now.root && !s.rng.Pages) + s.rng.Table
	limit := s.plan.size.units(s.chunk, s.rng.Pages)
	if s.rng.Pages {
		s.units = min(limit, s.rng.To-s.rng.From)
		if items := s.plan.size.part(); items > 0 && s.rng.Item+items < s.d.pageItems() {
			s.units, s.until = 1, s.rng.Item+items
		}
		condition := s.d.pagesCondition(s.rng.From, s.rng.From+s.units)
		if s.rng.Item > 0 || s.until > 0 {
			condition = s.d.itemsCondition(s.rng.From, s.rng.Item, s.until)
			s.units = 1
		}
		where := append([]string{condition}, s.plan.where...)
		return sql + " WHERE " + strings.Join(where, " AND "), nil
	}
	s.units = limit
	conditions := slices.Clone(s.plan.where)
	for _, bound := range []struct {
		operator string
		values   []string
	}{{">", s.rng.After}, {"<=", s.rng.UpTo}} {
		if len(bound.values) == 0 {
			continue
		}
		var marks []string
		for _, v := range bound.values {
			params = append(params, []byte(v))
			marks = append(marks, "$"+strconv.Itoa(len(params)))
		}
		conditions = append(conditions, s.plan.compare(bound.operator, strings.Join(marks, ", ")))
	}
	if len(conditions) > 0 {
		sql += " WHERE " + strings.Join(conditions, " AND ")
	}
	return sql + " ORDER BY " + quoteIdents(s.chunk.Table.Key) + " LIMIT " + strconv.FormatUint(limit, 10), params
}

// compare is a condition on the whole key.
func (p *scanPlan) compare(operator, values string) string {
	if p.asRecords {
		return "ROW(" + p.keyList + ")::pg_catalog.record " + operator + " ROW(" + values + ")::pg_catalog.record"
	}
	return "(" + p.keyList + ") " + operator + " (" + values + ")"
}

// pagesCondition selects the rows on the pages [from, to). Servers before 14 have no scan of a range of places, but one of
// a list of them, so they get the list of all the places that can be.
func (d *driver) pagesCondition(from, to uint64) string {
	place := func(page uint64) string { return "'(" + strconv.FormatUint(page, 10) + ",0)'::pg_catalog.tid" }
	if d.server.major() >= 14 {
		return "ctid >= " + place(from) + " AND ctid < " + place(to)
	}
	return fmt.Sprintf("ctid = ANY (ARRAY(SELECT pg_catalog.format('(%%s,%%s)', p, i)::pg_catalog.tid FROM pg_catalog.generate_series(%d::bigint, %d::bigint) p, pg_catalog.generate_series(1, %d) i))",
		from, int64(to)-1, d.pageItems()) //nolint:gosec // pages have 32 bits
}

// pageItems is how many items a page may have; their numbers begin with 1.
func (d *driver) pageItems() uint64 {
	const header, smallestRow = 24, 28
	return (d.server.blockSize - header) / smallestRow
}

// itemsCondition selects the items [from, until) of a page, or from one on to its end if until is 0.
func (d *driver) itemsCondition(page, from, until uint64) string {
	if until == 0 {
		until = d.pageItems() + 1
	}
	return fmt.Sprintf("ctid = ANY (ARRAY(SELECT pg_catalog.format('(%%s,%%s)', %d::bigint, i)::pg_catalog.tid FROM pg_catalog.generate_series(%d, %d) i))", page, max(from, 1), until-1)
}

// read runs the query, yields its rows, and ends the transaction.
func (s *scan) read(ctx context.Context, sql string, params [][]byte, types []uint32) (err error) {
	pipeline := s.conn.StartPipeline(ctx)
	defer func() {
		if closeErr := pipeline.Close(); err == nil {
			err = closeErr
		}
	}()
	pipeline.SendQueryParams(sql, params, types, nil, s.plan.formats)
	pipeline.SendQueryParams("COMMIT", nil, nil, nil, nil)
	if err := pipeline.Sync(); err != nil {
		return fmt.Errorf("sending the query: %w", err)
	}
	result, err := nextResult(pipeline)
	if err != nil {
		return err
	}
	if err := s.rowsOf(ctx, result); err != nil {
		return err
	}
	if result, err = nextResult(pipeline); err != nil {
		return err
	}
	if _, err := result.Close(); err != nil {
		return fmt.Errorf("ending the transaction: %w", err)
	}
	return nil
}

func nextResult(pipeline *pgconn.Pipeline) (*pgconn.ResultReader, error) {
	result, err := pipeline.GetResults()
	if err != nil {
		return nil, fmt.Errorf("reading rows: %w", err)
	}
	reader, ok := result.(*pgconn.ResultReader)
	if !ok {
		return nil, fmt.Errorf("reading rows: unexpected answer %T", result)
	}
	return reader, nil
}

// rowsOf has the rows of the chunk yielded.
func (s *scan) rowsOf(ctx context.Context, result *pgconn.ResultReader) error {
	rows := rowsOf(s.conn)
	rows.begin(ctx, s.plan.size.surely(s.units), s.d.maxRow, s)
	for i, f := range result.FieldDescriptions()[s.plan.hidden:] {
		if f.DataTypeOID != s.plan.types[i] {
			rows.refuse(fmt.Errorf("reading table %s: column %q: %w", s.chunk.Table.ID, f.Name, cdc.ErrReshaped))
			break
		}
	}
	_, err := result.Close() // reads them all
	if refused := rows.end(); refused != nil {
		return refused
	}
	if err != nil {
		return fmt.Errorf("reading rows: %w", err)
	}
	return nil
}

// take implements rowTaker: it yields a row. Anything that would make the chunk larger than it may be ends it: it is read again,
// smaller.
func (s *scan) take(row []byte, left []leftValue) (err error) {
	if s.vals, err = appendValues(s.vals[:0], row); err != nil {
		return err
	}
	hidden := s.plan.hidden
	if len(s.vals) != hidden+len(s.plan.types) {
		return fmt.Errorf("%w: a row of %d values", errFrame, len(s.vals))
	}
	s.row.hidden, s.row.vals = s.vals[:hidden], s.vals[hidden:]
	s.row.lacks(left)
	if hidden > 0 && s.row.fromStream(s.snap) {
		return nil
	}
	s.bytes += len(row) + messageHead
	s.rows++
	if s.bytes > 2*max(s.chunk.MaxBytes, 1<<20) && (s.units > 1 || s.rng.Pages && s.items() > 1) {
		s.tooLarge()
		return fmt.Errorf("reading table %s: the chunk is too large: %w", s.chunk.Table.ID, cdc.ErrInterrupted)
	}
	if err := s.yield(&s.row); err != nil {
		return err
	}
	if !s.rng.Pages && s.rows == int(s.units) {
		s.keepKey()
	}
	return nil
}

// heavy implements rowTaker.
func (s *scan) heavy(ctx context.Context) error {
	if s.chunk.Heavy == nil {
		return nil
	}
	return s.chunk.Heavy(ctx)
}

// inDocument implements rowTaker.
func (s *scan) inDocument(column, n int) int { return s.plan.inDocument(column, n) }

// tooLarge has the next chunk cover less. Where rows are very large, what is left of this one is not worth being read to its end.
func (s *scan) tooLarge() {
	const veryLarge = 1 << 20
	fits := uint64(float64(s.rows) * float64(s.chunk.MaxBytes) / float64(s.bytes))
	s.plan.size.shrink()
	switch {
	case !s.rng.Pages:
		s.plan.size.atMost(fits)
	case s.units == 1:
		s.plan.size.cut(min(fits, s.items()/2))
	case s.bytes/s.rows > veryLarge:
		s.plan.size.atMost(1)
	}
	if s.bytes/s.rows > veryLarge {
		_ = s.conn.Conn().Close() // the session ends, and another one takes its place
	}
}

// items is how many items of its one page the chunk covers.
func (s *scan) items() uint64 {
	if s.until > 0 {
		return s.until - s.rng.Item
	}
	return s.d.pageItems() + 1 - s.rng.Item
}

// keepKey keeps the key of the chunk's last row, from which the next chunk goes on.
func (s *scan) keepKey() {
	for _, k := range s.plan.rows.keys {
		s.last = append(s.last, k.text(s.row.vals[k.index]))
	}
}

// observe lets later chunks learn from this one.
func (s *scan) observe() {
	if s.rng.Item > 0 || s.until > 0 {
		if s.bytes < s.chunk.MaxBytes/2 {
			s.plan.size.mend(s.d.pageItems())
		}
		return
	}
	units := s.units
	if !s.rng.Pages {
		units = uint64(s.rows)
	}
	s.plan.size.observe(units, s.rows, s.bytes)
}

// rest is what remains of the range behind the chunk.
func (s *scan) rest() cdc.Range {
	rest := s.rng
	if s.until > 0 {
		rest.Item = s.until
		return rest.encode()
	}
	if rest.Pages {
		rest.Item = 0
		if rest.From += s.units; rest.From >= rest.To {
			return ""
		}
		return rest.encode()
	}
	if s.last == nil {
		return "" // fewer rows than asked for: there are no more
	}
	rest.After = s.last
	return rest.encode()
}
