package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// storedState is the content of pull's state file.
type storedState struct {
	// Task is the capture's name. It is kept because what the source made at the endpoint is named after it, and the file
	// may be moved.
	Task  string          `json:"task"`
	State json.RawMessage `json:"state"`
}

// readState reads a state file. One that does not exist, or no name, is a new capture.
func readState(name string) (storedState, error) {
	fresh := storedState{State: json.RawMessage("{}")}
	if name == "" {
		return fresh, nil
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("reading the state file: %w", err)
	}
	var s storedState
	if err := json.Unmarshal(text, &s); err != nil || s.Task == "" || len(s.State) == 0 {
		return fresh, usererr.New(err, "%s is not a state file of this program. Name another one, or remove it to begin anew.", name)
	}
	return s, nil
}

// write replaces the file: whoever reads it, also after a crash of the machine, finds the old content or the new one.
// Without a name nothing is kept.
func (s storedState) write(name string) error {
	if name == "" {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("writing the state file: %w", err)
	}
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, filepath.Base(name)+".*.tmp")
	if err != nil {
		return fmt.Errorf("writing the state file: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it may be gone already
		return fmt.Errorf("writing the state file: %w", err)
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // some file systems cannot sync a folder
		_ = d.Close()
	}
	return nil
}
