package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/endpoint"
)

// unclosable is a driver whose connection is lost when it is closed.
type unclosable struct{ Driver }

func (unclosable) Close() error { return net.ErrClosed }

// A session that cannot be opened is not taken for one that has lost its connection because of what closing says.
func TestOpenThatCannotBeClosed(t *testing.T) {
	t.Parallel()
	s := New(capture.Spec{}, func(context.Context, capture.Env, noConfig) (Driver, Options, error) {
		return unclosable{}, Options{Disconnected: endpoint.Lost}, nil
	})
	env := capture.Env{Range: capture.KeyRange{End: 1<<32 - 1}, Shared: json.RawMessage("1")}
	_, err := s.Open(t.Context(), env, noConfig{}, nil)
	require.ErrorContains(t, err, "The stored position of this capture cannot be read")
	require.ErrorIs(t, err, net.ErrClosed)
	require.NotErrorIs(t, err, capture.ErrDisconnected)
}

// The end of a session that catches up is no lost connection, which would be opened again for ever; that of a connection is one.
func TestEndIsNoLoss(t *testing.T) {
	t.Parallel()
	o := Options{Disconnected: endpoint.Lost}
	require.Equal(t, io.EOF, o.disconnected(io.EOF))
	require.ErrorIs(t, o.disconnected(fmt.Errorf("reading the log: %w", io.EOF)), capture.ErrDisconnected)
}
