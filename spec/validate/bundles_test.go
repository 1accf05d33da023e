package validate

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"github.com/google/go-cmp/cmp"
)

// whole is a case that needs more than one change: added files, or a bundle of its own.
type whole struct {
	name  string
	alone bool // without the good bundle
	edits [][3]string
	add   map[string]string
	want  []string
}

const (
	anyBundle = "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: x}\n"
	topology  = "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: x}\nspec:\n"
)

var wholes = []whole{
	{name: "good", want: nil},
	{name: "nothing", alone: true, want: []string{"EmptyBundle"}},
	{name: "nothing but ignored files", alone: true, add: map[string]string{"README.md": "# x", ".github/ci.yaml": "on: push", "empty.yaml": "# nothing\n---\n"}, want: []string{"EmptyBundle"}},
	{name: "a topology alone", alone: true, add: map[string]string{"t.yaml": topology + "  slots: 1\n"}, want: []string{"MissingBundle"}},
	{name: "least bundle", alone: true, add: map[string]string{"b.yaml": anyBundle}, want: nil},
	{name: "JSON", alone: true, add: map[string]string{"b.json": `{"apiVersion": "bundle.danm.io/v1", "kind": "Bundle", "metadata": {"name": "x"}, "spec": {"version": "v1"}}`}, want: []string{"b.json:1 InvalidVersion"}},
	{name: "windows line ends", alone: true, add: map[string]string{"b.yaml": strings.ReplaceAll(anyBundle+"spec:\n  version: v1\n", "\n", "\r\n")}, want: []string{"b.yaml:5 InvalidVersion"}},

	// what could not be read does not make references dangle
	{name: "topology unreadable", add: map[string]string{"topology.yaml": "a: [\n"}, want: []string{"topology.yaml:1 BrokenYAML"}},
	{name: "topology with a slip", edits: [][3]string{{"topology.yaml", "  - name: second", "  - nmae: second"}}, want: []string{"topology.yaml:56 MissingField", "topology.yaml:56 UnknownField"}},
	{name: "bundle unreadable", add: map[string]string{"bundle.yaml": "a: [\n"}, want: []string{"bundle.yaml:1 BrokenYAML"}},
	{name: "two slips in one document", edits: [][3]string{{"networks.yaml", "  fabric: edge\n  vxlan: 5001", "  fabrci: edge\n  vxlna: 5001"}}, want: []string{"networks.yaml:10 UnknownField", "networks.yaml:9 UnknownField"}},
	{name: "values of a document with a slip are still judged", edits: [][3]string{{"networks.yaml", "mtu: 1400", "mtuu: 1400"}, {"networks.yaml", "gateway: 10.40.0.1", "gateway: 10.99.0.1"}}, want: []string{"networks.yaml:15 GatewayOutside", "networks.yaml:21 UnknownField"}},

	// sharing
	{name: "shared by both", edits: [][3]string{{"networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]\n  blockSize: 16"}, {"networks.yaml", "networkID: bvoice", "networkID: voice"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}},
	{name: "shared, two networkIDs", edits: [][3]string{{"networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]\n  blockSize: 16"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}, want: []string{"networks.yaml:32 SharedMismatch"}},
	{name: "shared, two block sizes", edits: [][3]string{{"networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]\n  blockSize: 32"}, {"networks.yaml", "networkID: bvoice", "networkID: voice"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}, want: []string{"networks.yaml:37 SharedMismatch"}},
	{name: "shared, overlapping but not equal", edits: [][3]string{{"networks.yaml", "vxlan: 5002\n  ipv4:\n    cidr: 10.40.0.0/22", "vxlan: 5001\n  sharedWith: [acme/voice]\n  ipv4:\n    cidr: 10.40.0.0/23"}, {"networks.yaml", "networkID: bvoice", "networkID: voice"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}, want: []string{"networks.yaml:38 SharedMismatch"}},
	{name: "shared, macvlan and bridge", edits: [][3]string{{"networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]\n  blockSize: 16"}, {"networks.yaml", "networkID: bvoice\n  type: macvlan", "networkID: voice\n  type: bridge"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}, want: []string{"networks.yaml:33 DeviceConflict"}},
	{name: "shared, bridge and macvlan", edits: [][3]string{{"networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]\n  blockSize: 16"}, {"networks.yaml", "networkID: voice\n  type: macvlan", "networkID: voice\n  type: bridge"}, {"networks.yaml", "networkID: bvoice", "networkID: voice"}, {"networks.yaml", "mtu: 1400", "sharedWith: [beta/voice]"}}, want: []string{"networks.yaml:33 DeviceConflict"}},
	{name: "untagged networks share a device", add: map[string]string{"x.yaml": net("beta/x", "{fabric: edge, ipv4: {cidr: 10.7.0.0/24}}") + "---\n" + net("beta/y", "{fabric: edge, ipv4: {cidr: 10.7.1.0/24}}")}},
	{name: "one network inside another two places up", add: map[string]string{"x.yaml": net("beta/x", "{fabric: edge, ipv4: {cidr: 10.7.0.0/16}}") + "---\n" + net("beta/y", "{fabric: edge, ipv4: {cidr: 10.7.1.0/24}}") + "---\n" + net("beta/z", "{fabric: edge, ipv4: {cidr: 10.7.2.0/24}}")}, want: []string{"x.yaml:14 CIDROverlap", "x.yaml:9 CIDROverlap"}},

	// tenants
	{name: "a default for everyone", edits: [][3]string{{"tenants.yaml", "  networks: [shared]\n", "  defaultNetwork: shared\n"}, {"networks.yaml", "  allowedTenants: [acme]\n", ""}}},
	{name: "a default granted", edits: [][3]string{{"tenants.yaml", "  networks: [shared]\n", "  networks: [shared]\n  defaultNetwork: shared\n"}}},
	{name: "a default closed by another's grant", edits: [][3]string{{"tenants.yaml", "defaultNetwork: acme/voice", "defaultNetwork: shared"}, {"networks.yaml", "  allowedTenants: [acme]\n", ""}}, want: []string{"tenants.yaml:10 DefaultNotAllowed"}},

	// bounds that are still good
	{name: "longest name", add: map[string]string{"x.yaml": net(strings.Repeat("a.", 126)+"a", "{networkID: x, hostDevice: fab1}")}},
	{name: "shortest confirmTimeout, probe as long", edits: [][3]string{{"bundle.yaml", "confirmTimeout: 20s", "confirmTimeout: 2s"}, {"bundle.yaml", "timeout: 3s", "timeout: 2s"}}},
	{name: "longest confirmTimeout, shortest probe", edits: [][3]string{{"bundle.yaml", "confirmTimeout: 20s", "confirmTimeout: 10m"}, {"bundle.yaml", "timeout: 3s", "timeout: 1ms"}}},
	{name: "a grant over two ranges that touch", edits: [][3]string{{"topology.yaml", `"5000-5999"`, `"5000-5049", "5050-5999"`}}},
	{name: "a grant over a hole between two ranges", edits: [][3]string{{"topology.yaml", `"5000-5999"`, `"5000-5049", "5051-5999"`}}, want: []string{"tenants.yaml:8 IDOutsideRange"}},
	{name: "partners in any order", add: map[string]string{"x.yaml": net("beta/c", "{networkID: x, fabric: edge, vlan: 100, sharedWith: [beta/b, beta/a]}") + "---\n" +
		net("beta/a", "{networkID: x, fabric: edge, vlan: 100, sharedWith: [beta/c, beta/b]}") + "---\n" + net("beta/b", "{networkID: x, fabric: edge, vlan: 100, sharedWith: [beta/c, beta/a]}")}},

	// groups of one node
	{name: "two bridges of two groups want one port", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology +
		"  nodes: [{name: a}]\n  groups:\n  - {name: a, bridges: [{name: br1, ports: [e]}]}\n  - {name: b, bridges: [{name: br2, ports: [e]}]}\n"}, want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups find one interface by two addresses", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology +
		"  nodes: [{name: a}]\n  groups:\n  - {name: a, interfaces: [{name: e, match: {mac: '52:54:00:00:00:01'}}]}\n  - {name: b, interfaces: [{name: e, match: {mac: '52:54:00:00:00:02'}}]}\n"}, want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "a device that no group declares, without nodes", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology +
		"  groups: [{name: a}]\n  fabrics: [{name: f, groups: [a], device: e}]\n"}, want: []string{"t.yaml:6 UnknownReference"}},

	// nodes that are not the same
	{name: "one VNI, port and name on other nodes", add: map[string]string{"x.yaml": net("beta/x", "{networkID: voice, fabric: lab, vxlan: 5001, type: macvlan}")}},
	{name: "macvlan here, ipvlan there", add: map[string]string{"x.yaml": net("beta/x", "{fabric: edge, type: macvlan}") + "---\n" + net("beta/y", "{fabric: lab}")}},
	{name: "another group on the same node", edits: [][3]string{{"topology.yaml", "  fabrics:\n", "  fabrics:\n  - {name: spare, groups: [spare], device: fab0, vxlan: {multicast: 239.1.1.9}}\n"}}, add: map[string]string{"x.yaml": net("beta/x", "{fabric: spare, vxlan: 5001}")}, want: []string{"x.yaml:4 VNITwiceOnPort"}},
	{name: "without nodes groups decide", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology +
		"  groups: [{name: a, interfaces: [{name: e}]}, {name: b, interfaces: [{name: e}]}]\n" +
		"  fabrics: [{name: a, groups: [a], device: e, vxlan: {}}, {name: b, groups: [b], device: e, vxlan: {}}, {name: ab, groups: [a, b], device: e, vxlan: {}}]\n",
		"n.yaml": net("n/a", "{fabric: a, vxlan: 7}") + "---\n" + net("n/b", "{fabric: b, vxlan: 7}") + "---\n" + net("n/c", "{fabric: ab, vxlan: 7}")}, want: []string{"n.yaml:14 VNITwiceOnPort"}},
	{name: "a VNI left open on one node", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology +
		"  nodes: [{name: a}]\n  groups: [{name: a, interfaces: [{name: e}]}]\n  fabrics: [{name: a, groups: [a], device: e, vxlan: {}}]\n", "n.yaml": net("n", "{fabric: a, vxlan: auto}") + "---\n" + net("m", "{fabric: a, vxlan: auto}")}},

	// the underlay's family counts
	{name: "VXLAN over IPv6 multicast", add: map[string]string{"x.yaml": net("beta/x", "{fabric: six, vxlan: 9, mtu: 1430}") + "---\n" + net("beta/y", "{fabric: six, vxlan: 8, mtu: 1431}")},
		edits: [][3]string{{"topology.yaml", "  fabrics:\n", "  fabrics:\n  - {name: six, groups: [edge], device: fab0, vxlan: {port: 4799, multicast: \"ff05::2\"}}\n"}}, want: []string{"x.yaml:9 MTUAboveParent"}},
	{name: "VXLAN over IPv6 unicast", add: map[string]string{"x.yaml": net("beta/x", "{fabric: uni, vxlan: 9, mtu: 1430}") + "---\n" + net("beta/y", "{fabric: uni, vxlan: 8, mtu: 1431}")},
		edits: [][3]string{{"topology.yaml", "192.0.2.1/24", "fd00::1/64"}, {"topology.yaml", "192.0.2.2/24", "fd00::2/64"}}, want: []string{"x.yaml:9 MTUAboveParent"}},
	{name: "VLAN takes the whole MTU", add: map[string]string{"x.yaml": net("beta/x", "{fabric: edge, vlan: 100, mtu: 1500}") + "---\n" + net("beta/y", "{fabric: edge, vlan: 101, mtu: 1501}")}, want: []string{"x.yaml:9 MTUAboveParent"}},
	{name: "unknown MTU, unknown room", add: map[string]string{"x.yaml": net("beta/x", "{fabric: lab, vxlan: 9, mtu: 9000}")}},

	// bridges
	{name: "bridge over a VXLAN", add: map[string]string{"x.yaml": net("beta/x", "{fabric: edge, type: bridge, vxlan: 5003}")}},
	{name: "bridge name too long", add: map[string]string{"x.yaml": net("beta/x", "{networkID: elevenbytes, fabric: edge, type: bridge, vlan: 100}")}},
	{name: "13 bytes make a long bridge", add: map[string]string{"x.yaml": net("beta/x", "{networkID: thirteenbytes, fabric: edge, type: bridge, vlan: 100}")}, want: []string{"x.yaml:4 LinkNameTooLong", "x.yaml:4 LinkNameTooLong"}},
	{name: "bridge's name is taken", add: map[string]string{"x.yaml": net("beta/x", "{networkID: lan, fabric: edge, type: bridge, vlan: 100}")}, edits: [][3]string{{"topology.yaml", "ports: [eth1]", "ports: [br_lan]"}}, want: []string{"x.yaml:4 LinkNameClash"}},
	{name: "devices from two groups of a node", edits: [][3]string{{"topology.yaml", "  fabrics:\n", "  fabrics:\n  - {name: spare, groups: [spare], device: br-lan}\n"}}},
}

// allWholes are the cases of every file.
func allWholes() []whole { return slices.Concat(wholes, networkWholes, hostWholes, poolWholes) }

func (w whole) files(t testing.TB) []decode.File {
	m := map[string]string{}
	if !w.alone {
		m = good(t)
	}
	for name, text := range w.add {
		m[name] = text
	}
	for _, e := range w.edits {
		edit(t, m, e[0], e[1], e[2])
	}
	return files(m)
}

func TestBundles(t *testing.T) {
	for _, w := range allWholes() {
		t.Run(w.name, func(t *testing.T) {
			_, problems := Files(w.files(t))
			got := brief(problems)
			if d := cmp.Diff(slices.Sorted(slices.Values(w.want)), got); d != "" {
				t.Errorf("problems differ (-want +got):\n%s", d)
				for _, p := range problems {
					t.Log(p)
				}
			}
		})
	}
}

// TestEveryCodeIsProduced: a code nobody can produce, or that nobody explains, is a promise not kept.
func TestEveryCodeIsProduced(t *testing.T) {
	seen := map[diag.Code]bool{}
	for _, r := range allRows() {
		m := good(t)
		edit(t, m, r.file, r.old, r.new)
		_, problems := Files(files(m))
		codesOf(problems, seen)
	}
	for _, w := range allWholes() {
		_, problems := Files(w.files(t))
		codesOf(problems, seen)
	}
	mebibyte := []byte(strings.Repeat("#", 1<<20))
	var large []decode.File
	for i := range 33 {
		large = append(large, decode.File{Path: fmt.Sprintf("%d.yaml", i), Data: mebibyte})
	}
	_, problems := Files(large)
	codesOf(problems, seen)
	for _, code := range catalogue(t) {
		if !seen[code] {
			t.Errorf("%s: no test produces it", code)
		}
		if e, ok := diag.Explain(code); !ok || e.Title == "" || e.Text == "" || e.Remedy == "" {
			t.Errorf("%s is not explained", code)
		}
	}
}

// catalogue reads the bundle's codes from their source.
func catalogue(t *testing.T) []diag.Code {
	t.Helper()
	var out []diag.Code
	for _, name := range []string{"bundle", "network", "host"} {
		file, err := parser.ParseFile(token.NewFileSet(), "../diag/catalogue_"+name+".go", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					text, err := strconv.Unquote(lit.Value)
					if err != nil || text != v.Names[0].Name {
						t.Errorf("code %s is spelt %s", v.Names[0].Name, lit.Value)
					}
					out = append(out, diag.Code(text))
				}
			}
			return true
		})
	}
	if len(out) < 40 {
		t.Fatalf("only %d codes", len(out))
	}
	return out
}

// TestPlaces: a diagnostic carries column, path and a hint that helps.
func TestPlaces(t *testing.T) {
	m := good(t)
	edit(t, m, "networks.yaml", "cidr: 10.1.0.0/24", "cidr: 10.1.0.7/24")
	edit(t, m, "networks.yaml", "fabric: edge\n  vxlan: 5002", "fabric: egde\n  vxlan: 5002")
	edit(t, m, "topology.yaml", "labels: {site: lab}", "lables: {site: lab}")
	_, problems := Files(files(m))
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %s | %s", p.Position(), p.Path, p.Hint))
	}
	want := []string{
		"networks.yaml:47:11 spec.ipv4.cidr | write 10.1.0.0/24",
		`topology.yaml:20:5 spec.nodes[2].lables | did you mean "labels"?`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	edit(t, m, "topology.yaml", "lables: {site: lab}", "labels: {site: lab}")
	_, problems = Files(files(m))
	if len(problems) != 2 || problems[0].Hint != `did you mean "edge"?` || problems[0].Col != 11 {
		t.Errorf("got %v", problems)
	}
}
