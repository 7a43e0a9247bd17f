package server

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
)

// MySQLServer is a running MySQL or MariaDB. Its methods may be called from any goroutine that may fail t. It runs no SQL: this
// module has no client, and a test of a connector has one.
type MySQLServer struct {
	*mysqld.Server
}

// MySQL starts a MySQL (mysqld.MySQL) or MariaDB (mysqld.MariaDB) for this test, with settings of the server besides those of
// package mysqld; it is gone when the test ends. The test is skipped when the machine has no such server.
func MySQL(t testing.TB, flavor string, settings map[string]string) *MySQLServer {
	t.Helper()
	skipShort(t)
	s, err := mysqld.Start(t.Context(), mysqld.Options{Flavor: flavor, Settings: settings})
	notHere(t, flavor, err)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of %s %s at %s:\n%s", s.Flavor(), s.Version(), s.Address(), tail(s.Log(), 40))
		}
		require.NoError(t, s.Close())
	})
	return &MySQLServer{s}
}

// sharedMySQL holds the servers that the test binary shares. They end with the process, because no test knows that it is the
// last one.
var sharedMySQL struct {
	mysql, mariadb sharedServer
}

type sharedServer struct {
	once   sync.Once
	server *mysqld.Server
	err    error
}

// SharedMySQL returns the one server of a flavor that all tests of this binary share. Work in a database of your own, and do not
// stop or reconfigure it.
func SharedMySQL(t testing.TB, flavor string) *MySQLServer {
	t.Helper()
	skipShort(t)
	shared := &sharedMySQL.mysql
	if flavor == mysqld.MariaDB {
		shared = &sharedMySQL.mariadb
	}
	shared.once.Do(func() {
		shared.server, shared.err = mysqld.Start(context.Background(), mysqld.Options{Flavor: flavor})
	})
	notHere(t, flavor, shared.err)
	require.NoError(t, shared.err)
	return &MySQLServer{shared.server}
}

func notHere(t testing.TB, flavor string, err error) {
	t.Helper()
	if errors.Is(err, mysqld.ErrNotInstalled) {
		need.Missing(t, "%s is not on this machine; scripts/services install fetches it", flavor)
	}
}
