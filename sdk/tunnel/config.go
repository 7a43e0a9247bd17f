package tunnel

import (
	"errors"

	"golang.org/x/crypto/ssh"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Config is what users write, as a section of a connector's configuration. Without an address there is no tunnel.
type Config struct {
	Address     string        `json:"address,omitempty" title:"SSH Server" desc:"The SSH server that your server is reached through, as host or host:port; the port is 22 if left out. Empty means no tunnel." order:"0"`
	User        string        `json:"user,omitempty" title:"SSH User" desc:"The user to log in as at the SSH server. It needs no shell, only the right to forward connections." order:"1"`
	PrivateKey  schema.Secret `json:"privateKey,omitzero" title:"Private Key" desc:"The user's private key: the whole text of a file such as id_ed25519." secret:"true" multiline:"true" order:"2"`
	Passphrase  schema.Secret `json:"passphrase,omitzero" title:"Passphrase" desc:"What the private key is protected with, if it is." secret:"true" order:"3"`
	AgentSocket string        `json:"agentSocket,omitempty" title:"SSH Agent" desc:"The socket of an SSH agent that holds the key, as SSH_AUTH_SOCK names it, instead of a private key." order:"4"`
	Password    schema.Secret `json:"password,omitzero" title:"SSH Password" desc:"The user's password at the SSH server, if it takes passwords instead of keys." secret:"true" order:"5"`
	HostKey     string        `json:"hostKey,omitempty" title:"Host Key" desc:"What proves which SSH server answers: its public key (ssh-ed25519 AAAA…), a line of a known_hosts file, or the key's fingerprint (SHA256:…). Several lines if it has several keys. If you leave it out, the check shows what the server's key is." multiline:"true" order:"6"`
}

// sshPort is where SSH servers listen.
const sshPort = 22

// Enabled reports whether there is a tunnel at all.
func (c Config) Enabled() bool { return c.Address != "" }

// Validate reports every problem at once, in words for people, without connecting to anything.
func (c Config) Validate() error {
	if !c.Enabled() {
		if c.User+c.AgentSocket+c.HostKey != "" || !c.PrivateKey.IsZero() || !c.Passphrase.IsZero() || !c.Password.IsZero() {
			return usererr.New(nil, "The tunnel has no address. Enter the SSH server's in tunnel.address, or remove the tunnel.")
		}
		return nil
	}
	var errs []error
	if _, err := endpoint.ParseAddress(c.Address, sshPort); err != nil {
		errs = append(errs, usererr.New(err, "The SSH server's address (tunnel.address) is wrong: %s", usererr.Message(err)))
	}
	if c.User == "" {
		errs = append(errs, usererr.New(nil, "Enter the user to log in as at the SSH server, in tunnel.user."))
	}
	if c.PrivateKey.IsZero() && c.Password.IsZero() && c.AgentSocket == "" {
		errs = append(errs, usererr.New(nil, "Enter how to log in at the SSH server: tunnel.privateKey, tunnel.agentSocket or tunnel.password."))
	}
	if _, err := c.signer(); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseHostKeys(c.HostKey); err != nil {
		errs = append(errs, err)
	}
	return usererr.Join("", errs)
}

// signer is the private key; nil if there is none. No error shows anything of it.
func (c Config) signer() (ssh.Signer, error) {
	if c.PrivateKey.IsZero() {
		return nil, nil //nolint:nilnil // no key
	}
	key := []byte(c.PrivateKey.Reveal())
	signer, err := ssh.ParsePrivateKey(key)
	if _, protected := errors.AsType[*ssh.PassphraseMissingError](err); protected {
		if c.Passphrase.IsZero() {
			return nil, usererr.New(nil, "The private key of the tunnel is protected. Enter its passphrase in tunnel.passphrase.")
		}
		signer, err = ssh.ParsePrivateKeyWithPassphrase(key, []byte(c.Passphrase.Reveal()))
		if err != nil {
			return nil, usererr.New(nil, "The passphrase (tunnel.passphrase) does not open the private key of the tunnel.")
		}
	}
	if err != nil {
		return nil, usererr.New(nil, "The private key of the tunnel cannot be read. Paste the whole text of the file, from -----BEGIN to the last line; a public key (.pub) or a PuTTY key (.ppk) will not do.")
	}
	return signer, nil
}
