// Package network makes networks of hosts that tests can cut: namespaces of this machine, each with an address and a cable of its own, and a
// bridge between them. A host that is cut is as good as gone: what is sent to it, or by it, vanishes without a word, and its processes live on.
//
// Namespaces have no names and are held by nothing but our process and those on the hosts, so that the kernel removes them, with their links, when
// all of these have ended, however they end. Only Linux has them, and only root may make them.
package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnable says that no network can be made here: not as this user, or not in this container.
var ErrUnable = errors.New("no network of hosts can be made here, which takes Linux, the rights of root, and the programs ip (package iproute2) and nsenter (util-linux)")

// Network is a network of hosts, of which this machine is one. Its methods are for one goroutine; those of its hosts may be called from any.
type Network struct {
	hub    *namespace // has the bridge, so that the firewall of this machine has no say in it
	number int        // the third byte of its addresses, by which networks of this machine differ
	hosts  []*Host
}

// Host is a machine of a network.
type Host struct {
	network *Network
	inside  *namespace
	number  int // the last byte of its address
}

// most networks are tried before one is found that is free.
const most = 200

// New makes a network without hosts. The caller must Close it. An error that is ErrUnable says that this machine cannot have one.
func New(ctx context.Context) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, ErrUnable
	}
	for _, program := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnable, err)
		}
	}
	hub, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnable, err)
	}
	n := &Network{hub: hub}
	if err := hub.ip(ctx, "link add bridge type bridge forward_delay 0", "link set bridge up"); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnable, err), n.Close())
	}
	if err := n.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrUnable, err), n.Close())
	}
	return n, nil
}

// join makes this machine a host of the network. Its link is named by the network's number, and there cannot be two of a name: so the number is ours.
func (n *Network) join(ctx context.Context) (err error) {
	for n.number = 1; n.number <= most; n.number++ {
		if n.taken() {
			continue
		}
		err = here(ctx, fmt.Sprintf("link add %s type veth peer name here netns %s", n.link(), n.hub.path()))
		if err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	if err := n.hub.ip(ctx, "link set here master bridge", "link set here up"); err != nil {
		return err
	}
	return here(ctx, fmt.Sprintf("address add %s/24 dev %s", n.Address(), n.link()), fmt.Sprintf("link set %s up", n.link()))
}

// taken tells whether this machine is in a network with our addresses already.
func (n *Network) taken() bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false // then it fails when the address is added
	}
	for _, a := range all {
		if strings.HasPrefix(a.String(), n.prefix()) {
			return true
		}
	}
	return false
}

func (n *Network) link() string { return fmt.Sprintf("sluice%d", n.number) }

// prefix is that of a range for tests of networks (RFC 2544), which nobody routes to.
func (n *Network) prefix() string { return fmt.Sprintf("198.18.%d.", n.number) }

// Address is that of this machine in the network. Who listens on it is reached from all hosts.
func (n *Network) Address() string { return n.prefix() + "1" }

// Add makes another host.
func (n *Network) Add(ctx context.Context) (*Host, error) {
	inside, err := newNamespace()
	if err != nil {
		return nil, err
	}
	h := &Host{network: n, inside: inside, number: len(n.hosts) + 2}
	n.hosts = append(n.hosts, h)
	err = n.hub.ip(ctx, fmt.Sprintf("link add %s type veth peer name eth0 netns %s", h.cable(), inside.path()),
		fmt.Sprintf("link set %s master bridge", h.cable()), fmt.Sprintf("link set %s up", h.cable()))
	if err != nil {
		return nil, err
	}
	return h, inside.ip(ctx, "link set lo up", fmt.Sprintf("address add %s/24 dev eth0", h.Address()), "link set eth0 up")
}

// Close removes what the kernel would remove when our process ends. Processes that still run on hosts keep theirs, without a cable. It may be called twice.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.inside.close())
	}
	if n.number > 0 { // the kernel removes it too, but some time after the other end's namespace is gone
		_ = here(context.Background(), "link delete "+n.link()) // it may not be there
	}
	n.hosts, n.number = nil, 0
	return errors.Join(append(errs, n.hub.close())...)
}

// Address is the host's in the network.
func (h *Host) Address() string { return fmt.Sprintf("%s%d", h.network.prefix(), h.number) }

// cable is the name of the bridge's end of the host's link.
func (h *Host) cable() string { return fmt.Sprintf("host%d", h.number) }

// Command is what stands before a command line to have it run on the host. The process has the same id as without it.
func (h *Host) Command() []string { return h.inside.command() }

// Cut takes the host off the network.
func (h *Host) Cut() error {
	return h.network.hub.ip(context.Background(), fmt.Sprintf("link set %s down", h.cable()))
}

// Mend undoes Cut.
func (h *Host) Mend() error {
	return h.network.hub.ip(context.Background(), fmt.Sprintf("link set %s up", h.cable()))
}

// namespace is a network namespace, held by a file.
type namespace struct{ file *os.File }

func newNamespace() (*namespace, error) {
	type made struct {
		file *os.File
		err  error
	}
	result := make(chan made)
	go func() {
		file, err := unshared()
		result <- made{file, err}
	}()
	m := <-result
	if m.err != nil {
		return nil, m.err
	}
	return &namespace{m.file}, nil
}

// unshared makes a namespace on a thread that goes there and back. It must not end there: processes that it has started before, for others, may have asked to be
// told when it does (Pdeathsig), and would take that for the end of all of us.
func unshared() (*os.File, error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net") // not that of the process, whose first thread may be away as well
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, os.NewSyscallError("unshare", err)
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, errors.Join(os.NewSyscallError("setns", err), file.Close()) // the thread is of no use to others
	}
	runtime.UnlockOSThread()
	return file, err
}

// path is how other processes find it, as long as ours lives.
func (n *namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

func (n *namespace) command() []string { return []string{"nsenter", "--net=" + n.path(), "--"} }

// ip runs commands of the program ip inside.
func (n *namespace) ip(ctx context.Context, commands ...string) error {
	return run(ctx, append(n.command(), "ip", "-batch", "-"), commands)
}

func (n *namespace) close() error {
	if err := n.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// here runs commands of the program ip on this machine.
func here(ctx context.Context, commands ...string) error {
	return run(ctx, []string{"ip", "-batch", "-"}, commands)
}

func run(ctx context.Context, program, commands []string) error {
	cmd := exec.CommandContext(ctx, program[0], program[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; ip "), err, bytes.TrimSpace(out))
	}
	return nil
}
