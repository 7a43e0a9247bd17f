package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// templateFor returns a data folder made by initdb, to be copied; the first caller on the machine makes it, others
// (in other processes too) wait for that.
func templateFor(ctx context.Context, install Installation, own *owner) (string, error) {
	base := filepath.Join(os.TempDir(), "sluice-postgres-templates-"+strconv.Itoa(os.Geteuid()))
	if err := privateFolder(base); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(install.BinDir))
	path := filepath.Join(base, fmt.Sprintf("%d-%x", install.Major, sum[:4]))
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(path, "PG_VERSION")); err == nil {
		return path, nil
	}
	fresh, err := initialise(ctx, install, base, own)
	if err != nil {
		return "", err
	}
	if err := os.Rename(fresh, path); err != nil {
		return "", fmt.Errorf("keeping the template: %w", err)
	}
	return path, os.RemoveAll(filepath.Dir(fresh))
}

// privateFolder makes a folder below the machine's temporary folder, and refuses one that another user made first.
func privateFolder(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to somebody else; remove it or set TMPDIR", path)
	}
	return nil
}

// lock takes an advisory lock that the kernel releases if this process dies.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// initialise runs initdb in a new folder below base and adds what all our clusters share.
func initialise(ctx context.Context, install Installation, base string, own *owner) (string, error) {
	work, err := os.MkdirTemp(base, "initdb-")
	if err != nil {
		return "", err
	}
	password := filepath.Join(work, "password")
	data := filepath.Join(work, "data")
	if err := errors.Join(os.WriteFile(password, []byte(Password+"\n"), 0o600), own.chown(password), own.chown(work)); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(install.BinDir, "initdb"), "--pgdata="+data, "--username="+Superuser,
		"--pwfile="+password, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Env, cmd.Dir, cmd.SysProcAttr = environment(install.BinDir), work, own.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("running initdb: %w\n%s", err, out), os.RemoveAll(work))
	}
	file, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	_, err = file.WriteString("\ninclude 'sluice.conf'\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	return data, nil
}

// copyData copies a stopped server's folder and gives the copy to the server's user.
func copyData(from, to string, own *owner) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if entry.IsDir() {
			if err := os.Mkdir(target, 0o700); err != nil {
				return err
			}
		} else if err := copyFile(path, target); err != nil {
			return err
		}
		return own.chown(target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
