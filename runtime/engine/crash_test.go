package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/retry"
)

// TestConnectorsCrashAtEveryStep kills each connector once at each place of the protocol, early and in full flow.
func TestConnectorsCrashAtEveryStep(t *testing.T) { onBoth(t, testConnectorsCrashAtEveryStep) }

func testConnectorsCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	places := map[string][]string{
		"capture": {"apply", "open", "captured", "checkpoint"},
		"atomic":  {"apply", "open", "acknowledge", "load", "flush", "loaded", "store", "startcommit", "committing", "committed", "startedcommit"},
		"staged":  {"apply", "open", "acknowledge", "load", "flush", "loaded", "store", "startcommit", "staged", "applied"},
	}
	for fake, list := range places {
		for _, place := range list {
			for _, at := range []int{0, 2} {
				if at > 0 && (place == "apply" || place == "open") || at == 0 && onKafka(t) && place != "apply" {
					continue
				}
				t.Run(fmt.Sprintf("%s at %s %d", fake, place, at), func(t *testing.T) {
					t.Parallel()
					sink, crash := fake, fakeConfig{Crash: place, CrashAt: at}
					source := fakeConfig{Total: 400, Batch: 5, Keys: 20, Paced: true}
					if onKafka(t) {
						source.Total = 150
					}
					if fake == "capture" {
						sink, source.Crash, source.CrashAt, crash = "atomic", place, at*10, fakeConfig{}
					}
					r := newRig(t, frame.Proto, source)
					r.options.MaxTransactionBytes = 2 << 10
					r.sink("one", sink, frame.Proto, crash)
					stop := r.start()
					r.wait("one")
					stop()
					r.same("one")
					where := "one"
					if fake == "capture" {
						where = "source"
					}
					require.FileExists(t, filepath.Join(r.dir, where, "crashed-"+place), "the crash happened")
				})
			}
		}
	}
}

// runtimeSpec is what a runtime in a process of its own is told.
type runtimeSpec struct {
	Pipeline *pipeline.Pipeline
	DataDir  string
}

func runRuntime() error {
	text, err := os.ReadFile(os.Getenv("RUNTIME"))
	if err != nil {
		return err
	}
	var spec runtimeSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return Run(ctx, Options{
		Pipeline: spec.Pipeline, DataDir: spec.DataDir, Logger: logrus.New(), MaxTransactionBytes: 2 << 10, MinFreeBytes: 1,
		Launcher: connector.Launcher{Environ: os.Environ()}, Backoff: retry.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond},
	})
}

// TestRuntimeIsKilled kills the runtime again and again, at random moments, and requires that in the end every document
// counted once, in a destination that commits with its checkpoint and in one that stages.
func TestRuntimeIsKilled(t *testing.T) { onBoth(t, testRuntimeIsKilled) }

func testRuntimeIsKilled(t *testing.T) {
	t.Parallel()
	for _, fake := range []string{"atomic", "staged"} {
		t.Run(fake, func(t *testing.T) {
			t.Parallel()
			total, most, least := 3000, 12, 100*time.Millisecond
			if onKafka(t) { // which takes a second to begin
				total, most, least = 600, 5, time.Second
			}
			r := newRig(t, frame.Proto, fakeConfig{Total: total, Batch: 3, Keys: 40, Paced: true})
			r.sink("one", fake, frame.Proto, fakeConfig{})
			spec, err := json.Marshal(runtimeSpec{r.p, filepath.Join(r.dir, "data")})
			require.NoError(t, err)
			file := filepath.Join(r.dir, "runtime.json")
			require.NoError(t, os.WriteFile(file, spec, 0o600))
			want := r.expect()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rnd := rand.New(rand.NewPCG(seed, 1))
			kills := 0
			for began := time.Now(); ; kills++ {
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), "FAKE=runtime", "RUNTIME="+file)
				cmd.Stderr = r.log
				r.log.reset()
				require.NoError(t, cmd.Start())
				pause := least + time.Duration(rnd.IntN(900))*time.Millisecond
				if kills >= most || time.Since(began) > 40*time.Second {
					r.wait("one")
					r.waitLog("applied the materialization") // signals are handled
					require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
					require.NoError(t, cmd.Wait(), "a clean stop\n%s", r.log)
					break
				}
				time.Sleep(pause) //nolint:forbidigo // the random moment
				require.NoError(t, cmd.Process.Kill())
				_ = cmd.Wait()
			}
			r.same("one")
			require.Positive(t, kills)
			rows, _ := r.rows("one")
			require.Len(t, rows, len(want.rows))
			require.NotContains(t, strings.ToLower(r.log.String()), "panic")
		})
	}
}
