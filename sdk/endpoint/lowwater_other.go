//go:build !linux

package endpoint

import (
	"errors"
	"syscall"
)

// setLowWater is not possible here: the reader then wakes for every change, which is only slower.
func setLowWater(syscall.RawConn, int) bool { return false }

func readWoken(syscall.RawConn, []byte, int) (int, error) { return 0, errors.ErrUnsupported }

func readRest(syscall.RawConn, []byte) (int, error) { return 0, errors.ErrUnsupported }
