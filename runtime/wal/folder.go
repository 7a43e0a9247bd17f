package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// ErrInUse says that another process has the log open.
var ErrInUse = errors.New("the data folder is in use")

// lockFolder takes the folder for this process. The lock is released by the system whenever the process ends.
func lockFolder(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, usererr.New(err, "cannot use the data folder %s: %v", dir, bare(err))
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(file, 20))
		closeErr := file.Close()
		return nil, usererr.New(errors.Join(ErrInUse, err, closeErr), "the data folder %s is in use by another sluice run (process %s): stop that one, or choose another folder with --data",
			dir, strings.TrimSpace(string(holder)))
	}
	if err := errors.Join(file.Truncate(0), writeAt(file, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the lock file: %w", err), file.Close())
	}
	return file, nil
}

// unlockFolder gives the folder back at once. Closing alone would leave it locked while a child process that is being
// started still has a copy of the descriptor.
func unlockFolder(file *os.File) error {
	return errors.Join(syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

func writeAt(file *os.File, text string) error {
	_, err := file.WriteAt([]byte(text), 0)
	return err
}

func freeBytes(dir string) (uint64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return stat.Bavail * uint64(stat.Bsize), nil
}

// bare is a file system error without the path, which the sentence around it names.
func bare(err error) error {
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// Folder is a data folder that this process has for itself.
type Folder struct{ lock *os.File }

// Lock takes a data folder for this process, and makes it if it is not there: for logs that are elsewhere. Errors are for people; one wraps
// [ErrInUse] if another process has it.
func Lock(dir string) (*Folder, error) {
	opts := Options{Dir: dir}
	if err := opts.prepare(); err != nil {
		return nil, err
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	return &Folder{lock}, nil
}

// Close gives the folder back.
func (f *Folder) Close() error { return unlockFolder(f.lock) }
