package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// expandPattern replaces %Y, %m, %d, %H, %M and %S in a pattern by the parts of a time, in UTC; %% is a percent sign. The
// pattern has passed checkPattern.
func expandPattern(pattern string, at time.Time) string {
	if !strings.Contains(pattern, "%") {
		return pattern
	}
	at = at.UTC()
	parts := map[byte]string{
		'Y': fmt.Sprintf("%04d", at.Year()), 'm': fmt.Sprintf("%02d", int(at.Month())), 'd': fmt.Sprintf("%02d", at.Day()),
		'H': fmt.Sprintf("%02d", at.Hour()), 'M': fmt.Sprintf("%02d", at.Minute()), 'S': fmt.Sprintf("%02d", at.Second()),
		'%': "%",
	}
	var out strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			out.WriteByte(pattern[i])
			continue
		}
		i++
		out.WriteString(parts[pattern[i]])
	}
	return out.String()
}

// checkPattern says what is wrong with a time pattern.
func checkPattern(field, pattern string) error {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			continue
		}
		i++
		if i == len(pattern) {
			return usererr.New(nil, "%s %q ends in a percent sign; %%%% stands for one.", field, pattern)
		}
		if !strings.ContainsRune("YmdHMS%", rune(pattern[i])) {
			return usererr.New(nil, "%s %q has %%%c; there are %%Y, %%m, %%d, %%H, %%M, %%S, and %%%% for a percent sign.", field, pattern, pattern[i])
		}
	}
	return nil
}

// literalPart is what everything that a pattern expands to begins with.
func literalPart(pattern string) string {
	var out strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] != '%':
			out.WriteByte(pattern[i])
		case i+1 < len(pattern) && pattern[i+1] == '%':
			out.WriteByte('%')
			i++
		default:
			return out.String()
		}
	}
	return out.String()
}

// partition is one level of a table's folders: a field's value, or a part of the transaction's time.
type partition struct {
	name    string
	pattern string // empty for a field
}

var timePartition = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)=(.*%.*)$`)

// parsePartition reads one entry of partitionBy.
func parsePartition(text string) partition {
	if m := timePartition.FindStringSubmatch(text); m != nil {
		return partition{name: m[1], pattern: m[2]}
	}
	return partition{name: text}
}
