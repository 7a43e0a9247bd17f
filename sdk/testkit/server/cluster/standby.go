package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// StartStandby makes a physical standby of a running server, which follows it by streaming through a replication slot of
// its own, with feedback, and can be read from. It waits until the standby accepts connections.
//
// The server it copies is stopped for a moment and started again: sessions on it end. It may be a standby itself. TLS is
// not carried over. Of the options only Settings count.
func StartStandby(ctx context.Context, from *Postgres, opts Options) (*Postgres, error) {
	dir, err := os.MkdirTemp("", "sluice-postgres-")
	if err != nil {
		return nil, fmt.Errorf("making the cluster's folder: %w", err)
	}
	p := &Postgres{install: from.install, dir: dir, owner: from.owner}
	if p.reaper, err = startReaper(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.follow(ctx, from, opts); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) follow(ctx context.Context, from *Postgres, opts Options) error {
	if err := from.Stop(); err != nil {
		return err
	}
	if err := p.copyStopped(from); err != nil {
		return errors.Join(err, from.Start(ctx))
	}
	if err := from.Start(ctx); err != nil {
		return err
	}
	slot := "standby_" + fmt.Sprint(os.Getpid()) + "_" + filepath.Base(p.dir)[len("sluice-postgres-"):]
	if _, err := from.Exec(ctx, "postgres", "SELECT pg_create_physical_replication_slot("+quoteSetting(slot)+", true)"); err != nil {
		return err
	}
	settings := map[string]string{
		"primary_conninfo":  fmt.Sprintf("host=%s port=%d user=%s password=%s", from.Host(), from.Port(), Superuser, Password),
		"primary_slot_name": slot, "hot_standby_feedback": "on", "wal_receiver_status_interval": "1", "wal_retrieve_retry_interval": "100ms",
	}
	maps.Copy(settings, opts.Settings)
	return p.startOnFreePort(ctx, settings)
}

// copyStopped copies the data folder of a stopped server, without its slots, as pg_basebackup leaves them out too.
func (p *Postgres) copyStopped(from *Postgres) error {
	if err := copyData(from.DataDir(), p.DataDir(), p.owner); err != nil {
		return fmt.Errorf("copying the data folder: %w", err)
	}
	slots, err := filepath.Glob(filepath.Join(p.DataDir(), "pg_replslot", "*"))
	for _, slot := range slots {
		err = errors.Join(err, os.RemoveAll(slot))
	}
	return errors.Join(err, p.writeFile("standby.signal", "", 0o600), p.own(p.dir))
}
