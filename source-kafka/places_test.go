package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Where the position's epoch ends tells that a log was cut. Leaders change just then: what they answer meanwhile must be asked
// again, and never be taken for a log that was not cut.
func TestEpochEnd(t *testing.T) {
	t.Parallel()
	was := &position{Topic: "id", Next: 50, Epoch: 3}
	for _, c := range []struct {
		name  string
		give  kadm.OffsetForLeaderEpoch
		again bool
		next  int64
		lost  bool
	}{
		{"not asked", kadm.OffsetForLeaderEpoch{}, false, 50, false},
		{"not cut", kadm.OffsetForLeaderEpoch{Topic: "t", EndOffset: 60}, false, 50, false},
		{"cut", kadm.OffsetForLeaderEpoch{Topic: "t", EndOffset: 40}, false, 40, true},
		{"of an epoch that is not known", kadm.OffsetForLeaderEpoch{Topic: "t", EndOffset: -1}, false, 50, false},
		{"no longer the leader", kadm.OffsetForLeaderEpoch{Topic: "t", EndOffset: -1, Err: kerr.NotLeaderForPartition}, true, 0, false},
		{"a request that is not known", kadm.OffsetForLeaderEpoch{Topic: "t", EndOffset: -1, Err: kerr.UnsupportedVersion}, false, 50, false},
	} {
		b := bounds{start: 10, end: 70, begin: 10, epochEnd: -1}
		err := b.setEpochEnd(c.give)
		require.Equal(t, c.again, errors.Is(err, errNoLeader), c.name)
		if c.again {
			continue
		}
		require.NoError(t, err, c.name)
		p := placeOf("t", 0, "id", was, true, b)
		require.Equal(t, c.next, p.Next, c.name)
		require.Equal(t, c.lost, p.loss != nil, c.name)
	}
	for err, want := range map[error]bool{
		&net.OpError{Op: "read", Err: errors.New("reset")}: true, context.DeadlineExceeded: true, context.Canceled: true,
		errors.New("broker is too old"): false, error(kerr.UnsupportedVersion): false,
	} {
		require.Equal(t, want, unanswered(fmt.Errorf("asking: %w", err)), "%v", err)
	}
	require.True(t, unanswered(&kadm.ShardErrors{Errs: []kadm.ShardError{{Err: context.DeadlineExceeded}}}))
	require.False(t, unanswered(nil))
}
