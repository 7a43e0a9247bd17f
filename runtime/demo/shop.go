package main

import (
	"context"
	"fmt"
	"strings"
)

// schema is the shop, with the types that make a difference on the way: exact numbers, instants, identifiers, documents,
// enumerations, arrays, and notes so long that Postgres keeps them out of the row (TOAST), where an UPDATE of another column
// does not put them into the log.
const schema = `
	CREATE TYPE tier AS ENUM ('bronze', 'silver', 'gold');
	CREATE TYPE status AS ENUM ('placed', 'paid', 'shipped', 'returned');
	CREATE TABLE customers (
		id         bigint PRIMARY KEY,
		email      text NOT NULL,
		born       date,
		tier       tier NOT NULL,
		tags       text[] NOT NULL,
		settings   jsonb NOT NULL,
		photo      bytea,
		registered timestamptz NOT NULL
	);
	CREATE TABLE orders (
		id          bigint PRIMARY KEY,
		reference   uuid NOT NULL,
		customer_id bigint NOT NULL,
		status      status NOT NULL,
		total       numeric(12, 2) NOT NULL,
		rating      real,
		note        text,
		details     jsonb NOT NULL,
		placed_at   timestamptz NOT NULL,
		due         timestamp
	);
	ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
	CREATE TABLE order_lines (
		order_id bigint,
		line     integer,
		product  text NOT NULL,
		quantity smallint NOT NULL,
		price    numeric NOT NULL,
		options  integer[],
		PRIMARY KEY (order_id, line)
	)`

// tables are what the demo compares in the end.
func tables() []string { return []string{"customers", "orders", "order_lines"} }

// Rows are made from their number, so that every run has the same shop. The parameter is the number of orders.
const (
	fillCustomers = `INSERT INTO customers
		SELECT i, 'customer' || i || '@example.com', date '1950-01-01' + (i * 37 % 20000)::int, (enum_range(NULL::tier))[1 + i % 3],
			CASE WHEN i % 5 = 0 THEN '{}' ELSE ARRAY['group ' || i % 7, 'a "quoted", tag'] END,
			jsonb_build_object('newsletter', i % 2 = 0, 'limits', jsonb_build_array(i, i / 4.0)), CASE WHEN i % 10 = 0 THEN decode(md5(i::text), 'hex') END,
			timestamptz '2020-01-01 00:00:00+00' + i * interval '1 hour 0.000123 seconds'
		FROM generate_series(1, $1::int / 10) AS i`
	fillOrders = `INSERT INTO orders
		SELECT i, md5('order ' || i)::uuid, 1 + i * 7 % ($1::int / 10), (enum_range(NULL::status))[1 + i % 4], (i % 100000) / 100.0 + 5,
			CASE WHEN i % 3 > 0 THEN 1 + i % 5 END, CASE WHEN i % 50 = 0 THEN (SELECT string_agg(md5(i::text || n), ' ') FROM generate_series(1, 120) AS n) WHEN i % 5 = 0 THEN 'leave at the door ' || i END,
			jsonb_build_object('channel', CASE WHEN i % 2 = 0 THEN 'web' ELSE 'shop' END, 'steps', jsonb_build_array('cart', i)),
			timestamptz '2024-01-01 00:00:00+00' + i * interval '61.000001 seconds', timestamp '2024-02-01 08:00' + i * interval '1 minute'
		FROM generate_series(1, $1::int) AS i`
	fillLines = `INSERT INTO order_lines
		SELECT i, n, 'product ' || (i * n) % 997, 1 + (i + n) % 9, ((i * 31 + n) % 10000) / 100.0, CASE WHEN n = 2 THEN ARRAY[i, n]::integer[] END
		FROM generate_series(1, $1::int) AS i, generate_series(1, 1 + i % 4) AS n`
)

// openShop creates the tables and fills them.
func (d *demo) openShop(ctx context.Context) error {
	if _, err := d.shop.Exec(ctx, schema); err != nil {
		return fmt.Errorf("creating the shop: %w", err)
	}
	var counts []string
	for i, fill := range []string{fillCustomers, fillOrders, fillLines} {
		tag, err := d.shop.Exec(ctx, fill, d.orders)
		if err != nil {
			return fmt.Errorf("filling %s: %w", tables()[i], err)
		}
		counts = append(counts, fmt.Sprintf("%s %s", thousands(int(tag.RowsAffected())), strings.ReplaceAll(tables()[i], "_", " ")))
	}
	if _, err := d.shop.Exec(ctx, "ANALYZE"); err != nil {
		return fmt.Errorf("analysing the shop: %w", err)
	}
	d.story.tell("filled a shop: %s", strings.Join(counts, ", "))
	return nil
}
