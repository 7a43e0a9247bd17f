package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Names of files:
//
//	prefix/path/v0000/region=north/day=2026-11-21/000000000017-0001-00000000-ffffffff-3f2a91bc.parquet
//	            │     │                           │            │    │                 └ the task: two of them never collide
//	            │     │                           │            │    └ key range of the session: nor do two of these
//	            │     │                           │            └ file of the table within the transaction
//	            │     │                           └ transaction of the key range, counted over all sessions
//	            │     └ partitions
//	            └ backfill counter
//
// They are unique, the same when a transaction is repeated, and within a folder sorted by commit for every key: a range that
// is split or joined goes on counting behind the ranges that it overlaps.

// maxName is what object stores allow, in bytes.
const maxName = 1024

// nullPartition stands for an absent value, as Hive and everybody after it have it.
const nullPartition = "__HIVE_DEFAULT_PARTITION__"

// namer makes the names of a session's files.
type namer struct {
	prefix string // a time pattern, without slashes at its ends
	task   string // eight hexadecimal digits
	keys   materialize.KeyRange
	own    *regexp.Regexp
}

func newNamer(cfg config, task string, keys materialize.KeyRange) namer {
	sum := sha256.Sum256([]byte(task))
	n := namer{prefix: strings.Trim(cfg.Prefix, "/"), task: hex.EncodeToString(sum[:4]), keys: keys}
	n.own = regexp.MustCompile(`(?:^|/)(\d{12,})-\d{4,}-([0-9a-f]{8})-([0-9a-f]{8})-` + n.task + `\.parquet$`)
	return n
}

// tableFolder is the folder of a table, below the prefix of a transaction at that time.
func (n namer) tableFolder(path string, backfill uint32, at time.Time) string {
	folder := fmt.Sprintf("%s/v%04d", path, backfill)
	if n.prefix == "" {
		return folder
	}
	return expandPattern(n.prefix, at) + "/" + folder
}

// file is the name of a file in a folder.
func (n namer) file(folder string, transaction uint64, sequence int) (string, error) {
	name := fmt.Sprintf("%s/%012d-%04d-%s-%s.parquet", folder, transaction, sequence, n.keys, n.task)
	if len(name) > maxName {
		return "", usererr.New(nil, "The name %s has %d bytes, and object stores allow %d. Shorten prefix or path, or partition by another field.", name, len(name), maxName)
	}
	return name, nil
}

// parse takes the key range and the transaction from a name; ok is false for names that are not this task's.
func (n namer) parse(name string) (keys materialize.KeyRange, transaction uint64, ok bool) {
	m := n.own.FindStringSubmatch(name)
	if m == nil {
		return keys, 0, false
	}
	transaction, err := strconv.ParseUint(m[1], 10, 64)
	begin, _ := strconv.ParseUint(m[2], 16, 32) // the expression lets only digits through
	end, _ := strconv.ParseUint(m[3], 16, 32)
	return materialize.KeyRange{Begin: uint32(begin), End: uint32(end)}, transaction, err == nil
}

// literal is what the names of all transactions begin with.
func (n namer) literal() string { return literalPart(n.prefix) }

// appendPartition appends name=value/ of a field.
func appendPartition(dst []byte, name string, e tuple.Element) []byte {
	dst = append(appendEscaped(dst, []byte(name)), '=')
	switch e.Kind {
	case tuple.Nil:
		dst = append(dst, nullPartition...)
	case tuple.Bytes, tuple.String:
		dst = appendEscaped(dst, e.Bytes)
	case tuple.Bool:
		dst = strconv.AppendBool(dst, e.Bool)
	case tuple.Int:
		dst = strconv.AppendInt(dst, e.Int, 10)
	case tuple.Uint:
		dst = strconv.AppendUint(dst, e.Uint, 10)
	default:
		dst = appendEscaped(dst, strconv.AppendFloat(nil, e.Float, 'g', -1, 64))
	}
	return append(dst, '/')
}

// appendEscaped appends text with everything but letters, digits, -, _, . and what is not ASCII as %XX. Hive, Spark, DuckDB
// and Trino turn that back.
func appendEscaped(dst, text []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, b := range text {
		switch {
		case b >= 0x80, b >= '0' && b <= '9', b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b == '-', b == '_', b == '.':
			dst = append(dst, b)
		default:
			dst = append(dst, '%', digits[b>>4], digits[b&15])
		}
	}
	return dst
}
