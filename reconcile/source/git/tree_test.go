package git_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

// commitEntries commits a tree of crafted entries next to a good document.
func commitEntries(t *testing.T, r *gitserver.Repo, entries ...object.TreeEntry) {
	t.Helper()
	blob := must(r.Blob([]byte(doc)))(t)
	tree := must(r.TreeOf(append(entries, object.TreeEntry{Name: "good.yaml", Mode: filemode.Regular, Hash: blob})))(t)
	must(r.CommitTree("main", "crafted", tree))(t)
}

// TestCraftedNames: trees that git would never write must not name a place outside the bundle.
func TestCraftedNames(t *testing.T) {
	for _, name := range []string{"..", ".", "a/b.yaml", "../x.yaml", "/etc/x.yaml", "bad\xff.yaml"} {
		for _, mode := range []filemode.FileMode{filemode.Regular, filemode.Dir} {
			t.Run(fmt.Sprintf("%q %s", name, mode), func(t *testing.T) {
				r := newRepo(t)
				hash := must(r.Blob([]byte(doc)))(t)
				if mode == filemode.Dir {
					hash = must(r.Tree(map[string]string{"x.yaml": doc}))(t)
				}
				commitEntries(t, r, object.TreeEntry{Name: name, Mode: mode, Hash: hash})
				wantCode(t, options(r.Dir), diag.PathEscape)
			})
		}
	}
	t.Run("twice", func(t *testing.T) {
		r := newRepo(t)
		commitEntries(t, r, object.TreeEntry{Name: "good.yaml", Mode: filemode.Executable, Hash: must(r.Blob([]byte("other")))(t)})
		wantCode(t, options(r.Dir), diag.PathEscape)
	})
}

func TestLinksInTrees(t *testing.T) {
	rows := []struct {
		name, to, subdir string
		code             diag.Code
	}{
		{"l.yaml", "/etc/hostname", "", diag.SymlinkEscape},
		{"l.yaml", "../../etc/hostname", "", diag.SymlinkEscape},
		{"l", "..", "", diag.SymlinkEscape},
		{"l.txt", "../outside", "", diag.SymlinkEscape},
		{"l.yaml", "good.yaml", "", diag.SymlinkRefused},
		{"l", "sub", "", diag.SymlinkRefused},
		{"l.txt", "good.yaml", "", ""},
		{".l.yaml", "/etc/hostname", "", ""},
		{"l.yaml", "../good.yaml", "sub", diag.SymlinkEscape},
		{"l.yaml", "../sub/good.yaml", "sub", diag.SymlinkRefused},
		{"l.yaml", "../subway/good.yaml", "sub", diag.SymlinkEscape},
		{"l.yaml", strings.Repeat("x/", 4000), "", diag.SymlinkEscape},
	}
	for _, row := range rows {
		t.Run(row.subdir+" "+row.name+" "+row.to[:min(20, len(row.to))], func(t *testing.T) {
			r := newRepo(t)
			link := object.TreeEntry{Name: row.name, Mode: filemode.Symlink, Hash: must(r.Blob([]byte(row.to)))(t)}
			if row.subdir != "" {
				good := object.TreeEntry{Name: "good.yaml", Mode: filemode.Regular, Hash: must(r.Blob([]byte(doc)))(t)}
				link = object.TreeEntry{Name: row.subdir, Mode: filemode.Dir, Hash: must(r.TreeOf([]object.TreeEntry{link, good}))(t)}
			}
			commitEntries(t, r, link)
			o := options(r.Dir)
			if row.subdir != "" {
				o.Subdir = row.subdir
			}
			if row.code != "" {
				wantCode(t, o, row.code)
				return
			}
			if got := contents(fetch(t, o)); len(got) != 1 || got["good.yaml"] != doc {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestSubdirThroughLink(t *testing.T) {
	r := newRepo(t)
	commitEntries(t, r,
		object.TreeEntry{Name: "real", Mode: filemode.Dir, Hash: must(r.Tree(map[string]string{"a.yaml": doc}))(t)},
		object.TreeEntry{Name: "link", Mode: filemode.Symlink, Hash: must(r.Blob([]byte("real")))(t)})
	o := options(r.Dir)
	o.Subdir = "link"
	wantCode(t, o, diag.SymlinkRefused)
}

func TestSubmoduleIsIgnoredWithWarning(t *testing.T) {
	r := newRepo(t)
	commitEntries(t, r, object.TreeEntry{Name: "module", Mode: filemode.Submodule, Hash: plumbing.NewHash(strings.Repeat("12", 20))})
	s := fetch(t, options(r.Dir))
	if len(s.Warnings) != 1 || s.Warnings[0].Code != diag.SubmoduleIgnored || s.Warnings[0].File != "module" || len(s.Files) != 1 {
		t.Errorf("got %+v", s)
	}
}

// TestTreeBomb: 2^64 paths out of 64 tree objects.
func TestTreeBomb(t *testing.T) {
	r := newRepo(t)
	tree := must(r.Tree(map[string]string{"a.yaml": doc}))(t)
	for range 60 {
		tree = must(r.TreeOf([]object.TreeEntry{{Name: "a", Mode: filemode.Dir, Hash: tree}, {Name: "b", Mode: filemode.Dir, Hash: tree}}))(t)
	}
	must(r.CommitTree("main", "bomb", tree))(t)
	o := options(r.Dir)
	o.Limits.Entries = 5000
	wantCode(t, o, diag.RepositoryTooLarge)
}

func TestLimits(t *testing.T) {
	r := newRepo(t)
	must(r.Commit("main", "c", map[string]string{"a.yaml": "12345", "b.yaml": "12345", "x/y/z/c.yaml": "1", "README": strings.Repeat("x", 2<<20)}))(t)
	url, ca, _ := serve(t, filepath.Dir(r.Dir), nil)
	pass := snapshot.DefaultLimits()
	pass.FileBytes, pass.TotalBytes, pass.Files, pass.Entries, pass.Depth = 5, 11, 3, 7, 3
	for name, row := range map[string]struct {
		change func(*snapshot.Limits)
		code   diag.Code
	}{
		"exactly":     {func(*snapshot.Limits) {}, ""},
		"file bytes":  {func(l *snapshot.Limits) { l.FileBytes-- }, diag.FileTooLarge},
		"total bytes": {func(l *snapshot.Limits) { l.TotalBytes-- }, diag.RepositoryTooLarge},
		"files":       {func(l *snapshot.Limits) { l.Files-- }, diag.RepositoryTooLarge},
		"entries":     {func(l *snapshot.Limits) { l.Entries-- }, diag.RepositoryTooLarge},
		"depth":       {func(l *snapshot.Limits) { l.Depth-- }, diag.RepositoryTooLarge},
		"transfer":    {func(l *snapshot.Limits) { l.TransferBytes = 100 }, diag.RepositoryTooLarge},
		"unpacked":    {func(l *snapshot.Limits) { l.UnpackedBytes = 1 << 20 }, diag.RepositoryTooLarge},
	} {
		for _, remote := range []bool{false, true} {
			o := options(r.Dir)
			if remote {
				o = options(url + "/bundle.git")
				o.Auth.CAFile = ca
			} else if name == "transfer" || name == "unpacked" {
				continue
			}
			o.Limits = pass
			row.change(&o.Limits)
			_, err := git.New(o).Fetch(context.Background())
			if snapshot.Code(err) != row.code {
				t.Errorf("%s, remote %v: got %v, want %q", name, remote, err, row.code)
			}
		}
	}
}

// TestCacheStartsAnew: a cache beyond its limit is emptied, not grown.
func TestCacheStartsAnew(t *testing.T) {
	r := newRepo(t)
	url, ca, _ := serve(t, filepath.Dir(r.Dir), nil)
	o := options(url + "/bundle.git")
	o.Auth.CAFile, o.CacheDir = ca, t.TempDir()
	o.Limits.CacheBytes = 5_000
	for i := range 12 {
		must(r.Commit("main", "c", map[string]string{"a.yaml": strings.Repeat(fmt.Sprint(i, i*i, i*7919), 200)}))(t)
		if s := fetch(t, o); !strings.HasPrefix(contents(s)["a.yaml"], fmt.Sprint(i)) {
			t.Fatal("wrong content")
		}
		var size int64
		_ = filepath.Walk(o.CacheDir, func(_ string, info os.FileInfo, _ error) error {
			if !info.IsDir() {
				size += info.Size()
			}
			return nil
		})
		if size > o.Limits.CacheBytes+10_000 {
			t.Fatalf("the cache has grown to %d bytes", size)
		}
	}
}

// A kustomization brings the whole commit, so that it reaches its bases; other subdirectories stay alone.
func TestOverlayBringsTheWholeTree(t *testing.T) {
	repo := newRepo(t)
	must(repo.Commit("main", "one", map[string]string{"base/a.yaml": "a", "sites/x/b.yaml": "b", "sites/y/kustomization.yaml": "k"}))(t)
	for subdir, want := range map[string]struct {
		dir   string
		files []string
	}{
		"sites/x": {"", []string{"b.yaml"}},
		"sites/y": {"sites/y", []string{"base/a.yaml", "sites/x/b.yaml", "sites/y/kustomization.yaml"}},
		".":       {"", []string{"base/a.yaml", "sites/x/b.yaml", "sites/y/kustomization.yaml"}},
	} {
		o := options(repo.Dir)
		o.Subdir = subdir
		s := fetch(t, o)
		if got := slices.Sorted(maps.Keys(contents(s))); s.Dir != want.dir || !slices.Equal(got, want.files) {
			t.Errorf("%s: %v in %q", subdir, got, s.Dir)
		}
	}
}
