-- A small shop to play with: what `scripts/services up` puts into the database "source".
CREATE TABLE customers (
	id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name  text NOT NULL,
	since timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE orders (
	id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer_id bigint NOT NULL REFERENCES customers,
	placed      timestamptz NOT NULL DEFAULT now(),
	total       numeric(10, 2) NOT NULL,
	note        jsonb
);
CREATE TABLE order_lines (
	order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
	line     integer NOT NULL,
	sku      text NOT NULL,
	quantity integer NOT NULL,
	PRIMARY KEY (order_id, line)
);
INSERT INTO customers (name) SELECT 'Customer ' || n FROM generate_series(1, 100) n;
INSERT INTO orders (customer_id, total, note)
	SELECT 1 + n % 100, n * 1.25, jsonb_build_object('gift', n % 7 = 0) FROM generate_series(1, 1000) n;
INSERT INTO order_lines
	SELECT o, l, 'sku-' || (o * l) % 500, 1 + o % 3 FROM generate_series(1, 1000) o, generate_series(1, 2) l;
