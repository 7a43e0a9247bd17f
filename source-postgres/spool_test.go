package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

func openSpool(t testing.TB, memory int) *spool {
	t.Helper()
	s, err := newSpool(os.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.close() })
	s.limit = memory
	return s
}

// memory is what a spool holds, counted anew.
func (s *spool) memory() (n int) {
	for t := range s.holders {
		for _, b := range t.memory {
			n += cap(b)
		}
	}
	return n
}

// disk is how much of the disk a spool's file takes.
func (s *spool) disk(t testing.TB) int64 {
	t.Helper()
	info, err := s.file.Stat()
	require.NoError(t, err)
	st, ok := info.Sys().(*syscall.Stat_t)
	require.True(t, ok)
	return st.Blocks * 512
}

// What was kept of many transactions at once comes back as it was, whatever was dropped meanwhile; memory stays within its
// limit, one file is open, and all space is given back.
func TestSpool(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		limit := 1 << (16 + rnd.IntN(6))
		s := openSpool(t, limit)
		want := map[*spooled]*bytes.Buffer{}
		var kept int64
		for range 200 {
			switch rnd.IntN(8) {
			case 0:
				if len(want) < 50 {
					want[&spooled{}] = &bytes.Buffer{}
				}
			case 1:
				for x, w := range want {
					got, err := io.ReadAll(s.read(x))
					require.NoError(t, err)
					require.True(t, bytes.Equal(w.Bytes(), got), "seed %d", seed)
					kept -= x.size
					s.drop(x)
					delete(want, x)
					break
				}
			default:
				for x, w := range want {
					p := bytes.Repeat([]byte{byte(rnd.IntN(256))}, rnd.IntN(1<<(1+rnd.IntN(20))))
					kept += int64(len(p))
					require.NoError(t, s.append(x, p))
					w.Write(p)
					break
				}
			}
			require.Equal(t, kept, s.kept.Load())
			require.Equal(t, s.held, s.memory())
			require.LessOrEqual(t, s.held, limit+spoolPage)
			require.LessOrEqual(t, len(s.spare)*spoolPage, limit)
		}
		for x, w := range want {
			got, err := io.ReadAll(s.read(x))
			require.NoError(t, err)
			require.True(t, bytes.Equal(w.Bytes(), got), "seed %d", seed)
			s.drop(x)
		}
		require.Zero(t, s.kept.Load())
		require.Zero(t, s.held)
		require.Zero(t, s.disk(t))
	}
}

// Thousands of small transactions share what there is: none has a file of its own, and none keeps the others from it.
func TestSpoolOfManyTransactions(t *testing.T) {
	t.Parallel()
	s := openSpool(t, 1<<20)
	txns := make([]spooled, 20_000)
	for round := range 3 {
		for i := range txns {
			require.NoError(t, s.append(&txns[i], []byte{byte(round), byte(i), byte(i >> 8)}))
		}
	}
	require.LessOrEqual(t, s.memory(), 1<<20+spoolPage)
	for i := range txns {
		got, err := io.ReadAll(s.read(&txns[i]))
		require.NoError(t, err)
		require.Equal(t, []byte{0, byte(i), byte(i >> 8), 1, byte(i), byte(i >> 8), 2, byte(i), byte(i >> 8)}, got)
		s.drop(&txns[i])
	}
	require.Zero(t, s.disk(t))
}

// A large transaction gives its space back when it ends, also while another one goes on.
func TestSpoolGivesSpaceBack(t *testing.T) {
	t.Parallel()
	s := openSpool(t, 1<<20)
	var before, large, other spooled
	page := bytes.Repeat([]byte("0123456789abcdef"), spoolPage/16)
	require.NoError(t, s.append(&before, page[:1000]))
	for range 64 {
		require.NoError(t, s.append(&large, page))
	}
	require.NoError(t, s.append(&other, page))
	require.NoError(t, s.flush())
	require.Greater(t, s.disk(t), int64(64*spoolPage))
	s.drop(&large)
	if punches(t) {
		require.Less(t, s.disk(t), int64(4*spoolPage))
	}
	got, err := io.ReadAll(s.read(&other))
	require.NoError(t, err)
	require.True(t, bytes.Equal(page, got))
	s.drop(&other)
	s.drop(&before)
	require.Zero(t, s.disk(t))
	require.NoError(t, s.append(&large, page))
}

// punches reports whether the file system can give back a part of a file.
func punches(t testing.TB) bool {
	t.Helper()
	s := openSpool(t, 0)
	_, err := s.file.WriteAt(make([]byte, 1<<20), 0)
	require.NoError(t, err)
	punchHole(s.file, 0, 1<<20)
	return s.disk(t) == 0
}

// A disk that gives back something else than was written to it is noticed.
func TestSpoolIsDamaged(t *testing.T) {
	t.Parallel()
	s := openSpool(t, 1<<20)
	var x spooled
	require.NoError(t, s.append(&x, []byte("what is kept")))
	require.NoError(t, s.flush())
	_, err := s.file.WriteAt([]byte("W"), int64(x.disk[0].at)*spoolPage)
	require.NoError(t, err)
	_, err = io.ReadAll(s.read(&x))
	require.ErrorIs(t, err, errDamaged)
}

// What the user is told of a disk that is full. A process may write no more than its limit of file sizes, here two megabytes.
func TestSpoolWithoutRoom(t *testing.T) {
	if os.Getenv("SLUICE_TEST_SPOOL") != "" {
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 2 << 20, Max: 2 << 20}))
		s := openSpool(t, 1<<20)
		var x spooled
		var err error
		for err == nil {
			err = s.append(&x, make([]byte, 1000))
		}
		_, _ = os.Stdout.WriteString("said: " + usererr.Message(err) + "\n")
		return
	}
	t.Parallel()
	folder := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSpoolWithoutRoom$")
	cmd.Env = append(os.Environ(), "SLUICE_TEST_SPOOL=1", "TMPDIR="+folder)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	_, said, _ := strings.Cut(string(out), "said: ")
	said, _, _ = strings.Cut(said, "\n")
	require.Equal(t, "There is no room for transactions that are still open on the server: so far they need 4 MiB in the folder for temporary files, "+folder+", and that cannot be written (file too large). "+
		"Make room there, have the environment variable TMPDIR name a folder on a larger disk, or set advanced.streamTransactions to off, so that the server keeps transactions on its own disk until they commit.", said)
	left, err := filepath.Glob(filepath.Join(folder, "*"))
	require.NoError(t, err)
	require.Empty(t, left, "the file has no name")
}
