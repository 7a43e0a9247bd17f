package sinktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
)

// StartProcess starts a connector that logs JSON as a process of its own. What a command ends with is the message that it logged last, which is
// what a runtime shows; a process that was killed ends without a word.
func StartProcess(t testing.TB, cmd *exec.Cmd, codec frame.Codec) Process {
	t.Helper()
	name := "proto"
	if codec == frame.JSON {
		name = "json"
	}
	cmd.Env = append(cmd.Env, "SLUICE_CODEC="+name)
	var log bytes.Buffer // written to by the command until Wait
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return Process{
		Stdin: in, Stdout: out,
		Kill: func() { _ = cmd.Process.Kill() },
		Wait: func() error {
			err := cmd.Wait()
			if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
				return errors.New(lastMessage(log.String()))
			}
			return nil
		},
	}
}

// lastMessage is the message of the last line of a log, or the log itself if that is none of ours.
func lastMessage(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	var entry struct {
		Message string `json:"message"`
		Msg     string `json:"msg"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &entry); err != nil {
		return log
	}
	return entry.Message + entry.Msg
}
