package main

import (
	"archive/tar"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// extract takes the program out of an image's archive: the file that its entry point names.
func extract(archive, target string) error {
	img, err := tarball.ImageFromPath(archive, nil)
	if err != nil {
		return fmt.Errorf("reading %s: %w", archive, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	if len(config.Config.Entrypoint) == 0 {
		return errors.New("the image has no entry point")
	}
	wanted := strings.TrimPrefix(config.Config.Entrypoint[0], "/")
	files := mutate.Extract(img)
	defer files.Close()
	for in := tar.NewReader(files); ; {
		header, err := in.Next()
		if err != nil {
			return fmt.Errorf("looking for %s: %w", wanted, err)
		}
		if path.Clean(header.Name) != wanted {
			continue
		}
		out, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, in)
		return errors.Join(err, out.Close())
	}
}

// sbom prints the bill of materials of a Go program, in CycloneDX's form: the modules that are in it, as the program itself knows
// them, with their checksums. It bears no time and no random number, so the same program has the same bill.
func sbom(program, version string, out io.Writer) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("reading what is in %s: %w", program, err)
	}
	root := "pkg:golang/" + info.Path + "@" + version
	bill := cyclonedx.NewBOM()
	bill.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: info.Path, Version: version, PackageURL: root,
		Licenses: &cyclonedx.Licenses{{Expression: "Apache-2.0 OR MIT"}},
	}}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	components := []cyclonedx.Component{{
		BOMRef: "pkg:golang/std@" + goVersion, Type: cyclonedx.ComponentTypeLibrary, Name: "std", Version: goVersion, PackageURL: "pkg:golang/std@" + goVersion,
	}}
	for _, module := range info.Deps {
		components = append(components, component(module, version))
	}
	refs := make([]string, 0, len(components))
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bill.Components = &components
	bill.Dependencies = &[]cyclonedx.Dependency{{Ref: root, Dependencies: &refs}}
	encoder := cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON)
	return encoder.SetPretty(true).Encode(bill)
}

// component is a module. Those of this repository, which are replaced by folders, have the version of the program.
func component(module *debug.Module, own string) cyclonedx.Component {
	version := module.Version
	if module.Replace != nil {
		module, version = module.Replace, module.Replace.Version
	}
	name := module.Path
	if strings.HasPrefix(name, ".") {
		name, version = "github.com/sluicedata/sluice/"+path.Base(name), own
	}
	purl := "pkg:golang/" + name + "@" + version
	c := cyclonedx.Component{BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl}
	if module.Sum != "" {
		c.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: module.Sum}}
	}
	return c
}
