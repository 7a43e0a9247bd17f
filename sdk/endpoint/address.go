package endpoint

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Address is where a server listens.
type Address struct {
	Host string // a name or an IP address, without brackets
	Port uint16
}

// String is the address as net.Dial takes it.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// IsLoopback reports whether the host is this machine by its address or the name localhost.
func (a Address) IsLoopback() bool {
	ip, err := netip.ParseAddr(a.Host)
	return a.Host == "localhost" || (err == nil && ip.IsLoopback())
}

// ParseAddress takes an address apart that a person wrote: host, host:port, [ipv6]:port, or a bare IPv6 address. The error is
// in words for people. Exactly one TCP address is meant: a list of hosts would let the place in a log move to another server
// unasked, and a Unix socket is not there for a connector in a container.
func ParseAddress(address string, defaultPort uint16) (Address, error) {
	host, digits := address, ""
	var err error
	switch {
	case strings.Contains(address, ","):
		return Address{}, usererr.New(nil, "The address %q names several hosts. Enter one: the server that the data is to come from, or a name that always leads to it.", address)
	case strings.HasPrefix(address, "/"):
		return Address{}, usererr.New(nil, "The address %q is a Unix socket, not a host name or an IP address. Have the server listen on TCP, and enter host or host:port, such as 127.0.0.1:%d.", address, defaultPort)
	case isIP(host), strings.Contains(host, "/"):
	case strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]"):
		host = host[1 : len(host)-1]
	case strings.Contains(host, ":"):
		if host, digits, err = net.SplitHostPort(address); err != nil || digits == "" {
			return Address{}, usererr.New(err, "The address %q is not of the form host:port. An IPv6 address with a port is written [::1]:%d.", address, defaultPort)
		}
	}
	if host == "" || strings.ContainsAny(host, "/@[] ") || (strings.Contains(host, ":") && !isIP(host)) {
		return Address{}, usererr.New(nil, "The address %q is not a host name or an IP address. Enter just host or host:port, without a scheme, user or path.", address)
	}
	if digits == "" {
		return Address{Host: host, Port: defaultPort}, nil
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 {
		return Address{}, usererr.New(err, "The port %q of the address is not a number between 1 and 65535.", digits)
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
