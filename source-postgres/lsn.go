package main

import (
	"fmt"
	"strconv"
	"strings"
)

// lsn is a place in the write-ahead log.
type lsn uint64

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// parseLSN reads the server's notation, "16/B374D848".
func parseLSN(s string) (lsn, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(high, 16, 32)
	l, err2 := strconv.ParseUint(low, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("parsing log position %q: it is not of the form 0/0", s)
	}
	return lsn(h<<32 | l), nil
}
