package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// fileName of the status file in the data folder.
const fileName = "status.json"

// WriteFile replaces the status file of a data folder. A reader sees the old or the new one, never a part.
func WriteFile(dir string, s *Snapshot) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the status: %w", err)
	}
	temporary := filepath.Join(dir, fileName+".new")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, fileName)); err != nil {
		return fmt.Errorf("writing the status: %w", err)
	}
	return nil
}

// ReadFile reads the status file of a data folder. Errors are for people.
func ReadFile(dir string) (*Snapshot, error) {
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, usererr.New(err, "there is no status in the data folder %s: no sluice run has used it yet", dir)
	}
	if err != nil {
		return nil, usererr.New(err, "cannot read the status in the data folder %s: %v", dir, errors.Unwrap(err))
	}
	s := &Snapshot{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, usererr.New(err, "the status in the data folder %s cannot be read: %v", dir, err)
	}
	return s, nil
}

// Alive tells whether the process that wrote the snapshot still writes: it does so every second.
func (s *Snapshot) Alive(now time.Time) bool { return !s.Ended && now.Sub(s.Updated) < 10*time.Second }
