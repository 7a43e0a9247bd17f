package tunnel

import "golang.org/x/crypto/ssh"

func marshal(s ssh.Signer) []byte { return ssh.MarshalAuthorizedKey(s.PublicKey()) }
