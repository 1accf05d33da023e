package validate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
)

// good is the bundle that rows of bad input change in one place; it uses every field.
func good(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(paths) < 5 {
		t.Fatalf("good bundle: %v, %v", paths, err)
	}
	out := map[string]string{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(p)] = string(data)
	}
	return out
}

func files(m map[string]string) []decode.File {
	var out []decode.File
	for _, name := range sortedKeys(m) {
		out = append(out, decode.File{Path: name, Data: []byte(m[name])})
	}
	return out
}

// edit replaces the only occurrence of old; a row whose text is not there tests nothing.
func edit(t testing.TB, m map[string]string, file, old, text string) {
	t.Helper()
	if old == "" {
		m[file] += text
		return
	}
	if n := strings.Count(m[file], old); n != 1 {
		t.Fatalf("%s contains %q %d times", file, old, n)
	}
	m[file] = strings.Replace(m[file], old, text, 1)
}

// brief is "file:line Code" of each problem, as rows expect them.
func brief(l diag.List) []string {
	var out []string
	for _, d := range l {
		text := fmt.Sprintf("%s:%d %s", d.File, d.Line, d.Code)
		if d.File == "" {
			text = string(d.Code)
		}
		if d.Severity == diag.Warning {
			text += " (warning)"
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// net is a document of kind Network for rows that add one.
func net(name, spec string) string {
	namespace, short, found := strings.Cut(name, "/")
	meta := "{name: " + short + ", namespace: " + namespace + "}"
	if !found {
		meta = "{name: " + name + "}"
	}
	return "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: " + meta + "\nspec: " + spec + "\n"
}
