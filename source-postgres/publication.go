package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// publication is what the catalog says of the publication.
type publication struct {
	exists    bool
	allTables bool
	changes   bool // publishes inserts, updates and deletes
	truncates bool
	viaRoot   bool
	comment   string
	tables    map[cdc.TableID]bool
}

func (d *driver) readPublication(ctx context.Context, conn *pgx.Conn) (*publication, error) {
	viaRoot := "pubviaroot"
	if d.server.major() < 13 {
		viaRoot = "true"
	}
	p := &publication{tables: map[cdc.TableID]bool{}}
	err := conn.QueryRow(ctx, "SELECT true, puballtables, pubinsert AND pubupdate AND pubdelete, pubtruncate, "+viaRoot+
		", coalesce(pg_catalog.obj_description(oid, 'pg_publication'), '') FROM pg_catalog.pg_publication WHERE pubname = $1", d.publication).
		Scan(&p.exists, &p.allTables, &p.changes, &p.truncates, &p.viaRoot, &p.comment)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading publication %q: %w", d.publication, err)
	}
	rows, err := conn.Query(ctx, "SELECT schemaname, tablename FROM pg_catalog.pg_publication_tables WHERE pubname = $1", d.publication)
	if err != nil {
		return nil, fmt.Errorf("reading the tables of publication %q: %w", d.publication, err)
	}
	var id cdc.TableID
	_, err = pgx.ForEachRow(rows, []any{&id.Schema, &id.Name}, func() error {
		p.tables[id] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the tables of publication %q: %w", d.publication, err)
	}
	return p, nil
}

// missing are those of the tables that the publication lacks.
func (p *publication) missing(tables []cdc.TableID) []cdc.TableID {
	return slices.DeleteFunc(slices.Clone(tables), func(id cdc.TableID) bool { return p.allTables || p.tables[id] })
}

// owner is the comment by which we recognise what we made: the capture, and its slot.
func (d *driver) owner() string {
	prefix, suffix := d.ownerParts()
	return prefix + d.task + suffix
}

// ownerParts stand before and after the capture's name in the comment of any capture with this slot.
func (d *driver) ownerParts() (prefix, suffix string) {
	return "made by Sluice for the capture ", " with the slot " + d.slot
}

// createSQL makes the publication, of whole tables but for those with a list of columns.
func (d *driver) createSQL(tables []cdc.TableID, lists map[cdc.TableID][]string) string {
	options := "publish = 'insert, update, delete, truncate'"
	if d.server.major() >= 13 {
		options += ", publish_via_partition_root = true"
	}
	if d.server.major() >= 18 {
		options += ", publish_generated_columns = stored"
	}
	return "CREATE PUBLICATION " + quoteIdent(d.publication) + " FOR TABLE " + onlyTables(tables, lists) + " WITH (" + options + ")"
}

func (d *driver) addSQL(tables []cdc.TableID, lists map[cdc.TableID][]string) string {
	return "ALTER PUBLICATION " + quoteIdent(d.publication) + " ADD TABLE " + onlyTables(tables, lists)
}

func onlyTables(tables []cdc.TableID, lists map[cdc.TableID][]string) string {
	quoted := make([]string, len(tables))
	for i, id := range tables {
		quoted[i] = "ONLY " + quoteTable(id.Schema, id.Name)
		if list := lists[id]; list != nil {
			quoted[i] += " (" + quoteIdents(list) + ")"
		}
	}
	return strings.Join(quoted, ", ")
}

// publish makes sure that the publication exists and has the tables. It comes before the slot, because a slot cannot
// decode what was written before its publication existed (hard case 9). It returns the publication as it was.
func (d *driver) publish(ctx context.Context, wanted []*cdc.Table) (*publication, error) {
	var before *publication
	d.remember(wanted)
	tables := make([]cdc.TableID, len(wanted))
	for i, t := range wanted {
		tables[i] = t.ID
	}
	err := d.conns.with(ctx, func(conn *pgx.Conn) error {
		p, err := d.readPublication(ctx, conn)
		if err != nil {
			return err
		}
		before = p
		if err := d.mustSend(ctx, conn, p, tables); err != nil {
			return err
		}
		standby, err := d.recovering(ctx, conn)
		if err != nil {
			return err
		}
		if p.exists && p.comment == d.owner() && !standby {
			if err := d.relist(ctx, conn, tables); err != nil {
				return err
			}
		}
		missing := p.missing(tables)
		if len(missing) == 0 {
			return nil
		}
		// A table that was dropped since its capture began is the core's to notice; it cannot be published.
		found, err := d.readTables(ctx, conn, missing)
		if err != nil || len(found) == 0 {
			return err
		}
		missing = missing[:0]
		for _, t := range found {
			missing = append(missing, t.id)
		}
		lists := map[cdc.TableID][]string{}
		if !p.exists || p.comment == d.owner() {
			if lists, err = d.columnLists(ctx, conn, found); err != nil {
				return err
			}
		}
		if standby {
			return d.publishedElsewhere(p, missing, lists)
		}
		if !p.exists {
			return d.createPublication(ctx, conn, missing, lists)
		}
		return d.extendPublication(ctx, conn, p, missing, lists)
	})
	return before, err
}

func (d *driver) createPublication(ctx context.Context, conn *pgx.Conn, tables []cdc.TableID, lists map[cdc.TableID][]string) error {
	sql := d.createSQL(tables, lists)
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "COMMENT ON PUBLICATION "+quoteIdent(d.publication)+" IS "+quoteLiteral(d.owner()))
		return err
	})
	if err != nil {
		return d.publicationAdvice(err, sql, "created")
	}
	d.madePublication.Store(d.ephemeral)
	d.log.WithFields(logrus.Fields{"publication": d.publication, "tables": len(tables)}).Info("created publication")
	return nil
}

func (d *driver) extendPublication(ctx context.Context, conn *pgx.Conn, p *publication, missing []cdc.TableID, lists map[cdc.TableID][]string) error {
	sql := d.addSQL(missing, lists)
	if _, err := conn.Exec(ctx, sql); err != nil && sqlState(err) != stateDuplicateObject {
		return d.publicationAdvice(err, sql, "extended")
	}
	if d.server.forgetsPublications() {
		if err := d.remind(ctx, conn, missing, sql); err != nil {
			return err
		}
	}
	log := d.log.WithFields(logrus.Fields{"publication": d.publication, "tables": fmt.Sprint(missing)})
	if p.comment != d.owner() {
		log.Warn("added tables to a publication that was not made by this capture")
		return nil
	}
	log.Info("added tables to the publication")
	return nil
}

// remind has a server that forgets publications look at ours again, once the transactions that make it forget have ended:
// the tables are taken out and added once more, as add does, because Postgres 12 does not notice less. What it left out
// until then was committed before the tables are backfilled, so the backfill has it.
func (d *driver) remind(ctx context.Context, conn *pgx.Conn, tables []cdc.TableID, add string) error {
	found, err := d.readTables(ctx, conn, tables)
	if err != nil {
		return err
	}
	var oids []uint32
	for _, t := range found {
		oids = append(oids, t.oid)
	}
	s, err := d.takeSnapshot(ctx, conn)
	if err != nil {
		return err
	}
	writing, err := d.writers(ctx, conn, s, oids)
	if err != nil {
		return err
	}
	for waited := time.Duration(0); ; waited += remindPoll {
		s, err := d.takeSnapshot(ctx, conn)
		if err != nil {
			return err
		}
		if writing = slices.DeleteFunc(writing, s.sees); len(writing) == 0 {
			break
		}
		if waited%remindLog == 0 {
			d.log.WithField("publication", d.publication).Warn("waiting for a transaction that writes to a table which was just published: " + d.Explain(ctx, txnID(writing[0])))
		}
		if err := capture.Sleep(ctx, remindPoll); err != nil {
			return err
		}
	}
	if err := d.readd(ctx, conn, tables, add); err != nil {
		return fmt.Errorf("refreshing publication %q: %w", d.publication, err)
	}
	return nil
}

const (
	remindPoll = 100 * time.Millisecond
	remindLog  = 30 * time.Second
)

// publicationAdvice tells what an administrator can do who has the rights that we lack.
func (d *driver) publicationAdvice(err error, sql, what string) error {
	if sqlState(err) == stateNoPrivilege {
		return usererr.New(err, "The publication %q could not be %s: %s. Creating one needs the CREATE right on the database and the ownership of its tables. "+
			"Have an administrator run:\n%s;", d.publication, what, serverMessage(err), sql)
	}
	if sqlState(err) != "" {
		return usererr.New(err, "The publication %q could not be %s: %s. The statement was:\n%s;", d.publication, what, serverMessage(err), sql)
	}
	return fmt.Errorf("preparing publication %q: %w", d.publication, err)
}
