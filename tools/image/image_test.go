package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
)

const recipeText = `# a comment
FROM scratch
COPY program /bin/program
COPY --chmod=1777 --chown=7:8 empty /tmp
ARG VERSION
LABEL version=${VERSION} \
      both="a b"
ENV ZONE=/zone
USER 65532:65532
ENTRYPOINT ["/bin/program", "-x"]
`

// context is a folder with a program and an empty folder.
func context(t *testing.T, mode os.FileMode) string {
	t.Helper()
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "program"), []byte("I am a program"), mode))
	require.NoError(t, os.Mkdir(filepath.Join(folder, "empty"), 0o700))
	return folder
}

func build1(t *testing.T, text, context string, args ...string) (v1.Image, error) {
	t.Helper()
	return build([]byte(text), context, v1.Platform{OS: "linux", Architecture: "arm64"}, args, time.Unix(1_700_000_000, 0).UTC())
}

func TestBuild(t *testing.T) {
	t.Parallel()
	img, err := build1(t, recipeText, context(t, 0o700), "VERSION=1.2")
	require.NoError(t, err)
	file, err := img.ConfigFile()
	require.NoError(t, err)
	require.Equal(t, "linux/arm64", file.OS+"/"+file.Architecture)
	require.Equal(t, int64(1_700_000_000), file.Created.Unix())
	require.Equal(t, map[string]string{"version": "1.2", "both": "a b"}, file.Config.Labels)
	require.Equal(t, []string{"ZONE=/zone"}, file.Config.Env)
	require.Equal(t, "65532:65532", file.Config.User)
	require.Equal(t, []string{"/bin/program", "-x"}, file.Config.Entrypoint)
	layers, err := img.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 2)

	archive := filepath.Join(t.TempDir(), "a.tar")
	require.NoError(t, writeArchive(archive, img, []string{"x/y:1"}))
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, extract(archive, program))
	text, err := os.ReadFile(program)
	require.NoError(t, err)
	require.Equal(t, "I am a program", string(text))
}

// TestDigest: what is in the files counts, and whether they can be executed; nothing else of them does.
func TestDigest(t *testing.T) {
	t.Parallel()
	digest := func(context string) string {
		img, err := build1(t, recipeText, context, "VERSION=1")
		require.NoError(t, err)
		d, err := img.Digest()
		require.NoError(t, err)
		return d.String()
	}
	first := digest(context(t, 0o755))
	other := context(t, 0o700)
	require.NoError(t, os.Chtimes(filepath.Join(other, "program"), time.Unix(1, 0), time.Unix(2, 0)))
	require.Equal(t, first, digest(other))
	require.NotEqual(t, first, digest(context(t, 0o644)))
	require.NoError(t, os.WriteFile(filepath.Join(other, "program"), []byte("I am another"), 0o700))
	require.NotEqual(t, first, digest(other))
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"FROM alpine\n":                                   "one stage, FROM scratch",
		"FROM scratch\nRUN true\n":                        "RUN in line 2 of the Dockerfile: the packer does not know this instruction",
		"FROM scratch\nCOPY none /none\n":                 "no such file",
		"FROM scratch\nCOPY --from=x a /b\n":              "copies from the context only",
		"FROM scratch\nCOPY --chown=me program /p\n":      "no names of users",
		"FROM scratch\nARG X\n":                           "no value for X was given",
		"FROM scratch\nLABEL a=${Y}\n":                    "nothing says what",
		"FROM scratch\nENTRYPOINT run me\n":               "no shell in the image",
		"FROM scratch\nCOPY program /p\nENV Z=1\n# end\n": "has no ARG for",
	} {
		var args []string
		if want == "has no ARG for" {
			args = []string{"Q=1"}
		}
		_, err := build1(t, text, context(t, 0o755), args...)
		require.ErrorContains(t, err, want, text)
	}
}

func TestSBOM(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	var first, second bytes.Buffer
	require.NoError(t, sbom(self, "1.2.3", &first))
	require.NoError(t, sbom(self, "1.2.3", &second))
	require.Equal(t, first.String(), second.String())
	var bill struct {
		BOMFormat  string
		Metadata   struct{ Component struct{ Version string } }
		Components []struct{ Name, Version, Purl string }
	}
	require.NoError(t, json.Unmarshal(first.Bytes(), &bill))
	require.Equal(t, "CycloneDX", bill.BOMFormat)
	require.Equal(t, "1.2.3", bill.Metadata.Component.Version)
	names := map[string]string{}
	for _, c := range bill.Components {
		names[c.Name] = c.Purl
	}
	require.Contains(t, names, "std")
	require.Contains(t, names["github.com/google/go-containerregistry"], "pkg:golang/github.com/google/go-containerregistry@v")
}
