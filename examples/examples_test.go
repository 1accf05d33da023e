// Package examples_test decodes, renders and compares every example: each folder here is one.
package examples_test

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the goldens in testdata")

func TestExamples(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names, all []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != "testdata" {
			names = append(names, e.Name())
		}
	}
	if len(names) < 2 {
		t.Fatalf("examples found: %v", names)
	}
	for _, name := range names {
		for _, b := range bundles(t, name) {
			t.Run(b.golden, func(t *testing.T) { checkExample(t, b) })
			all = append(all, b.golden)
		}
	}
	goldens, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range goldens {
		if !slices.Contains(all, strings.TrimSuffix(filepath.Base(g), ".txtar")) {
			t.Errorf("%s has no example", g)
		}
	}
}

// bundle is one that an example holds: the example itself, or each of its sites.
type bundle struct{ root, dir, golden string }

func bundles(t *testing.T, name string) (out []bundle) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(name, "README.md")); err != nil {
		t.Error(err)
	}
	sites, err := os.ReadDir(filepath.Join(name, "sites"))
	if err != nil {
		return []bundle{{root: name, golden: name}}
	}
	for _, s := range sites {
		out = append(out, bundle{root: name, dir: "sites/" + s.Name(), golden: name + "-" + s.Name()})
	}
	return out
}

func checkExample(t *testing.T, of bundle) {
	files := readFiles(t, of.root)
	if len(files) == 0 {
		t.Fatal("no documents")
	}
	got := rendered(t, files, of.dir)
	for range 5 {
		rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		if !bytes.Equal(rendered(t, files, of.dir), got) {
			t.Fatal("the order of files matters")
		}
	}
	path := filepath.Join("testdata", of.golden+".txtar")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func readFiles(t *testing.T, root string) []decode.File {
	t.Helper()
	var files []decode.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		files = append(files, decode.File{Path: filepath.ToSlash(rel), Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func rendered(t *testing.T, files []decode.File, dir string) []byte {
	t.Helper()
	b, diags := overlay.Validate(files, dir)
	if len(diags) > 0 { // an example has no warnings either
		t.Fatal(diags)
	}
	r := render.Render(b, model.Inventory{})
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics)
	}
	if len(r.Nodes) == 0 || len(r.Objects) == 0 {
		t.Fatalf("%d nodes, %d objects", len(r.Nodes), len(r.Objects))
	}
	var a txtar.Archive
	for _, o := range r.Objects {
		a.Files = append(a.Files, txtar.File{Name: fmt.Sprintf("objects/%s/%s", o.Kind, strings.Trim(o.Namespace+"/"+o.Name, "/")), Data: toYAML(t, o.Value)})
	}
	for _, n := range r.Nodes {
		a.Files = append(a.Files, txtar.File{Name: "nodes/" + n.Node, Data: toYAML(t, n)})
	}
	return txtar.Format(&a)
}

func toYAML(t *testing.T, v any) []byte {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
