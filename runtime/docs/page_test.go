package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// block is one fenced piece of shell on a page.
type block struct {
	line   int // of its first command
	script string
	prints *regexp.Regexp // nil: anything
	notRun string         // the reason, if it is not to be run
}

var (
	fence  = regexp.MustCompile("^```(.*)$")
	remark = regexp.MustCompile(`^<!-- (prints|not run): (.+) -->$`)
)

// blocksOf reads the blocks marked sh of a Markdown page.
func blocksOf(t *testing.T, path string) []block {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	blocks, err := parse(string(text))
	require.NoError(t, err, path)
	return blocks
}

func parse(text string) ([]block, error) {
	var blocks []block
	var next block
	var open *string // info string of the block that we are in
	for i, line := range strings.Split(text, "\n") {
		if m := fence.FindStringSubmatch(line); m != nil {
			switch {
			case open == nil:
				open, next.line = &m[1], i+2
			case *open == "sh":
				blocks = append(blocks, next)
				open, next = nil, block{}
			default:
				if next.notRun != "" || next.prints != nil {
					return nil, fmt.Errorf("line %d: a remark above a block that is not sh", next.line)
				}
				open, next = nil, block{}
			}
			continue
		}
		if open != nil {
			next.script += line + "\n"
			continue
		}
		m := remark.FindStringSubmatch(line)
		switch {
		case m == nil && strings.TrimSpace(line) != "":
			next = block{}
		case m != nil && m[1] == "prints":
			pattern, err := regexp.Compile("(?m)" + m[2])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			next.prints = pattern
		case m != nil:
			next.notRun = m[2]
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block is not closed", next.line)
	}
	return blocks, nil
}

func TestParse(t *testing.T) {
	t.Parallel()
	blocks, err := parse("# Title\n\n<!-- prints: ^1$ -->\n```sh\necho 1\n```\n\n```yaml\na: b\n```\n<!-- not run: asks for a password -->\n```sh\nsudo true\n```\n" +
		"<!-- prints: x -->\nA paragraph between forgets the remark.\n```sh\ntrue\n```\n")
	require.NoError(t, err)
	require.Len(t, blocks, 3)
	require.Equal(t, "echo 1\n", blocks[0].script)
	require.Equal(t, 5, blocks[0].line)
	require.Equal(t, "(?m)^1$", blocks[0].prints.String())
	require.Equal(t, "asks for a password", blocks[1].notRun)
	require.Nil(t, blocks[2].prints)

	_, err = parse("```sh\ntrue\n")
	require.ErrorContains(t, err, "not closed")
	_, err = parse("<!-- prints: ( -->\n")
	require.ErrorContains(t, err, "line 1")
	_, err = parse("<!-- prints: x -->\n```yaml\na: b\n```\n")
	require.ErrorContains(t, err, "not sh")
}
