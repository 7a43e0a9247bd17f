package usererr_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	cause := fmt.Errorf("reading slot %q: %w", "s", io.ErrUnexpectedEOF)
	err := fmt.Errorf("opening: %w", usererr.New(cause, "The slot %s is gone. Backfill.", "s"))
	require.Equal(t, "The slot s is gone. Backfill.", usererr.Message(err))
	require.EqualError(t, err, `opening: The slot s is gone. Backfill.: reading slot "s": unexpected EOF`)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)

	require.Equal(t, "plain", usererr.Message(errors.New("plain")))
	require.Empty(t, usererr.Message(nil))
	require.EqualError(t, usererr.New(nil, "Alone."), "Alone.")
	require.Equal(t, "outer", usererr.Message(usererr.New(usererr.New(nil, "inner"), "outer")))
}

func TestJoin(t *testing.T) {
	t.Parallel()
	one := usererr.New(io.EOF, "One is wrong.")
	two := fmt.Errorf("checking: %w", usererr.New(nil, "Two is wrong:\nin two ways."))
	three := errors.New("three")
	require.NoError(t, usererr.Join("Nothing:", nil))
	require.NoError(t, usererr.Join("Nothing:", []error{nil, nil}))
	require.Equal(t, one, usererr.Join("One problem:", []error{nil, one}))

	all := usererr.Join("There are problems:", []error{one, nil, two, three})
	require.Equal(t, "There are problems:\n1. One is wrong.\n2. Two is wrong:\n   in two ways.\n3. three", usererr.Message(all))
	require.EqualError(t, all, "There are problems:\n1. One is wrong.: EOF\n2. checking: Two is wrong:\n   in two ways.\n3. three")
	require.ErrorIs(t, all, io.EOF)
	require.ErrorIs(t, all, three)

	// A list without an intro becomes part of the list around it; one with an intro is one point of it.
	bare := usererr.Join("", []error{one, three})
	require.Equal(t, "1. One is wrong.\n2. three", usererr.Message(bare))
	require.Equal(t, "All:\n1. One is wrong.\n2. three\n3. three", usererr.Message(usererr.Join("All:", []error{bare, three})))
	named := usererr.Join("Inside:", []error{one, three})
	require.Equal(t, "All:\n1. Inside:\n   1. One is wrong.\n   2. three\n2. three", usererr.Message(usererr.Join("All:", []error{named, three})))
}

func TestHas(t *testing.T) {
	t.Parallel()
	require.False(t, usererr.Has(nil))
	require.False(t, usererr.Has(errors.New("x")))
	require.True(t, usererr.Has(fmt.Errorf("a: %w", usererr.New(nil, "x"))))
	require.True(t, usererr.Has(usererr.Join("", []error{errors.New("x"), errors.New("y")})))
}
