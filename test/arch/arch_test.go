package arch

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

const root = "../.."

// TestImportTable holds the tree to the table.
func TestImportTable(t *testing.T) {
	bad, used, err := check(os.DirFS(root), table)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range bad {
		t.Error(v)
	}
	for _, r := range table {
		if !used[r.Name] && r.Name != "examples" { // examples hold documents and a test, no package of their own
			t.Errorf("row %q speaks about %s, where no Go file stands: remove the row or fix the pattern", r.Name, r.Room)
		}
	}
}

// TestEveryRowCatches runs the checker over one bad tree a row: a row without teeth fails here.
func TestEveryRowCatches(t *testing.T) {
	rules := []string{"unlisted", "netlink-lists"}
	for _, r := range table {
		if r.Name != "test" { // may import everything by design
			rules = append(rules, r.Name)
		}
	}
	for _, rule := range rules {
		t.Run(rule, func(t *testing.T) {
			archive, err := txtar.ParseFile(filepath.Join("testdata", "bad", rule+".txtar"))
			if err != nil {
				t.Fatal(err)
			}
			tree, err := txtar.FS(archive)
			if err != nil {
				t.Fatal(err)
			}
			bad, _, err := check(tree, table)
			if err != nil {
				t.Fatal(err)
			}
			files, _ := fs.Glob(tree, "*")
			if len(files) == 0 || len(bad) == 0 {
				t.Fatalf("nothing caught in %v", files)
			}
			for _, v := range bad {
				if v.Rule != rule {
					t.Errorf("caught by %q instead: %s", v.Rule, v)
				}
			}
		})
	}
}

// TestLinked holds binaries to what they may link, through whatever package it would come.
func TestLinked(t *testing.T) {
	for _, b := range []struct {
		pkg   string
		never []string
	}{
		{"./cni/cmd/danm", []string{"k8s.io/client-go", "github.com/vishvananda/netlink", "net/http", "github.com/containernetworking/cni/pkg/skel"}},
		{"./node/cmd/danm-node", []string{"sigs.k8s.io/controller-runtime", "github.com/go-git/go-git/v5", "sigs.k8s.io/kustomize"}},
	} {
		cmd := exec.Command("go", "list", "-deps", b.pkg)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list %s: %v", b.pkg, err)
		}
		deps := strings.Fields(string(out))
		if len(deps) < 10 {
			t.Fatalf("go list %s: only %d packages", b.pkg, len(deps))
		}
		for _, dep := range deps {
			for _, never := range b.never {
				if dep == never || strings.HasPrefix(dep, never+"/") {
					t.Errorf("%s links %s", b.pkg, dep)
				}
			}
		}
	}
}
