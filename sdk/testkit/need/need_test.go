package need_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
)

// listener is a test of which it is known how it ended.
type listener struct {
	testing.TB
	end string
}

func (*listener) Helper() {}

func (l *listener) Skipf(format string, args ...any) {
	l.end = "skipped: " + fmt.Sprintf(format, args...)
}

func (l *listener) Fatalf(format string, args ...any) {
	l.end = "failed: " + fmt.Sprintf(format, args...)
	panic(l)
}

func TestMissing(t *testing.T) {
	for value, want := range map[string]string{
		"":  "skipped: kcat is not here; scripts/services install kafka",
		"0": "skipped: kcat is not here; scripts/services install kafka",
		"1": "failed: kcat is not here; scripts/services install kafka (SLUICE_REQUIRE=1: nothing may be missing)",
	} {
		t.Setenv(need.Require, value)
		l := &listener{TB: t}
		func() {
			defer func() { _ = recover() }() // Fatalf does not return
			need.Missing(l, "%s is not here; scripts/services install %s", "kcat", "kafka")
		}()
		require.Equal(t, want, l.end)
	}
}
