package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// A disk that refuses to take more of the log ends sluice with one clear line. Once there is room everything goes on, and
// nothing is lost or twice. (A limit of the size of a file stands for the disk: to a writer they are the same.)
func TestDiskRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, items, "INSERT INTO items SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 60000) AS i")
	w.discover(t)
	w.materialize(t, "e2e/after", nil, nil)
	require.NoError(t, w.catalog.Write(w.pipeline()))
	const blocks = "8000" // of 512 bytes
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -f `+blocks+`; exec "$0" "$@"`,
		w.bins.Sluice(), "run", w.pipeline(), "--data", w.data(), "--stop-after", "60s")
	var log bytes.Buffer
	cmd.Stderr = &log
	require.Error(t, cmd.Run(), "sluice goes on: %s", log.Bytes())
	require.Regexp(t, `The log in the data folder cannot be written, so everything stops: .*file too large.* Make room on its disk.* start again: what was committed is safe\.`, log.String())
	require.NotContains(t, log.String(), "goroutine ")

	w.restart(t, launch.Options{})
	w.same(t, softly(pairOf("items")))
	require.NoError(t, w.sluice.Stop())
}

// A connector that breaks the protocol is named, with what it did; sluice starts it again and again, and stops cleanly.
func TestBrokenFrames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script, want string }{
		{"text instead of frames", `echo 'hello, this is no frame at all'`, `is text and not a frame: it begins`},
		{"a frame cut off", `printf '\020\000\000\000abc'`, `ended|cut off|unexpected EOF`},
		{"a frame of two GiB", `printf '\377\377\377\177'; sleep 100`, `claims 2147483647 bytes, the limit is`},
		{"nothing", `exit 3`, `ended with exit code 3, and logged no reason`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, items)
			w.discover(t)
			program := filepath.Join(w.folder, "broken-connector")
			require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nread -r first\n"+test.script+"\n"), 0o700))
			capture, err := w.catalog.Capture()
			require.NoError(t, err)
			capture.Endpoint.Local.Command = []string{program}
			w.start(t)
			w.complains(t, test.want)
			w.complains(t, "broken-connector")
			require.NotContains(t, w.log(), "goroutine ")
			require.NoError(t, w.sluice.Stop())
		})
	}
}
