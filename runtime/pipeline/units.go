package pipeline

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// ParseAge reads a duration of at least zero as people write it: 90m, 1h30m, and days, 7d, which Go's own form does not have.
func ParseAge(text string) (time.Duration, error) {
	var age time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n float64
		n, err = strconv.ParseFloat(days, 64)
		if !(n <= 100_000) { // not a number, or none that a duration holds
			return 0, errAge
		}
		age = time.Duration(n * float64(24*time.Hour))
	} else {
		age, err = time.ParseDuration(text)
	}
	if err != nil || age < 0 {
		return 0, errAge
	}
	return age, nil
}

var (
	errAge  = errors.New("it must be a duration such as 90m, 12h or 7d")
	errSize = errors.New("it must be a size such as 500MB, 50GB or 1TB")
)

// units are decimal, as disks have them, or binary.
var units = []struct { //nolint:gochecknoglobals // a table
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseSize reads a number of bytes above zero, with its unit.
func ParseSize(text string) (int64, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n*u.bytes >= 1 && n*u.bytes < 1<<62) {
			return 0, errSize
		}
		return int64(n * u.bytes), nil
	}
	return 0, errSize
}
