package tunnel

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// hostKeys are what an SSH server may show: keys, and fingerprints of keys.
type hostKeys struct {
	keys         []ssh.PublicKey
	fingerprints []string
}

// parseHostKeys reads lines that hold a public key, a line of a known_hosts file, or a fingerprint. Empty lines and comments
// are skipped. Host names in known_hosts lines are not looked at: who pastes a line means this tunnel by it.
func parseHostKeys(text string) (hostKeys, error) {
	var known hostKeys
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "SHA256:"):
			known.fingerprints = append(known.fingerprints, strings.TrimRight(strings.Fields(line)[0], "="))
			continue
		case strings.HasPrefix(line, "@"):
			return hostKeys{}, usererr.New(nil, "The host key of the tunnel has a line with the marker %s, which is not supported. Enter the server's own key.", strings.Fields(line)[0])
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			// What is left when the host names of a known_hosts line are taken off.
			_, rest, _ := strings.Cut(line, " ")
			key, _, _, _, err = ssh.ParseAuthorizedKey([]byte(rest))
		}
		if err != nil {
			return hostKeys{}, usererr.New(err, "The host key of the tunnel (tunnel.hostKey) is not understood. Enter a public key (ssh-ed25519 AAAA…), a line of known_hosts, or a fingerprint (SHA256:…).")
		}
		known.keys = append(known.keys, key)
	}
	return known, nil
}

func (k hostKeys) empty() bool { return len(k.keys) == 0 && len(k.fingerprints) == 0 }

// algorithms are those of the keys, so that a server with several keys shows the one that is known; nil means any.
func (k hostKeys) algorithms() []string {
	var names []string
	if len(k.fingerprints) > 0 {
		return nil
	}
	for _, key := range k.keys {
		if key.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		names = append(names, key.Type())
	}
	return names
}

// hostKeyError is a host key that was not accepted. It is made during the handshake, which wraps it.
type hostKeyError struct{ err error }

func (e *hostKeyError) Error() string { return e.err.Error() }
func (e *hostKeyError) Unwrap() error { return e.err }

// check is an ssh.HostKeyCallback for the server at address.
func (k hostKeys) check(address string) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, shown ssh.PublicKey) error {
		fingerprint := ssh.FingerprintSHA256(shown)
		if slices.Contains(k.fingerprints, fingerprint) ||
			slices.ContainsFunc(k.keys, func(key ssh.PublicKey) bool { return bytes.Equal(key.Marshal(), shown.Marshal()) }) {
			return nil
		}
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown)))
		if k.empty() {
			return &hostKeyError{usererr.New(nil, "Which SSH server answers at %s cannot be verified without its host key. It shows a key with the fingerprint %s. "+
				"If its administrator confirms that (ssh-keygen -lf on the server's public host keys in /etc/ssh), enter in tunnel.hostKey:\n%s", address, fingerprint, line)}
		}
		return &hostKeyError{usererr.New(nil, "The SSH server at %s shows another host key than the one in tunnel.hostKey: its fingerprint is %s, not %s. "+
			"Either another server answers, or its key was changed. If its administrator confirms the change, enter in tunnel.hostKey:\n%s", address, fingerprint, k.describe(), line)}
	}
}

// describe lists the fingerprints that are known.
func (k hostKeys) describe() string {
	names := slices.Clone(k.fingerprints)
	for _, key := range k.keys {
		names = append(names, ssh.FingerprintSHA256(key))
	}
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("one of %s", strings.Join(names, ", "))
}
