package main

import (
	"bytes"
	"context"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"danm.io/danm/reconcile/cli"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the goldens in testdata")

const (
	edge    = "../../../examples/edge-site"
	minimal = "../../../examples/minimal"
)

// ctl runs danmctl as a shell would.
func ctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), args, cli.IO{Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

// edited is a copy of the edge-site example with one text replaced by another, in a file each: old, new.
func edited(t *testing.T, edits map[string][2]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := os.CopyFS(dir, os.DirFS(edge)); err != nil {
		t.Fatal(err)
	}
	for file, e := range edits {
		path := filepath.Join(dir, file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if e[0] != "" && !strings.Contains(string(b), e[0]) {
			t.Fatalf("%s has no %q", file, e[0])
		}
		text := strings.ReplaceAll(string(b), e[0], e[1])
		if e[0] == "" {
			text = string(b) + e[1]
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// golden compares text with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (write it with -update)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: -want +got:\n%s", name, diff)
	}
}

const newNetwork = `---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: telemetry, namespace: acme}
spec: {networkID: telem, type: macvlan, fabric: edge, vxlan: 5003, ipv4: {cidr: 10.41.0.0/22}}
`

// change is an edit with something of everything: an MTU, a replaced link, a new network, a tenant, the bundle itself.
func change(t *testing.T) string {
	return edited(t, map[string][2]string{
		"topology.yaml":      {"mtu: 1500", "mtu: 9000"},
		"networks/beta.yaml": {"5002", "5004"},
		"tenants.yaml":       {"5001-5001", "5001-5003"},
		"networks/acme.yaml": {"", newNetwork},
		"bundle.yaml":        {"15s", "20s"},
	})
}

func changed(t *testing.T) string {
	dir := change(t)
	path := filepath.Join(dir, "tenants.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("5002-5002"), []byte("5004-5004")), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// misspelt has two keys wrong, in two files.
func misspelt(t *testing.T) string {
	return edited(t, map[string][2]string{
		"networks/acme.yaml": {"vxlan: 5001", "vxlans: 5001"},
		"topology.yaml":      {"vniRanges:", "vniRange:"},
	})
}

func TestCommands(t *testing.T) {
	rendered := func(t *testing.T, path string) string {
		code, out, errs := ctl(t, "render", path)
		if code != 0 {
			t.Fatal(errs)
		}
		return write(t, "rendered.yaml", out)
	}
	for _, c := range []struct {
		name string
		args func(t *testing.T) []string
		code int
		err  string // part of stderr; "" = nothing there
	}{
		{"validate-minimal", always("validate", minimal), 0, ""},
		{"validate-edge", always("validate", edge), 0, ""},
		{"validate-json", always("validate", edge, "-o", "json"), 0, ""},
		{"validate-misspelt", func(t *testing.T) []string { return []string{"validate", misspelt(t)} }, 1, ""},
		{"validate-misspelt-json", func(t *testing.T) []string { return []string{"validate", misspelt(t), "-o", "json"} }, 1, ""},
		{"validate-empty", func(t *testing.T) []string { return []string{"validate", t.TempDir()} }, 1, ""},
		{"validate-missing", always("validate", "testdata/no-such-directory"), 2, "no-such-directory"},
		{"validate-format", always("validate", edge, "-o", "xml"), 2, "xml"},
		{"validate-inventory", always("validate", edge, "--inventory", "testdata/none"), 2, "testdata/none"},
		{"validate-nothing", always("validate"), 2, "accepts 1 arg"},
		{"render-minimal", always("render", minimal), 0, ""},
		{"render-minimal-json", always("render", minimal, "-o", "json"), 0, ""},
		{"render-misspelt", func(t *testing.T) []string { return []string{"render", misspelt(t)} }, 2, "networks/acme.yaml:8:3"},
		{"render-format", always("render", minimal, "-o", "text"), 2, "text"},
		{"diff-same", always("diff", edge, edge), 0, ""},
		{"diff-rendered-same", func(t *testing.T) []string { return []string{"diff", rendered(t, edge), edge} }, 0, ""},
		{"diff-changed", func(t *testing.T) []string { return []string{"diff", edge, changed(t)} }, 1, ""},
		{"diff-changed-back", func(t *testing.T) []string { return []string{"diff", changed(t), edge} }, 1, ""},
		{"diff-changed-json", func(t *testing.T) []string { return []string{"diff", edge, rendered(t, changed(t)), "-o", "json"} }, 1, ""},
		{"diff-other-bundle", always("diff", minimal, edge), 1, ""},
		{"diff-one-side", always("diff", edge), 2, "OLD and NEW, or PATH with --live"},
		{"diff-live-two-sides", always("diff", edge, minimal, "--live"), 2, "takes one PATH"},
		{"diff-bad-old", func(t *testing.T) []string { return []string{"diff", misspelt(t), edge} }, 2, "the old side"},
		{"diff-bad-new", func(t *testing.T) []string { return []string{"diff", edge, misspelt(t)} }, 2, "the new side"},
		{"diff-no-rendered", func(t *testing.T) []string { return []string{"diff", edge, write(t, "x.yaml", "kind: Rendered\n")} }, 2, "no output of danmctl render"},
		{"plan-edge", always("plan", edge, "--node", "edge-2"), 1, ""},
		{"plan-edge-json", always("plan", edge, "--node", "edge-2", "-o", "json"), 1, ""},
		{"plan-observed", always("plan", minimal, "--node", "laptop", "--observed", "testdata/in-the-way.json"), 1, ""},
		{"plan-done", always("plan", minimal, "--node", "laptop", "--observed", "testdata/done.json"), 0, ""},
		{"plan-unknown-node", always("plan", edge, "--node", "edge-22"), 2, `did you mean "edge-2"?`},
		{"plan-no-node", always("plan", edge), 2, "node"},
		{"plan-both", always("plan", edge, "--node", "edge-1", "--local", "--observed", "x"), 2, "exclude each other"},
		{"plan-broken-observed", func(t *testing.T) []string {
			return []string{"plan", edge, "--node", "edge-1", "--observed", write(t, "o.json", `{"linkz": []}`)}
		}, 2, "linkz"},
		{"explain-code", always("explain", "LinkNameClash"), 0, ""},
		{"explain-unknown", always("explain", "LinkNameClsh"), 2, `did you mean "LinkNameClash"?`},
		{"no-command", always(), 2, "no command"},
		{"unknown-command", always("frobnicate"), 2, "frobnicate"},
		{"unknown-flag", always("validate", edge, "--frobnicate"), 2, "frobnicate"},
		{"sync-no-node", always("sync", edge, "--state-dir", "x"), 2, "node"},
		{"sync-interval", always("sync", edge, "--state-dir", "x", "--node", "edge-1", "--interval", "0s"), 2, "interval"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := ctl(t, c.args(t)...)
			if code != c.code {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, out, errs)
			}
			if (c.err == "") != (errs == "") || !strings.Contains(errs, c.err) {
				t.Errorf("stderr %q, want %q in it", errs, c.err)
			}
			if c.code == 2 && out != "" {
				t.Errorf("a failed call printed %q", out)
			}
			if c.code != 2 {
				golden(t, c.name, out)
			}
		})
	}
}

func always(args ...string) func(*testing.T) []string {
	return func(*testing.T) []string { return args }
}

func TestListsAndSchema(t *testing.T) {
	for _, c := range []struct {
		args []string
		has  []string
	}{
		{[]string{"explain"}, []string{"LinkNameClash  ", "UnknownField  "}},
		{[]string{"schema"}, []string{`"vniRanges"`, `"$schema"`}},
		{[]string{"--help"}, []string{"validate", "sync", "completion"}},
		{[]string{"completion", "bash"}, []string{"danmctl"}},
		{[]string{"__complete", "explain", "LinkN"}, []string{"LinkNameClash"}},
		{[]string{"__complete", "explain", "SRIOVP"}, []string{"SRIOVPool"}},
		{[]string{"__complete", "plan", edge, "--node", ""}, []string{"edge-1\n", "edge-2\n", "edge-3\n"}},
		{[]string{"__complete", "sync", edge, "--node", ""}, []string{"edge-1\n"}},
	} {
		code, out, _ := ctl(t, c.args...)
		if code != 0 {
			t.Errorf("%v: exit %d", c.args, code)
		}
		for _, h := range c.has {
			if !strings.Contains(out, h) {
				t.Errorf("%v: no %q", c.args, h)
			}
		}
	}
}

// TestCompletionFetchesNothing: a bundle that is elsewhere is not read because somebody presses a key.
func TestCompletionFetchesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan bool, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked <- true // before whoever asks can know of the end
			c.Close()
		}
	}()
	path := "git+https://" + l.Addr().String() + "/x"
	if _, out, _ := ctl(t, "__complete", "plan", path, "--node", ""); !strings.Contains(out, ":4\n") {
		t.Errorf("%s", out)
	}
	if len(asked) > 0 {
		t.Error("it was asked")
	}
	if code, _, _ := ctl(t, "plan", path, "--node", "x"); code != cli.Failed || len(asked) == 0 { // a control
		t.Error("nobody asks")
	}
}

// A rendered file says the same as its bundle, in both formats, and rendering twice gives the same bytes.
func TestRenderedRoundTrip(t *testing.T) {
	for _, format := range []string{"yaml", "json"} {
		_, first, _ := ctl(t, "render", edge, "-o", format)
		_, second, _ := ctl(t, "render", edge, "-o", format)
		if first != second || first == "" {
			t.Fatalf("%s: two renders differ", format)
		}
		file := write(t, "r."+format, first)
		if code, again, errs := ctl(t, "render", file, "-o", format); code != 0 || again != first {
			t.Errorf("%s: exit %d, a rendered file renders to something else\n%s%s", format, code, errs, cmp.Diff(first, again))
		}
		if code, out, errs := ctl(t, "diff", file, edge); code != 0 {
			t.Errorf("%s: exit %d\n%s%s", format, code, out, errs)
		}
		bad := write(t, "bad", strings.Replace(first, "5001", "5999", -1))
		if code, _, errs := ctl(t, "diff", bad, edge); code != 2 || !strings.Contains(errs, "digest") {
			t.Errorf("%s: an edited plan was taken: exit %d, %s", format, code, errs)
		}
	}
}

// repository is a Git repository with the example under site/ at tag v1, and the changed one after it.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	repo, err := gogit.PlainInit(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range []string{edge, changed(t)} {
		if err := os.RemoveAll(filepath.Join(dir, "site")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, "site"), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Add("site"); err != nil {
			t.Fatal(err)
		}
		who := &object.Signature{Name: "n", Email: "n@example.org", When: time.Unix(1700000000, 0).UTC()}
		hash, err := tree.Commit("change", &gogit.CommitOptions{Author: who, Committer: who})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := repo.CreateTag("v1", hash, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	return "git+file://" + dir + "//site"
}

func TestGitLocations(t *testing.T) {
	repo := repository(t)
	code, out, errs := ctl(t, "diff", repo+"?ref=v1", repo)
	if code != 1 || errs != "" {
		t.Fatalf("exit %d\n%s", code, errs)
	}
	golden(t, "diff-git", regexp.MustCompile(`\b[0-9a-f]{7}\b`).ReplaceAllString(out, "<commit>")) // it hashes all of the example, its README too
	if code, out, _ = ctl(t, "diff", repo+"?ref=v1", edge); code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, _, errs = ctl(t, "validate", repo+"?ref=v9"); code != 2 || !strings.Contains(errs, "RefNotFound") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

func TestNoSecretIsEchoed(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, location := range []string{
		"git+https://user:" + secret + "@127.0.0.1:1/repo", "git+ssh://user:" + secret + "@127.0.0.1:1/repo", "git+https://127.0.0.1:1/%zz" + secret,
	} {
		for _, args := range [][]string{{"validate", location}, {"render", location}, {"diff", edge, location}, {"diff", location, edge}, {"plan", location, "--node", "n"},
			{"sync", location, "--once", "--node", "n", "--state-dir", t.TempDir()}} {
			code, out, errs := ctl(t, args...)
			if code != 2 || strings.Contains(out+errs, secret) {
				t.Errorf("%s %s: exit %d, %q %q", args[0], location, code, out, errs)
			}
		}
	}
}

func TestSyncOnce(t *testing.T) {
	dir := t.TempDir()
	code, out, errs := ctl(t, "sync", edge, "--once", "--node", "edge-1", "--state-dir", dir)
	if code != 0 || !strings.Contains(out, "edge-1") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	before, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	code, out, _ = ctl(t, "sync", misspelt(t), "--once", "--node", "edge-1", "--state-dir", dir)
	if code != 1 || !strings.Contains(out, "networks/acme.yaml:8:3") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "state.json")); !bytes.Equal(before, after) {
		t.Error("a refused bundle changed the state")
	}
}

// A slip in a command of a group is an error, not help and success: "ipam check" in a script would be taken for clean.
func TestGroupsNeedACommand(t *testing.T) {
	for args, says := range map[string]string{"ipam": "needs a command", "ipam chekc": "did you mean check?", "ipam nothing": `unknown command "nothing"`, "": "no command given"} {
		code, out, errs := ctl(t, strings.Fields(args)...)
		if code != cli.Failed || out != "" || !strings.Contains(errs, says) {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, errs)
		}
	}
	if code, out, _ := ctl(t, "ipam", "check", "--help"); code != cli.OK || !strings.Contains(out, "looked at twice") || !strings.Contains(out, "--accept") {
		t.Errorf("exit %d: the long text is missing: %s", code, out)
	}
}
