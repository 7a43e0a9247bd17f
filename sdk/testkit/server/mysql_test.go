package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// TestMySQL starts both servers, and has them survive a stop and a kill.
func TestMySQL(t *testing.T) {
	t.Parallel()
	for _, flavor := range []string{mysqld.MySQL, mysqld.MariaDB} {
		t.Run(flavor, func(t *testing.T) {
			t.Parallel()
			s := server.MySQL(t, flavor, nil)
			address := s.Address()
			require.NoError(t, s.Kill())
			require.NoError(t, s.Start(t.Context()))
			require.NoError(t, s.Stop())
			require.NoError(t, s.Start(t.Context()))
			require.Equal(t, address, s.Address())
			require.FileExists(t, s.DataDir()+"/binlog.000001")
		})
	}
}
