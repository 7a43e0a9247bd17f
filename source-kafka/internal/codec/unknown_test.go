package codec

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Records whose bytes look like the number of a schema cost a question to the registry each, at most: the first few are asked for
// again, since a server of it may be behind, and what it does not have is remembered for a while, up to a bound.
func TestManyUnknownSchemas(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	var asked atomic.Int64
	b.fake.Intercept(func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false })
	c := b.codec(t, Value, Auto)
	refused := func(id int) {
		t.Helper()
		_, _, err := c.Append(t.Context(), nil, &kgo.Record{Value: framed(id, 1)})
		var bad *BadMessage
		require.ErrorAs(t, err, &bad)
		require.Contains(t, bad.Reason, "does not have its schema")
	}
	const unknown = maxRefusals + 200
	begin := time.Now()
	for id := range unknown {
		refused(100_000 + id)
	}
	if time.Since(begin) < unknownFor { // else some were asked for anew
		require.EqualValues(t, patientMisses*4+unknown-patientMisses, asked.Load())
		before := asked.Load()
		refused(100_000 + unknown - 1)
		require.Equal(t, before, asked.Load(), "it is remembered")
	}
	require.Len(t, c.refused, maxRefusals)
}
