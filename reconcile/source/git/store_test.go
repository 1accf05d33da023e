package git_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

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
