package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// maxImage is how large an image may be: what a machine downloads, and what it keeps.
const maxImage = 30 << 20

// imageNames are the images that `make images` builds, one of each connector and one of sluice, and the protocol that each speaks.
func imageNames(t testing.TB) map[string]string {
	t.Helper()
	names := map[string]string{"sluice": ""}
	for prefix, protocol := range map[string]string{"source": "capture", "materialize": "materialize"} {
		modules, err := filepath.Glob("../../" + prefix + "-*/go.mod")
		require.NoError(t, err)
		require.NotEmpty(t, modules)
		for _, module := range modules {
			names[filepath.Base(filepath.Dir(module))] = protocol
		}
	}
	return names
}

// imageFolder is where `make images` has put the images. Only `make test-images` tests them: they take a while to build, and a
// container engine to run; nothing is left out there.
func imageFolder(t testing.TB) string {
	t.Helper()
	folder := os.Getenv("SLUICE_IMAGES")
	if folder == "" {
		t.Skip("images are built and tested by make test-images")
	}
	return folder
}

// packed is an image as its archive has it.
type packed struct {
	Created      time.Time `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       struct {
		User       string
		Entrypoint []string
		Env        []string
		Labels     map[string]string
	} `json:"config"`
	files map[string]tar.Header
	bytes int64  // of all files
	exe   []byte // of the entry point
}

// unpack reads an archive for `docker load`.
func unpack(t testing.TB, file string) *packed {
	t.Helper()
	members := map[string][]byte{}
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	eachFile(t, f, func(h *tar.Header, content []byte) { members[h.Name] = content })
	var manifest []struct {
		Config string
		Layers []string
	}
	require.NoError(t, json.Unmarshal(members["manifest.json"], &manifest))
	require.Len(t, manifest, 1)
	p := &packed{files: map[string]tar.Header{}}
	require.NoError(t, json.Unmarshal(members[manifest[0].Config], p))
	for _, layer := range manifest[0].Layers {
		unzipped, err := gzip.NewReader(bytes.NewReader(members[layer]))
		require.NoError(t, err)
		eachFile(t, unzipped, func(h *tar.Header, content []byte) {
			p.files["/"+h.Name] = *h
			p.bytes += h.Size
			if "/"+h.Name == p.Config.Entrypoint[0] {
				p.exe = content
			}
		})
	}
	return p
}

func eachFile(t testing.TB, r io.Reader, f func(h *tar.Header, content []byte)) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		content, err := io.ReadAll(archive)
		require.NoError(t, err)
		f(h, content)
	}
}

// TestImageContents looks into every image for both kinds of machine: what it is, whose it is, how large it is.
func TestImageContents(t *testing.T) {
	t.Parallel()
	folder := imageFolder(t)
	for name, protocol := range imageNames(t) {
		for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
			t.Run(name+"/"+arch, func(t *testing.T) {
				t.Parallel()
				file := filepath.Join(folder, name, arch+".tar")
				info, err := os.Stat(file)
				require.NoError(t, err)
				require.Less(t, info.Size(), int64(maxImage), "compressed")
				p := unpack(t, file)
				require.Less(t, p.bytes, int64(maxImage), "unpacked")
				require.Equal(t, "linux/"+arch, p.OS+"/"+p.Architecture)
				require.Equal(t, "65532:65532", p.Config.User)
				exe, err := elf.NewFile(bytes.NewReader(p.exe))
				require.NoError(t, err)
				require.Equal(t, machine, exe.Machine)
				libraries, err := exe.ImportedLibraries()
				require.NoError(t, err)
				require.Empty(t, libraries, "a static binary")

				labels := p.Config.Labels
				require.Equal(t, name, labels["org.opencontainers.image.title"])
				require.Equal(t, "Apache-2.0 OR MIT", labels["org.opencontainers.image.licenses"])
				require.Regexp(t, `^[0-9a-f]{12}(-dirty)?$`, labels["org.opencontainers.image.revision"])
				require.Regexp(t, `^\d+\.\d+\.\d+`, labels["org.opencontainers.image.version"])
				require.Contains(t, string(p.exe), labels["org.opencontainers.image.revision"], "the binary is of the same revision")
				require.Equal(t, protocol, labels["FLOW_RUNTIME_PROTOCOL"])
				if protocol != "" {
					require.Equal(t, "proto", labels["FLOW_RUNTIME_CODEC"])
				}
				for name, header := range p.files {
					require.True(t, header.ModTime.Equal(p.Created), "%s bears the time of the revision, not that of the build", name)
				}
				require.EqualValues(t, 0o1777, p.files["/tmp/"].Mode)
				require.Zero(t, p.files[p.Config.Entrypoint[0]].Uid, "who runs the program cannot write it")
				for _, needed := range []string{"/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo.zip", "/licenses/LICENSE-MIT", "/licenses/LICENSE-APACHE"} {
					require.NotZero(t, p.files[needed].Size, needed)
				}
			})
		}
	}
}

// TestImagesAreReproducible builds one image again, from a copy of the source in another folder, as another day's somebody with
// another mask and time zone: every byte must be the same.
func TestImagesAreReproducible(t *testing.T) {
	t.Parallel()
	const name = "materialize-postgres"
	folder := imageFolder(t)
	p := unpack(t, filepath.Join(folder, name, "amd64.tar"))
	elsewhere := filepath.Join(t.TempDir(), "else where")
	require.NoError(t, os.Mkdir(elsewhere, 0o755))
	copying := exec.CommandContext(t.Context(), "bash", "-c", `git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | (umask 077; tar -xm -C "$0" --no-same-permissions)`, elsewhere)
	copying.Dir = "../.."
	out, err := copying.CombinedOutput()
	require.NoError(t, err, string(out))
	build := exec.CommandContext(t.Context(), "bash", "-c", "umask 077; exec scripts/images "+name)
	build.Dir = elsewhere
	build.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LC_ALL=C", "ENGINE=none", "SOURCE_DATE_EPOCH="+strconv.FormatInt(p.Created.Unix(), 10),
		"SOURCE_REVISION="+p.Config.Labels["org.opencontainers.image.revision"])
	out, err = build.CombinedOutput()
	require.NoError(t, err, string(out))
	digests := func(root string) string {
		text, err := os.ReadFile(filepath.Join(root, name, "digests"))
		require.NoError(t, err)
		return string(text)
	}
	require.Equal(t, digests(folder), digests(filepath.Join(elsewhere, "bin", "images")))
	require.Len(t, strings.Fields(digests(folder)), 3+3+2, "two platforms and their index")
}

// containers runs images, with no more rights than the documentation gives them.
type containers struct{}

// engine makes sure that all images are there, in an engine that answers.
func engine(t testing.TB) containers {
	t.Helper()
	folder := imageFolder(t)
	for name := range imageNames(t) {
		out, err := exec.CommandContext(t.Context(), "docker", "load", "--quiet", "--input", filepath.Join(folder, name, "amd64.tar")).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return containers{}
}

func image(name string) string { return "sluice/" + name + ":local" }

// hardened are the options that every image runs with.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}

// command runs an image, and options are more of them. The container is removed with the test, whatever becomes of its client.
func (containers) command(t testing.TB, name string, options []string, args ...string) *exec.Cmd {
	t.Helper()
	container := fmt.Sprintf("%s-%s-%d", strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), name, time.Now().UnixNano())
	all := append([]string{"run", "--interactive", "--rm", "--network", "host", "--name", container}, hardened...)
	all = append(append(append(all, options...), image(name)), args...)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", all...)
	t.Cleanup(func() {
		_ = exec.CommandContext(context.WithoutCancel(t.Context()), "docker", "rm", "--force", container).Run()
	})
	return cmd
}

// output runs an image to its end.
func (c containers) output(t testing.TB, name, stdin string, args ...string) string {
	t.Helper()
	cmd := c.command(t, name, nil, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %v: %s", name, args, stderr.String())
	return string(out)
}
