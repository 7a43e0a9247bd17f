package mysqld

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

// owner is the user that the server runs as when we are root: the server refuses to run as root.
type owner struct{ uid, gid int }

func serverOwner() (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // as we are
	}
	account, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("looking for a user to run the server as: %w", err)
	}
	uid, errUID := strconv.Atoi(account.Uid)
	gid, errGID := strconv.Atoi(account.Gid)
	return &owner{uid: uid, gid: gid}, errors.Join(errUID, errGID)
}

// attributes makes a child run as this owner, in its own session so that a Ctrl-C meant for us does not stop it first.
func (o *owner) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if o != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)} //nolint:gosec // they come from the system
	}
	return attr
}

func (o *owner) chown(path string) error {
	if o == nil {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// templateFor returns a data folder to be copied; the first caller on the machine makes it, others wait for that.
func templateFor(ctx context.Context, install Installation, own *owner) (path string, err error) {
	base := filepath.Join(os.TempDir(), "sluice-mysqld-templates-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the server's user looks into it
		return "", err
	}
	info, err := os.Lstat(base)
	if err != nil {
		return "", err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s belongs to somebody else; remove it or set TMPDIR", base)
	}
	sum := sha256.Sum256([]byte(install.program("mysqld")))
	path = filepath.Join(base, fmt.Sprintf("%s-%s-%x", install.Flavor, install.Version, sum[:4]))
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // closing unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	work, err := os.MkdirTemp(base, "new-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := own.chown(work); err != nil {
		return "", err
	}
	fresh := filepath.Join(work, "data")
	if err := install.initialise(ctx, fresh, own); err != nil {
		return "", err
	}
	return path, os.Rename(fresh, path)
}

// copyData copies a data folder for the owner.
func copyData(from, to string, own *owner) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, path[len(from):])
		switch {
		case entry.IsDir():
			err = os.Mkdir(target, 0o700)
		case entry.Type().IsRegular():
			err = copyFile(path, target)
		default:
			return nil // a socket, or a link to nothing we need
		}
		if err != nil {
			return err
		}
		return own.chown(target)
	})
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// stopScript stops the server of a folder.
const stopScript = `
pid=$(cat "$1/server.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null; then
	while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
fi
`

func startReaper(dir string) (*daemon.Reaper, error) {
	return daemon.StartReaper("sluice-mysqld-reaper", dir, stopScript)
}
