package git_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// proxy repeats a request at another server.
func proxy(t *testing.T, w http.ResponseWriter, r *http.Request, to, caFile string) {
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(caFile)
	if err != nil || !pool.AppendCertsFromPEM(ca) {
		t.Errorf("read CA: %v", err)
		return
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(r.Method, to+r.URL.RequestURI(), r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	req.Header, req.ContentLength = r.Header.Clone(), r.ContentLength
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

const doc = "kind: Bundle\n"

func newRepo(t *testing.T) *gitserver.Repo {
	t.Helper()
	return must(gitserver.InitBare(filepath.Join(t.TempDir(), "bundle.git")))(t)
}

// must is must(f())(t): the value, or the end of the test.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func options(url string) git.Options {
	scheme := "file"
	if s, _, remote := strings.Cut(url, "://"); remote {
		scheme = s
	}
	return git.Options{Scheme: scheme, URL: url, Subdir: ".", Timeout: time.Minute, Limits: snapshot.DefaultLimits()}
}

// contents is a snapshot's files as a map.
func contents(s snapshot.Snapshot) map[string]string {
	out := map[string]string{}
	for _, f := range s.Files {
		out[f.Path] = string(f.Data)
	}
	return out
}

func fetch(t *testing.T, o git.Options) snapshot.Snapshot {
	t.Helper()
	return must(git.New(o).Fetch(context.Background()))(t)
}

func wantCode(t *testing.T, o git.Options, code diag.Code) error {
	t.Helper()
	s, err := git.New(o).Fetch(context.Background())
	if snapshot.Code(err) != code {
		t.Fatalf("got %q (%v), want %s", snapshot.Code(err), err, code)
	}
	if !reflect.DeepEqual(s, snapshot.Snapshot{}) {
		t.Errorf("an error came with a snapshot: %+v", s)
	}
	var list *diag.ListError
	if !errors.As(err, &list) || list.List[0].Code != code {
		t.Errorf("the error is no diagnostic: %v", err)
	}
	return err
}

// serve puts the repository's directory behind https.
func serve(t *testing.T, root string, allow func(*http.Request) bool) (url, caFile string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	s := must(gitserver.Start(gitserver.Options{
		Listener: must(net.Listen("tcp", "127.0.0.1:0"))(t), Root: root,
		Allow: func(r *http.Request) bool { requests.Add(1); return allow == nil || allow(r) },
	}))(t)
	t.Cleanup(func() { _ = s.Close() })
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, s.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL, caFile, requests
}

// history is a repository with branches, tags and nested directories.
type history struct {
	*gitserver.Repo
	first, second, side string
}

func newHistory(t *testing.T) history {
	h := history{Repo: newRepo(t)}
	h.first = must(h.Commit("main", "one", map[string]string{"a.yaml": "one", "sub/b.yml": "b", "sub/deep/c.yaml": "c", "README.md": "no", ".hidden/x.yaml": "no"}))(t)
	h.second = must(h.Commit("main", "two", map[string]string{"a.yaml": "two", "sub/b.yml": "b", "sub/deep/c.yaml": "c"}))(t)
	h.side = must(h.Commit("team/side", "side", map[string]string{"side.yaml": "s"}))(t)
	for _, tag := range []struct{ name, commit, message string }{
		{"v1.2.0", h.first, "annotated"}, {"v1.10.0", h.second, ""}, {"v2.0.0-rc.1", h.side, "pre"}, {"nonsense", h.first, ""},
	} {
		if err := h.Tag(tag.name, tag.commit, tag.message); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func caOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
