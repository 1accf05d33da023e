package render_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/validate"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the wanted parts of the goldens")

// A golden is one txtar: the bundle's files, optionally inventory.yaml, and want/…: objects, one file a node, diagnostics.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bundle := inputs(a)
			got := wanted(t, bundle)
			for range 5 {
				rand.Shuffle(len(bundle), func(i, j int) { bundle[i], bundle[j] = bundle[j], bundle[i] })
				if diff := cmp.Diff(texts(got), texts(wanted(t, bundle))); diff != "" {
					t.Fatalf("the order of files matters:\n%s", diff)
				}
			}
			if *update {
				a.Files = append(slices.DeleteFunc(a.Files, isWanted), got...)
				if err := os.WriteFile(path, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			var want []txtar.File
			for _, f := range a.Files {
				if isWanted(f) {
					want = append(want, f)
				}
			}
			if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func isWanted(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") }

func inputs(a *txtar.Archive) []txtar.File {
	return slices.DeleteFunc(slices.Clone(a.Files), isWanted)
}

func texts(files []txtar.File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		out[f.Name] = string(f.Data)
	}
	return out
}

// wanted is what a bundle gives, as the files of a golden.
func wanted(t *testing.T, in []txtar.File) []txtar.File {
	t.Helper()
	var files []decode.File
	var inv model.Inventory
	for _, f := range in {
		if f.Name == "inventory.yaml" {
			if err := yaml.UnmarshalStrict(f.Data, &inv); err != nil {
				t.Fatal(err)
			}
			continue
		}
		files = append(files, decode.File{Path: f.Name, Data: f.Data})
	}
	b, diags := validate.Files(files)
	var r render.Result
	if !diags.HasErrors() {
		r = render.Render(b, inv)
		diags = append(diags, r.Diagnostics...)
	}
	var out []txtar.File
	var text bytes.Buffer
	for _, o := range r.Objects {
		fmt.Fprintf(&text, "---\n%s", mustYAML(t, o.Value))
	}
	if text.Len() > 0 {
		out = append(out, txtar.File{Name: "want/objects.yaml", Data: bytes.Clone(text.Bytes())})
	}
	for _, n := range r.Nodes {
		out = append(out, txtar.File{Name: "want/" + n.Node + ".yaml", Data: mustYAML(t, n)})
	}
	text.Reset()
	for _, d := range diags.Sorted() {
		fmt.Fprintln(&text, d)
	}
	if text.Len() > 0 {
		out = append(out, txtar.File{Name: "want/diagnostics", Data: text.Bytes()})
	}
	return out
}

func mustYAML(t *testing.T, v any) []byte {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
