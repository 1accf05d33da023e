package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// sshSession runs git-upload-pack on the server. The connection ends with the context, in the handshake too.
type sshSession struct {
	client *ssh.Client
	in     io.WriteCloser
	out    io.Reader
	stop   func() bool
}

func newSSHSession(ctx context.Context, location string, auth Auth) (*sshSession, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, snapshot.Errorf(diag.LocationInvalid, "the location is not a URL")
	}
	config, err := auth.sshConfig(u)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	addr := net.JoinHostPort(u.Hostname(), port)
	if config.HostKeyAlgorithms = knownAlgorithms(config.HostKeyCallback, addr); len(config.HostKeyAlgorithms) == 0 {
		return nil, snapshot.Errorf(diag.HostKeyRefused, "%s is not in known_hosts", addr)
	}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, failure(err)
	}
	s := &sshSession{stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if err := s.start(conn, addr, u.Path, config); err != nil {
		s.stop()
		_ = conn.Close()
		return nil, classifySSH(ctx, err)
	}
	return s, nil
}

func (s *sshSession) start(conn net.Conn, addr, repo string, config *ssh.ClientConfig) error {
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		return err
	}
	s.client = ssh.NewClient(c, channels, requests)
	run, err := s.client.NewSession()
	if err != nil {
		return fmt.Errorf("open ssh session: %w", err)
	}
	if s.in, err = run.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = run.StdoutPipe(); err != nil {
		return err
	}
	return run.Start("git-upload-pack '" + strings.ReplaceAll(repo, "'", `'\''`) + "'")
}

// classifySSH tells a wrong key of theirs and a wrong key of ours from a broken line.
func classifySSH(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return snapshot.Errorf(diag.FetchTimeout, "%w", ctx.Err())
	}
	key, revoked := (*knownhosts.KeyError)(nil), (*knownhosts.RevokedError)(nil)
	switch {
	case errors.As(err, &key) && len(key.Want) > 0:
		return snapshot.Errorf(diag.HostKeyRefused, "the server's host key is not the one in known_hosts")
	case errors.As(err, &key):
		return snapshot.Errorf(diag.HostKeyRefused, "the server is not in known_hosts")
	case errors.As(err, &revoked):
		return snapshot.Errorf(diag.HostKeyRefused, "the server's host key is marked as revoked")
	case strings.Contains(err.Error(), "unable to authenticate"): // x/crypto/ssh has no error type for it
		return snapshot.Errorf(diag.AuthFailed, "the ssh server accepts none of our keys")
	case strings.Contains(err.Error(), "no common algorithm for host key"): // it has other keys than those we know
		return snapshot.Errorf(diag.HostKeyRefused, "the server has no host key of the kinds in known_hosts")
	}
	return failure(err)
}

func (a Auth) sshConfig(u *url.URL) (*ssh.ClientConfig, error) {
	known, err := orHome(a.KnownHostsFile, "known_hosts")
	if err != nil {
		return nil, snapshot.Errorf(diag.HostKeyRefused, "known_hosts: %w", err)
	}
	check, err := knownhosts.New(known)
	if err != nil {
		return nil, snapshot.Errorf(diag.HostKeyRefused, "read known_hosts: %w", err)
	}
	file, err := orHome(a.KeyFile, "id_ed25519", "id_ecdsa", "id_rsa")
	if err != nil {
		return nil, snapshot.Errorf(diag.AuthFailed, "ssh key: %w", err)
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, snapshot.Errorf(diag.AuthFailed, "read ssh key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, snapshot.Errorf(diag.AuthFailed, "ssh key %s needs a passphrase; give a key without", file)
	}
	if err != nil {
		return nil, snapshot.Errorf(diag.AuthFailed, "ssh key %s cannot be read as a private key", file)
	}
	user := u.User.Username()
	if user == "" {
		user = "git"
	}
	return &ssh.ClientConfig{User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: check}, nil
}

// orHome is path, or the first of names that exists in ~/.ssh.
func orHome(path string, names ...string) (string, error) {
	if path != "" {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	for _, n := range names {
		p := filepath.Join(home, ".ssh", n)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("none given and none in %s", filepath.Join(home, ".ssh"))
}

// knownAlgorithms lists the key algorithms known_hosts has for addr. Without it the server might offer a key of a kind we do not
// know, and a known host would be refused. Empty: the host is unknown.
func knownAlgorithms(check ssh.HostKeyCallback, addr string) []string {
	var key *knownhosts.KeyError
	if err := check(addr, &net.TCPAddr{}, noKey{}); !errors.As(err, &key) {
		return nil
	}
	var out []string
	for _, k := range key.Want {
		if t := k.Key.Type(); t == ssh.KeyAlgoRSA {
			out = append(out, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			out = append(out, t)
		}
	}
	return out
}

// noKey is a host key that no host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

func (s *sshSession) advertise(ctx context.Context) (*packp.AdvRefs, error) {
	adv, err := decodeAdvert(s.out)
	if err != nil && ctx.Err() != nil {
		return nil, snapshot.Errorf(diag.FetchTimeout, "%w", ctx.Err())
	}
	return adv, err
}

func (s *sshSession) request(_ context.Context, req *packp.UploadPackRequest) (io.ReadCloser, error) {
	if err := encodeRequest(s.in, req, true); err != nil {
		return nil, failure(err)
	}
	if err := s.in.Close(); err != nil {
		return nil, failure(err)
	}
	return io.NopCloser(s.out), nil
}

func (s *sshSession) close() {
	s.stop()
	_ = s.client.Close()
}
