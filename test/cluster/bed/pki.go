package bed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// kubeletClient names the files of the certificate that the API server shows to kubelets, and kubeletCA those of its issuer.
const (
	kubeletClient = "kubelet-client"
	kubeletCA     = "kubelet-ca"
)

// kubeletClientFiles writes both into dir. Kubelets ask the API server what its bearer may do: everything, as system:masters.
func kubeletClientFiles(dir string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template("danm test bed", nil)
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	client := template("kube-apiserver", []string{"system:masters"})
	client.KeyUsage, client.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign the kubelets' CA: %w", err)
	}
	clientDER, err := x509.CreateCertificate(rand.Reader, client, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("sign the API server's certificate for kubelets: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	write := func(name, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	return errors.Join(write(kubeletCA+".crt", "CERTIFICATE", caDER), write(kubeletClient+".crt", "CERTIFICATE", clientDER), write(kubeletClient+".key", "PRIVATE KEY", keyDER))
}

func template(name string, groups []string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
}
