package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// tree writes files into a layer. Of a file only its name, its bytes and whether it can be executed count: not who owns it
// here, not its other permissions, not its age.
type tree struct {
	tar      *tar.Writer
	when     time.Time
	uid, gid int
	mode     int64 // of what is copied; 0 leaves the usual
	dirs     map[string]bool
}

// copyLayer makes the layer of one COPY.
func copyLayer(context string, c *instructions.CopyCommand, when time.Time) (v1.Layer, error) {
	if c.From != "" || len(c.ExcludePatterns) > 0 || c.Parents || len(c.SourceContents) > 0 {
		return nil, errors.New("the packer copies from the context only, and all of it")
	}
	var buffer bytes.Buffer
	t := &tree{tar: tar.NewWriter(&buffer), when: when, dirs: map[string]bool{".": true}}
	if err := t.attributes(c); err != nil {
		return nil, err
	}
	for _, source := range c.SourcePaths {
		if err := t.copy(filepath.Join(context, source), strings.TrimPrefix(c.DestPath, "/")); err != nil {
			return nil, fmt.Errorf("copying %s: %w", source, err)
		}
	}
	if err := t.tar.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// attributes reads --chown=UID:GID and --chmod=OCTAL.
func (t *tree) attributes(c *instructions.CopyCommand) (err error) {
	if c.Chown != "" {
		uid, gid, _ := strings.Cut(c.Chown, ":")
		var userErr, groupErr error
		t.uid, userErr = strconv.Atoi(uid)
		t.gid, groupErr = strconv.Atoi(gid)
		if userErr != nil || groupErr != nil {
			return fmt.Errorf("--chown=%s: the image has no names of users; write numbers, such as 65532:65532", c.Chown)
		}
	}
	if c.Chmod != "" {
		if t.mode, err = strconv.ParseInt(c.Chmod, 8, 16); err != nil {
			return fmt.Errorf("--chmod=%s: not an octal number", c.Chmod)
		}
	}
	return nil
}

// copy copies a file, or what is in a folder.
func (t *tree) copy(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if strings.HasSuffix(target, "/") {
			target += filepath.Base(source)
		}
		return t.file(source, target, info)
	}
	return filepath.WalkDir(source, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		below, err := filepath.Rel(source, name)
		if err != nil {
			return err
		}
		inside := path.Join(target, filepath.ToSlash(below))
		if entry.IsDir() {
			return t.folder(inside, t.uid, t.gid, t.mode)
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return t.file(name, inside, info)
	})
}

func (t *tree) file(source, target string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("it is neither a file nor a folder")
	}
	if err := t.folder(path.Dir(target), 0, 0, 0); err != nil {
		return err
	}
	mode := int64(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	if t.mode != 0 {
		mode = t.mode
	}
	if err := t.tar.WriteHeader(&tar.Header{
		Name: target, Typeflag: tar.TypeReg, Size: info.Size(), Mode: mode, Uid: t.uid, Gid: t.gid, ModTime: t.when, Format: tar.FormatPAX,
	}); err != nil {
		return err
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(t.tar, f)
	return err
}

// folder writes a folder and those above it, each once.
func (t *tree) folder(name string, uid, gid int, mode int64) error {
	if t.dirs[name] {
		return nil
	}
	if err := t.folder(path.Dir(name), 0, 0, 0); err != nil {
		return err
	}
	t.dirs[name] = true
	if mode == 0 {
		mode = 0o755
	}
	return t.tar.WriteHeader(&tar.Header{
		Name: name + "/", Typeflag: tar.TypeDir, Mode: mode, Uid: uid, Gid: gid, ModTime: t.when, Format: tar.FormatPAX,
	})
}
