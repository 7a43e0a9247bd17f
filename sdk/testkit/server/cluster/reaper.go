package cluster

import "github.com/sluicedata/sluice/sdk/testkit/server/daemon"

// stopScript stops the server of a folder.
const stopScript = `
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.2
	done
	kill -KILL "$pid" 2>/dev/null
fi
`

func startReaper(dir string) (*daemon.Reaper, error) {
	return daemon.StartReaper("sluice-postgres-reaper", dir, stopScript)
}
