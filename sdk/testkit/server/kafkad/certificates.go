package kafkad

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"time"
)

// certificates are an authority, and what it signed: one certificate for all brokers, one for clients.
type certificates struct {
	ca             string
	server, client pair
}

// pair is a certificate and its key, as PEM texts.
type pair struct{ certificate, key string }

// newCertificates makes an authority, the key of which is thrown away at once.
func newCertificates() (*certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := unsigned(1, "Throw-away test CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	sign := func(serial int64, name string) (pair, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return pair{}, err
		}
		leaf := unsigned(serial, name)
		leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		leaf.DNSNames, leaf.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		der, errSign := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
		secret, errKey := x509.MarshalPKCS8PrivateKey(key)
		return pair{encode("CERTIFICATE", der), encode("PRIVATE KEY", secret)}, errors.Join(errSign, errKey)
	}
	server, errServer := sign(2, "broker")
	client, errClient := sign(3, "client")
	return &certificates{ca: encode("CERTIFICATE", der), server: server, client: client}, errors.Join(errServer, errClient)
}

func unsigned(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// settings are those of the secure listeners.
func (c *certificates) settings() map[string]string {
	const module = "org.apache.kafka.common.security."
	return map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.certificate.chain": c.server.certificate, "ssl.keystore.key": c.server.key,
		"ssl.truststore.type": "PEM", "ssl.truststore.certificates": c.ca,
		"listener.name.mutual.ssl.client.auth":              "required",
		"sasl.enabled.mechanisms":                           "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"listener.name.sasl.plain.sasl.jaas.config":         module + `plain.PlainLoginModule required user_` + User + `="` + Password + `";`,
		"listener.name.sasl.scram-sha-256.sasl.jaas.config": module + "scram.ScramLoginModule required;",
		"listener.name.sasl.scram-sha-512.sasl.jaas.config": module + "scram.ScramLoginModule required;",
		"listener.name.sasl.oauthbearer.sasl.jaas.config":   module + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="` + User + `";`,
	}
}
