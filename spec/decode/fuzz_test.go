package decode

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"danm.io/danm/spec/diag"
	"sigs.k8s.io/yaml"
)

// FuzzDecode: no input makes Decode panic, hang, point outside its file, or say nothing about a document it dropped.
func FuzzDecode(f *testing.F) {
	seeds, err := filepath.Glob("../validate/testdata/good/*.yaml")
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, s := range seeds {
		data, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{
		"", "---\n---\n", "a: &a\n  b: *a\n", "a: &a [x]\nb: [*a, *a]\n", "? [a]\n: b\n", "<<: {a: b}\n", "!!binary x", "%YAML 1.2\n---\na: b\n",
		"apiVersion: &v bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: *v}\n", "\xff\xfea\x00", "- &a a\n- *a\n", "{kind: Network, apiVersion: bundle.danm.io/v1, spec: {vxlan: auto, mtu: 010}}",
		"apiVersion: bundle.danm.io/v1\nkind: Topology\nspec: {nodes: [{labels: {a: b, a: c}}]}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, problems := Decode([]File{{Path: "x.yaml", Data: data}})
		lines := 2
		for _, b := range data {
			if b == '\n' || b == '\r' || b == 0x85 || b == 0xa8 || b == 0xa9 { // YAML 1.1 knows five line breaks
				lines++
			}
		}
		for _, p := range problems {
			if p.Line > lines || p.Line < 0 || p.Severity != diag.Error || p.File != "x.yaml" {
				t.Errorf("%v in a file of %d lines", p, lines)
			}
			if _, ok := diag.Explain(p.Code); !ok {
				t.Errorf("%s is not explained", p.Code)
			}
		}
		if docs.Incomplete && len(problems) == 0 {
			t.Error("incomplete without a word")
		}
		again, same := Decode([]File{{Path: "x.yaml", Data: data}})
		if !reflect.DeepEqual(problems, same) || again.Len() != docs.Len() {
			t.Error("a second time it differs")
		}
		if len(problems) > 0 {
			return
		}
		for _, n := range docs.Networks { // what decodes without a problem says the same when written again
			text, err := yaml.Marshal(n.Value)
			if err != nil {
				t.Fatal(err)
			}
			back, problems := Decode([]File{{Path: "x.yaml", Data: text}})
			if len(problems) > 0 || len(back.Networks) != 1 {
				t.Fatalf("%v\n%s", problems, text)
			}
		}
	})
}
