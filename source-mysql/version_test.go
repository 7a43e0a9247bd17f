package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPatch(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int{"8.0.15": 15, "8.0.36-0ubuntu1": 36, "9.7.4-2": 4, "8.4": 0, "8.0.": 0, "10.11.19-MariaDB-0+deb12u1": 19} {
		require.Equal(t, want, serverInfo{version: version}.patch(), version)
	}
}
