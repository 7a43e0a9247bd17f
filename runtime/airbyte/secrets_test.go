package airbyte

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A secret is found in every form in which programs write it, and where a long text is cut.
func TestSecretsAreFound(t *testing.T) {
	t.Parallel()
	config, err := json.Marshal(map[string]string{"password": `say "<x>" & go`, "key": "-----BEGIN KEY-----\nMIIEsecret\n-----END KEY-----\n", "host": "db.example"})
	require.NoError(t, err)
	secrets, err := redactor(config, []string{"password", "key"})
	require.NoError(t, err)
	s := Source{secrets: secrets}
	for _, text := range []string{
		`say "<x>" & go`, `say \"<x>\" & go`, `say \"\u003cx\u003e\" \u0026 go`, "say+%22%3Cx%3E%22+%26+go", "say%20%22%3Cx%3E%22%20&%20go", "MIIEsecret",
	} {
		require.Equal(t, "db.example: (secret).", s.clean("db.example: "+text+"."))
	}
	begin := strings.Repeat(".", maxWords-5)
	require.Equal(t, begin+"(secr…", s.clean(begin+"MIIEsecret"))
}
