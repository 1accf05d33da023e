package git_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/spec/diag"
)

// sshServer is an in-process ssh server that runs git-upload-pack for one key. Connections counts those accepted.
type sshServer struct {
	addr        string
	hostKeys    []ssh.Signer
	connections atomic.Int64
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := must(ssh.MarshalPrivateKey(key, ""))(t)
	return must(ssh.NewSignerFromKey(key))(t), pem.EncodeToMemory(block)
}

func serveSSH(t *testing.T, root string, allowed ssh.PublicKey) *sshServer {
	t.Helper()
	ed, _ := newKey(t)
	ec := must(ssh.NewSignerFromKey(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)))(t)
	s := &sshServer{hostKeys: []ssh.Signer{ec, ed}}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() == "git" && string(key.Marshal()) == string(allowed.Marshal()) {
			return nil, nil
		}
		return nil, os.ErrPermission
	}}
	for _, k := range s.hostKeys {
		config.AddHostKey(k)
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { _ = l.Close() })
	s.addr = l.Addr().String()
	gitPath := must(exec.LookPath("git"))(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			go serveConn(conn, config, gitPath, root)
		}
	}()
	return s
}

func serveConn(conn net.Conn, config *ssh.ServerConfig, gitPath, root string) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		for r := range reqs {
			var p struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &p)
			repo, ok := unquoted(p.Command)
			_ = r.Reply(ok && r.Type == "exec", nil)
			if !ok {
				continue
			}
			cmd := exec.Command(gitPath, "-c", "safe.directory=*", "upload-pack", filepath.Join(root, repo))
			cmd.Stdout = ch
			in, err := cmd.StdinPipe() // Run would wait for a client that waits for us
			if err != nil || cmd.Start() != nil {
				return
			}
			go func() { _, _ = io.Copy(in, ch); _ = in.Close() }()
			_ = cmd.Wait()
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
			_ = ch.Close()
		}
	}
}

// unquoted is the repository that a shell would hand to git-upload-pack; not ok if the shell would see more words than that.
func unquoted(command string) (repo string, ok bool) {
	repo, ok = strings.CutPrefix(command, "git-upload-pack '/")
	repo, closed := strings.CutSuffix(repo, "'")
	parts := strings.Split(repo, `'\''`)
	return strings.Join(parts, "'"), ok && closed && !strings.Contains(strings.Join(parts, ""), "'")
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSSH(t *testing.T) {
	h := newHistory(t)
	client, clientPEM := newKey(t)
	_, strangerPEM := newKey(t)
	otherHost, _ := newKey(t)
	s := serveSSH(t, filepath.Dir(h.Dir), client.PublicKey())
	line := func(addr string, key ssh.PublicKey) []byte {
		return []byte(knownhosts.Line([]string{knownhosts.Normalize(addr)}, key) + "\n")
	}
	ec, ed := s.hostKeys[0].PublicKey(), s.hostKeys[1].PublicKey()
	good := git.Auth{KeyFile: file(t, clientPEM), KnownHostsFile: file(t, line(s.addr, ed))}

	o := options("ssh://git@" + s.addr + "/bundle.git")
	o.Auth, o.CacheDir = good, t.TempDir()
	for _, ref := range []string{"", "main", "v1.2.0", h.first[:8], h.second} {
		o.Ref = ref
		if s := fetch(t, o); !strings.HasSuffix(s.Revision, h.second) && !strings.HasSuffix(s.Revision, h.first) {
			t.Errorf("%s: %s", ref, s.Revision)
		}
	}
	o.Ref = ""
	files := map[string]string{"new.yaml": "n"}
	head := must(h.Commit("main", "three", files))(t)
	if s := fetch(t, o); s.Revision != "main@sha1:"+head || contents(s)["new.yaml"] != "n" {
		t.Errorf("the cached fetch got %s", s.Revision)
	}

	rows := []struct {
		name string
		auth git.Auth
		code diag.Code
	}{
		{"another kind of host key known", git.Auth{KeyFile: good.KeyFile, KnownHostsFile: file(t, line(s.addr, ec))}, ""},
		{"host key differs", git.Auth{KeyFile: good.KeyFile, KnownHostsFile: file(t, line(s.addr, otherHost.PublicKey()))}, diag.HostKeyRefused},
		{"host unknown", git.Auth{KeyFile: good.KeyFile, KnownHostsFile: file(t, line("127.0.0.1:1", ed))}, diag.HostKeyRefused},
		{"host key revoked", git.Auth{KeyFile: good.KeyFile, KnownHostsFile: file(t, append([]byte("@revoked * "+string(ssh.MarshalAuthorizedKey(ed))), line(s.addr, ed)...))}, diag.HostKeyRefused},
		{"no known_hosts", git.Auth{KeyFile: good.KeyFile, KnownHostsFile: "/nonexistent"}, diag.HostKeyRefused},
		{"key refused", git.Auth{KeyFile: file(t, strangerPEM), KnownHostsFile: good.KnownHostsFile}, diag.AuthFailed},
		{"no key", git.Auth{KeyFile: "/nonexistent", KnownHostsFile: good.KnownHostsFile}, diag.AuthFailed},
		{"no private key", git.Auth{KeyFile: good.KnownHostsFile, KnownHostsFile: good.KnownHostsFile}, diag.AuthFailed},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			o := o
			o.Auth, o.CacheDir = r.auth, ""
			if r.code != "" {
				wantCode(t, o, r.code)
			} else if s := fetch(t, o); s.Revision != "main@sha1:"+head {
				t.Error(s.Revision)
			}
		})
	}
	if err := os.Rename(h.Dir, filepath.Join(filepath.Dir(h.Dir), "it's; x.git")); err != nil {
		t.Fatal(err)
	}
	o.URL = "ssh://git@" + s.addr + "/it's;%20x.git"
	if s := fetch(t, o); s.Revision != "main@sha1:"+head {
		t.Error(s.Revision)
	}
	o.URL = "ssh://git@" + s.addr + "/absent.git"
	wantCode(t, o, diag.RepositoryUnreachable)
}

// TestSSHHomeDefaults: without options the user's own key and known_hosts serve.
func TestSSHHomeDefaults(t *testing.T) {
	h := newHistory(t)
	client, clientPEM := newKey(t)
	s := serveSSH(t, filepath.Dir(h.Dir), client.PublicKey())
	home := t.TempDir()
	t.Setenv("HOME", home)
	o := options("ssh://" + s.addr + "/bundle.git")
	wantCode(t, o, diag.HostKeyRefused)
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	known := knownhosts.Line([]string{s.addr}, s.hostKeys[1].PublicKey()) + "\n"
	if err := os.WriteFile(filepath.Join(home, ".ssh", "known_hosts"), []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, o, diag.AuthFailed)
	if s.connections.Load() != 0 {
		t.Error("a connection was made without a key or a known host")
	}
	if err := os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519"), clientPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := fetch(t, o); s.Revision != "main@sha1:"+h.second {
		t.Error(s.Revision)
	}
}

func TestSSHSilentListener(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	host, _ := newKey(t)
	_, clientPEM := newKey(t)
	o := options("ssh://" + l.Addr().String() + "/x.git")
	o.Auth = git.Auth{KeyFile: file(t, clientPEM), KnownHostsFile: file(t, []byte(knownhosts.Line([]string{l.Addr().String()}, host.PublicKey())+"\n"))}
	o.Timeout = 200 * time.Millisecond
	start := time.Now()
	wantCode(t, o, diag.FetchTimeout)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
}
