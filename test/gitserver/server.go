// Package gitserver serves bare repositories over https for tests and the demo: net/http/cgi in front of `git http-backend`, with a
// certificate of a CA that is made in this process and thrown away with it.
//
// It is read-only, and it is not meant for any network but loopback and namespaces a test made.
package gitserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Options of a server. Root holds the bare repositories.
type Options struct {
	Listener net.Listener
	Root     string
	Hosts    []string                 // names and addresses the certificate is for; default: the listener's address
	Allow    func(*http.Request) bool // nil allows everybody; otherwise false answers 401
	Log      io.Writer                // git's complaints; nil discards them
}

// Server is a running server.
type Server struct {
	URL   string // https://HOST:PORT, without a trailing slash
	CAPEM []byte
	http  *http.Server
	done  chan error
}

// Start serves until Close. It fails if git is not installed.
func Start(o Options) (*Server, error) {
	backend, env, err := findBackend()
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	host, port, err := net.SplitHostPort(o.Listener.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("listener address: %w", err)
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{host}
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	ca, cert, err := certificates(o.Hosts)
	if err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	handler := http.Handler(&cgi.Handler{
		Path: backend, Dir: root, Stderr: o.Log, Logger: log.New(o.Log, "", 0),
		Env: append(env, "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
	})
	s := &Server{
		URL: "https://" + net.JoinHostPort(o.Hosts[0], port), CAPEM: ca, done: make(chan error, 1),
		http: &http.Server{
			Handler: guard(handler, o.Allow), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(o.Log, "", 0),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		},
	}
	go func() { s.done <- s.http.ServeTLS(o.Listener, "", "") }()
	return s, nil
}

// Close stops the server and waits for it.
func (s *Server) Close() error {
	err := s.http.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// guard refuses pushes and those whom allow refuses.
func guard(next http.Handler, allow func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path+r.URL.RawQuery, "git-receive-pack"):
			http.Error(w, "read-only", http.StatusForbidden)
		case allow != nil && !allow(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// findBackend looks git up once, so that a later change of PATH does not matter. safe.directory: a repository made in a user
// namespace may belong to an id that git does not know.
func findBackend() (string, []string, error) {
	gitPath, err := exec.LookPath("git")
	if err != nil {
		return "", nil, fmt.Errorf("git server: %w", err)
	}
	out, err := exec.Command(gitPath, "--exec-path").Output()
	if err != nil {
		return "", nil, fmt.Errorf("git --exec-path: %w", err)
	}
	env := []string{
		"PATH=" + filepath.Dir(gitPath) + ":" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}
	return filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"), env, nil
}

// certificates makes a CA and a server certificate signed by it, both valid for a day.
func certificates(hosts []string) (caPEM []byte, server tls.Certificate, err error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, server, err
	}
	ca := template(1, "throw-away CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, server, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, server, err
	}
	leaf := template(2, "git")
	leaf.KeyUsage, leaf.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, server, err
	}
	caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return caPEM, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func template(serial int64, name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}
