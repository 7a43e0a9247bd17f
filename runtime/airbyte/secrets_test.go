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
	secrets, err := findSecrets(config, []string{"password", "key"})
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

// Numbers are replaced where they are numbers of their own; what is short, or one of two words, only behind its field's name: a text has to stay one.
func TestSecretsThatAreNoTexts(t *testing.T) {
	t.Parallel()
	const config = `{"pin":482913,"code":12,"ratio":1.5e6,"flag":true,"one":"1","tiny":"a)","list":[7,8],"login":{"word":"ab","inner":false},"none":null,"port":5432}`
	names := []string{"pin", "code", "ratio", "flag", "one", "tiny", "list", "login", "none"}
	secrets, err := findSecrets([]byte(config), names)
	require.NoError(t, err)
	for text, want := range map[string]string{
		"482913 is wrong; 482913.": "(secret) is wrong; (secret).", "pin=482913&x": "pin=(secret)&x", `{"pin":482913}`: `{"pin":(secret)}`,
		`log:\n482913`: `log:\n(secret)`, "a%20482913": "a%20(secret)", "482913482913": "482913482913", "1482913 x482913 482913é": "1482913 x482913 482913é",
		"1500000 rows": "(secret) rows", "1.5e6": "(secret)", "1.5e+06": "(secret)", "took 1500000.0 ms": "took (secret).0 ms",
		"12 rows, 1 table, true": "12 rows, 1 table, true", "port 5432, 127.0.0.1": "port 5432, 127.0.0.1",
		`{"code": 12, "code2": 12, "n": 12}`: `{"code": (secret), "code2": 12, "n": 12}`, `{"code": 123}`: `{"code": 123}`, `code=12`: "code=(secret)", `mycode=12`: "mycode=12",
		`{'flag': True, 'other': True}`: `{'flag': (secret), 'other': True}`, `{\"flag\":true}`: `{\"flag\":(secret)}`, "flag: truest": "flag: truest",
		`{"one":"1"} and 1`: `{"one":"(secret)"} and 1`, "one => 1": "one => (secret)", "tiny='a)'": "tiny='(secret)'",
		`"list": [7, 8], 7`: `"list": (secret), 7`, `login={word=ab, inner=false}`: `login={word=(secret), inner=(secret)}`, "abc ab": "abc ab", "None of null": "None of null",
	} {
		require.Equal(t, want, secrets.replace(text), text)
	}
	require.Equal(t, "pin 1", secretsOfNone(t).replace("pin 1"))
	_, err = findSecrets([]byte("{"), names)
	require.ErrorContains(t, err, "The configuration is not JSON.")
}

func secretsOfNone(t *testing.T) *secrets {
	t.Helper()
	s, err := findSecrets([]byte(`{"pin":1}`), nil)
	require.NoError(t, err)
	return s
}

// A fingerprint is of what is not secret, with a salt, and dear.
func TestFingerprintHidesSecrets(t *testing.T) {
	t.Parallel()
	const salt = "00112233445566778899aabbccddeeff"
	sum := func(salt, config string) string {
		s, err := fingerprint("image", salt, []byte(config), []string{"password"})
		require.NoError(t, err)
		return s
	}
	first := sum(salt, `{"host":"a","in":{"password":"x"}}`)
	require.Equal(t, first, sum(salt, `{"in":{"password":["other"]}, "host":"a"}`))
	require.NotEqual(t, first, sum(salt, `{"host":"b","in":{"password":"x"}}`))
	require.NotEqual(t, first, sum(newSalt(), `{"host":"a","in":{"password":"x"}}`))
	require.NotEqual(t, newSalt(), newSalt())
	plain, err := withoutSecrets([]byte(`{"host":"a","port":12345678901234567890,"in":[{"password":"x"}]}`), []string{"password"})
	require.NoError(t, err)
	require.Equal(t, `{"host":"a","in":[{}],"port":12345678901234567890}`, string(plain))
}
