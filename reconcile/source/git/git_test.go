package git_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
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

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

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
	return git.Options{Scheme: scheme, URL: url, Subdir: ".", Timeout: 10 * time.Second, Limits: snapshot.DefaultLimits()}
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

// TestAbsentReferences: a branch that is not there is named as people write it.
func TestAbsentReferences(t *testing.T) {
	h := newHistory(t)
	for ref, want := range map[string]string{"refs/heads/mian": `no branch "mian"`, "refs/tags/v9": `no tag "v9"`, "mian": `no tag, branch or commit "mian"`} {
		o := options(h.Dir)
		o.Ref = ref
		if err := wantCode(t, o, diag.RefNotFound); !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

// TestReferences: what each spelling means is the same for a local repository, https without and https with a cache.
func TestReferences(t *testing.T) {
	h := newHistory(t)
	url, ca, _ := serve(t, filepath.Dir(h.Dir), nil)
	one := map[string]string{"a.yaml": "one", "sub/b.yml": "b", "sub/deep/c.yaml": "c"}
	two := map[string]string{"a.yaml": "two", "sub/b.yml": "b", "sub/deep/c.yaml": "c"}
	side := map[string]string{"side.yaml": "s"}
	rows := []struct {
		ref, semver, subdir string
		revision            string
		files               map[string]string
		code                diag.Code
	}{
		{revision: "main@sha1:" + h.second, files: two},
		{ref: "main", revision: "main@sha1:" + h.second, files: two},
		{ref: "HEAD", revision: "main@sha1:" + h.second, files: two},
		{ref: "team/side", revision: "team/side@sha1:" + h.side, files: side},
		{ref: "refs/heads/team/side", revision: "team/side@sha1:" + h.side, files: side},
		{ref: "v1.2.0", revision: "v1.2.0@sha1:" + h.first, files: one},
		{ref: "refs/tags/v1.10.0", revision: "v1.10.0@sha1:" + h.second, files: two},
		{ref: h.first, revision: "sha1:" + h.first, files: one},
		{ref: h.second, revision: "sha1:" + h.second, files: two},
		{ref: h.first[:7], revision: "sha1:" + h.first, files: one},
		{ref: h.first[:12], revision: "sha1:" + h.first, files: one},
		{semver: "^1.2", revision: "v1.10.0@sha1:" + h.second, files: two},
		{semver: "~1.2.0", revision: "v1.2.0@sha1:" + h.first, files: one},
		{semver: ">=2.0.0-0", revision: "v2.0.0-rc.1@sha1:" + h.side, files: side},
		{subdir: "sub", revision: "main@sha1:" + h.second, files: map[string]string{"b.yml": "b", "deep/c.yaml": "c"}},
		{subdir: "sub/deep", revision: "main@sha1:" + h.second, files: map[string]string{"c.yaml": "c"}},
		{ref: "absent", code: diag.RefNotFound},
		{ref: h.first[:6], code: diag.RefNotFound},
		{ref: "deadbeefdead", code: diag.RefNotFound},
		{ref: strings.Repeat("ab", 20), code: diag.RefNotFound},
		{semver: "^3", code: diag.RefNotFound},
		{semver: ">=2", code: diag.RefNotFound}, // a pre-release is taken only if asked for
		{subdir: "absent", code: diag.PathNotFound},
		{subdir: "a.yaml", code: diag.PathNotFound},
		{subdir: ".hidden", code: diag.PathNotFound},
	}
	cache := t.TempDir()
	for _, how := range []string{"local", "https", "https cached", "https cached again"} {
		for _, r := range rows {
			t.Run(how+" "+r.ref+r.semver+r.subdir, func(t *testing.T) {
				o := options(h.Dir)
				if how != "local" {
					o = options(url + "/bundle.git")
					o.Auth.CAFile = ca
				}
				if strings.HasPrefix(how, "https cached") {
					o.CacheDir = cache
				}
				o.Ref, o.Semver = r.ref, r.semver
				if r.subdir != "" {
					o.Subdir = r.subdir
				}
				if r.code != "" {
					wantCode(t, o, r.code)
					return
				}
				s := fetch(t, o)
				if s.Revision != r.revision || !reflect.DeepEqual(contents(s), r.files) {
					t.Errorf("got %s %v, want %s %v", s.Revision, contents(s), r.revision, r.files)
				}
			})
		}
	}
}

func TestTagWinsOverBranchWithWarning(t *testing.T) {
	h := newHistory(t)
	if err := h.Tag("main", h.first, ""); err != nil {
		t.Fatal(err)
	}
	o := options(h.Dir)
	o.Ref = "main"
	s := fetch(t, o)
	if s.Revision != "main@sha1:"+h.first || len(s.Warnings) != 1 || s.Warnings[0].Code != diag.RefAmbiguous {
		t.Errorf("got %s %v", s.Revision, s.Warnings)
	}
}

// TestLocalExecutesNothing: go-git's file transport would look for git in PATH.
func TestLocalExecutesNothing(t *testing.T) {
	h := newHistory(t)
	t.Setenv("PATH", "")
	if s := fetch(t, options(h.Dir)); s.Revision != "main@sha1:"+h.second {
		t.Error(s.Revision)
	}
	o := options(filepath.Join(t.TempDir(), "absent"))
	wantCode(t, o, diag.RepositoryUnreachable)
}

func TestEmptyRepositories(t *testing.T) {
	r := newRepo(t)
	url, ca, _ := serve(t, filepath.Dir(r.Dir), nil)
	remote := options(url + "/bundle.git")
	remote.Auth.CAFile = ca
	wantCode(t, options(r.Dir), diag.RepositoryEmpty)
	wantCode(t, remote, diag.RepositoryEmpty)
	must(r.Commit("main", "no documents", map[string]string{"README.md": "x", ".x.yaml": "x"}))(t)
	wantCode(t, options(r.Dir), diag.RepositoryEmpty)
	wantCode(t, remote, diag.RepositoryEmpty)
}

// TestIncremental walks a branch through random histories (forwards, backwards, rewritten) with one cache; every fetch must equal
// what a local read says.
func TestIncremental(t *testing.T) {
	r := newRepo(t)
	url, ca, requests := serve(t, filepath.Dir(r.Dir), nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	o := options(url + "/bundle.git")
	o.Auth.CAFile, o.CacheDir = ca, t.TempDir()
	files := map[string]string{}
	for i := range 40 { // a base large enough that a whole transfer shows
		files[fmt.Sprintf("d%d/n%02d.yaml", i%5, i)] = strings.Repeat(fmt.Sprint(rnd.Uint64(), "\n"), 50)
	}
	commits := []string{must(r.Commit("main", "base", files))(t)}
	for i := range 25 {
		switch {
		case i%7 == 5:
			if err := r.Point("main", commits[rnd.IntN(len(commits))]); err != nil {
				t.Fatal(err)
			}
		default:
			files[fmt.Sprintf("d%d/n%02d.yaml", rnd.IntN(5), rnd.IntN(60))] = fmt.Sprint("change ", i)
			commits = append(commits, must(r.Commit("main", fmt.Sprint(i), files))(t))
		}
		got, want := fetch(t, o), fetch(t, options(r.Dir))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("step %d: the cached fetch differs from the repository: %s, want %s", i, got.Revision, want.Revision)
		}
	}
	if n := requests.Load(); n > 2*26 { // a wiped cache would cost more
		t.Errorf("26 fetches cost %d requests", n)
	}
	before := requests.Load()
	fetch(t, o)
	if n := requests.Load() - before; n != 1 {
		t.Errorf("an unmoved branch cost %d requests, want 1", n)
	}
	o.Ref = commits[len(commits)-1]
	fetch(t, o)
	before = requests.Load()
	fetch(t, o)
	if n := requests.Load() - before; n != 0 {
		t.Errorf("a cached commit cost %d requests, want none", n)
	}
}

// TestIncrementalTransfersLittle: the second pack must not hold what the first one held.
func TestIncrementalTransfersLittle(t *testing.T) {
	r := newRepo(t)
	url, ca, _ := serve(t, filepath.Dir(r.Dir), nil)
	o := options(url + "/bundle.git")
	o.Auth.CAFile, o.CacheDir = ca, t.TempDir()
	noise := make([]byte, 600_000)
	for i := range noise {
		noise[i] = "0123456789abcdef"[rand.IntN(16)]
	}
	files := map[string]string{"big.yaml": string(noise), "a.yaml": "1"}
	must(r.Commit("main", "one", files))(t)
	fetch(t, o)
	o.Limits.TransferBytes = 2000
	files["a.yaml"] = "2"
	must(r.Commit("main", "two", files))(t)
	if s := fetch(t, o); contents(s)["a.yaml"] != "2" || contents(s)["big.yaml"] != string(noise) {
		t.Error("the second snapshot is wrong")
	}
}

// TestHistoryStaysBehind: what old commits held does not travel for a branch; for an old commit it must.
func TestHistoryStaysBehind(t *testing.T) {
	r := newRepo(t)
	url, ca, _ := serve(t, filepath.Dir(r.Dir), nil)
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	old := must(r.Commit("main", "large", map[string]string{"a.yaml": string(noise)}))(t)
	head := must(r.Commit("main", "small", map[string]string{"a.yaml": doc}))(t)
	o := options(url + "/bundle.git")
	o.Auth.CAFile, o.Limits.TransferBytes = ca, 50_000
	if s := fetch(t, o); s.Revision != "main@sha1:"+head {
		t.Error(s.Revision)
	}
	o.Ref = old
	wantCode(t, o, diag.RepositoryTooLarge)
}

// TestAmbiguousCommit: digits that two commits begin with name neither.
func TestAmbiguousCommit(t *testing.T) {
	r := newRepo(t)
	tree := must(r.Tree(map[string]string{"a.yaml": doc}))(t)
	must(r.CommitTree("main", "one", tree))(t)
	seen := map[string]*plumbing.MemoryObject{}
	for i := 0; ; i++ { // 16,000 commits have two that agree in 28 bits, more often than not
		o := &plumbing.MemoryObject{}
		if err := (&object.Commit{Message: fmt.Sprint(i), TreeHash: tree}).Encode(o); err != nil {
			t.Fatal(err)
		}
		hash := o.Hash().String()
		other := seen[hash[:7]]
		if other == nil {
			seen[hash[:7]] = o
			continue
		}
		must(r.Git.Storer.SetEncodedObject(o))(t)
		must(r.Git.Storer.SetEncodedObject(other))(t)
		opts := options(r.Dir)
		opts.Ref = hash[:7]
		wantCode(t, opts, diag.RefAmbiguous)
		opts.Ref = hash[:39]
		if s := fetch(t, opts); s.Revision != "sha1:"+hash {
			t.Error(s.Revision)
		}
		return
	}
}

// TestCachesOfRepositoriesAreApart: a commit that another repository holds is not served in this one's name, and what is kept
// of a repository is for its owner's eyes.
func TestCachesOfRepositoriesAreApart(t *testing.T) {
	root, cache := t.TempDir(), t.TempDir()
	one := must(gitserver.InitBare(filepath.Join(root, "one.git")))(t)
	two := must(gitserver.InitBare(filepath.Join(root, "two.git")))(t)
	commit := must(one.Commit("main", "one", map[string]string{"a.yaml": "one"}))(t)
	must(two.Commit("main", "two", map[string]string{"a.yaml": "two"}))(t)
	url, ca, _ := serve(t, root, nil)
	for _, r := range []struct {
		repo, ref string
		code      diag.Code
	}{{"/one.git", "main", ""}, {"/one.git", commit, ""}, {"/two.git", "main", ""}, {"/two.git", commit, diag.RefNotFound}} {
		o := options(url + r.repo)
		o.Auth.CAFile, o.CacheDir, o.Ref = ca, cache, r.ref
		if r.code != "" {
			wantCode(t, o, r.code)
		} else if got := contents(fetch(t, o))["a.yaml"]; "/"+got+".git" != r.repo {
			t.Errorf("%s %s: got %q", r.repo, r.ref, got)
		}
	}
	entries, err := os.ReadDir(cache)
	if err != nil || len(entries) == 0 {
		t.Fatalf("the cache holds %v, %v", entries, err)
	}
	for _, e := range entries {
		if info := must(e.Info())(t); info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %s", e.Name(), info.Mode())
		}
	}
}

// TestBackToAnUnseenCommit: the server must not think that a cache which holds a commit without history holds what was before.
func TestBackToAnUnseenCommit(t *testing.T) {
	r := newRepo(t)
	url, ca, requests := serve(t, filepath.Dir(r.Dir), nil)
	o := options(url + "/bundle.git")
	o.Auth.CAFile, o.CacheDir = ca, t.TempDir()
	files := func(i int) map[string]string {
		return map[string]string{"a.yaml": strings.Repeat(fmt.Sprint("line ", i, "\n"), 100), "same.yaml": "same"}
	}
	first := must(r.Commit("main", "1", files(1)))(t)
	must(r.Commit("main", "2", files(2)))(t)
	must(r.Commit("main", "3", files(3)))(t)
	fetch(t, o)
	if err := r.Point("main", first); err != nil {
		t.Fatal(err)
	}
	before := requests.Load()
	if s := fetch(t, o); s.Revision != "main@sha1:"+first || !reflect.DeepEqual(contents(s), files(1)) {
		t.Errorf("got %s %v", s.Revision, contents(s))
	}
	if n := requests.Load() - before; n != 2 { // a wiped cache would cost more
		t.Errorf("%d requests", n)
	}
}

// TestDamagedCacheHeals cuts or fills every file of the cache in turn.
func TestDamagedCacheHeals(t *testing.T) {
	h := newHistory(t)
	url, ca, _ := serve(t, filepath.Dir(h.Dir), nil)
	for _, ref := range []string{"main", h.first} {
		o := options(url + "/bundle.git")
		o.Auth.CAFile, o.Ref = ca, ref
		o.CacheDir = t.TempDir()
		want := fetch(t, o)
		var names []string
		_ = filepath.WalkDir(o.CacheDir, func(p string, d os.DirEntry, _ error) error {
			if !d.IsDir() {
				names = append(names, p)
			}
			return nil
		})
		if len(names) < 3 {
			t.Fatalf("the cache holds only %v", names)
		}
		for _, name := range names {
			for _, damage := range []string{"", "garbage that is nothing"} {
				_ = os.Chmod(name, 0o600)
				_ = os.Remove(name)
				_ = os.MkdirAll(filepath.Dir(name), 0o700)
				if err := os.WriteFile(name, []byte(damage), 0o600); err != nil {
					t.Fatal(err)
				}
				if got := fetch(t, o); !reflect.DeepEqual(got, want) {
					t.Errorf("%s = %q: got %s", filepath.Base(name), damage, got.Revision)
				}
			}
		}
	}
}

func TestAuthentication(t *testing.T) {
	h := newHistory(t)
	const token, password = "s3cr3t-t0ken", "pa55-w0rd"
	bearer := "Bearer " + token
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("bob:"+password))
	basicToken := "Basic " + base64.StdEncoding.EncodeToString([]byte("ci:"+token))
	url, ca, _ := serve(t, filepath.Dir(h.Dir), func(r *http.Request) bool {
		a := r.Header.Get("Authorization")
		return a == bearer || a == basic || a == basicToken
	})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []git.Auth{{Token: token}, {TokenFile: file}, {Username: "bob", Password: password}, {Username: "ci", TokenFile: file}}
	bad := []git.Auth{{}, {Token: token + "x"}, {Username: "bob", Password: token}, {TokenFile: file + "x"}, {Username: "eve", TokenFile: file}}
	o := options(url + "/bundle.git")
	for i, a := range good {
		a.CAFile = ca
		o.Auth = a
		if s := fetch(t, o); s.Revision != "main@sha1:"+h.second {
			t.Errorf("good %d: %s", i, s.Revision)
		}
	}
	for i, a := range bad {
		a.CAFile = ca
		o.Auth = a
		err := wantCode(t, o, diag.AuthFailed)
		for _, out := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), fmt.Sprintf("%v %+v %#v", o, o, o)} {
			for _, secret := range []string{token, password, base64.StdEncoding.EncodeToString([]byte("bob:" + token))} {
				if strings.Contains(out, secret) {
					t.Errorf("bad %d: %q leaks %q", i, out, secret)
				}
			}
		}
	}
	o.Auth = good[0] // without the CA: nobody vouches for the certificate
	wantCode(t, o, diag.RepositoryUnreachable)
}

// TestHostileAnswers: servers that reflect credentials, redirect, stall, or are no Git server at all.
func TestHostileAnswers(t *testing.T) {
	const token = "s3cr3t-t0ken"
	var leaked atomic.Value
	leaked.Store("")
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(leaked.Load().(string) + r.Header.Get("Authorization") + "!")
	}))
	defer elsewhere.Close()
	advert := func(lines string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte("001e# service=git-upload-pack\n0000" + lines))
		}
	}
	stall := make(chan struct{})
	defer close(stall)
	rows := []struct {
		name   string
		answer http.HandlerFunc
		code   diag.Code
		inText string
	}{
		{"reflects", func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.Header.Get("Authorization"), 500) }, diag.RepositoryUnreachable, "500"},
		{"reflects in ERR", func(w http.ResponseWriter, r *http.Request) {
			text := "ERR no access for " + r.Header.Get("Authorization") + "\n"
			advert(fmt.Sprintf("%04x%s", len(text)+4, text))(w, r)
		}, diag.RepositoryUnreachable, "no access"},
		{"redirects elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+r.URL.Path, 307) }, diag.RepositoryUnreachable, "redirects elsewhere"},
		{"redirects to http", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/other"+r.URL.Path, 301)
		}, diag.RepositoryUnreachable, "redirects elsewhere"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), 302) }, diag.RepositoryUnreachable, "redirects"},
		{"is a web page", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }, diag.RepositoryUnreachable, "smart protocol"},
		{"404", http.NotFound, diag.RepositoryUnreachable, "404"},
		{"sends garbage", advert("zzzz"), diag.RepositoryUnreachable, "references"},
		{"cuts the list", advert("003f" + strings.Repeat("a", 20)), diag.RepositoryUnreachable, "references"},
		{"lists references without end", func(w http.ResponseWriter, r *http.Request) {
			advert("")(w, r)
			capabilities := "\x00"
			for i := 0; i < 600_000 && r.Context().Err() == nil; i++ { // 40 MiB
				line := fmt.Sprintf("%040x refs/heads/b%016d%s\n", i+1, i, capabilities)
				_, _ = fmt.Fprintf(w, "%04x%s", len(line)+4, line)
				capabilities = ""
			}
			_, _ = w.Write([]byte("0000"))
		}, diag.RepositoryTooLarge, "exceeds"},
		{"never answers", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-stall:
			case <-r.Context().Done():
			}
		}, diag.FetchTimeout, "within"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := httptest.NewTLSServer(row.answer)
			defer s.Close()
			o := options(s.URL + "/bundle.git")
			o.Auth, o.Timeout = git.Auth{Token: token, CAFile: caOf(t, s)}, 500*time.Millisecond
			if row.code != diag.FetchTimeout {
				o.Timeout = 10 * time.Second
			}
			err := wantCode(t, o, row.code)
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, token) || !strings.Contains(text, row.inText) {
				t.Errorf("text %q", text)
			}
		})
	}
	if got := leaked.Load().(string); got != "" {
		t.Errorf("another host was contacted, with %q", got)
	}
}

// TestReflectedBasicCredentials: sent back as they went over the wire, they are as secret as the password.
func TestReflectedBasicCredentials(t *testing.T) {
	const password = "pa55-w0rd"
	wire := base64.StdEncoding.EncodeToString([]byte("bob:" + password))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		text := "ERR no access for " + r.Header.Get("Authorization") + "\n"
		_, _ = fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(text)+4, text)
	}))
	defer s.Close()
	o := options(s.URL + "/bundle.git")
	o.Auth = git.Auth{Username: "bob", Password: password, CAFile: caOf(t, s)}
	err := wantCode(t, o, diag.RepositoryUnreachable)
	if text := err.Error(); strings.Contains(text, wire) || strings.Contains(text, password) || !strings.Contains(text, "no access for Basic") {
		t.Errorf("text %q", text)
	}
}

func caOf(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pemOf(s.Certificate().Raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSameOriginRedirect: a renamed repository is followed, with the pack asked at the new place.
func TestSameOriginRedirect(t *testing.T) {
	h := newHistory(t)
	url, ca, _ := serve(t, filepath.Dir(h.Dir), nil)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			http.Redirect(w, r, rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		proxy(t, w, r, url, ca)
	}))
	defer front.Close()
	o := options(front.URL + "/old/bundle.git")
	o.Auth.CAFile = caOf(t, front)
	if s := fetch(t, o); s.Revision != "main@sha1:"+h.second {
		t.Error(s.Revision)
	}
}

func TestUnreachable(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := l.Addr().String()
	_ = l.Close()
	wantCode(t, options("https://"+addr+"/x.git"), diag.RepositoryUnreachable)
}

// TestSilentListener: a connection that is accepted and never served ends at the deadline, in the TLS handshake already, and at once
// when the caller gives up.
func TestSilentListener(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	o := options("https://" + l.Addr().String() + "/x.git")
	o.Timeout = 200 * time.Millisecond
	start := time.Now()
	wantCode(t, o, diag.FetchTimeout)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
	o.Timeout = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := git.New(o).Fetch(ctx); !errors.Is(err, context.DeadlineExceeded) || snapshot.Code(err) != "" {
		t.Errorf("the caller's own end is reported as %v", err)
	}
}
