package convert_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/spec/convert"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	"danm.io/danm/spec/validate"
	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

const head = "apiVersion: bundle.danm.io/v1\nkind: %s\nmetadata: {name: %s%s}\nspec: %s\n"

// rich says everything that a network and a tenant can say.
func rich() []decode.File {
	doc := func(kind, name, namespace, spec string) string {
		if namespace != "" {
			namespace = ", namespace: " + namespace
		}
		return fmt.Sprintf(head, kind, name, namespace, spec)
	}
	return []decode.File{
		{Path: "bundle.yaml", Data: []byte(doc("Bundle", "rich", "", "{version: 1.0.0}"))},
		{Path: "topology.yaml", Data: []byte(doc("Topology", "t", "", `{slots: 1, nodes: [{name: n, slot: 0}], groups: [{name: all, interfaces: [{name: eth0, mtu: 9000}, {name: eth1}, {name: eth2}]}],
  fabrics: [{name: edge, groups: [all], device: eth0, vlanRanges: ["100-199"], vniRanges: ["5000-5999"], vxlan: {multicast: 239.1.1.1}}]}`))},
		{Path: "networks.yaml", Data: []byte(strings.Join([]string{
			doc("Network", "voice", "acme", `{networkID: v, type: macvlan, fabric: edge, vxlan: 5001, mtu: 1400, interfacePrefix: voice, table: 300, sticky: StatefulSet,
  ipv4: {cidr: 10.40.0.0/22, pools: [10.40.0.10-10.40.0.200, 10.40.1.1], exclude: [10.40.0.50], gateway: 10.40.0.1, routes: [{to: 10.0.0.0/8, via: 10.40.0.2}]},
  ipv6: {cidr: "fd00:40::/64", pools: ["fd00:40::10-fd00:40::ff"], exclude: ["fd00:40::20"], gateway: "fd00:40::1"},
  reserved: [{name: vip, namespace: acme, ip: 10.40.2.1, ip6: "fd00:40::5"}], sharedWith: [beta/voice]}`),
			doc("Network", "voice", "beta", `{networkID: v, type: macvlan, fabric: edge, vxlan: 5001, ipv4: {cidr: 10.40.0.0/22, pools: [10.40.3.1-10.40.3.9]}, sharedWith: [acme/voice]}`),
			doc("Network", "tagged", "", `{fabric: edge, vlan: 110, blockSize: 16, sysctls: {net.ipv4.conf.IFNAME.rp_filter: "2"}, ipv4: {cidr: 10.41.0.0/24}, allowedTenants: [acme]}`),
			doc("Network", "plain", "", `{type: ipvlan, hostDevice: eth1, ipv6: {cidr: "fd00:41::/64"}}`),
			doc("Network", "fast", "", `{type: sriov, devicePool: danm.io/fast, vlan: 120, vlanQoS: 5, ipv4: {cidr: 10.42.0.0/24}}`),
			doc("Network", "plugin", "acme", `{type: flannel, delegate: {file: flannel}}`),
			doc("Network", "inline", "acme", `{type: bridge-x, delegate: {conf: '{"type": "bridge-x", "cniVersion": "1.0.0", "name": "x"}'}}`),
		}, "---\n"))},
		{Path: "tenants.yaml", Data: []byte(strings.Join([]string{
			doc("Tenant", "acme", "", `{namespaces: [acme, acme-dev], fabrics: [{name: edge, vlanRanges: ["100-150"], vniRanges: ["5000-5099", "5200"]}], networks: [tagged], defaultNetwork: acme/voice, networkIDs: {macvlan: acm}, quotas: {networks: 9, addresses: 500}}`),
			doc("Tenant", "beta", "", `{namespaces: [beta]}`),
		}, "---\n"))},
		{Path: "pools.yaml", Data: []byte(doc("SRIOVPool", "fast", "", `{pfs: {names: [eth2]}, numVFs: 4, resourceName: danm.io/fast}`))},
	}
}

func example(t *testing.T, name string) []decode.File {
	t.Helper()
	var out []decode.File
	root := filepath.Join("../../examples", name)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		out = append(out, decode.File{Path: rel, Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func rendered(t *testing.T, files []decode.File) render.Result {
	t.Helper()
	b, problems := validate.Files(files)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	r := render.Render(b, model.Inventory{})
	if r.Diagnostics.HasErrors() {
		t.Fatal(r.Diagnostics)
	}
	return r
}

// What was rendered as DANM's objects, converted back and rendered again, is the same networks and tenants on every node.
func TestRoundTrip(t *testing.T) {
	for name, files := range map[string][]decode.File{"rich": rich(), "edge-site": example(t, "edge-site"), "minimal": example(t, "minimal")} {
		was := rendered(t, files)
		var objects []any
		for _, o := range was.Objects {
			data, err := yaml.Marshal(o.Value)
			if err != nil {
				t.Fatal(err)
			}
			back, err := danmv1.Decode(data) // through the manifest, as an API server would have it
			if err != nil {
				t.Fatalf("%s: %s %s: %v", name, o.Kind, o.Name, err)
			}
			objects = append(objects, back)
		}
		rand.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		b := convert.Objects(convert.Options{Name: "again"}, objects)
		var again []decode.File
		for _, f := range files { // the physical side is no object of DANM's
			if docs, _ := decode.Decode([]decode.File{f}); len(docs.Networks)+len(docs.Tenants) == 0 {
				again = append(again, f)
			} else if len(docs.Bundles)+len(docs.Topologies) > 0 {
				again = append(again, without(t, f, "Network", "Tenant"))
			}
		}
		for i, n := range b.Networks {
			again = append(again, asFile(t, fmt.Sprintf("n%d.yaml", i), n))
		}
		for i, x := range b.Tenants {
			again = append(again, asFile(t, fmt.Sprintf("t%d.yaml", i), x))
		}
		now := rendered(t, again)
		if a, b := plain(t, was.Networks), plain(t, now.Networks); a != b {
			t.Errorf("%s: networks (-was +now):\n%s", name, cmp.Diff(a, b))
		}
		for i := range was.Nodes {
			if a, b := plain(t, was.Nodes[i]), plain(t, now.Nodes[i]); a != b {
				t.Errorf("%s, node %s (-was +now):\n%s", name, was.Nodes[i].Node, cmp.Diff(a, b))
			}
		}
	}
}

// Every priority comes back as it was, at the smallest and the greatest VLAN too.
func TestPriorityRoundTrip(t *testing.T) {
	for qos := range 8 {
		for _, vlan := range []int{1, 4094} {
			doc := fmt.Sprintf(head, "Network", "n", "", fmt.Sprintf("{type: sriov, devicePool: danm.io/fast, vlan: %d, vlanQoS: %d}", vlan, qos))
			was := rendered(t, []decode.File{{Path: "b.yaml", Data: []byte(fmt.Sprintf(head, "Bundle", "b", "", "{}"))}, {Path: "n.yaml", Data: []byte(doc)}})
			b := convert.Objects(convert.Options{Name: "again"}, []any{was.Objects[0].Value})
			if s := b.Networks[0].Spec; s.VLANQoS != qos || s.VLAN.Value != int64(vlan) || was.Networks[0].QoS != uint8(qos) {
				t.Errorf("%d on %d: %+v", qos, vlan, s)
			}
		}
	}
}

func plain(t *testing.T, v any) string {
	t.Helper()
	data, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func asFile(t *testing.T, name string, v any) decode.File {
	t.Helper()
	return decode.File{Path: name, Data: []byte(plain(t, v))}
}

// without is a file without the documents of some kinds.
func without(t *testing.T, f decode.File, kinds ...string) decode.File {
	t.Helper()
	var kept []string
	for _, doc := range strings.Split(string(f.Data), "\n---\n") {
		if !slices.ContainsFunc(kinds, func(k string) bool { return strings.Contains(doc, "kind: "+k+"\n") }) {
			kept = append(kept, doc)
		}
	}
	f.Data = []byte(strings.Join(kept, "\n---\n"))
	return f
}

// What a conversion makes of DANM's manifests, one row a rule.
func TestDANM(t *testing.T) {
	const tconf = "apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: t}\nhostDevices:\n- {name: ens4, vniType: vlan, vniRange: '700-710,800'}\n- {name: nokia.k8s.io/fast}\nnetworkIds: {Flannel: fl}\n"
	net := func(kind, name, spec string) string {
		return "apiVersion: danm.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: ns}\nspec: " + spec + "\n"
	}
	for _, r := range []struct {
		name      string
		manifests []string
		want      map[string]string // network → its spec as JSON
		notes     []string          // parts of notes, refused ones with "!"
	}{
		{"host bits, pool, routes", []string{net("DanmNet", "a", "{NetworkID: x, NetworkType: IPVLAN, Options: {host_device: eth0, vlan: 7, cidr: 10.0.0.77/24, allocation_pool: {start: 10.0.0.5, end: 10.0.0.9}, routes: {10.1.0.0/16: 10.0.0.1}, rt_tables: 300, container_prefix: ext}}")},
			map[string]string{"ns/a": `{"networkID":"x","hostDevice":"eth0","vlan":7,"ipv4":{"cidr":"10.0.0.0/24","pools":["10.0.0.5-10.0.0.9"],"routes":[{"to":"10.1.0.0/16","via":"10.0.0.1"}]},"interfacePrefix":"ext","table":300}`}, []string{"CIDR 10.0.0.77/24 is written 10.0.0.0/24"}},
		{"part of net6", []string{net("DanmNet", "a", `{NetworkID: a, NetworkType: macvlan, Options: {host_device: eth0, net6: "2001:db8::/64", allocation_pool_v6: {cidr: "2001:db8::/120"}}}`)},
			map[string]string{"ns/a": `{"type":"macvlan","hostDevice":"eth0","ipv6":{"cidr":"2001:db8::/64","pools":["2001:db8::1-2001:db8::ff"]}}`}, nil},
		{"static delegate", []string{net("TenantNetwork", "a", "{NetworkID: fl, NetworkType: flannel}")}, map[string]string{"ns/a": `{"networkID":"fl","type":"flannel","delegate":{"file":"fl"}}`}, []string{"fl.conf on every node"}},
		{"sriov", []string{net("DanmNet", "a", "{NetworkID: a, NetworkType: sriov, Options: {device_pool: nokia.k8s.io/fast, vlan: 9}}")}, map[string]string{"ns/a": `{"type":"sriov","devicePool":"nokia.k8s.io/fast","vlan":9}`}, nil},
		{"tenant's device and number", []string{tconf, net("TenantNetwork", "a", "{NetworkID: a, NetworkType: ipvlan}")}, map[string]string{"ns/a": `{"fabric":"ens4","vlan":"auto"}`},
			[]string{"random", "left open", "SRIOVPool"}},
		{"tenant's number as the cluster has it", []string{tconf, net("TenantNetwork", "a", "{NetworkID: a, NetworkType: ipvlan, Options: {host_device: ens4, vlan: 705}}")}, map[string]string{"ns/a": `{"fabric":"ens4","vlan":705}`}, nil},
		{"a device that tenants may not use", []string{tconf, net("TenantNetwork", "a", "{NetworkID: a, NetworkType: ipvlan, Options: {host_device: ens6}}")}, map[string]string{}, []string{"!host_device ens6"}},
		{"a range without a type", []string{"apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: t}\nhostDevices: [{name: ens4, vniRange: 1-2}]\n", net("DanmNet", "a", "{NetworkID: a, Options: {host_device: eth0}}")}, map[string]string{"ns/a": `{"hostDevice":"eth0"}`}, []string{"!they go together"}},
		{"one wire", []string{net("DanmNet", "a", "{NetworkID: a, Options: {host_device: eth0, vlan: 7}}"), net("DanmNet", "b", "{NetworkID: b, Options: {host_device: eth0, vlan: 7}}"), net("DanmNet", "c", "{NetworkID: c, Options: {host_device: eth1, vlan: 7}}")},
			map[string]string{"ns/a": `{"hostDevice":"eth0","vlan":7,"sharedWith":["ns/b"]}`, "ns/b": `{"hostDevice":"eth0","vlan":7,"sharedWith":["ns/a"]}`, "ns/c": `{"hostDevice":"eth1","vlan":7}`}, []string{"shares its wire with ns/b"}},
		{"addresses in use", []string{net("DanmNet", "a", "{NetworkID: a, Options: {host_device: eth0, cidr: 10.0.0.0/28, alloc: wAE=}}")}, map[string]string{"ns/a": `{"hostDevice":"eth0","ipv4":{"cidr":"10.0.0.0/28"}}`}, []string{"bitmap"}},
		{"one name twice", []string{net("DanmNet", "a", "{NetworkID: a, Options: {host_device: eth0}}"), net("TenantNetwork", "a", "{NetworkID: z, Options: {host_device: eth0}}")}, map[string]string{"ns/a": `{"hostDevice":"eth0"}`}, []string{"rename one"}},
	} {
		var objects []any
		for _, m := range r.manifests {
			o, err := danmv1.Decode([]byte(m))
			if err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			objects = append(objects, o)
		}
		check(t, r.name, convert.Objects(convert.Options{Name: "b"}, objects), r.want, r.notes)
	}
}

func check(t *testing.T, name string, b convert.Bundle, want map[string]string, notes []string) {
	t.Helper()
	got := map[string]string{}
	for _, n := range b.Networks {
		data, err := yaml.Marshal(n.Spec)
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.YAMLToJSON(data)
		if err != nil {
			t.Fatal(err)
		}
		got[strings.TrimPrefix(n.Metadata.Namespace+"/"+n.Metadata.Name, "/")] = string(text)
	}
	for k, v := range want {
		data, err := yaml.YAMLToJSON([]byte(v)) // one order of keys
		if err != nil {
			t.Fatal(err)
		}
		want[k] = string(data)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
	for _, text := range notes {
		refused := strings.HasPrefix(text, "!")
		if !slices.ContainsFunc(b.Notes, func(n convert.Note) bool {
			return strings.Contains(n.Text, strings.TrimPrefix(text, "!")) && n.Refused == refused
		}) {
			t.Errorf("%s: no note says %q: %+v", name, text, b.Notes)
		}
	}
}

func TestDefinitions(t *testing.T) {
	for _, r := range []struct {
		name, config, pool, want string
		notes                    []string
	}{
		{"macvlan with host-local", `{"cniVersion":"0.3.1","type":"macvlan","master":"eth1","mode":"bridge","mtu":1400,"ipam":{"type":"host-local","subnet":"10.1.0.0/24","rangeStart":"10.1.0.5","rangeEnd":"10.1.0.9","gateway":"10.1.0.1","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16","gw":"10.1.0.2"}]}}`, "",
			`{"type":"macvlan","hostDevice":"eth1","mtu":1400,"ipv4":{"cidr":"10.1.0.0/24","pools":["10.1.0.5-10.1.0.9"],"gateway":"10.1.0.1","routes":[{"to":"10.9.0.0/16","via":"10.1.0.2"}]},"render":"nad"}`, []string{"not carried over"}},
		{"ipvlan with whereabouts", `{"type":"ipvlan","master":"eth1","ipam":{"type":"whereabouts","range":"10.2.0.0/16","exclude":["10.2.0.0/30"],"ipRanges":[{"range":"fd00::/64"}]}}`, "",
			`{"type":"ipvlan","hostDevice":"eth1","ipv4":{"cidr":"10.2.0.0/16","exclude":["10.2.0.0-10.2.0.3"]},"ipv6":{"cidr":"fd00::/64"},"render":"nad"}`, nil},
		{"sriov", `{"type":"sriov","vlan":7}`, "intel.com/fast", `{"type":"sriov","devicePool":"intel.com/fast","vlan":7,"render":"nad"}`, nil},
		{"sriov with a priority", `{"type":"sriov","vlan":7,"vlanQoS":3,"logLevel":"info"}`, "intel.com/fast", `{"type":"sriov","devicePool":"intel.com/fast","vlan":7,"vlanQoS":3,"render":"nad"}`, nil},
		{"sriov with a priority in no tag", `{"type":"sriov","vlan":0,"vlanQoS":3}`, "intel.com/fast", `{"type":"sriov","devicePool":"intel.com/fast","render":"nad"}`, nil},
		{"sriov that trusts", `{"type":"sriov","trust":"on"}`, "intel.com/fast", `{"type":"sriov","devicePool":"intel.com/fast","delegate":{"conf":"{\"type\":\"sriov\",\"trust\":\"on\"}"},"render":"nad"}`, []string{`"trust"`}},
		{"macvlan with a priority", `{"type":"macvlan","master":"eth1","vlanQoS":3}`, "", `{"type":"macvlan","delegate":{"conf":"{\"type\":\"macvlan\",\"master\":\"eth1\",\"vlanQoS\":3}"},"render":"nad"}`, []string{"vlanQoS"}},
		{"vlan", `{"type":"vlan","master":"eth1","vlanId":7,"mtu":1400}`, "", `{"type":"vlan","hostDevice":"eth1","vlan":7,"mtu":1400,"render":"nad"}`, nil},
		{"vlan without a number", `{"type":"vlan","master":"eth1"}`, "", `{"type":"vlan","delegate":{"conf":"{\"type\":\"vlan\",\"master\":\"eth1\"}"},"render":"nad"}`, []string{"kept as a delegate"}},
		{"host-device", `{"type":"host-device","device":"ens9"}`, "", `{"type":"host-device","hostDevice":"ens9","render":"nad"}`, nil},
		{"host-device by its path", `{"type":"host-device","kernelpath":"/sys/x"}`, "", `{"type":"host-device","delegate":{"conf":"{\"type\":\"host-device\",\"kernelpath\":\"/sys/x\"}"},"render":"nad"}`, []string{"kernelpath"}},
		{"a macvlan with a device", `{"type":"macvlan","master":"eth1","device":"ens9"}`, "", `{"type":"macvlan","delegate":{"conf":"{\"type\":\"macvlan\",\"master\":\"eth1\",\"device\":\"ens9\"}"},"render":"nad"}`, []string{"kept as a delegate"}},
		{"private macvlan", `{"type":"macvlan","master":"eth1","mode":"private"}`, "", `{"type":"macvlan","mode":"private","hostDevice":"eth1","render":"nad"}`, nil},
		{"macvlan with its default written", `{"type":"macvlan","master":"eth1","mode":"bridge"}`, "", `{"type":"macvlan","hostDevice":"eth1","render":"nad"}`, nil},
		{"ipvlan l3s", `{"type":"ipvlan","master":"eth1","mode":"l3s"}`, "", `{"type":"ipvlan","mode":"l3s","hostDevice":"eth1","render":"nad"}`, nil},
		{"a mode of the other", `{"type":"macvlan","master":"eth1","mode":"l3"}`, "", `{"type":"macvlan","delegate":{"conf":"{\"type\":\"macvlan\",\"master\":\"eth1\",\"mode\":\"l3\"}"},"render":"nad"}`, []string{"none that there is"}},
		{"unknown key", `{"type":"macvlan","master":"eth1","linkInContainer":true}`, "", `{"type":"macvlan","delegate":{"conf":"{\"type\":\"macvlan\",\"master\":\"eth1\",\"linkInContainer\":true}"},"render":"nad"}`, []string{"linkInContainer"}},
		{"dhcp", `{"type":"macvlan","master":"eth1","ipam":{"type":"dhcp"}}`, "", `{"type":"macvlan","delegate":{"conf":"{\"type\":\"macvlan\",\"master\":\"eth1\",\"ipam\":{\"type\":\"dhcp\"}}"},"render":"nad"}`, []string{"dhcp"}},
		{"another plugin", `{"type":"ptp","ipam":{"type":"dhcp"}}`, "", `{"type":"ptp","delegate":{"conf":"{\"type\":\"ptp\",\"ipam\":{\"type\":\"dhcp\"}}"},"render":"nad"}`, []string{"ptp in this form"}},
		{"list", `{"plugins":[{"type":"ptp"},{"type":"tuning"}]}`, "", `{"type":"ptp","delegate":{"confList":"{\"plugins\":[{\"type\":\"ptp\"},{\"type\":\"tuning\"}]}"},"render":"nad"}`, []string{"list of plugins"}},
	} {
		d := &npwgv1.NetworkAttachmentDefinition{Spec: npwgv1.Spec{Config: r.config}}
		d.Namespace, d.Name = "ns", "d"
		if r.pool != "" {
			d.Annotations = map[string]string{npwgv1.ResourceName: r.pool}
		}
		want := map[string]string{}
		if r.want != "" {
			want["ns/d"] = r.want
		}
		check(t, r.name, convert.Objects(convert.Options{Name: "b"}, []any{d}), want, r.notes)
	}
	bad := &npwgv1.NetworkAttachmentDefinition{Spec: npwgv1.Spec{Config: "{"}}
	if b := convert.Objects(convert.Options{Name: "b"}, []any{bad}); len(b.Networks) != 0 || len(b.Notes) != 1 {
		t.Errorf("no JSON: %+v", b)
	}
}
