package git_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"danm.io/danm/spec/diag"
)

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
