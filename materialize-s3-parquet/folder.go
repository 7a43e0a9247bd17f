package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// folder is a place on a file system. A draft is a hidden file beside the one that it becomes, made durable by fsync and
// then linked to its name, which never overwrites anything.
type folder struct{ root string }

func newFolder(root string) *folder { return &folder{root: filepath.Clean(root)} }

func (f *folder) url() string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(f.root)}).String()
}

func (f *folder) at(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

// hiddenSuffix ends the names of drafts. No reader of Parquet folders takes them for data: they also begin with a dot.
const hiddenSuffix = ".tmp"

func (f *folder) create(_ context.Context, name string) (draft, error) {
	final := f.at(name)
	if _, err := os.Lstat(final); err == nil {
		return nil, foreign(name, f.url())
	}
	dir, base := filepath.Split(final)
	if err := makeFolders(f.root, filepath.Clean(dir)); err != nil {
		return nil, explainFolder(err, f.root)
	}
	hidden := "." + base + "." + strings.ToLower(rand.Text()[:8]) + hiddenSuffix
	out, err := os.OpenFile(filepath.Join(dir, hidden), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, explainFolder(err, f.root)
	}
	return &folderDraft{folder: f, name: name, out: out, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}, nil
}

// makeFolders creates a folder below root with its parents, durably.
func makeFolders(root, dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if dir != root && parent != dir {
		if err := makeFolders(root, parent); err != nil {
			return err
		}
	} else if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

// syncFolder makes the names in a folder durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

type folderDraft struct {
	folder *folder
	name   string
	out    *os.File
	sum    interface {
		io.Writer
		Sum32() uint32
	}
	bytes int64
}

func (d *folderDraft) write(ctx context.Context, p []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := d.out.Write(p)
	d.bytes += int64(n)
	_, _ = d.sum.Write(p[:n]) // a hash never fails
	if err != nil {
		return explainFolder(err, d.folder.root)
	}
	return nil
}

func (d *folderDraft) seal(context.Context) (file, error) {
	hidden := d.out.Name()
	err := d.out.Sync()
	if closing := d.out.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = syncFolder(filepath.Dir(hidden))
	}
	if err != nil {
		return file{}, explainFolder(err, d.folder.root)
	}
	return file{Place: d.folder.url(), Name: d.name, Bytes: d.bytes, Draft: filepath.Base(hidden), Sum: d.sum.Sum32()}, nil
}

func (d *folderDraft) discard() {
	_ = d.out.Close()
	_ = os.Remove(d.out.Name())
}

func (f *folder) finish(_ context.Context, done file) error {
	final := f.at(done.Name)
	hidden := filepath.Join(filepath.Dir(final), filepath.Base(done.Draft))
	err := publish(hidden, final)
	switch {
	case errors.Is(err, fs.ErrExist) && sameFile(hidden, final):
		// Linked before, and not cleaned up.
	case errors.Is(err, fs.ErrExist):
		return foreign(done.Name, f.url())
	case errors.Is(err, fs.ErrNotExist):
		return f.verify(done)
	case err != nil:
		return explainFolder(err, f.root)
	}
	if err := syncFolder(filepath.Dir(final)); err != nil {
		return explainFolder(err, f.root)
	}
	if err := os.Remove(hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainFolder(err, f.root)
	}
	return nil
}

// publish gives a hidden file its name, if nothing has that name. File systems without links get a rename, before which the
// name is looked up.
func publish(hidden, final string) error {
	err := os.Link(hidden, final)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EPERM) {
		return err
	}
	if _, taken := os.Lstat(final); taken == nil {
		return fs.ErrExist
	}
	return os.Rename(hidden, final)
}

func sameFile(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

// verify tells whether the file is there, finished by an earlier call.
func (f *folder) verify(done file) error {
	in, err := os.Open(f.at(done.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return &goneError{done}
	}
	if err != nil {
		return explainFolder(err, f.root)
	}
	defer in.Close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.Copy(sum, in)
	if err != nil {
		return explainFolder(err, f.root)
	}
	if n != done.Bytes || sum.Sum32() != done.Sum {
		return foreign(done.Name, f.url())
	}
	return nil
}

func (f *folder) sweep(_ context.Context, prefix string, abandoned func(name, draft string) bool) (int, error) {
	count := 0
	// The prefix may end within a name.
	err := filepath.WalkDir(filepath.Dir(f.at(prefix+"x")), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		base := filepath.Base(path)
		if err != nil || entry.IsDir() || !strings.HasPrefix(base, ".") || !strings.HasSuffix(base, hiddenSuffix) {
			return err
		}
		final := strings.TrimSuffix(base[1:], hiddenSuffix)
		if dot := strings.LastIndexByte(final, '.'); dot > 0 {
			final = final[:dot]
		}
		name, err := filepath.Rel(f.root, filepath.Join(filepath.Dir(path), final))
		if err != nil || !abandoned(filepath.ToSlash(name), base) {
			return err
		}
		count++
		return os.Remove(path)
	})
	if err != nil {
		return count, explainFolder(err, f.root)
	}
	return count, nil
}

func (f *folder) find(_ context.Context, dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(f.at(dir), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") || !strings.HasSuffix(path, ".parquet") {
			return err
		}
		if found, err = filepath.Rel(f.root, path); err != nil {
			return err
		}
		found = filepath.ToSlash(found)
		return filepath.SkipAll
	})
	if err != nil {
		return "", explainFolder(err, f.root)
	}
	return found, nil
}

// probe writes and removes a hidden file, in the folder or, if that does not exist yet, in the nearest one around it.
func (f *folder) probe(context.Context) error {
	dir := f.root
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return explainFolder(fmt.Errorf("%s: %w", dir, syscall.ENOTDIR), f.root)
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	out, err := os.CreateTemp(dir, ".sluice-check-*"+hiddenSuffix)
	if err != nil {
		return explainFolder(err, f.root)
	}
	_, err = out.WriteString("check")
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		_, err = os.ReadFile(out.Name())
	}
	_ = out.Close()
	if removing := os.Remove(out.Name()); err == nil {
		err = removing
	}
	if err != nil {
		return explainFolder(err, f.root)
	}
	return nil
}
