package collection

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// copyName of the file in the data folder.
const copyName = "collections.json"

// CopyTo keeps a copy of what is known of the collections in a file of the data folder, from now on. The log itself can be read only by the
// process that has it open; the copy by other commands, at any time.
func (r *Registry) CopyTo(dir string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dir = dir
	return r.copyRecords()
}

// copyRecords replaces the copy. The lock must be held.
func (r *Registry) copyRecords() error {
	if r.dir == "" {
		return nil
	}
	records := map[string]record{}
	for name, e := range r.all {
		records[name] = e.record
	}
	text, err := json.Marshal(records)
	if err != nil {
		return fmt.Errorf("encoding the collections: %w", err)
	}
	temporary := filepath.Join(r.dir, copyName+".new")
	if err = os.WriteFile(temporary, append(text, '\n'), 0o600); err == nil {
		err = os.Rename(temporary, filepath.Join(r.dir, copyName))
	}
	if err != nil {
		return fmt.Errorf("writing the collections' schemas: %w", err)
	}
	return nil
}

// ReadCopy returns what a data folder's copy knows of the collections, as the records of a store; none if there is no copy. Errors are
// for people.
func ReadCopy(dir string) (wal.Records, error) {
	file := filepath.Join(dir, copyName)
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return wal.Records{}, nil
	}
	var stored map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil {
		return nil, usererr.New(err, "cannot read the collections' schemas in %s: %v", file, err)
	}
	records := wal.Records{}
	for name, r := range stored {
		records[recordName(name)] = r
	}
	return records, nil
}
