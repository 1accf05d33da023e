package gitserver

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestServesGitItself: the oracle for server and repository is the git program.
func TestServesGitItself(t *testing.T) {
	dir := t.TempDir()
	r, err := InitBare(filepath.Join(dir, "a.git"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Commit("main", "one", map[string]string{"x.yaml": "1", "d/y.yaml": "2", "d.z": "3", "d/e/z": "4"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Tag("v1", first, "annotated"); err != nil {
		t.Fatal(err)
	}
	if again, err := OpenBare(r.Dir); err != nil {
		t.Fatal(err)
	} else if _, err := again.Commit("main", "two", map[string]string{"x.yaml": "2"}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open atomic.Bool
	open.Store(true)
	s, err := Start(Options{Listener: l, Root: dir, Allow: func(*http.Request) bool { return open.Load() }})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, s.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_SSL_CAINFO="+ca, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	clone := filepath.Join(dir, "clone")
	if out, err := run("clone", "-q", s.URL+"/a.git", clone); err != nil {
		t.Fatal(out)
	}
	for _, want := range []struct{ args, out string }{
		{"fsck --strict", ""}, {"log --format=%s", "two\none\n"}, {"show v1:d/y.yaml", "2"}, {"ls-tree -r --name-only v1", "d.z\nd/e/z\nd/y.yaml\nx.yaml\n"}, {"ls-files", "x.yaml\n"},
	} {
		out, err := run(append([]string{"-C", clone}, strings.Fields(want.args)...)...)
		if err != nil || want.out != "" && !strings.HasSuffix(out, want.out) {
			t.Errorf("git %s: %v: %q, want %q", want.args, err, out, want.out)
		}
	}
	if out, err := run("-C", clone, "push", "-q", "origin", "HEAD:other"); err == nil {
		t.Errorf("a push was accepted: %s", out)
	}
	open.Store(false)
	if out, err := run("ls-remote", s.URL+"/a.git"); err == nil {
		t.Errorf("a refused caller was served: %s", out)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the server still listens")
	}
}
