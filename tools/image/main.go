// Command image packs a Dockerfile and a context folder into images, without a container engine and without a clock: who packs
// the same files gets the same bytes, so the digest of an image says what is in it. Docker's own builder writes the time into
// every layer, and needs its daemon. docs/decisions/0031-images-without-a-builder.md has the alternatives.
//
//	go run ./image pack -dockerfile ../Dockerfile -arg VERSION=1.2.3 -epoch 1700000000 -tag sluice/source-postgres:1.2.3 \
//	    -out bin/images/source-postgres amd64=CONTEXT arm64=CONTEXT
//	go run ./image certificates FILE            Mozilla's roots, as go.mod pins them
//	go run ./image extract amd64.tar FILE       the program of an image
//	go run ./image sbom FILE VERSION            its bill of materials
//
// Pack writes into the folder -out, for each platform, an archive that `docker load` reads (amd64.tar), and one OCI layout of
// all platforms (oci/), which registries take. For each it prints a line: what it is, its digest, its bytes when compressed.
package main

import (
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "pack":
		return pack(args[1:])
	case len(args) == 2 && args[0] == "certificates":
		return certificates(args[1])
	case len(args) == 3 && args[0] == "extract":
		return extract(args[1], args[2])
	case len(args) == 3 && args[0] == "sbom":
		return sbom(args[1], args[2], os.Stdout)
	}
	return errors.New("usage: image pack … | certificates FILE | extract ARCHIVE FILE | sbom PROGRAM VERSION")
}

// pack is the command of this name.
func pack(args []string) error {
	var dockerfile, out string
	var epoch int64
	var tags, buildArgs list
	flags := flag.NewFlagSet("pack", flag.ContinueOnError)
	flags.StringVar(&dockerfile, "dockerfile", "Dockerfile", "the recipe")
	flags.StringVar(&out, "out", "", "folder for what is made; it is replaced")
	flags.Int64Var(&epoch, "epoch", 0, "the time that everything in the image bears, in seconds since 1970")
	flags.Var(&tags, "tag", "name of the image; may be given several times")
	flags.Var(&buildArgs, "arg", "value of an ARG of the recipe, NAME=VALUE; may be given several times")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if out == "" || len(tags) == 0 || flags.NArg() == 0 {
		return errors.New("pack needs -out, -tag, and for each platform its context folder, such as amd64=bin/context")
	}
	text, err := os.ReadFile(dockerfile)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	created := time.Unix(epoch, 0).UTC()
	var index v1.ImageIndex = empty.Index
	for _, arg := range flags.Args() {
		arch, context, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not ARCHITECTURE=CONTEXT", arg)
		}
		platform := v1.Platform{OS: "linux", Architecture: arch}
		img, err := build(text, context, platform, buildArgs, created)
		if err != nil {
			return fmt.Errorf("packing %s: %w", arg, err)
		}
		if err := writeArchive(filepath.Join(out, arch+".tar"), img, tags); err != nil {
			return err
		}
		if err := report(arch, img); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	if _, err := layout.Write(filepath.Join(out, "oci"), index); err != nil {
		return fmt.Errorf("writing the OCI layout: %w", err)
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Printf("index %s\n", digest)
	return err
}

func writeArchive(path string, img v1.Image, tags []string) error {
	images := map[name.Tag]v1.Image{}
	for _, tag := range tags {
		ref, err := name.NewTag(tag)
		if err != nil {
			return err
		}
		images[ref] = img
	}
	if err := tarball.MultiWriteToFile(path, images); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func report(arch string, img v1.Image) error {
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	_, err = fmt.Printf("%s %s %d\n", arch, digest, size)
	return err
}

// certificates writes Mozilla's root certificates, in the version that go.mod pins: those of the machine that packs would make
// images differ.
func certificates(path string) error {
	var text []byte
	for root := range bundle.Roots() {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})...)
	}
	return os.WriteFile(path, text, 0o644)
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}
