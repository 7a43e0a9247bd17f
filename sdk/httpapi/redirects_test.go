package httpapi

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// Secret headers stay with one service, also on the way back from another, and go from its http to its https.
func TestSecretsStayAtHome(t *testing.T) {
	t.Parallel()
	from := func(addresses ...string) string {
		list := make([]*http.Request, len(addresses))
		for i, address := range addresses {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer hunter2")
			req.Header.Set("Cookie", "session=s3cret")
			list[i] = req
		}
		last := list[len(list)-1]
		require.NoError(t, carefully(nil)(last, list[:len(list)-1]))
		return last.Header.Get("Authorization") + last.Header.Get("Cookie")
	}
	const both = "Bearer hunter2session=s3cret"
	require.Equal(t, both, from("https://a.example/1", "https://a.example/2"))
	require.Equal(t, both, from("http://a.example/1", "https://a.example/2"))
	require.Empty(t, from("https://a.example/1", "https://b.example/2", "https://a.example/3"))
	require.Empty(t, from("https://a.example/1", "https://x.a.example/2"), "a subdomain may be somebody else's")
	require.Empty(t, from("https://a.example/1", "https://a.example:8443/2"))
	require.Empty(t, from("http://a.example:8080/1", "https://a.example/2"))
}
