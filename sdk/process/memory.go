package process

import (
	"bufio"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the garbage collector keep the process below nine tenths of what its control group allows, so that a
// container with little memory collects more often and is not killed. GOMEMLIMIT, which the runtime obeys itself, wins.
func limitMemory(p *Process) {
	if value, ok := p.LookupEnv("GOMEMLIMIT"); ok && value != "" {
		return
	}
	if limit := memoryLimit(os.DirFS("/")); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// memoryLimit is the smallest limit, in bytes, of the control groups that the process belongs to; math.MaxInt64 without
// one. It knows both versions of control groups.
func memoryLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	for _, name := range limitFiles(root) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue // that group, or that version, does not exist
		}
		// "max" is no number; version 1 writes an absurdly large one.
		if v, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && v > 0 && v < 1<<60 {
			limit = min(limit, v)
		}
	}
	return limit
}

// limitFiles lists where limits may stand: in the process's own groups and in every group above them.
func limitFiles(root fs.FS) []string {
	files := []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}
	f, err := root.Open("proc/self/cgroup")
	if err != nil {
		return files
	}
	defer f.Close() //nolint:errcheck // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// hierarchy:controllers:/path
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for dir := path.Clean(parts[2]); dir != "/" && dir != "."; dir = path.Dir(dir) {
			switch parts[1] {
			case "":
				files = append(files, path.Join("sys/fs/cgroup", dir, "memory.max"))
			case "memory":
				files = append(files, path.Join("sys/fs/cgroup/memory", dir, "memory.limit_in_bytes"))
			}
		}
	}
	return files
}
