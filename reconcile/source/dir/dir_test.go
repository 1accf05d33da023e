package dir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/reconcile/source/dir"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil {
		t.Fatal(err)
	}
}

func fetch(root string) (map[string]string, string, error) {
	s, err := dir.New(root, ".", snapshot.DefaultLimits()).Fetch(context.Background())
	out := map[string]string{}
	for _, f := range s.Files {
		out[f.Path] = string(f.Data)
	}
	return out, s.Revision, err
}

// configMap lays files out as the kubelet does: ..data -> ..N/, name -> ..data/name.
func configMap(t *testing.T, root string, version int, files map[string]string) {
	t.Helper()
	data := fmt.Sprintf("..%d", version)
	write(t, filepath.Join(root, data), files)
	link(t, data, filepath.Join(root, "..data_tmp"))
	if err := os.Rename(filepath.Join(root, "..data_tmp"), filepath.Join(root, "..data")); err != nil {
		t.Fatal(err)
	}
	for name := range files {
		top, _, _ := strings.Cut(name, "/")
		if _, err := os.Lstat(filepath.Join(root, top)); err != nil {
			link(t, "..data/"+top, filepath.Join(root, top))
		}
	}
}

func TestFetchReadsDocumentsOnly(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{
		"a.yaml": "a", "sub/b.yml": "b", "sub/deep/c.yaml": "", "README.md": "x", "x.json": "{}", "x.yaml.bak": "x", ".git/config.yaml": "x", ".a.yaml": "x", "sub/.b/c.yaml": "x",
	})
	got, rev, err := fetch(root)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"a.yaml": "a", "sub/b.yml": "b", "sub/deep/c.yaml": "", "x.json": "{}"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	if !strings.HasPrefix(rev, "dir@sha256:") || len(rev) != len("dir@sha256:")+64 {
		t.Errorf("revision %q", rev)
	}
}

// TestRevisionFollowsContent: equal content in another place has the same revision; moving a byte across a border does not.
func TestRevisionFollowsContent(t *testing.T) {
	revision := func(files map[string]string) string {
		root := t.TempDir()
		write(t, root, files)
		_, rev, err := fetch(root)
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	base := map[string]string{"a.yaml": "xy", "b.yaml": "z"}
	if revision(base) != revision(base) {
		t.Error("the revision depends on the place")
	}
	seen := map[string]int{revision(base): -1}
	for i, other := range []map[string]string{
		{"a.yaml": "xyb.yamlz"}, {"a.yaml": "x", "b.yaml": "yz"}, {"a.yaml": "xy", "c.yaml": "z"}, {"a.yaml": "z", "b.yaml": "xy"}, {"a.yaml": "xy", "b.yaml": "z", "c.yaml": ""}, {"a.yaml": "xyz"},
	} {
		rev := revision(other)
		if j, dup := seen[rev]; dup {
			t.Errorf("%d and %d share a revision", i, j)
		}
		seen[rev] = i
	}
}

func TestLinks(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"o.yaml": "outside", "d/p.yaml": "outside"})
	rows := []struct {
		name, link, to string
		want           string // content of link, "-" = not in the snapshot
		code           diag.Code
	}{
		{name: "file inside", link: "l.yaml", to: "a.yaml", want: "a"},
		{name: "file inside through ..", link: "sub/l.yaml", to: "../a.yaml", want: "a"},
		{name: "directory inside", link: "l", to: "sub", want: "-"},
		{name: "file outside", link: "l.yaml", to: filepath.Join(outside, "o.yaml"), code: diag.SymlinkEscape},
		{name: "file outside, relative", link: "l.yaml", to: "../../../../../../../../etc/hostname", code: diag.SymlinkEscape},
		{name: "directory outside", link: "l", to: outside, code: diag.SymlinkEscape},
		{name: "no document, outside", link: "l.txt", to: filepath.Join(outside, "o.yaml"), code: diag.SymlinkEscape},
		{name: "itself", link: "l.yaml", to: "l.yaml", code: diag.SymlinkEscape},
		{name: "above itself", link: "sub/l", to: "..", code: diag.SymlinkEscape},
		{name: "nothing", link: "l.yaml", to: "gone.yaml", code: diag.PathNotFound},
		{name: "nothing, no document", link: "l.txt", to: "gone", want: "-"},
		{name: "hidden, outside", link: ".l.yaml", to: filepath.Join(outside, "o.yaml"), want: "-"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, map[string]string{"a.yaml": "a", "sub/b.yaml": "b"})
			link(t, r.to, filepath.Join(root, r.link))
			got, _, err := fetch(root)
			if snapshot.Code(err) != r.code {
				t.Fatalf("got %v, want code %q", err, r.code)
			}
			if e := (*snapshot.Error)(nil); errors.As(err, &e) && e.File != r.link {
				t.Errorf("the error is about %q, not %q", e.File, r.link)
			}
			if content, ok := got[r.link]; r.code == "" && (ok != (r.want != "-") || ok && content != r.want) {
				t.Errorf("got %v", got)
			}
			for name, content := range got {
				if content == "outside" {
					t.Errorf("%s was read from outside", name)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"empty/README": "", "big/a.yaml": strings.Repeat("x", 1<<20+1), "full/a.yaml": strings.Repeat("x", 1<<20), "file.yaml": ""})
	if err := syscall.Mkfifo(filepath.Join(root, "full", "fifo.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]diag.Code{"absent": diag.PathNotFound, "file.yaml": diag.PathNotFound, "empty": diag.RepositoryEmpty, "big": diag.FileTooLarge, "full": ""} {
		if _, _, err := fetch(filepath.Join(root, path)); snapshot.Code(err) != code {
			t.Errorf("%s: got %v, want %q", path, err, code)
		}
	}
}

func TestLimits(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a.yaml": "12345", "b.yaml": "12345", "x/y/z/c.yaml": "1"})
	pass := snapshot.Limits{FileBytes: 5, TotalBytes: 11, Files: 3, Entries: 6, Depth: 3}
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
	} {
		l := pass
		row.change(&l)
		if _, err := dir.New(root, ".", l).Fetch(context.Background()); snapshot.Code(err) != row.code {
			t.Errorf("%s: got %v, want %q", name, err, row.code)
		}
	}
}

// TestConfigMapIsNeverTorn swaps versions while reading: every snapshot must be one version.
func TestConfigMapIsNeverTorn(t *testing.T) {
	root := t.TempDir()
	version := func(v int) map[string]string {
		m := map[string]string{}
		for i := range 20 {
			m[fmt.Sprintf("f%02d.yaml", i)] = fmt.Sprint(v)
		}
		m["nested/n.yaml"] = fmt.Sprint(v)
		return m
	}
	configMap(t, root, 0, version(0))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for v := 1; !stop.Load() && v < 500; v++ {
			configMap(t, root, v, version(v))
			time.Sleep(time.Duration(v%7) * time.Millisecond)
		}
	}()
	good := 0
	for range 60 {
		got, _, err := fetch(root)
		if err != nil {
			if snapshot.Code(err) != diag.SourceChanging {
				t.Fatal(err)
			}
			continue
		}
		good++
		for name, v := range got {
			if v != got["f00.yaml"] || len(got) != 21 {
				t.Fatalf("torn: %s is of version %s, f00.yaml of %s, %d files", name, v, got["f00.yaml"], len(got))
			}
		}
	}
	stop.Store(true)
	<-done
	if good == 0 {
		t.Error("no reading succeeded")
	}
}

func TestWatchCoalesces(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a.yaml": "a", "sub/b.yaml": "b", ".git/HEAD": "x"})
	ctx, cancel := context.WithCancel(context.Background())
	events, err := dir.New(root, ".", snapshot.DefaultLimits()).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	count := func(first time.Duration) (n int) {
		for wait := first; ; wait = 600 * time.Millisecond {
			select {
			case <-events:
				n++
			case <-time.After(wait):
				return n
			}
		}
	}
	change := func(name string, do func(try int)) {
		t.Helper()
		n := 0
		for try := range 5 { // a machine that stands still in the middle of a burst makes two of it, and not each time
			do(try)
			if n = count(10 * time.Second); n == 1 {
				return
			}
			if n == 0 {
				break
			}
		}
		t.Errorf("%s: %d events, want 1", name, n)
	}
	change("a burst", func(int) {
		for i := range 30 {
			write(t, root, map[string]string{fmt.Sprintf("n%d.yaml", i): "x", "sub/b.yaml": fmt.Sprint(i)})
		}
	})
	var made string
	change("a new directory", func(try int) {
		made = fmt.Sprintf("new%d/deep/a.yaml", try)
		write(t, root, map[string]string{made: "1"})
	})
	change("a file in the new directory", func(try int) { write(t, root, map[string]string{made: fmt.Sprint("again ", try)}) })
	change("a removal", func(try int) { _ = os.Remove(filepath.Join(root, fmt.Sprintf("n%d.yaml", try))) })
	change("a ConfigMap's swap", func(int) {
		link(t, "sub", filepath.Join(root, "..tmp"))
		_ = os.Rename(filepath.Join(root, "..tmp"), filepath.Join(root, "..data"))
	})
	write(t, root, map[string]string{".git/HEAD": "y", ".a.yaml.swp": "x"})
	if n := count(600 * time.Millisecond); n != 0 {
		t.Errorf("hidden files: %d events", n)
	}
	cancel()
	select {
	case _, open := <-events:
		if open {
			t.Error("an event after the end")
		}
	case <-time.After(5 * time.Second):
		t.Error("the channel stays open")
	}
}

// TestWatchEndsABurst: a writer that never pauses must not hold the event back for ever.
func TestWatchEndsABurst(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"a.yaml": "a"})
	events, err := dir.New(root, ".", snapshot.DefaultLimits()).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(5 * time.Second)
	for i := 0; ; i++ {
		write(t, root, map[string]string{"a.yaml": fmt.Sprint(i)})
		select {
		case <-events:
			return
		case <-deadline:
			t.Fatal("no event in 5 s of constant change")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func TestWatchNeedsADirectory(t *testing.T) {
	if _, err := dir.New(filepath.Join(t.TempDir(), "absent"), ".", snapshot.DefaultLimits()).Watch(t.Context()); err == nil {
		t.Error("an absent directory is watched")
	}
}

// A plain subdirectory is all that is read; one with a kustomization brings the whole root, and still nothing outside.
func TestSubdirectory(t *testing.T) {
	root := t.TempDir()
	write(t, root, map[string]string{"base/a.yaml": "a", "sites/x/b.yaml": "b", "sites/y/kustomization.yaml": "k", "sites/y/c.yaml": "c", "other/z/kustomization.yml": "k"})
	for _, r := range []struct {
		subdir, dir string
		want        []string
		code        diag.Code
	}{
		{"sites/x", "", []string{"b.yaml"}, ""},
		{"sites/y", "sites/y", []string{"base/a.yaml", "other/z/kustomization.yml", "sites/x/b.yaml", "sites/y/c.yaml", "sites/y/kustomization.yaml"}, ""},
		{"other/z", "other/z", []string{"base/a.yaml", "other/z/kustomization.yml", "sites/x/b.yaml", "sites/y/c.yaml", "sites/y/kustomization.yaml"}, ""},
		{"sites/z", "", nil, diag.PathNotFound},
		{"../..", "", nil, diag.PathNotFound},
	} {
		s, err := dir.New(root, r.subdir, snapshot.DefaultLimits()).Fetch(context.Background())
		var names []string
		for _, f := range s.Files {
			names = append(names, f.Path)
		}
		if snapshot.Code(err) != r.code || s.Dir != r.dir || !slices.Equal(names, r.want) {
			t.Errorf("%s: %v in %q, %v", r.subdir, names, s.Dir, err)
		}
	}
}
