package rendertest

import (
	"fmt"
	"strings"

	"danm.io/danm/spec/decode"
)

// nodesPerFile keeps a file of nodes below the bound of a bundle's files.
const nodesPerFile = 1000

// Files is the bundle of Scale as a user would have written it.
func Files(s Shape) []decode.File {
	var out []decode.File
	add := func(name, text string) { out = append(out, decode.File{Path: name, Data: []byte(text)}) }
	head := func(kind, name string) string {
		return "apiVersion: bundle.danm.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec:\n"
	}
	add("bundle.yaml", head("Bundle", "scale")+"  version: 1.0.0\n")
	add("topology.yaml", groupsAndFabrics(head("Topology", "scale"), s))
	for first := 0; first < s.Nodes; first += nodesPerFile {
		var b strings.Builder
		b.WriteString(head("Topology", fmt.Sprintf("nodes-%d", first)) + "  nodes:\n")
		for n := first; n < min(first+nodesPerFile, s.Nodes); n++ {
			fmt.Fprintf(&b, "  - name: node-%05d\n    slot: %d\n    labels: {group: g%03d, kubernetes.io/os: linux}\n    interfaces: [{name: fab0, addresses: [192.%d.%d.%d/14]}]\n",
				n, n, n%s.Groups, 168+n>>16, n>>8&255, n&255)
		}
		add(fmt.Sprintf("nodes-%05d.yaml", first), b.String())
	}
	for t := range s.Tenants {
		name := fmt.Sprintf("tenant-%03d", t)
		var b strings.Builder
		b.WriteString(head("Tenant", name) + "  namespaces: [" + name + "]\n")
		for i := t; i < s.Networks; i += s.Tenants {
			fmt.Fprintf(&b, "---\napiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: net-%05d, namespace: %s}\nspec:\n  networkID: n%05d\n  type: macvlan\n  fabric: g%03d\n", i, name, i, i%s.Groups)
			if i/s.Groups%2 == 0 {
				fmt.Fprintf(&b, "  vxlan: %d\n", 5000+i)
			} else {
				fmt.Fprintf(&b, "  vlan: %d\n", 100+i/s.Groups)
			}
			fmt.Fprintf(&b, "  ipv4: {cidr: 10.%d.%d.0/24, gateway: 10.%d.%d.1}\n", i>>8, i&255, i>>8, i&255)
		}
		add("tenants/"+name+".yaml", b.String())
	}
	return out
}

func groupsAndFabrics(head string, s Shape) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  slots: %d\n  groups:\n", head, s.Nodes)
	for g := range s.Groups {
		fmt.Fprintf(&b, "  - name: g%03d\n    selector: {group: g%03d}\n    interfaces: [{name: fab0, mtu: 9000, up: true}, {name: oam0, up: true}]\n    routes: [{to: 10.0.0.0/8, via: 192.171.255.254, dev: fab0}]\n", g, g)
	}
	b.WriteString("  fabrics:\n")
	for g := range s.Groups {
		fmt.Fprintf(&b, "  - {name: g%03d, groups: [g%03d], device: fab0, vlanRanges: [\"1-4094\"], vniRanges: [\"1-16777215\"], vxlan: {multicast: 239.1.1.%d}}\n", g, g, g)
	}
	return b.String()
}
