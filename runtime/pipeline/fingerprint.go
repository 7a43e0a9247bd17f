package pipeline

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// fingerprintRounds make it slow to guess the passwords of a configuration from its fingerprint: some tenths of a second for each guess.
const fingerprintRounds = 600_000

// Fingerprint tells pipelines apart by all that decides what their tasks do; not by comments or the place of a line. The processes that share a pipeline compare
// it, where others can read it. salt is what is public and other pipelines do not have, such as the prefix of their topics.
func (p *Pipeline) Fingerprint(salt string) (string, error) {
	text, err := json.Marshal([]any{p.Captures, p.Collections, p.Materializations})
	if err != nil {
		return "", fmt.Errorf("encoding the pipeline: %w", err)
	}
	key, err := pbkdf2.Key(sha256.New, string(text), []byte(salt), fingerprintRounds, 16)
	if err != nil {
		return "", fmt.Errorf("taking the pipeline's fingerprint: %w", err)
	}
	return hex.EncodeToString(key), nil
}
