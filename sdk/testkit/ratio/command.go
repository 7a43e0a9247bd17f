package ratio

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// sampling is how often a process' memory is looked at.
const sampling = 10 * time.Millisecond

// Command runs a command and measures it: from its start to its end, its own CPU time, its peak memory. The rows are what the
// caller knows it handled. A command that was killed by the caller's context is an error, as any non-zero exit is.
func Command(cmd *exec.Cmd, rows int64) (Run, error) {
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return Run{}, err
	}
	peak := watchPeak(cmd.Process.Pid)
	err := cmd.Wait()
	took := time.Since(begin)
	run := Run{Rows: rows, Took: took, CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), Peak: peak()}
	if err != nil {
		return run, fmt.Errorf("running %s: %w", cmd.Path, err)
	}
	return run, nil
}

// Usage is CPU time and peak memory of a running process so far, for a part of its life: measure twice and subtract the CPU.
// Rows and Took are left to the caller.
func Usage(pid int) (Run, error) {
	cpu, err := cpuOf(pid)
	if err != nil {
		return Run{}, err
	}
	return Run{CPU: cpu, Peak: peakOf(pid)}, nil
}

// watchPeak follows a process until it ends; the function returned gives its peak. The kernel's figure for ended children
// (ru_maxrss) will not do: it counts what the parent had resident when it forked.
func watchPeak(pid int) func() int64 {
	stop, result := make(chan struct{}), make(chan int64, 1)
	go func() {
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		var peak int64
		for {
			peak = max(peak, peakOf(pid))
			select {
			case <-stop:
				result <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-result
	}
}

// peakOf reads VmHWM; 0 when the process is gone.
func peakOf(pid int) int64 {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// ticks is the kernel's unit of CPU time in /proc, 100 a second on every Linux that Go runs on.
const ticks = time.Second / 100

// cpuOf reads utime and stime, fields 14 and 15 of /proc/<pid>/stat (proc(5)); the name in field 2 may hold anything.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, fmt.Errorf("reading the CPU time of process %d: unexpected format", pid)
	}
	user, errUser := strconv.ParseInt(fields[11], 10, 64)
	system, errSystem := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * ticks, errors.Join(errUser, errSystem)
}
