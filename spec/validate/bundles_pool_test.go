package validate

// site is a bundle of two nodes: edge with a card that much stands on, lab with the same names and nothing there. Pools stand in p.yaml,
// four lines each and one between.
func site(pools ...string) map[string]string {
	text := ""
	for i, spec := range pools {
		text += sriovPool(string(rune('a'+i)), spec) + "---\n"
	}
	return map[string]string{"b.yaml": anyBundle, "p.yaml": text, "t.yaml": topology + `  slots: 2
  nodes:
  - {name: n1, slot: 0, labels: {site: edge}, interfaces: [{name: ens3, addresses: [192.0.2.1/24]}]}
  - {name: n2, slot: 1, labels: {site: lab}}
  groups:
  - name: edge
    selector: {site: edge}
    interfaces:
    - {name: ens1}
    - {name: ens2, addresses: [10.9.0.1/24]}
    - {name: ens3}
    - {name: ens4}
    - {name: ens5}
    - {name: ens6}
    - {name: ens7}
    - {name: ens9}
    vrfs: [{name: red, table: 7, interfaces: [ens9]}]
    bonds: [{name: bond0, mode: active-backup, ports: [ens1]}]
    bridges: [{name: br0, ports: [ens8]}]
    vlans: [{name: oam, device: ens4, id: 7}]
  - {name: lab, selector: {site: lab}, interfaces: [{name: ens1}, {name: ens2}, {name: ens5}]}
  fabrics:
  - {name: f, groups: [edge], device: ens5}
`, "n.yaml": net("m", "{type: macvlan, hostDevice: ens6}")}
}

// strays is a bundle whose second node is in no group, with a pool.
func strays(selector string) map[string]string {
	return map[string]string{"b.yaml": anyBundle, "p.yaml": sriovPool("a", "{"+selector+"pfs: {names: [ens7]}, numVFs: 4, resourceName: danm.io/a}"), "t.yaml": topology + `  slots: 2
  nodes:
  - {name: n1, slot: 0, labels: {site: edge}}
  - {name: n2, slot: 1, labels: {site: egde, rack: one}}
  groups:
  - {name: edge, selector: {site: edge}, interfaces: [{name: ens7}]}
`}
}

const (
	onEdge = "nodeSelector: {site: edge}, numVFs: 4, resourceName: danm.io/a, "
	onLab  = "nodeSelector: {site: lab}, numVFs: 4, resourceName: danm.io/a, "
	like   = "pfs: {names: [ens7]}, numVFs: 8, resourceName: danm.io/a, "
)

var poolWholes = []whole{
	{name: "a pool of a card of its own", alone: true, add: site("{" + onEdge + "pfs: {names: [ens7]}}")},
	{name: "a pool of a bond's port", alone: true, add: site("{" + onEdge + "pfs: {names: [ens7, ens1]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a bridge's port", alone: true, add: site("{" + onEdge + "pfs: {names: [ens8]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a card with addresses", alone: true, add: site("{" + onEdge + "pfs: {names: [ens2]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a card with a node's addresses", alone: true, add: site("{" + onEdge + "pfs: {names: [ens3]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a card with a VLAN", alone: true, add: site("{" + onEdge + "pfs: {names: [ens4]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a fabric's card", alone: true, add: site("{" + onEdge + "pfs: {names: [ens5]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a network's card", alone: true, add: site("{" + onEdge + "pfs: {names: [ens6]}}"), want: []string{"p.yaml:4 PFInUse (warning)"}},
	{name: "a pool of a card in a VRF", alone: true, add: site("{" + onEdge + "pfs: {names: [ens9]}}")},
	{name: "a pool of two cards in use", alone: true, add: site("{" + onEdge + "pfs: {names: [ens1, ens2]}}"), want: []string{"p.yaml:4 PFInUse (warning)", "p.yaml:4 PFInUse (warning)"}},
	{name: "a pool where the cards carry nothing", alone: true, add: site("{" + onLab + "pfs: {names: [ens1, ens2, ens3, ens4, ens5, ens6]}}")},

	{name: "node in no group", alone: true, add: strays("nodeSelector: {site: edge}, "), want: []string{"t.yaml:8 NodeWithoutGroup (warning)"}},
	{name: "node in no group, but in a pool", alone: true, add: strays("nodeSelector: {rack: one}, ")},
	{name: "node in no group, but in a pool of all", alone: true, add: strays("")},

	{name: "one resource of two pools that are alike", alone: true, add: site("{"+like+"vfs: ['0-3'], trust: true, mtu: 1500}", "{"+like+"vfs: ['4-7'], trust: true, mtu: 1500}")},
	{name: "one resource, trusted by chance", alone: true, add: site("{"+like+"vfs: ['0-3'], trust: true}", "{"+like+"vfs: ['4-7'], trust: false}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, trusted or as it was", alone: true, add: site("{"+like+"vfs: ['0-3'], trust: false}", "{"+like+"vfs: ['4-7']}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, checked by chance", alone: true, add: site("{"+like+"vfs: ['0-3'], spoofCheck: true}", "{"+like+"vfs: ['4-7']}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, two link states", alone: true, add: site("{"+like+"vfs: ['0-3'], linkState: auto}", "{"+like+"vfs: ['4-7'], linkState: enable}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, two promises", alone: true, add: site("{"+like+"vfs: ['0-3'], minTxRate: 1}", "{"+like+"vfs: ['4-7'], minTxRate: 2}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, two bounds", alone: true, add: site("{"+like+"vfs: ['0-3'], maxTxRate: 1}", "{"+like+"vfs: ['4-7'], maxTxRate: 2}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "one resource, two MTUs", alone: true, add: site("{"+like+"vfs: ['0-3'], mtu: 1500}", "{"+like+"vfs: ['4-7'], mtu: 1501}"), want: []string{"p.yaml:9 ResourceUneven (warning)"}},
	{name: "two resources, two MTUs", alone: true, add: site("{"+like+"vfs: ['0-3'], mtu: 1500}", "{pfs: {names: [ens7]}, numVFs: 8, resourceName: danm.io/b, vfs: ['4-7'], mtu: 1501}")},
}
