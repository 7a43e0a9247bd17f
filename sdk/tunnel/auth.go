package tunnel

import (
	"context"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// auth are the ways to log in, for one handshake; release is called after it.
func (c Config) auth(ctx context.Context) (methods []ssh.AuthMethod, release func(), err error) {
	release = func() {}
	signer, err := c.signer()
	if err != nil {
		return nil, release, err
	}
	if signer != nil {
		methods = append(methods, ssh.PublicKeys(signer))
	}
	if c.AgentSocket != "" {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.AgentSocket)
		if err != nil {
			return nil, release, usererr.New(err, "The SSH agent at %s (tunnel.agentSocket) cannot be reached: %s. Check that it runs, and that its socket is visible here.", c.AgentSocket, innermost(err))
		}
		release = func() { _ = conn.Close() }
		methods = append(methods, ssh.PublicKeysCallback(agent.NewClient(conn).Signers))
	}
	if !c.Password.IsZero() {
		answer := func(_, _ string, questions []string, echoes []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if !echoes[i] { // a question whose answer is not shown is the one for the password
					answers[i] = c.Password.Reveal()
				}
			}
			return answers, nil
		}
		methods = append(methods, ssh.Password(c.Password.Reveal()), ssh.KeyboardInteractive(answer))
	}
	return methods, release, nil
}

// isAuthFailure recognises the end of a handshake in which no way to log in was accepted, for which package ssh has no type.
func isAuthFailure(err error) bool {
	return strings.Contains(err.Error(), "unable to authenticate") || strings.Contains(err.Error(), "no supported methods remain")
}
