package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// newIdentity gives a copied data folder its own system identifier. Without it all clusters made from one template
// would pass for the same server, and no test could show that a connector notices another server behind its address.
//
// The identifier stands in two places:
//
//	global/pg_control   bytes 0–8, covered by a CRC-32C that ends the struct (its length differs between versions)
//	pg_wal/<segment>    bytes 24–32 of the long page header that starts each segment (xlp_sysid; headers have no checksum)
//
// See src/include/catalog/pg_control.h and src/include/access/xlog_internal.h of Postgres.
func newIdentity(data string) error {
	id := rand.Uint64() >> 1 // positive as int8: IDENTIFY_SYSTEM and pg_control_system() show it as a decimal
	if err := patch(filepath.Join(data, "global", "pg_control"), func(b []byte) error { return stampControl(b, id) }); err != nil {
		return fmt.Errorf("changing the system identifier: %w", err)
	}
	segments, err := filepath.Glob(filepath.Join(data, "pg_wal", "[0-9A-F]*[0-9A-F]"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		if err := stampSegment(segment, id); err != nil {
			return fmt.Errorf("changing the system identifier in the log: %w", err)
		}
	}
	return nil
}

// stampControl finds the checksum by trying every place where it can be, and renews it.
func stampControl(b []byte, id uint64) error {
	table := crc32.MakeTable(crc32.Castagnoli)
	for end := 128; end+4 <= 512 && end+4 <= len(b); end += 4 {
		if crc32.Checksum(b[:end], table) != binary.LittleEndian.Uint32(b[end:]) {
			continue
		}
		binary.LittleEndian.PutUint64(b, id)
		binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], table))
		return nil
	}
	return errors.New("pg_control has no checksum where one was expected")
}

func patch(path string, change func([]byte) error) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := change(content); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

func stampSegment(path string, id uint64) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(binary.LittleEndian.AppendUint64(nil, id), 24)
	return errors.Join(err, file.Close())
}
