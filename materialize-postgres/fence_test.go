package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// claimer is a session in a test that only takes over and commits.
type claimer struct {
	*fence
	from, to uint32 // in sixteenths of the key space
}

func sixteenths(from, to uint32) materialize.KeyRange {
	return materialize.KeyRange{Begin: from << 28, End: to<<28 + 1<<28 - 1}
}

// Sessions with random ranges come and go: splits, merges, shifts, gaps. Every sixteenth of the key space has a position of
// its own in the model. A session may begin if its range is at one position, goes on from there, and can commit until somebody
// takes any of it.
func TestRangesAreNeverSharedOrLost(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	newTask(t, db, db.config(nil)).MustApply()
	c := db.connect(t)
	defer c.close()
	for seed := range uint64(15) {
		random := rand.New(rand.NewPCG(seed, 7))
		env := materialize.Env{Task: fmt.Sprintf("acme/ranges_%d", seed)}
		cfg := config{}
		var positions [16]string
		var owners [16]*claimer
		var sessions []*claimer
		refused, joined := 0, 0
		for step := range 60 {
			if len(sessions) > 0 && random.IntN(3) > 0 {
				s := sessions[random.IntN(len(sessions))]
				alive := true
				for i := s.from; i <= s.to; i++ {
					alive = alive && owners[i] == s
				}
				// Few positions, so that instances that were split are often at the same one.
				at := fmt.Sprint(step / 20)
				err := s.update(t.Context(), materialize.Checkpoint(at))
				if !alive {
					require.ErrorContains(t, err, "Another instance took over", "seed %d, step %d", seed, step)
					continue
				}
				require.NoError(t, err, "seed %d, step %d", seed, step)
				for i := s.from; i <= s.to; i++ {
					positions[i] = at
				}
				continue
			}
			from := random.Uint32N(16)
			s := &claimer{from: from, to: from + random.Uint32N(16-from)}
			env.Range = sixteenths(s.from, s.to)
			s.fence = newFence(c, cfg, env)
			one, owned := true, map[*claimer]bool{}
			for i := s.from; i <= s.to; i++ {
				one = one && positions[i] == positions[s.from]
				owned[owners[i]] = true
			}
			cp, err := s.acquire(t.Context())
			if !one {
				require.ErrorContains(t, err, "was split into several instances before, which stopped at different positions")
				refused++
				continue
			}
			require.NoError(t, err, "seed %d, step %d", seed, step)
			require.Equal(t, positions[s.from], string(cp), "seed %d, step %d", seed, step)
			if len(owned) > 1 && len(cp) > 0 {
				joined++
			}
			for i := s.from; i <= s.to; i++ {
				owners[i] = s
			}
			sessions = append(sessions, s)
		}
		require.Positive(t, refused+joined)
	}
	require.Equal(t, "0", db.exec(t, `SELECT count(*) FROM sluice_checkpoints_v1 a JOIN sluice_checkpoints_v1 b
		ON a.materialization = b.materialization AND a.key_begin < b.key_begin AND a.key_end >= b.key_begin`), "rows that overlap")
}

// Instances that all begin at once, again and again, each counting on from the position that it found: none commits what another
// one does not know of. (Who is ended just after its commit does not learn that it was made.)
func TestInstancesThatBeginAtOnce(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	newTask(t, db, db.config(nil)).MustApply()
	var cfg config
	require.NoError(t, json.Unmarshal(db.config(nil), &cfg))
	env := materialize.Env{Task: "acme/crowd", Range: materialize.FullRange()}
	var made, unsure, lockedOut atomic.Int64
	instance := func() error {
		c, err := connect(t.Context(), cfg, "test")
		if err != nil {
			return err
		}
		defer c.close()
		f := newFence(c, cfg, env)
		cp, err := f.acquire(t.Context())
		switch {
		case err != nil && c.pg.IsClosed():
			return nil // ended while it was beginning
		case err != nil:
			return err
		}
		count, _ := strconv.ParseInt(string(cp), 10, 64)
		for range 5 {
			count++
			err := f.update(t.Context(), materialize.Checkpoint(strconv.FormatInt(count, 10)))
			switch {
			case err == nil:
				made.Add(1)
				continue
			case c.pg.IsClosed():
				unsure.Add(1)
			default:
				lockedOut.Add(1)
			}
			return nil
		}
		return nil
	}
	var group sync.WaitGroup
	errs := make(chan error, 8)
	for range cap(errs) {
		group.Go(func() {
			for range 12 {
				if err := instance(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	require.NoError(t, <-errs)
	require.Positive(t, unsure.Load()+lockedOut.Load(), "none was in another one's way")
	count, err := strconv.ParseInt(db.exec(t, "SELECT convert_from(checkpoint, 'UTF8') FROM sluice_checkpoints_v1 WHERE materialization = 'acme/crowd'"), 10, 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, count, made.Load(), "a commit was lost")
	require.LessOrEqual(t, count, made.Load()+unsure.Load(), "a commit was counted twice")
}

// Two instances in every order of their steps. The older one holds rows of the same keys while the newer one stores them: it must
// not have to wait for that.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	c := newDatabase(t).sinkCase()
	c.Start = startHere
	sinktest.Interleavings(t, c, frame.Proto)
}

// Who takes over ends the older session in the server, also one that hangs in the middle of its commit, with the checkpoint's lock; any
// user may do that with sessions of his own.
func TestHungSessionIsEnded(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	role := db.name + "_writer"
	db.exec(t, "CREATE ROLE "+role+" LOGIN PASSWORD 'secret'", "GRANT ALL ON SCHEMA public TO "+role, "GRANT TEMPORARY ON DATABASE "+db.name+" TO "+role)
	t.Cleanup(func() { db.exec(t, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	raw := db.config(func(c map[string]any) { c["user"] = role })
	newTask(t, db, raw).MustApply()
	var cfg config
	require.NoError(t, json.Unmarshal(raw, &cfg))
	open := func() *fence {
		c, err := connect(t.Context(), cfg, "test")
		require.NoError(t, err)
		t.Cleanup(c.close)
		return newFence(c, cfg, materialize.Env{Task: "acme/hung", Range: materialize.FullRange()})
	}
	older, newer := open(), open()
	_, err := older.acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, older.c.exec(t.Context(), "BEGIN"))
	require.NoError(t, older.update(t.Context(), materialize.Checkpoint("not committed")))

	cp, err := newer.acquire(t.Context())
	require.NoError(t, err)
	require.Empty(t, cp)
	err = older.c.exec(t.Context(), "COMMIT")
	require.ErrorContains(t, older.why(t.Context(), cfg, err), "Another instance took over")
	require.NoError(t, newer.update(t.Context(), materialize.Checkpoint("next")))
}
