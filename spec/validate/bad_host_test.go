package validate

// hostRows: a node's own links, rules, kernel parameters, and how a revision is rolled out. Lines were counted in the files.
var hostRows = []row{
	// bonds
	{"bond of a mode there is not", "host.yaml", "mode: 802.3ad", "mode: lacp", []string{"host.yaml:15 InvalidChoice"}},
	{"bond of a mode not offered", "host.yaml", "mode: 802.3ad", "mode: balance-rr", []string{"host.yaml:15 InvalidChoice"}},
	{"bond without a mode", "host.yaml", "      mode: 802.3ad\n", "", []string{"host.yaml:14 MissingField"}},
	{"bond without ports", "host.yaml", "ports: [ens1, ens2]", "ports: []", []string{"host.yaml:16 MissingField"}},
	{"bond port with addresses", "host.yaml", "{name: ens2}", "{name: ens2, addresses: [10.9.9.1/24]}", []string{"host.yaml:11 PortHasAddresses"}},
	{"bond port with an MTU", "host.yaml", "{name: ens2}", "{name: ens2, mtu: 1500}", []string{"host.yaml:11 PortMTU"}},
	{"bond port that is a bridge", "host.yaml", "ports: [ens1, ens2]", "ports: [ens1, br-core]", []string{"host.yaml:16 DeviceConflict"}},
	{"bond port that is a bond", "host.yaml", "ports: [ens4, ens5]", "ports: [ens4, bond0]", []string{"host.yaml:27 DeviceConflict"}},
	{"bond port that is a VLAN", "host.yaml", "ports: [ens4, ens5]", "ports: [ens4, sig]", []string{"host.yaml:27 DeviceConflict"}},
	{"bond port of two bonds", "host.yaml", "ports: [ens4, ens5]", "ports: [ens4, ens2]", []string{"host.yaml:27 DeviceConflict"}},
	{"bond port named with a slash", "host.yaml", "ports: [ens4, ens5]", "ports: [ens4, en/5]", []string{"host.yaml:27 InvalidName"}},
	{"bond of 16 bytes", "host.yaml", "name: bond1", "name: bond123456789012", []string{"host.yaml:25 LinkNameTooLong"}},
	{"bond named like an interface", "host.yaml", "name: bond1", "name: ens3", []string{"host.yaml:25 DuplicateName"}},
	{"primary of LACP", "host.yaml", "minLinks: 1", "primary: ens1", []string{"host.yaml:22 FieldNotAllowed"}},
	{"primary that is no port", "host.yaml", "primary: ens4", "primary: ens6", []string{"host.yaml:28 UnknownReference"}},
	{"LACP rate of active-backup", "host.yaml", "primary: ens4", "lacpRate: slow", []string{"host.yaml:28 FieldNotAllowed"}},
	{"LACP rate of no word", "host.yaml", "lacpRate: fast", "lacpRate: quick", []string{"host.yaml:21 InvalidChoice"}},
	{"hash of active-backup", "host.yaml", "primary: ens4", "xmitHashPolicy: layer2", []string{"host.yaml:28 FieldNotAllowed"}},
	{"hash of no word", "host.yaml", "layer3+4", "layer4", []string{"host.yaml:20 InvalidChoice"}},
	{"fewest links of active-backup", "host.yaml", "primary: ens4", "minLinks: 1", []string{"host.yaml:28 FieldNotAllowed"}},
	{"more links than ports", "host.yaml", "minLinks: 1", "minLinks: 3", []string{"host.yaml:22 InvalidNumber"}},
	{"fewest links negative", "host.yaml", "minLinks: 1", "minLinks: -1", []string{"host.yaml:22 InvalidNumber"}},
	{"delay between two looks", "host.yaml", "upDelay: 200", "upDelay: 250", []string{"host.yaml:18 InvalidNumber"}},
	{"down delay between two looks", "host.yaml", "downDelay: 300", "downDelay: 50", []string{"host.yaml:19 InvalidNumber"}},
	{"delay without looking", "host.yaml", "      miiMonitor: 100\n", "", []string{"host.yaml:17 MissingField", "host.yaml:18 MissingField"}},
	{"delay negative", "host.yaml", "upDelay: 200", "upDelay: -100", []string{"host.yaml:18 InvalidNumber"}},
	{"looks negative", "host.yaml", "miiMonitor: 100", "miiMonitor: -1", []string{"host.yaml:17 InvalidNumber"}},
	{"network on a bond's port", "x.yaml", "", net("x", "{hostDevice: ens1, vlan: 5}"), []string{"x.yaml:4 DeviceConflict"}},
	{"fabric on a bond's port", "topology.yaml", "groups: [lab]\n    device: fab0", "groups: [core]\n    device: ens5", []string{"topology.yaml:62 DeviceConflict"}},

	// groups
	{"two nodes of one address", "topology.yaml", "    - {name: fab0, addresses: [192.0.2.1/24]}\n  - name: edge-2\n    slot: 1\n    labels: {site: edge, role: spare}\n    interfaces:\n",
		"    - {name: fab0, addresses: [192.0.2.1/24]}\n    - {name: fab1, addresses: [10.77.0.1/24]}\n  - name: edge-2\n    slot: 1\n    labels: {site: edge, role: spare}\n    interfaces:\n    - {name: fab1, addresses: [10.77.0.1/16]}\n",
		[]string{"topology.yaml:17 NodeAddressTwice (warning)"}},
	{"route of main by a VRF's link", "host.yaml", "    rules:\n", "    routes:\n    - {to: 10.77.0.0/16, dev: oam}\n    rules:\n", []string{"host.yaml:53 RouteOutsideVRF (warning)"}},
	{"one card twice", "host.yaml", "{name: ens2}", "{name: ens2, match: {pci: \"0000:3b:00.0\"}}\n    - {name: ens9, match: {pci: \"0000:3b:00.0\"}}", []string{"host.yaml:12 InvalidMatch"}},
	{"port of a filtering bridge without VLANs", "host.yaml", "      - {port: bond1, untagged: 10}\n", "", []string{"host.yaml:46 NoMembership (warning)"}},
	{"default in a word", "host.yaml", "to: \"fd00:4::/64\"", "to: default", []string{"host.yaml:55 InvalidCIDR"}},
	{"a VLAN range that is a number", "topology.yaml", "\"310\"", "310", []string{"topology.yaml:49 WrongType"}},
	{"group that selects nobody", "topology.yaml", "selector: {role: spare}", "selector: {role: spair}", []string{"topology.yaml:38 GroupWithoutNodes (warning)"}},

	// VLANs, dummies
	{"VLAN 0 of the host", "host.yaml", "id: 20", "id: 0", []string{"host.yaml:32 InvalidVLAN"}},
	{"VLAN 4095 of the host", "host.yaml", "id: 20", "id: 4095", []string{"host.yaml:32 InvalidVLAN"}},
	{"VLAN on nothing", "host.yaml", "device: bond0", "device: bond7", []string{"host.yaml:31 UnknownReference"}},
	{"VLAN on a bond's port", "host.yaml", "device: bond0", "device: ens2", []string{"host.yaml:31 DeviceConflict"}},
	{"VLAN on a VRF", "host.yaml", "device: bond0", "device: mgmt", []string{"host.yaml:31 DeviceConflict"}},
	{"VLAN on itself", "host.yaml", "device: br-core, id: 30", "device: sig, id: 30", []string{"host.yaml:35 LinkLoop"}},
	{"VLAN on the bridge it is in", "host.yaml", "ports: [ens3, bond1]", "ports: [ens3, bond1, sig]", []string{"host.yaml:35 LinkLoop", "host.yaml:46 NoMembership (warning)"}},
	{"VLAN larger than its device", "host.yaml", "mtu: 1500", "mtu: 9001", []string{"host.yaml:33 MTUAboveParent"}},
	{"VLAN on a VLAN that cannot be so large", "host.yaml", "    dummies:", "    - {name: q, device: oam, id: 7, mtu: 1501}\n    dummies:", []string{"host.yaml:36 MTUAboveParent"}},
	{"VLAN MTU too small", "host.yaml", "mtu: 1500", "mtu: 67", []string{"host.yaml:33 InvalidMTU"}},
	{"VLAN twice on a bond", "host.yaml", "    dummies:", "    - {name: oam2, device: bond0, id: 20}\n    dummies:", []string{"host.yaml:36 VLANTwiceOnDevice"}},
	{"VLAN of the host and of a network", "x.yaml", "", net("x", "{hostDevice: bond0, vlan: 20}"), []string{"x.yaml:4 VLANTwiceOnDevice"}},
	{"VLAN named like a dummy", "host.yaml", "name: sig", "name: lo1", []string{"host.yaml:37 DuplicateName"}},
	{"dummy address without length", "host.yaml", "10.4.0.1/32", "10.4.0.1", []string{"host.yaml:37 InvalidAddress"}},

	// VRFs
	{"VRF of the main table", "host.yaml", "table: 1001\n", "table: 254\n", []string{"host.yaml:40 InvalidNumber"}},
	{"VRF of table 0", "host.yaml", "table: 1001\n", "table: 0\n", []string{"host.yaml:40 InvalidNumber"}},
	{"VRF over a misspelt VLAN", "host.yaml", "interfaces: [oam, ens6]", "interfaces: [oma, ens6]", []string{"host.yaml:41 UndeclaredPort (warning)"}},
	{"bond port that is a dummy", "host.yaml", "ports: [ens4, ens5]", "ports: [ens4, lo1]", []string{"host.yaml:27 DeviceConflict"}},
	{"VRF in a VRF", "host.yaml", "interfaces: [oam, ens6]", "interfaces: [oam, mgmt]", []string{"host.yaml:41 DeviceConflict"}},
	{"VRF over a bridge's port", "host.yaml", "interfaces: [oam, ens6]", "interfaces: [oam, ens3]", []string{"host.yaml:41 DeviceConflict"}},
	{"VRF twice over one interface", "host.yaml", "interfaces: [oam, ens6]", "interfaces: [oam, oam]", []string{"host.yaml:41 DeviceConflict"}},
	{"two VRFs of a table", "host.yaml", "    bridges:", "    - {name: data, table: 1001}\n    bridges:", []string{"host.yaml:40 VRFTableTaken"}},
	{"network on a VRF", "x.yaml", "", net("x", "{hostDevice: mgmt, vlan: 5}"), []string{"x.yaml:4 DeviceConflict"}},
	{"VRF as a bridge's port", "host.yaml", "ports: [ens3, bond1]", "ports: [ens3, bond1, mgmt]", []string{"host.yaml:46 DeviceConflict"}},

	// bridges
	{"membership without filtering", "host.yaml", "      vlanFiltering: true\n", "", []string{"host.yaml:47 FieldNotAllowed", "host.yaml:48 FieldNotAllowed"}},
	{"membership of no port", "host.yaml", "{port: bond1,", "{port: bond0,", []string{"host.yaml:51 UnknownReference"}},
	{"membership twice", "host.yaml", "{port: bond1,", "{port: ens3,", []string{"host.yaml:51 DuplicateName"}},
	{"tagged and untagged", "host.yaml", "{port: bond1, untagged: 10}", `{port: bond1, untagged: 10, tagged: ["9-11"]}`, []string{"host.yaml:51 InvalidVLAN"}},
	{"tagged 4095", "host.yaml", `"20-39"`, `"20-4095"`, []string{"host.yaml:50 InvalidVLAN"}},
	{"tagged in words", "host.yaml", `"20-39"`, `"all"`, []string{"host.yaml:50 InvalidRange"}},
	{"untagged 4095", "host.yaml", "vlans: {untagged: 10", "vlans: {untagged: 4095", []string{"host.yaml:48 InvalidVLAN"}},
	{"bridge larger than its port", "host.yaml", "{name: ens3, mtu: 9000}", "{name: ens3, mtu: 1500}", []string{"host.yaml:47 MTUAboveParent"}},
	{"bridge port with addresses", "host.yaml", "{name: ens3, mtu: 9000}", "{name: ens3, mtu: 9000, addresses: [10.9.9.1/24]}", []string{"host.yaml:12 PortHasAddresses"}},
	{"node's addresses on a bridge port", "topology.yaml", "labels: {site: lab}\n", "labels: {site: lab}\n    interfaces: [{name: ens3, addresses: [10.9.9.1/24]}]\n", []string{"topology.yaml:21 PortHasAddresses"}},
	{"VLAN that its bridge drops", "host.yaml", "device: br-core, id: 30", "device: br-core, id: 33", []string{"host.yaml:35 NotMember"}},
	{"network whose bridge drops it", "x.yaml", "", net("x", "{hostDevice: br-core, vlan: 33}"), []string{"x.yaml:4 NotMember"}},
	{"Pods on a filtering bridge", "x.yaml", "", net("x", "{type: bridge, hostDevice: br-core}"), []string{"x.yaml:4 NotMember"}},

	// rules
	{"rule of priority 0", "host.yaml", "priority: 1000", "priority: 0", []string{"host.yaml:53 InvalidNumber"}},
	{"rule in the place of main's", "host.yaml", "priority: 1000", "priority: 32766", []string{"host.yaml:53 InvalidRule"}},
	{"rule without a table", "host.yaml", "{priority: 1000, from: 10.3.0.0/24, table: 1001}", "{priority: 1000, from: 10.3.0.0/24}", []string{"host.yaml:53 MissingField"}},
	{"rule of table 2^31", "host.yaml", "10.3.0.0/24, table: 1001", "10.3.0.0/24, table: 2147483648", []string{"host.yaml:53 InvalidNumber"}},
	{"rule from an address", "host.yaml", "from: 10.3.0.0/24", "from: 10.3.0.1", []string{"host.yaml:53 InvalidCIDR"}},
	{"rule from host bits", "host.yaml", "from: 10.3.0.0/24", "from: 10.3.0.1/24", []string{"host.yaml:53 HostBitsSet"}},
	{"rule to nowhere", "host.yaml", `to: "fd00:4::/64"`, `to: "fd00:4::/129"`, []string{"host.yaml:55 InvalidCIDR"}},
	{"rule of two families", "host.yaml", "from: 10.3.0.0/24", `from: 10.3.0.0/24, to: "fd00::/8"`, []string{"host.yaml:53 InvalidRule"}},
	{"rule of the other family", "host.yaml", "from: 10.3.0.0/24", "from: 10.3.0.0/24, family: ipv6", []string{"host.yaml:53 InvalidRule"}},
	{"rule of no family", "host.yaml", "from: 10.3.0.0/24", "family: inet", []string{"host.yaml:53 InvalidChoice"}},
	{"rule twice", "host.yaml", "    sysctls:", "    - {priority: 1000, from: 10.3.0.0/24, table: 1001}\n    sysctls:", []string{"host.yaml:56 DuplicateRule"}},
	{"mark outside of the mask", "host.yaml", "mark: 4, mask: 12", "mark: 5, mask: 12", []string{"host.yaml:54 InvalidRule"}},
	{"mask without a mark", "host.yaml", "mark: 4, mask: 12", "mask: 12", []string{"host.yaml:54 InvalidRule"}},
	{"mark of 33 bits", "host.yaml", "mark: 4, mask: 12", "mark: 4294967296", []string{"host.yaml:54 InvalidNumber"}},
	{"mask of 33 bits", "host.yaml", "mark: 4, mask: 12", "mark: 4, mask: 4294967296", []string{"host.yaml:54 InvalidNumber"}},
	{"mark in hexadecimal", "host.yaml", "mark: 4, mask: 12", "mark: 0x4", []string{"host.yaml:54 WrongType"}},
	{"rule for an unknown way in", "host.yaml", "iif: oam", "iif: oma", []string{"host.yaml:54 UnknownReference"}},
	{"rule for an unknown way out", "host.yaml", "oif: lo,", "oif: lo7,", []string{"host.yaml:55 UnknownReference"}},

	// kernel parameters
	{"parameter that none may set", "host.yaml", "net.ipv4.conf.all.forwarding", "kernel.panic", []string{"host.yaml:57 UnknownSysctl"}},
	{"parameter misspelt", "host.yaml", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.all.forwardings", []string{"host.yaml:57 UnknownSysctl"}},
	{"parameter under another name", "host.yaml", "net.ipv4.conf.all.forwarding", "net.ipv4.ip_forward", []string{"host.yaml:57 UnknownSysctl"}},
	{"parameter that climbs", "host.yaml", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.../../kernel.forwarding", []string{"host.yaml:57 UnknownSysctl"}},
	{"parameter of an unknown link", "host.yaml", "net.ipv4.conf.all.forwarding", "net.ipv4.conf.oma.forwarding", []string{"host.yaml:57 UnknownReference"}},
	{"parameter without quotes", "host.yaml", `forwarding: "1"`, `forwarding: 1`, []string{"host.yaml:57 WrongType"}},
	{"parameter of the host in a Pod", "networks.yaml", "  vxlan: 5002", "  vxlan: 5002\n  sysctls: {net.core.somaxconn: \"5\"}", []string{"networks.yaml:36 UnknownSysctl"}},
	{"parameter of all links in a Pod", "networks.yaml", "  vxlan: 5002", "  vxlan: 5002\n  sysctls: {net.ipv4.conf.all.rp_filter: \"1\"}", []string{"networks.yaml:36 UnknownSysctl"}},
	{"parameter that climbs in a Pod", "networks.yaml", "  vxlan: 5002", "  vxlan: 5002\n  sysctls: {net.ipv4.conf.IFNAME/../eth0.rp_filter: \"1\"}", []string{"networks.yaml:36 UnknownSysctl"}},
	{"parameter that takes IPv6 away in a Pod", "networks.yaml", "  vxlan: 5002", "  vxlan: 5002\n  sysctls: {net.ipv6.conf.IFNAME.disable_ipv6: \"1\"}", []string{"networks.yaml:36 UnknownSysctl"}},
	{"parameter out of bounds in a Pod", "networks.yaml", "  vxlan: 5002", "  vxlan: 5002\n  sysctls: {net.ipv4.conf.IFNAME.rp_filter: \"3\"}", []string{"networks.yaml:36 InvalidSysctl"}},
	{"parameter for another plugin", "hardware.yaml", "  type: flannel", "  type: flannel\n  sysctls: {net.ipv4.conf.IFNAME.rp_filter: \"1\"}", []string{"hardware.yaml:78 FieldNotAllowed"}},
	{"parameter in words", "host.yaml", `forwarding: "1"`, `forwarding: "yes"`, []string{"host.yaml:57 InvalidSysctl"}},
	{"parameter out of bounds", "host.yaml", `forwarding: "1"`, `forwarding: "2"`, []string{"host.yaml:57 InvalidSysctl"}},
	{"parameter of two numbers", "host.yaml", `"4096  131072 6291456"`, `"4096 131072"`, []string{"host.yaml:59 InvalidSysctl"}},
	{"parameter of falling numbers", "host.yaml", `"4096  131072 6291456"`, `"4096 131072 6291"`, []string{"host.yaml:59 InvalidSysctl"}},
	{"parameter in two spellings", "host.yaml", "      net.ipv4.tcp_rmem", "      net.ipv6.conf.oam.accept_ra: \"0\"\n      net.ipv4.tcp_rmem", []string{"host.yaml:58 DuplicateName"}},

	// adoption, rollout
	{"adopt in words", "host.yaml", "adopt: Never", "adopt: never", []string{"host.yaml:8 InvalidChoice"}},
	{"adopt of a topology in words", "topology.yaml", "  slots: 4", "  adopt: 'yes'\n  slots: 4", []string{"topology.yaml:6 InvalidChoice"}},
	{"policy of no word", "bundle.yaml", "Monotonic", "monotonic", []string{"bundle.yaml:13 InvalidChoice"}},
	{"policy without a version", "bundle.yaml", "  version: 1.2.0\n", "", []string{"bundle.yaml:12 MissingField"}},
	{"canaries negative", "bundle.yaml", "count: 2", "count: -1", []string{"bundle.yaml:15 InvalidNumber"}},
	{"no node at a time", "bundle.yaml", "maxUnavailable: 25%", "maxUnavailable: 0", []string{"bundle.yaml:16 InvalidNumber"}},
	{"no share at a time", "bundle.yaml", "maxUnavailable: 25%", "maxUnavailable: 0%", []string{"bundle.yaml:16 InvalidNumber"}},
	{"more than all at a time", "bundle.yaml", "maxUnavailable: 25%", "maxUnavailable: 101%", []string{"bundle.yaml:16 InvalidNumber"}},
	{"a word at a time", "bundle.yaml", "maxUnavailable: 25%", "maxUnavailable: some", []string{"bundle.yaml:16 WrongType"}},
	{"a number in quotes at a time", "bundle.yaml", "maxUnavailable: 25%", "maxUnavailable: '3'", []string{"bundle.yaml:16 WrongType"}},
	{"soak of two days", "bundle.yaml", "soak: 5m", "soak: 48h", []string{"bundle.yaml:17 InvalidDuration"}},
	{"failure of no word", "bundle.yaml", "onFailure: Revert", "onFailure: Undo", []string{"bundle.yaml:18 InvalidChoice"}},
	{"disruption of no word", "bundle.yaml", "disruptive: Allow", "disruptive: true", []string{"bundle.yaml:19 WrongType"}},
	{"disruption misspelt", "bundle.yaml", "disruptive: Allow", "disruptive: Alow", []string{"bundle.yaml:19 InvalidChoice"}},
	{"prune negative", "bundle.yaml", "maxNetworks: 5", "maxNetworks: -5", []string{"bundle.yaml:20 InvalidNumber"}},
	{"prune of tenants negative", "bundle.yaml", "maxTenants: 0", "maxTenants: -1", []string{"bundle.yaml:20 InvalidNumber"}},
}

// twoGroups is a node in two groups.
func twoGroups(a, b string) map[string]string {
	return map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  nodes: [{name: n}]\n  groups:\n  - {name: a, " + a + "}\n  - {name: b, " + b + "}\n"}
}

var hostWholes = []whole{
	{name: "two groups, one bond alike", alone: true, add: twoGroups("bonds: [{name: b0, mode: active-backup, ports: [e0]}]", "bonds: [{name: b0, mode: active-backup, ports: [e0]}]")},
	{name: "two groups, one bond of two modes", alone: true, add: twoGroups("bonds: [{name: b0, mode: active-backup, ports: [e0]}]", "bonds: [{name: b0, mode: balance-xor, ports: [e0]}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one port of two bonds", alone: true, add: twoGroups("bonds: [{name: b0, mode: active-backup, ports: [e0]}]", "bonds: [{name: b1, mode: active-backup, ports: [e0]}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one VLAN of two ids", alone: true, add: twoGroups("interfaces: [{name: e0}], vlans: [{name: v, device: e0, id: 5}]", "interfaces: [{name: e0}], vlans: [{name: v, device: e0, id: 6}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one VLAN under two names", alone: true, add: twoGroups("interfaces: [{name: e0}], vlans: [{name: v, device: e0, id: 5}]", "interfaces: [{name: e0}], vlans: [{name: w, device: e0, id: 5}]"), want: []string{"t.yaml:8 VLANTwiceOnDevice"}},
	{name: "two groups, one VRF of two tables", alone: true, add: twoGroups("vrfs: [{name: v, table: 5}]", "vrfs: [{name: v, table: 6}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one table of two VRFs", alone: true, add: twoGroups("vrfs: [{name: v, table: 5}]", "vrfs: [{name: w, table: 5}]"), want: []string{"t.yaml:8 VRFTableTaken"}},
	{name: "two groups, one kind of two", alone: true, add: twoGroups("dummies: [{name: v}]", "vrfs: [{name: v, table: 6}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one port in other VLANs", alone: true, add: twoGroups("bridges: [{name: v, vlanFiltering: true, ports: [e0], portVLANs: [{port: e0, untagged: 5}]}]", "bridges: [{name: v, vlanFiltering: true, ports: [e0], portVLANs: [{port: e0, untagged: 6}]}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one dummy adopted and not", alone: true, add: twoGroups("dummies: [{name: v}]", "adopt: Never, dummies: [{name: v}]"), want: []string{"t.yaml:8 ConflictingInterface"}},
	{name: "two groups, one interface with its links adopted and not", alone: true, add: twoGroups("interfaces: [{name: v}]", "adopt: Never, interfaces: [{name: v}]")},
	{name: "two groups, one parameter of two values", alone: true, add: twoGroups(`sysctls: {net.core.somaxconn: "5"}`, `sysctls: {net.core.somaxconn: "6"}`), want: []string{"t.yaml:8 SysctlConflict"}},
	{name: "two groups, one parameter alike", alone: true, add: twoGroups(`sysctls: {net.core.somaxconn: "5"}`, `sysctls: {net.core.somaxconn: "5"}`)},
	{name: "groups of two nodes do not meet", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  nodes: [{name: n, labels: {g: a}}, {name: m, labels: {g: b}}]\n  groups:\n" +
		"  - {name: a, selector: {g: a}, vrfs: [{name: v, table: 5}], sysctls: {net.core.somaxconn: '5'}}\n  - {name: b, selector: {g: b}, vrfs: [{name: w, table: 5}], sysctls: {net.core.somaxconn: '6'}}\n"}},
	{name: "a bridge that filters everything", alone: true, add: twoGroups("bridges: [{name: v, vlanFiltering: true, ports: [e0]}]", "interfaces: []"), want: []string{"t.yaml:7 NoMembership (warning)"}},
	{name: "a VLAN left open on a bridge that filters", alone: true, add: merged(twoGroups(`bridges: [{name: v, vlanFiltering: true, vlans: {tagged: ["10-20"]}}]`, "interfaces: []"),
		"f.yaml", topologyNamed("f")+"  fabrics: [{name: in, groups: [a], device: v, vlanRanges: [\"10-12\"]}, {name: out, groups: [a], device: v, vlanRanges: [\"12-21\"]}]\n", "n.yaml", net("x", "{fabric: in, vlan: auto}")+"---\n"+net("y", "{fabric: out, vlan: auto}")),
		want: []string{"n.yaml:9 NotMember"}},
	{name: "an untagged network on a bridge that filters", alone: true, add: merged(twoGroups(`bridges: [{name: v, vlanFiltering: true, vlans: {tagged: ["10-20"]}}, {name: w, vlanFiltering: true, vlans: {untagged: 10}}]`, "interfaces: []"),
		"n.yaml", net("x", "{hostDevice: v}")+"---\n"+net("y", "{hostDevice: w}")+"---\n"+net("z", "{hostDevice: v, vlan: 20}")), want: []string{"n.yaml:4 NotMember"}},
	{name: "a network on a VLAN of a small interface", alone: true, add: merged(twoGroups("interfaces: [{name: e0, mtu: 1400}], vlans: [{name: v, device: e0, id: 5}]", "interfaces: []"),
		"n.yaml", net("x", "{hostDevice: v, mtu: 1401}")+"---\n"+net("y", "{hostDevice: v, vlan: 9, mtu: 1400}")), want: []string{"n.yaml:4 MTUAboveParent"}},
	{name: "a fabric on a bond's port", alone: true, add: merged(twoGroups("bonds: [{name: b0, mode: active-backup, ports: [e0]}]", "interfaces: []"),
		"f.yaml", topologyNamed("f")+"  fabrics: [{name: f, groups: [a], device: e0}]\n", "n.yaml", net("x", "{fabric: f, vlan: 5}")), want: []string{"f.yaml:5 DeviceConflict"}},
	{name: "a rule without a family is for both", alone: true, add: twoGroups("rules: [{priority: 5, table: 7}, {priority: 5, table: 7, family: ipv4}]", "interfaces: []"), want: []string{"t.yaml:7 DuplicateRule"}},
	{name: "nodes' addresses on links that DANM makes", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  nodes: [{name: n, interfaces: [{name: b0, addresses: [10.0.0.1/24]}, {name: v, addresses: [10.0.1.1/24]}, {name: r, addresses: [10.0.2.1/32]}]}]\n" +
		"  groups: [{name: a, interfaces: [{name: e0}], bonds: [{name: b0, mode: active-backup, ports: [e0]}], vlans: [{name: v, device: b0, id: 5}], vrfs: [{name: r, table: 9, interfaces: [v]}]}]\n"}},
}

func topologyNamed(name string) string {
	return "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: " + name + "}\nspec:\n"
}

// merged adds files, name after text, to others.
func merged(files map[string]string, more ...string) map[string]string {
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = more[i+1]
	}
	return files
}
