package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	clerkCount = 3
	pause      = 4 * time.Millisecond // between two transactions of a clerk
)

// clerks work in the shop, each in a database session of their own, until they are stopped. What they do is decided by seeded
// random numbers.
type clerks struct {
	demo   *demo
	cancel context.CancelFunc
	group  *errgroup.Group

	giftCards, points atomic.Bool // columns that came later
	transactions      atomic.Int64
	rows              [deeds]atomic.Int64
}

// What clerks do to rows, for the count in the end.
type deed int

const (
	inserted deed = iota
	updated
	deleted
	rekeyed
	deeds
)

func (d *demo) startClerks(ctx context.Context) (*clerks, error) {
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	c := &clerks{demo: d, cancel: cancel, group: group}
	for n := range clerkCount {
		conn, err := pgx.Connect(ctx, d.pg.URL(shopDatabase))
		if err != nil {
			return nil, errors.Join(err, c.stop())
		}
		group.Go(func() error {
			defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
			return c.work(ctx, &clerk{
				clerks: c, number: n, conn: conn, random: rand.New(rand.NewPCG(1, uint64(n))), next: d.orders + n,
			})
		})
	}
	d.story.tell("%d clerks began to sell, change, renumber and cancel, without a pause", clerkCount)
	return c, nil
}

// stop lets every clerk finish the transaction at hand. It may be called twice.
func (c *clerks) stop() error {
	c.cancel()
	return c.group.Wait()
}

func (c *clerks) summary() string {
	count := func(d deed) string { return thousands(int(c.rows[d].Load())) }
	return fmt.Sprintf("%s transactions with %s rows inserted, %s updated, %s deleted, %s keys changed",
		thousands(int(c.transactions.Load())), count(inserted), count(updated), count(deleted), count(rekeyed))
}

// addGiftCards adds a column without a default while the table is captured.
func (c *clerks) addGiftCards(ctx context.Context) error {
	if _, err := c.demo.shop.Exec(ctx, "ALTER TABLE orders ADD COLUMN gift_card text"); err != nil {
		return err
	}
	c.giftCards.Store(true)
	c.demo.story.tell("ALTER TABLE orders ADD COLUMN gift_card text")
	return nil
}

// addPoints adds a column with a default: existing rows have it at once, and the log has not a word about them.
func (c *clerks) addPoints(ctx context.Context) error {
	if _, err := c.demo.shop.Exec(ctx, "ALTER TABLE customers ADD COLUMN points integer NOT NULL DEFAULT 100"); err != nil {
		return err
	}
	c.points.Store(true)
	c.demo.story.tell("ALTER TABLE customers ADD COLUMN points integer NOT NULL DEFAULT 100")
	return nil
}

// clerk is one of them. Orders and customers belong to the clerk whose number their id has, so that clerks do not wait for each
// other.
type clerk struct {
	*clerks
	number int
	conn   *pgx.Conn
	random *rand.Rand
	next   int // the last order's number
}

func (c *clerks) work(ctx context.Context, me *clerk) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// The transaction at hand is finished even when the shop closes.
		err := pgx.BeginFunc(context.WithoutCancel(ctx), me.conn, func(tx pgx.Tx) error {
			return me.transaction(context.WithoutCancel(ctx), tx)
		})
		if err != nil {
			return fmt.Errorf("working in the shop: %w", err)
		}
		c.transactions.Add(1)
	}
}

// transaction does one thing that happens in shops.
func (c *clerk) transaction(ctx context.Context, tx pgx.Tx) error {
	switch n := c.random.IntN(100); {
	case n < 30:
		return c.sell(ctx, tx)
	case n < 55: // the note stays as it is, and if it is a long one, the log has no word about it
		return c.do(ctx, tx, updated, "UPDATE orders SET status = 'shipped', total = total + 0.01, rating = rating / 3 WHERE id = $1", c.order())
	case n < 65:
		return c.do(ctx, tx, updated, "UPDATE orders SET note = $2, details = details || '{\"noted\": true}' WHERE id = $1", c.order(), c.note())
	case n < 75:
		return c.cancelOrder(ctx, tx, c.order())
	case n < 82: // a change of the primary key
		return c.do(ctx, tx, rekeyed, "UPDATE order_lines SET line = line + 10 WHERE order_id = $1 AND line < 10", c.order())
	case n < 92:
		return c.customer(ctx, tx)
	}
	if !c.giftCards.Load() {
		return c.do(ctx, tx, updated, "UPDATE order_lines SET options = NULL, price = round(price * 1.1, 4) WHERE order_id = $1", c.order())
	}
	return c.do(ctx, tx, updated, "UPDATE orders SET gift_card = 'Best wishes, № ' || id WHERE id = $1", c.order())
}

func (c *clerk) sell(ctx context.Context, tx pgx.Tx) error {
	c.next += clerkCount
	id := c.next
	err := c.do(ctx, tx, inserted, `INSERT INTO orders (id, reference, customer_id, status, total, note, details, placed_at, due)
		VALUES ($1, $2::text::uuid, $3, 'placed', $4::text::numeric, $5, '{"channel": "phone"}', now(), '2030-01-31 23:59:59.5')`,
		id, fmt.Sprintf("%032x", id), c.customerID(), fmt.Sprintf("%d.%02d", c.random.IntN(1000), c.random.IntN(100)), c.note())
	if err != nil {
		return err
	}
	return c.do(ctx, tx, inserted, `INSERT INTO order_lines SELECT $1::bigint, n, 'new product ' || n, n, n * 1.5, NULL FROM generate_series(1, $2::int) AS n`, id, 1+c.random.IntN(4))
}

func (c *clerk) cancelOrder(ctx context.Context, tx pgx.Tx, id int) error {
	if err := c.do(ctx, tx, deleted, "DELETE FROM order_lines WHERE order_id = $1", id); err != nil {
		return err
	}
	return c.do(ctx, tx, deleted, "DELETE FROM orders WHERE id = $1", id)
}

func (c *clerk) customer(ctx context.Context, tx pgx.Tx) error {
	id := c.customerID()
	if c.points.Load() && c.random.IntN(2) == 0 {
		return c.do(ctx, tx, updated, "UPDATE customers SET points = points + 10 WHERE id = $1", id)
	}
	return c.do(ctx, tx, updated, "UPDATE customers SET tier = 'gold', tags = tags || 'regular'::text, settings = settings || jsonb_build_object('last', now()) WHERE id = $1", id)
}

// order picks an order of this clerk, old or new; it may be gone.
func (c *clerk) order() int {
	return (1+c.random.IntN(c.next/clerkCount))*clerkCount + c.number
}

func (c *clerk) customerID() int {
	return c.random.IntN(c.demo.orders/10/clerkCount)*clerkCount + c.number
}

// note is short, or now and then longer than what Postgres keeps in the row.
func (c *clerk) note() string {
	if c.random.IntN(4) > 0 {
		return "ring twice"
	}
	return strings.Repeat(fmt.Sprintf("a long story, part %d; ", c.random.IntN(1000)), 150+c.random.IntN(150))
}

func (c *clerk) do(ctx context.Context, tx pgx.Tx, what deed, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	c.rows[what].Add(tag.RowsAffected())
	return err
}
