package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/compare"
)

// The shop, the clerks and the verdict work without a pipeline: here the copy is made by the server itself.
func TestShopClerksAndVerdict(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a Postgres server; run without -short")
	}
	ctx := t.Context()
	d := &demo{orders: 3000, story: newStory(tempFile(t)), folder: t.TempDir()}
	require.NoError(t, d.startServer(ctx))
	t.Cleanup(func() { require.NoError(t, d.pg.Close()) })
	require.NoError(t, d.openShop(ctx))
	sales, err := d.startClerks(ctx)
	require.NoError(t, err)
	all := func() bool {
		for what := range sales.rows {
			if sales.rows[what].Load() < 100 {
				return false
			}
		}
		return true
	}
	require.NoError(t, sales.addGiftCards(ctx))
	require.Eventually(t, all, 30*time.Second, 20*time.Millisecond, "clerks do everything that they can do")
	require.NoError(t, sales.addPoints(ctx))
	require.Eventually(t, func() bool { return d.ask(t, "SELECT count(*) FROM customers WHERE points > 100") > 0 }, 30*time.Second, 20*time.Millisecond)
	require.NoError(t, sales.stop())
	require.Positive(t, d.ask(t, "SELECT count(*) FROM orders WHERE gift_card IS NOT NULL"))
	require.Positive(t, d.ask(t, "SELECT count(*) FROM orders WHERE pg_column_size(note) > 2000"), "some notes are out of line")

	_, err = d.compare(ctx)
	require.ErrorIs(t, err, compare.ErrShape, "there is no copy yet")
	require.NoError(t, d.shop.Close(ctx))
	require.NoError(t, d.copied.Close(ctx))
	_, err = d.pg.Exec(ctx, "postgres", "DROP DATABASE "+copyDatabase, "CREATE DATABASE "+copyDatabase+" TEMPLATE "+shopDatabase)
	require.NoError(t, err)
	d.reconnect(ctx, t)
	require.NoError(t, d.verdict(ctx, sales))
	_, err = d.copied.Exec(ctx, "UPDATE order_lines SET price = price + 1 WHERE order_id = 77 AND line = 1")
	require.NoError(t, err)
	require.ErrorContains(t, d.verdict(ctx, sales), "1 rows of the copy differ from the shop")
	require.Contains(t, told(t, d), `order_id "77", line "1" differs: price is`)
}

func (d *demo) reconnect(ctx context.Context, t *testing.T) {
	t.Helper()
	var err, err2 error
	d.shop, err = pgx.Connect(ctx, d.pg.URL(shopDatabase))
	d.copied, err2 = pgx.Connect(ctx, d.pg.URL(copyDatabase))
	require.NoError(t, errors.Join(err, err2))
}

func (d *demo) ask(t *testing.T, sql string) int {
	t.Helper()
	var n int
	require.NoError(t, d.shop.QueryRow(t.Context(), sql).Scan(&n))
	return n
}

func tempFile(t *testing.T) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "told"))
	require.NoError(t, err)
	return file
}

func told(t *testing.T, d *demo) string {
	t.Helper()
	text, err := os.ReadFile(d.story.out.Name())
	require.NoError(t, err)
	return string(text)
}

// While the live table has the terminal, the story waits.
func TestStoryWaits(t *testing.T) {
	t.Parallel()
	d := &demo{story: newStory(tempFile(t))}
	require.False(t, d.story.terminal)
	d.story.tell("one")
	d.story.pause()
	d.story.tell("two")
	require.Regexp(t, `^ +\d+\.\d s  one\n$`, told(t, d))
	d.story.resume()
	require.Regexp(t, `(?s)one\n\nMeanwhile:\n +\d+\.\d s  two\n$`, told(t, d))
}

func TestThousands(t *testing.T) {
	t.Parallel()
	require.Equal(t, "0 999 1,000 1,234,567", thousands(0)+" "+thousands(999)+" "+thousands(1000)+" "+thousands(1234567))
}

// A stranger who runs the program before `make build` is told what to do.
func TestMissingBinaries(t *testing.T) {
	t.Parallel()
	d := &demo{bins: "nowhere", story: newStory(tempFile(t))}
	require.EqualError(t, d.run(t.Context()), "nowhere has no sluice, source-postgres, materialize-postgres, materialize-s3-parquet: run `make build` first")
}
