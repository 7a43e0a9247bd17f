package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// savedDir holds the copy that Save makes.
func (p *Postgres) savedDir() string { return filepath.Join(p.dir, "saved") }

// Save copies the data folder, for Restore, in the place of a copy that was saved before. The server is stopped for a
// moment, and its sessions end.
func (p *Postgres) Save(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.savedDir()); err != nil {
		return fmt.Errorf("removing the last copy: %w", err)
	}
	if err := copyData(p.DataDir(), p.savedDir(), p.owner); err != nil {
		return fmt.Errorf("copying the data folder: %w", err)
	}
	return p.Start(ctx)
}

// Restore stops the server, puts the saved copy in the place of its data, and starts it. The copy is used up.
func (p *Postgres) Restore(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.DataDir()); err != nil {
		return fmt.Errorf("removing the data folder: %w", err)
	}
	if err := os.Rename(p.savedDir(), p.DataDir()); err != nil {
		return fmt.Errorf("putting the copy in its place: %w", err)
	}
	return p.Start(ctx)
}
