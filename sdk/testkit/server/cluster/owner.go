package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner is the user that the server runs as when we are root: Postgres refuses to run as root.
type owner struct{ uid, gid int }

// serverOwner is nil when the server can run as the current user, else postgres, else nobody.
func serverOwner() (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil // as we are
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(account.Uid)
		gid, errGID := strconv.Atoi(account.Gid)
		if err := errors.Join(errUID, errGID); err != nil {
			return nil, fmt.Errorf("reading the ids of user %q: %w", name, err)
		}
		return &owner{uid: uid, gid: gid}, nil
	}
	return nil, errors.New("Postgres does not run as root, and there is neither a user postgres nor nobody to run it as")
}

// attributes makes a child run as this owner, in its own session so that a Ctrl-C meant for us does not stop it first.
func (o *owner) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if o != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	}
	return attr
}

// chown gives one file to the owner.
func (o *owner) chown(path string) error {
	if o == nil {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// own gives a file or folder (not what is in it) to the server's user.
func (p *Postgres) own(path string) error { return p.owner.chown(path) }

// writeFile writes a file of the data folder, owned by the server's user.
func (p *Postgres) writeFile(name, content string, mode os.FileMode) error {
	path := filepath.Join(p.DataDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		return err
	}
	return p.own(path)
}
