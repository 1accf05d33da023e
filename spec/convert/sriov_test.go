package convert_test

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

	"danm.io/danm/spec/convert"
	"danm.io/danm/spec/decode"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	"danm.io/danm/spec/validate"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the wanted parts of the goldens")

// object reads one manifest of the operator's or a definition.
func object(t *testing.T, doc string) any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var head struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(data, &head); err != nil {
		t.Fatal(err)
	}
	if head.Kind == npwgv1.Kind {
		d := &npwgv1.NetworkAttachmentDefinition{}
		if err := yaml.Unmarshal(data, d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	o, note, err := convert.OperatorObject(head.Kind, data)
	if err != nil || o == nil {
		t.Fatalf("%v, %q: %v\n%s", o, note, err, doc)
	}
	return o
}

// asFiles is a conversion as a bundle that can be validated.
func asFiles(t *testing.T, b convert.Bundle) []decode.File {
	t.Helper()
	files := []decode.File{{Path: "bundle.yaml", Data: []byte("apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: b}\n")}}
	for kind, docs := range map[string][]any{"networks": anys(b.Networks), "pools": anys(b.Pools), "tenants": anys(b.Tenants), "topology": {b.Topology}} {
		var text bytes.Buffer
		for _, d := range docs {
			fmt.Fprintf(&text, "---\n%s", plain(t, d))
		}
		files = append(files, decode.File{Path: kind + ".yaml", Data: text.Bytes()})
	}
	slices.SortFunc(files, func(a, b decode.File) int { return strings.Compare(a.Path, b.Path) })
	return files
}

func anys[T any](in []T) (out []any) {
	for _, v := range in {
		out = append(out, v)
	}
	return out
}

// TestOperator: goldens of the operator's objects, in any order; what comes out validates.
func TestOperator(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var objects []any
		kept := a.Files[:0:0]
		for _, f := range a.Files {
			if !strings.HasPrefix(f.Name, "in/") {
				continue
			}
			kept = append(kept, f)
			for _, doc := range strings.Split(string(f.Data), "---\n") {
				objects = append(objects, object(t, doc))
			}
		}
		want := &txtar.Archive{Comment: a.Comment, Files: kept}
		for round := range 6 {
			b := convert.Objects(convert.Options{Name: "b"}, objects)
			files := asFiles(t, b)
			if _, problems := validate.Files(files); problems.HasErrors() {
				t.Errorf("%s: %v", path, problems)
			}
			got := &txtar.Archive{Comment: a.Comment, Files: slices.Clone(kept)}
			for _, f := range files {
				if f.Path == "networks.yaml" || f.Path == "pools.yaml" {
					got.Files = append(got.Files, txtar.File{Name: "want/" + f.Path, Data: f.Data})
				}
			}
			var notes bytes.Buffer
			for _, n := range b.Notes {
				fmt.Fprintf(&notes, "%s: %s\n", n.Object, n.Text)
			}
			got.Files = append(got.Files, txtar.File{Name: "want/notes", Data: notes.Bytes()})
			switch {
			case round == 0 && *update:
				want = got
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			case round == 0:
				want = a
			}
			if d := cmp.Diff(string(txtar.Format(want)), string(txtar.Format(got))); d != "" {
				t.Fatalf("%s, round %d (-want +got):\n%s", path, round, d)
			}
			rand.Shuffle(len(objects), func(i, k int) { objects[i], objects[k] = objects[k], objects[i] })
		}
	}
}
