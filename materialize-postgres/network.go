package main

import (
	"errors"
	"net"
	"net/netip"

	"github.com/sluicedata/sluice/sdk/tuple"
)

var (
	errNotAddress  = errors.New("it is not an IP address, alone or with the length of a prefix")
	errNotNetwork  = errors.New("it is not a network of the form 10.1.0.0/16, without bits behind the prefix")
	errNotHardware = errors.New("it is not a hardware address of the length that the column holds")
)

func encodeInet(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	p, err := prefixOf(e)
	if err != nil {
		return dst, errNotAddress
	}
	return appendPrefix(dst, p, 0), nil
}

func encodeCidr(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	p, err := prefixOf(e)
	if err != nil || p != p.Masked() {
		return dst, errNotNetwork
	}
	return appendPrefix(dst, p, 1), nil
}

// prefixOf reads an address with or without the length of a prefix. Zones of addresses are not known to Postgres.
func prefixOf(e tuple.Element) (netip.Prefix, error) {
	if e.Kind != tuple.String {
		return netip.Prefix{}, errNotAddress
	}
	text := string(e.Bytes)
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, errNotAddress
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// appendPrefix appends the binary form: family, bits, whether it is a network, length, address.
func appendPrefix(dst []byte, p netip.Prefix, network byte) []byte {
	const family4, family6 = 2, 3
	if p.Addr().Is4() {
		a := p.Addr().As4()
		dst = append(dst, 0, 0, 0, 8, family4, byte(p.Bits()), network, 4)
		return append(dst, a[:]...)
	}
	a := p.Addr().As16()
	dst = append(dst, 0, 0, 0, 20, family6, byte(p.Bits()), network, 16)
	return append(dst, a[:]...)
}

func encodeMacaddr(dst []byte, e tuple.Element) ([]byte, error) { return appendHardware(dst, e, 6) }

func encodeMacaddr8(dst []byte, e tuple.Element) ([]byte, error) { return appendHardware(dst, e, 8) }

func appendHardware(dst []byte, e tuple.Element, length int) ([]byte, error) {
	if e.Kind == tuple.Nil {
		return appendNull(dst), nil
	}
	if e.Kind != tuple.String {
		return dst, errNotHardware
	}
	a, err := net.ParseMAC(string(e.Bytes))
	if err != nil || len(a) != length {
		return dst, errNotHardware
	}
	return appendBytes(dst, a), nil
}
