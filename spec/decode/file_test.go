package decode

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"github.com/google/go-cmp/cmp"
)

func TestFiles(t *testing.T) {
	doc := []byte(head + "kind: Bundle\nmetadata: {name: a}\n")
	for path, want := range map[string]int{
		"a.yaml": 1, "a.yml": 1, "d/a.json": 1, "./a.yaml": 1, "../base/a.yaml": 1,
		"a.YAML": 0, "a.txt": 0, "a": 0, ".a.yaml": 0, ".github/a.yaml": 0, "d/.x/a.yaml": 0, "yaml": 0,
	} {
		docs, problems := Decode([]File{{Path: path, Data: doc}})
		if docs.Len() != want || len(problems) > 0 {
			t.Errorf("%s: %d documents, want %d; %v", path, docs.Len(), want, problems)
		}
	}
}

// TestOrderAndBroken: documents come in the order of paths and places, and only the one with a problem is Broken.
func TestOrderAndBroken(t *testing.T) {
	doc := func(name, more string) string {
		return head + "kind: Bundle\nmetadata: {name: " + name + more + "}\n"
	}
	files := []File{
		{Path: "b.yaml", Data: []byte(doc("b1", "") + "---\n" + doc("b2", ", x: y") + "---\n" + doc("b3", ""))},
		{Path: "a/z.yaml", Data: []byte(doc("z", ""))},
		{Path: "a.yaml", Data: []byte(doc("a", ""))},
	}
	for range 2 {
		docs, _ := Decode(files)
		got := ""
		for _, b := range docs.Bundles {
			got += fmt.Sprintf("%s:%d %s %t\n", b.File, b.Line, b.Value.Metadata.Name, b.Broken)
		}
		if want := "a.yaml:1 a false\na/z.yaml:1 z false\nb.yaml:1 b1 false\nb.yaml:5 b2 true\nb.yaml:9 b3 false\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		slices.Reverse(files)
	}
}

func TestLimits(t *testing.T) {
	doc := head + "kind: Network\nmetadata: {name: a}\n"
	many := make([]File, MaxFiles+2)
	for i := range many {
		many[i] = File{Path: fmt.Sprintf("%06d.yaml", i)}
	}
	big := make([]File, 40)
	for i := range big {
		big[i] = File{Path: fmt.Sprintf("%02d.yaml", i), Data: []byte("#" + strings.Repeat("x", MaxFileSize-1))}
	}
	// each file's aliases are within the bound, all together are not
	var aliases []File
	for i := range 12 {
		aliases = append(aliases, File{Path: fmt.Sprintf("%02d.yaml", i), Data: []byte("a: &a [" + strings.Repeat("x, ", 99) + "x]\nb: [" + strings.Repeat("*a, ", 99) + "*a]\n")})
	}
	documents := []File{{Path: "a.yaml", Data: []byte(strings.Repeat("---\na: 1\n", MaxDocuments/2))}, {Path: "b.yaml", Data: []byte(strings.Repeat("---\na: 1\n", MaxDocuments/2+1))}, {Path: "c.yaml", Data: []byte("a: [")}}
	for _, tc := range []struct {
		name  string
		files []File
		code  diag.Code
		file  string
	}{
		{"files", many, diag.BundleTooLarge, "010000.yaml"},
		{"bytes", big, diag.BundleTooLarge, "32.yaml"},
		{"documents", documents, diag.BundleTooLarge, "b.yaml"},
		{"one file", []File{{Path: "a.yaml", Data: []byte(doc + strings.Repeat("#", MaxFileSize))}}, diag.FileTooLarge, "a.yaml"},
		{"aliases of all files", aliases, diag.AliasBomb, "09.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			docs, problems := Decode(tc.files)
			i := slices.IndexFunc(problems, func(d diag.Diagnostic) bool { return d.Code == tc.code })
			if tc.code == diag.BundleTooLarge && docs.Len() > 0 {
				t.Error("documents of a refused bundle")
			}
			if tc.code == diag.BundleTooLarge && slices.ContainsFunc(problems, func(d diag.Diagnostic) bool { return d.File > tc.file }) {
				t.Error("files behind the bound are read")
			}
			if i < 0 || problems[i].File != tc.file || !docs.Incomplete {
				t.Errorf("want %s in %s, got %d problems, incomplete %t", tc.code, tc.file, len(problems), docs.Incomplete)
			}
		})
	}
	if _, problems := one(doc + "spec: {}\n" + strings.Repeat("#", MaxFileSize-len(doc)-len("spec: {}\n"))); len(problems) > 0 {
		t.Errorf("a file of exactly 1 MiB: %v", problems)
	}
	whole := File{Path: "a.yaml", Data: []byte(strings.Repeat("---\na: 1\n", MaxDocuments))}
	if _, problems := Decode([]File{whole}); slices.ContainsFunc(problems, func(d diag.Diagnostic) bool { return d.Code == diag.BundleTooLarge }) {
		t.Errorf("a bundle of exactly %d documents is refused", MaxDocuments)
	}
	depth := func(n int) string { return "a: " + strings.Repeat("[", n) + strings.Repeat("]", n) }
	if _, problems := one(depth(MaxDepth)); problems[0].Code != diag.WrongVersion {
		t.Errorf("depth %d: %v", MaxDepth, problems)
	}
	if _, problems := one(depth(MaxDepth + 1)); problems[0].Code != diag.TooDeep {
		t.Errorf("depth %d: %v", MaxDepth+1, problems)
	}
	// 16 lists under an anchor, their alias inside a map and lists
	aliased := func(n int) string {
		return "k: &k " + strings.Repeat("[", 16) + strings.Repeat("]", 16) + "\nv: " + strings.Repeat("[", n) + "*k" + strings.Repeat("]", n)
	}
	if _, problems := one(aliased(MaxDepth - 16)); problems[0].Code != diag.WrongVersion {
		t.Errorf("depth %d by an alias: %v", MaxDepth, problems)
	}
	if _, problems := one(aliased(MaxDepth - 15)); problems[0].Code != diag.TooDeep {
		t.Errorf("depth %d by an alias: %v", MaxDepth+1, problems)
	}
	// aliases that add depth, not size
	chain := "a0: &a0 [x]\n"
	for i := range 40 {
		chain += fmt.Sprintf("a%d: &a%d [*a%d]\n", i+1, i+1, i)
	}
	if _, problems := one(chain); problems[0].Code != diag.TooDeep {
		t.Errorf("chain of aliases: %v", problems)
	}
}

func TestAllAtOnce(t *testing.T) {
	_, problems := Decode([]File{
		{Path: "b.yaml", Data: []byte(head + "kind: Bundle\nmetadata: {nam: a}\nspec: {probes: [{nmae: x}], version: 1}\n---\nkind: X\n---\n" + head + "kind: Y\n")},
		{Path: "a.yaml", Data: []byte("a: [")},
	})
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s:%d %s", p.File, p.Line, p.Code))
	}
	want := []string{
		"a.yaml:1 BrokenYAML", "b.yaml:3 MissingField", "b.yaml:3 UnknownField", "b.yaml:4 MissingField", "b.yaml:4 UnknownField",
		"b.yaml:4 WrongType", "b.yaml:6 WrongVersion", "b.yaml:9 WrongKind",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestBrokenYAMLIsLocated(t *testing.T) {
	good := strings.Repeat("k: {a: b}\n", 1)
	for i := range 30 {
		good += fmt.Sprintf("k%d: {a: b}\n", i)
	}
	for name, bad := range map[string]string{
		"tab":           "\tx: y\n",
		"indentation":   "   x: y\n",
		"stray bracket": "x: ]\n",
		"colon":         "x: y: z\n",
		"anchor":        "x: *nowhere\n",
		"control":       "x: \x01\n",
	} {
		docs, problems := one(good + bad + good)
		if !docs.Incomplete || len(problems) != 1 || problems[0].Code != diag.BrokenYAML || problems[0].Line != 32 {
			t.Errorf("%s: want line 32, got %v", name, problems)
		}
	}
}
