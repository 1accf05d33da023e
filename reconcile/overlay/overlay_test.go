package overlay

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

const base = `
-- base/kustomization.yaml --
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [bundle.yaml, networks.yaml]
-- base/bundle.yaml --
# what all sites have
apiVersion: bundle.danm.io/v1
kind: Bundle
metadata: {name: site}
spec: {version: 1.0.0}
-- base/networks.yaml --
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: voice, namespace: acme}
spec:
  fabric: edge
  vxlan: 5001
  sharedWith: [acme/video]
---
# the other one
apiVersion: bundle.danm.io/v1
kind: Network
metadata:
  name: video
  namespace: acme
spec:
  fabric: edge
  vxlan: 5001
  sharedWith: [acme/voice]
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: shared}
spec: {fabric: edge, vxlan: 7, allowedTenants: [acme]}
---
apiVersion: bundle.danm.io/v1
kind: Tenant
metadata: {name: acme}
spec: {namespaces: [acme], networks: [shared], defaultNetwork: acme/voice}
`

const overlayHead = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"

func repository(text string) []decode.File {
	var out []decode.File
	for _, f := range txtar.Parse([]byte(text)).Files {
		out = append(out, decode.File{Path: f.Name, Data: f.Data})
	}
	return out
}

func build(t *testing.T, text, dir string) Files {
	t.Helper()
	out, problems := Build(repository(text), dir)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return out
}

// specs is each document's kind, key and the lines of its spec that matter here.
func specs(t *testing.T, f Files) map[string]string {
	t.Helper()
	out := map[string]string{}
	docs, problems := decode.Decode(f.Documents)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, n := range docs.Networks {
		v := n.Value
		id := int64(0)
		if v.Spec.VXLAN != nil {
			id = v.Spec.VXLAN.Value
		}
		out["Network "+key(v.Metadata.Namespace, v.Metadata.Name)] = fmt.Sprintf("%s %d %d %v %v", v.Spec.Fabric, id, v.Spec.MTU, v.Spec.SharedWith, v.Spec.AllowedTenants)
	}
	for _, x := range docs.Tenants {
		out["Tenant "+x.Value.Metadata.Name] = fmt.Sprintf("%v %s", x.Value.Spec.Networks, x.Value.Spec.DefaultNetwork)
	}
	for _, b := range docs.Bundles {
		out["Bundle "+b.Value.Metadata.Name] = b.Value.Spec.Version
	}
	return out
}

func TestPatchesAndPrefixes(t *testing.T) {
	f := build(t, base+`
-- sites/a/kustomization.yaml --
`+overlayHead+`resources: [../../base, extra.yaml]
namePrefix: a-
nameSuffix: -x
patches:
- path: mtu.yaml
- target: {kind: Bundle, name: site}
  patch: |
    - op: replace
      path: /spec/version
      value: 1.1.0
-- sites/a/mtu.yaml --
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: voice, namespace: acme}
spec: {mtu: 1400}
-- sites/a/extra.yaml --
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: local}
spec: {hostDevice: eth0}
`, "sites/a")
	want := map[string]string{
		"Bundle a-site-x":        "1.1.0",
		"Network acme/a-voice-x": "edge 5001 1400 [acme/a-video-x] []",
		"Network acme/a-video-x": "edge 5001 0 [acme/a-voice-x] []",
		"Network a-shared-x":     "edge 7 0 [] [a-acme-x]",
		"Network a-local-x":      " 0 0 [] []",
		"Tenant a-acme-x":        "[a-shared-x] acme/a-voice-x",
	}
	if d := cmp.Diff(want, specs(t, f)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// One base twice: each reference stays within its own copy.
func TestBaseTwice(t *testing.T) {
	both := base + `
-- a/kustomization.yaml --
` + overlayHead + `resources: [../base]
namePrefix: a-
-- b/kustomization.yaml --
` + overlayHead + `resources: [../base]
namePrefix: b-
-- both/kustomization.yaml --
` + overlayHead + `resources: [../a, ../b]
namePrefix: z-
`
	got := specs(t, build(t, both, "both"))
	for _, site := range []string{"a", "b"} {
		if have := got["Tenant z-"+site+"-acme"]; have != fmt.Sprintf("[z-%s-shared] acme/z-%s-voice", site, site) {
			t.Errorf("tenant of %s refers to %s", site, have)
		}
		if have := got["Network acme/z-"+site+"-voice"]; !strings.Contains(have, "[acme/z-"+site+"-video]") {
			t.Errorf("voice of %s is %s", site, have)
		}
	}
	if len(got) != 10 {
		t.Errorf("%d documents: %v", len(got), got)
	}
}

// What an overlay leaves as it is keeps its exact place; what it changes is placed at its origin's beginning.
func TestPlaces(t *testing.T) {
	text := strings.Replace(base, "  vxlan: 5001\n  sharedWith: [acme/voice]", "  vxlan: 5001\n  mtu: 12345678\n  sharedWith: [acme/voice]", 1) + `
-- site/kustomization.yaml --
` + overlayHead + `resources: [../base]
patches:
- path: p.yaml
-- site/p.yaml --
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: voice, namespace: acme}
spec: {mtu: 1400}
`
	f := build(t, text, "site")
	docs, problems := decode.Decode(f.Documents)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	places := map[string]string{}
	for _, n := range docs.Networks {
		file, line := f.Origin(n.File, n.Line)
		places[n.Value.Metadata.Name] = fmt.Sprintf("%s:%d", file, line)
	}
	want := map[string]string{"voice": "base/networks.yaml:1", "video": "base/networks.yaml:10", "shared": "base/networks.yaml:21"}
	if d := cmp.Diff(want, places); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for _, n := range docs.Networks {
		l := f.Locate(diag.List{{File: n.File, Line: n.Line + 3, Col: 4, Summary: "bad"}})
		switch name := n.Value.Metadata.Name; {
		case name == "voice" && l[0].String() != "base/networks.yaml:1: [] bad" && (l[0].Line != 1 || l[0].Col != 0 || l[0].Summary != "bad (in Network acme/voice, after overlays)"):
			t.Errorf("changed document: %+v", l[0])
		case name == "video" && (l[0].File != "base/networks.yaml" || l[0].Line != 13 || l[0].Summary != "bad"):
			t.Errorf("unchanged document: %+v", l[0])
		}
	}
}

func TestRefused(t *testing.T) {
	bomb := "a: &a [x]\nb: *a\n"
	for _, r := range []struct {
		name, kustomization, more string
		want                      diag.Code
		place                     string
	}{
		{"URL", "resources: [https://127.0.0.1/x.yaml]", "", diag.OverlayRemote, "site/kustomization.yaml:3:13"},
		{"GitHub", "resources: [github.com/org/repo//sub]", "", diag.OverlayRemote, ""},
		{"git@", "resources: ['git@host:repo']", "", diag.OverlayRemote, ""},
		{"ref", "resources: ['host/repo?ref=main']", "", diag.OverlayRemote, ""},
		{"scp", "resources: ['host:repo.git']", "", diag.OverlayRemote, ""},
		{"remote patch", "resources: [../base]\npatches: [{path: 'https://127.0.0.1/p.yaml'}]", "", diag.OverlayRemote, "site/kustomization.yaml:4:18"},
		{"above the root", "resources: [../../elsewhere]", "", diag.PathEscape, "site/kustomization.yaml:3:13"},
		{"absolute", "resources: [/etc/passwd]", "", diag.PathEscape, ""},
		{"patch above the root", "resources: [../base]\npatches: [{path: ../../p.yaml}]", "", diag.PathEscape, ""},
		{"missing", "resources: [nothing.yaml]", "", diag.PathNotFound, ""},
		{"missing patch", "resources: [../base]\npatches: [{path: p.yaml}]", "", diag.PathNotFound, ""},
		{"components", "resources: [../base]\ncomponents: [../c]", "", diag.OverlayRefused, "site/kustomization.yaml:4:1"},
		{"helm", "helmCharts: [{name: x, repo: 'https://127.0.0.1'}]", "", diag.OverlayRefused, ""},
		{"generators", "generators: [g.yaml]", "", diag.OverlayRefused, ""},
		{"transformers", "transformers: [t.yaml]", "", diag.OverlayRefused, ""},
		{"secrets", "secretGenerator: [{name: x, literals: [a=b]}]", "", diag.OverlayRefused, ""},
		{"openapi", "openapi: {path: 'https://127.0.0.1/'}", "", diag.OverlayRefused, ""},
		{"labels", "resources: [../base]\ncommonLabels: {a: b}", "", diag.OverlayRefused, ""},
		{"unknown field", "resorces: [../base]", "", diag.UnknownField, "site/kustomization.yaml:3:1"},
		{"unknown field of a patch", "resources: [../base]\npatches: [{pth: x}]", "", diag.UnknownField, ""},
		{"duplicate field", "resources: [../base]\nresources: [../base]", "", diag.DuplicateField, "site/kustomization.yaml:4:1"},
		{"alias", "resources: [../base]\n" + bomb, "", diag.AliasBomb, ""},
		{"alias in a patch", "resources: [../base]\npatches: [{path: p.yaml}]", "-- site/p.yaml --\n" + bomb, diag.AliasBomb, "site/p.yaml:2:4"},
		{"duplicate key in a patch", "resources: [../base]\npatches: [{path: p.yaml}]", "-- site/p.yaml --\na: 1\na: 2\n", diag.DuplicateField, "site/p.yaml:2:1"},
		{"duplicate key in a resource", "resources: [r.yaml]", "-- site/r.yaml --\napiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: x}\nspec: {version: 1.0.0, version: 1.1.0}\n", diag.DuplicateField, "site/r.yaml:4:24"},
		{"misspelt key in a resource", "resources: [r.yaml]", "-- site/r.yaml --\napiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: x}\nspec: {versoin: 1.0.0}\n", diag.UnknownField, "site/r.yaml:4:8"},
		{"patch without a target", "resources: [../base]\npatches: [{path: p.yaml}]", "-- site/p.yaml --\napiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: nobody}\n", diag.OverlayFailed, "site/kustomization.yaml"},
		{"same document twice", "resources: [../base, r.yaml]", "-- site/r.yaml --\napiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\n", diag.OverlayFailed, ""},
		{"cycle", "resources: [../c]", "-- c/kustomization.yaml --\nresources: [../site]\n", diag.OverlayCycle, ""},
		{"list for a map", "[a]", "", diag.BrokenYAML, ""},
		{"deep", "resources: [../base]\nx: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "", diag.TooDeep, ""},
	} {
		t.Run(r.name, func(t *testing.T) {
			out, problems := Build(repository(base+"-- site/kustomization.yaml --\n"+overlayHead+r.kustomization+"\n"+r.more), "site")
			if len(out.Documents) > 0 {
				t.Errorf("%d documents", len(out.Documents))
			}
			found := false
			for _, p := range problems {
				found = found || p.Code == r.want && (r.place == "" || p.Position() == r.place)
				if _, known := diag.Explain(p.Code); !known {
					t.Errorf("%s is not explained", p.Code)
				}
			}
			if !found {
				t.Errorf("got %v, want %s at %q", problems, r.want, r.place)
			}
		})
	}
}

// Every way to name something remote, together, with something that would notice: nobody connects, nothing is executed.
func TestNothingReachesOut(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	bin, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	for _, name := range []string{"git", "helm", "sh", "bash"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/usr/bin/env -S touch "+ran+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	at := l.Addr().String()
	for _, kustomization := range []string{
		"resources: ['http://" + at + "/x.yaml']", "resources: ['http://" + at + "/repo.git']", "resources: ['git::http://" + at + "/repo']",
		"resources: ['" + at + "/org/repo?ref=main']", "resources: ['file://" + bin + "/repo.git']", "bases: ['http://" + at + "/repo.git']",
		"components: ['http://" + at + "/c']", "crds: ['http://" + at + "/c']", "openapi: {path: 'http://" + at + "/o'}",
		"helmCharts: [{name: x, repo: 'http://" + at + "'}]", "transformers: ['http://" + at + "/t']", "configurations: ['http://" + at + "/t']",
		"resources: [../base]\npatches: [{path: 'http://" + at + "/p'}]", "resources: [../base]\nreplacements: [{path: 'http://" + at + "/p'}]",
		"generators:\n- |\n  apiVersion: x/v1\n  kind: Gen\n  metadata: {name: g, annotations: {config.kubernetes.io/function: 'exec: {path: git}'}}",
	} {
		if _, problems := Build(repository(base+"-- site/kustomization.yaml --\n"+overlayHead+kustomization+"\n"), "site"); !problems.HasErrors() {
			t.Errorf("taken: %s", kustomization)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program was executed")
	}
	c, err := net.Dial("tcp", at) // the listener would have noticed
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for connections.Load() == 0 {
		runtime.Gosched()
	}
}

func TestTooManyBuilds(t *testing.T) {
	var b strings.Builder
	b.WriteString("-- l0/kustomization.yaml --\nresources: [r.yaml]\n-- l0/r.yaml --\napiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: x}\n")
	for i := range 12 {
		fmt.Fprintf(&b, "-- l%d/kustomization.yaml --\nresources: [a, b]\n-- l%d/a/kustomization.yaml --\nresources: [../../l%d]\nnamePrefix: a\n-- l%d/b/kustomization.yaml --\nresources: [../../l%d]\nnamePrefix: b\n", i+1, i+1, i, i+1, i)
	}
	if _, problems := Build(repository(b.String()), "l12"); len(problems) != 1 || problems[0].Code != diag.OverlayTooLarge {
		t.Errorf("4,096 builds: %v", problems)
	}
	if f, problems := Build(repository(b.String()), "l4"); len(problems) > 0 || len(f.Documents) != 16 {
		t.Errorf("16 builds: %d documents, %v", len(f.Documents), problems)
	}
}

// The same repository gives the same bytes, in whatever order its files come.
func TestDeterministic(t *testing.T) {
	files := repository(base + "-- site/kustomization.yaml --\n" + overlayHead + "resources: [../base]\nnamePrefix: a-\n")
	want, _ := Build(files, "site")
	for i, j := 0, len(files)-1; i < j; i, j = i+1, j-1 {
		files[i], files[j] = files[j], files[i]
	}
	got, _ := Build(files, "site")
	if d := cmp.Diff(want.Documents, got.Documents); d != "" || len(want.Documents) != 5 {
		t.Errorf("%d documents\n%s", len(want.Documents), d)
	}
}

func FuzzBuild(f *testing.F) {
	f.Add("resources: [../base]\nnamePrefix: a-\n", "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: x}\n")
	f.Add("resources: [r.yaml]\npatches: [{path: r.yaml}]\n", "a: &a\n  b: *a\n")
	f.Add("patches: [{patch: '[{op: remove, path: /spec}]', target: {kind: Bundle}}]\nresources: [r.yaml]", "---\n---\n")
	f.Fuzz(func(t *testing.T, kustomization, resource string) {
		files := append(repository(base), decode.File{Path: "site/kustomization.yaml", Data: []byte(kustomization)}, decode.File{Path: "site/r.yaml", Data: []byte(resource)})
		out, problems := Build(files, "site")
		if problems.HasErrors() && len(out.Documents) > 0 {
			t.Error("documents in spite of errors")
		}
		for _, p := range problems {
			if p.File != "" && strings.HasPrefix(p.File, "/") {
				t.Errorf("a path of the machine: %s", p)
			}
		}
	})
}
