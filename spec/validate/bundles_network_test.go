package validate

// one is a bundle of one node and one fabric for cases about numbers left open.
func one(networks string) map[string]string {
	return map[string]string{"b.yaml": anyBundle, "n.yaml": networks, "t.yaml": topology +
		"  nodes: [{name: a, slot: 0}]\n  groups: [{name: a, interfaces: [{name: e, mtu: 1500}, {name: f}]}]\n" +
		"  fabrics: [{name: a, groups: [a], device: e, vxlan: {}}, {name: v, groups: [a], device: f, vlanRanges: [\"5-9\"]}, {name: x, groups: [a], device: f, vniRanges: [\"5-9\"], vxlan: {port: 4790}}]\n  slots: 1\n"}
}

func nets(pairs ...string) (out string) {
	for i := 0; i < len(pairs); i += 2 {
		out += net(pairs[i], pairs[i+1]) + "---\n" // five lines each: spec is in line 4, 9, 14, …
	}
	return out
}

var networkWholes = []whole{
	// numbers left open
	{name: "VLANs left open", alone: true, add: one(nets("n", "{fabric: a, vlan: auto}", "m", "{fabric: a, vlan: auto}"))},
	{name: "VLANs left open with one networkID", alone: true, add: one(nets("x/n", "{fabric: a, vlan: auto}", "y/n", "{fabric: a, vlan: auto, type: macvlan}"))},
	{name: "VXLANs left open with one networkID", alone: true, add: one(nets("x/n", "{fabric: a, vxlan: auto}", "y/n", "{fabric: a, vxlan: auto}")), want: []string{"n.yaml:8 LinkNameClash"}},
	{name: "bridges of VLANs left open with one networkID", alone: true, add: one(nets("x/n", "{fabric: a, type: bridge, vlan: auto}", "y/n", "{fabric: a, type: bridge, vlan: auto}")), want: []string{"n.yaml:8 LinkNameClash"}},
	{name: "a VLAN of host devices left open", alone: true, add: one(nets("n", "{hostDevice: e, vlan: auto}"))},
	{name: "a VLAN left open where there are VNIs only", alone: true, add: one(nets("n", "{fabric: x, vlan: auto}")), want: []string{"n.yaml:4 IDOutsideRange"}},
	{name: "a VNI left open where there are VLANs only", alone: true, add: one(nets("n", "{fabric: v, vxlan: auto}")), want: []string{"n.yaml:4 IDOutsideRange", "n.yaml:4 NoUnderlay"}},
	{name: "a tenant without VLANs leaves one open", alone: true, add: one(nets("n/n", "{fabric: a, vlan: auto}") + "apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: t}\nspec: {namespaces: [n], fabrics: [{name: a, vniRanges: ['5']}]}\n"), want: []string{"n.yaml:4 IDOutsideRange"}},
	{name: "shared, one left open", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m]}", "m", "{fabric: a, networkID: x, vlan: 7, sharedWith: [n]}"))},
	{name: "shared, both left open", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vxlan: auto, sharedWith: [m]}", "m", "{fabric: a, networkID: x, vxlan: auto, sharedWith: [n]}"))},
	{name: "shared, left open, two networkIDs", alone: true, add: one(nets("n", "{fabric: a, vlan: auto, sharedWith: [m]}", "m", "{fabric: a, vlan: 7, sharedWith: [n]}")), want: []string{"n.yaml:8 SharedMismatch"}},
	{name: "shared, left open, two types", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m]}", "m", "{fabric: a, networkID: x, type: macvlan, vlan: auto, sharedWith: [n]}")), want: []string{"n.yaml:9 DeviceConflict"}},
	{name: "shared, left open, overlapping but not equal", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vxlan: auto, sharedWith: [m], ipv4: {cidr: 10.0.0.0/24}}", "m", "{fabric: a, networkID: x, vxlan: auto, sharedWith: [n], ipv4: {cidr: 10.0.0.0/25}}")), want: []string{"n.yaml:9 SharedMismatch"}},
	{name: "left open and shared by one side", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m]}", "m", "{fabric: a, networkID: x, vlan: 7}")), want: []string{"n.yaml:4 SharedMismatch"}},
	{name: "left open between two numbers", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m, o]}", "m", "{fabric: a, networkID: y, vlan: 7, sharedWith: [n]}", "o", "{fabric: a, networkID: x, vlan: 8, sharedWith: [n]}")), want: []string{"n.yaml:4 SharedMismatch", "n.yaml:9 SharedMismatch"}},
	{name: "left open, a friend's friend is no friend", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m]}", "m", "{fabric: a, networkID: x, vlan: auto, sharedWith: [n, o]}", "o", "{fabric: a, networkID: x, vlan: auto, sharedWith: [m]}")), want: []string{"n.yaml:14 IDNotShared"}},
	{name: "left open on two fabrics though shared", alone: true, add: one(nets("n", "{fabric: a, vlan: auto, sharedWith: [m]}", "m", "{fabric: v, vlan: auto, sharedWith: [n]}"))},
	{name: "a VLAN left open and an untagged network", alone: true, add: one(nets("n", "{fabric: a, vlan: auto, ipv4: {cidr: 10.0.0.0/24}, sharedWith: [m]}", "m", "{fabric: a, ipv4: {cidr: 10.0.0.0/24}, sharedWith: [n]}"))},
	{name: "a wrong number says nothing of wires", alone: true, add: one(nets("n", "{fabric: a, vlan: 0, ipv4: {cidr: 10.0.0.0/24}}", "m", "{fabric: a, ipv4: {cidr: 10.0.0.0/24}}")), want: []string{"n.yaml:4 InvalidVLAN"}},

	// what shares addresses
	{name: "shared, one address reserved twice", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: 7, sharedWith: [m], ipv4: {cidr: 10.0.0.0/24}, reserved: [{name: a, ip: 10.0.0.9}]}",
		"m", "{fabric: a, networkID: x, vlan: 7, sharedWith: [n], ipv4: {cidr: 10.0.0.0/24}, reserved: [{name: b, ip: 10.0.0.8}, {name: c, ip: 10.0.0.9}]}")), want: []string{"n.yaml:9 ReservedTaken"}},
	{name: "shared, one IPv6 address reserved twice", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: 7, sharedWith: [m], ipv6: {cidr: 'fd00::/64'}, reserved: [{name: a, ip6: 'fd00::9'}]}",
		"m", "{fabric: a, networkID: x, vlan: 7, sharedWith: [n], ipv6: {cidr: 'fd00::/64'}, reserved: [{name: c, ip6: 'fd00::9'}]}")), want: []string{"n.yaml:9 ReservedTaken"}},
	{name: "shared, different addresses reserved", alone: true, add: one(nets("n", "{fabric: a, networkID: x, vlan: 7, sharedWith: [m], ipv4: {cidr: 10.0.0.0/24}, reserved: [{name: a, ip: 10.0.0.9}]}",
		"m", "{fabric: a, networkID: x, vlan: 7, sharedWith: [n], ipv4: {cidr: 10.0.0.0/24}, reserved: [{name: a, ip: 10.0.0.8}]}"))},
	{name: "delegates of one file with the same addresses", alone: true, add: one(nets("n", "{type: p, delegate: {file: x}, ipv4: {cidr: 10.0.0.0/24}}", "m", "{type: p, delegate: {file: x}, ipv4: {cidr: 10.0.0.0/24}}")), want: []string{"n.yaml:9 CIDROverlap"}},
	{name: "delegates of two files with the same addresses", alone: true, add: one(nets("n", "{type: p, delegate: {file: x}, ipv4: {cidr: 10.0.0.0/24}}", "m", "{type: p, delegate: {file: y}, ipv4: {cidr: 10.0.0.0/24}}"))},
	{name: "delegates of their own with the same addresses", alone: true, add: one(nets("x/n", "{type: p, delegate: {conf: '{\"type\": \"p\"}'}, ipv4: {cidr: 10.0.0.0/24}}", "y/n", "{type: p, delegate: {conf: '{\"type\": \"p\"}'}, ipv4: {cidr: 10.0.0.0/24}}"))},
	{name: "a delegate and a macvlan on one device", alone: true, add: one(nets("n", "{type: p, delegate: {file: x}, hostDevice: f}", "m", "{type: macvlan, hostDevice: f}", "o", "{type: q, delegate: {file: x}, hostDevice: f}"))},
	{name: "delegates with one link for two VLANs", alone: true, add: one(nets("x/n", "{type: p, delegate: {file: x}, fabric: a, vxlan: 7}", "y/n", "{type: p, delegate: {file: x}, fabric: a, vxlan: 8}")), want: []string{"n.yaml:8 LinkNameClash"}},
	{name: "sriov, one VLAN on both sides, other networkIDs", alone: true, add: one(nets("n", "{type: sriov, devicePool: x.io/a, vlan: 7, sharedWith: [m]}", "m", "{type: sriov, devicePool: x.io/a, vlan: 7, sharedWith: [n]}")), want: []string{"n.yaml:4 PoolUnknown (warning)", "n.yaml:9 PoolUnknown (warning)"}},
	{name: "sriov and macvlan share a VLAN", alone: true, add: one(nets("n", "{type: sriov, devicePool: x.io/a, fabric: a, vlan: 7, sharedWith: [m]}", "m", "{type: macvlan, fabric: a, vlan: 7, sharedWith: [n]}")), want: []string{"n.yaml:4 PoolUnknown (warning)"}},
	{name: "sriov on two pools with one VLAN", alone: true, add: one(nets("n", "{type: sriov, devicePool: x.io/a, vlan: 7}", "m", "{type: sriov, devicePool: x.io/b, vlan: 7}")), want: []string{"n.yaml:4 PoolUnknown (warning)", "n.yaml:9 PoolUnknown (warning)"}},
	{name: "sriov leaves its VLAN open on a fabric", alone: true, add: one(nets("n", "{type: sriov, devicePool: x.io/a, fabric: v, vlan: auto}")), want: []string{"n.yaml:4 PoolUnknown (warning)"}},
	{name: "sriov under a long name", alone: true, add: one(nets("a-name-of-more-than-fifteen-bytes", "{type: sriov, devicePool: x.io/a, vlan: 7}")), want: []string{"n.yaml:4 PoolUnknown (warning)"}},

	// nodes that are not the same
	{name: "a host device that is a fabric's elsewhere", edits: [][3]string{{"hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens9"}},
		add: map[string]string{"x.yaml": topology + "  groups: [{name: labhw, selector: {site: lab}, interfaces: [{name: ens9}]}, {name: hw9, selector: {role: spare}, interfaces: [{name: ens8}]}]\n  fabrics: [{name: nine, groups: [hw9], device: ens8}]\n"}},
	{name: "pools on nodes of their own", add: map[string]string{"x.yaml": sriovPool("x", "{nodeSelector: {site: lab}, pfs: {names: [ens1f0]}, numVFs: 4, resourceName: danm.io/x}")}},
	{name: "pools of one label without nodes", alone: true, add: map[string]string{"b.yaml": anyBundle, "p.yaml": sriovPool("x", "{nodeSelector: {a: b}, pfs: {names: [e]}, numVFs: 4, resourceName: danm.io/x}") + "---\n" + sriovPool("y", "{nodeSelector: {c: d}, pfs: {names: [e]}, numVFs: 8, resourceName: danm.io/y}")}, want: []string{"p.yaml:9 NumVFsDiffer"}},
	{name: "pools of two labels without nodes", alone: true, add: map[string]string{"b.yaml": anyBundle, "p.yaml": sriovPool("x", "{nodeSelector: {a: b}, pfs: {names: [e]}, numVFs: 4, resourceName: danm.io/x}") + "---\n" + sriovPool("y", "{nodeSelector: {a: c}, pfs: {names: [e]}, numVFs: 8, resourceName: danm.io/y}")}},
	{name: "pools that differ in one thing", add: map[string]string{"x.yaml": sriovPool("x", `{pfs: {names: [ens1f1], vendors: ["15b3"], devices: ["101d"], drivers: [mlx5_core], pciAddresses: ["0000:5e:00.0"]}, numVFs: 8, vfs: ["0"], resourceName: danm.io/x}`)}, want: []string{"x.yaml:4 NumVFsDiffer"}},
	{name: "pools that nothing says are of one function", add: map[string]string{"x.yaml": sriovPool("x", `{pfs: {pciAddresses: ["0000:5e:00.0"]}, numVFs: 8, resourceName: danm.io/x}`)}},
	{name: "an MTU of functions on other nodes", add: map[string]string{"x.yaml": sriovPool("x", `{nodeSelector: {site: lab}, pfs: {names: [ens1f1]}, numVFs: 16, vfs: ["8"], mtu: 9001, resourceName: danm.io/x}`)}},

	// what could not be read
	{name: "a pool with a slip may offer the resource", edits: [][3]string{{"hardware.yaml", "  resourceName: danm.io/kernel", "  resuorceName: danm.io/kernel"}}, want: []string{"hardware.yaml:44 UnknownField", "hardware.yaml:39 MissingField"}},
	{name: "a network with a slip has no type to judge", edits: [][3]string{{"hardware.yaml", "  type: sriov", "  tpye: sriov"}}, want: []string{"hardware.yaml:51 UnknownField"}},
	{name: "a delegate with a slip says nothing", edits: [][3]string{{"hardware.yaml", "    file: flannel", "    flie: flannel"}}, want: []string{"hardware.yaml:79 UnknownField"}},
	{name: "a tenant's default is a VLAN in the Pod", edits: [][3]string{{"tenants.yaml", "defaultNetwork: acme/voice", "defaultNetwork: x"}}, add: map[string]string{"x.yaml": net("x", "{type: vlan, fabric: edge, vlan: 101}")}, want: []string{"tenants.yaml:10 DefaultUnfit"}},
	{name: "a reservation with a slip", edits: [][3]string{{"hardware.yaml", ", ip: 10.60.0.8}", ", pi: 10.60.0.8}"}}, want: []string{"hardware.yaml:62 UnknownField"}},
	{name: "a reservation where a tenant could not be read", edits: [][3]string{{"networks.yaml", "allowedTenants: [acme]", "allowedTenants: [acme]\n  reserved: [{name: a, namespace: quota, ip: 10.1.0.9}]"}, {"tenants.yaml", "  networks: [shared]", "  netwroks: [shared]"}}, want: []string{"tenants.yaml:19 UnknownField"}},

	// limits that are kept
	{name: "a conf of 64 KiB", add: map[string]string{"x.yaml": net("x", delegate(maxDelegate))}},
	{name: "IPv6 that just fits", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  groups: [{name: a, interfaces: [{name: e, mtu: 1330}]}]\n  fabrics: [{name: a, groups: [a], device: e, vxlan: {multicast: 239.0.0.1}}]\n", "n.yaml": net("n", "{fabric: a, vxlan: 5, ipv6: {cidr: 'fd00::/64'}}")}},
	{name: "IPv6 that does not fit", alone: true, add: map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  groups: [{name: a, interfaces: [{name: e, mtu: 1329}]}]\n  fabrics: [{name: a, groups: [a], device: e, vxlan: {multicast: 239.0.0.1}}]\n", "n.yaml": net("n", "{fabric: a, vxlan: 5, ipv6: {cidr: 'fd00::/64'}}")}, want: []string{"n.yaml:4 InvalidMTU"}},
	{name: "tables beside the kernel's", add: map[string]string{"x.yaml": net("x", "{hostDevice: fab1, table: 252}") + "---\n" + net("y", "{hostDevice: fab1, table: 256}")}},
	{name: "as many networks as the quota", edits: [][3]string{{"hardware.yaml", "networks: 0", "networks: 1"}}, add: map[string]string{"x.yaml": net("quota/x", "{fabric: edge, vlan: 100}")}},
	{name: "a node's address outside the pools", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab0, type: ipvlan, ipv4: {cidr: 192.0.2.0/24, pools: [192.0.2.16-192.0.2.79], gateway: 192.0.2.254}}")}},
	{name: "nodes that have no virtual functions need no share", add: map[string]string{"x.yaml": sriovPool("spare", "{nodeSelector: {role: spare}, pfs: {names: [ens9]}, numVFs: 2, resourceName: danm.io/spare}") + "---\n" + net("beta/x", "{type: sriov, devicePool: danm.io/spare, ipv4: {cidr: 192.0.2.0/24, pools: [192.0.2.16-192.0.2.31]}}")}},
	{name: "nodes that have virtual functions and no share", add: map[string]string{"x.yaml": sriovPool("spare", "{nodeSelector: {role: spare}, pfs: {names: [ens9]}, numVFs: 2, resourceName: danm.io/spare}") + "---\n" + net("beta/x", "{type: sriov, devicePool: danm.io/spare, ipv4: {cidr: 192.0.2.0/24, pools: [192.0.2.32-192.0.2.47]}}")}, want: []string{"x.yaml:9 TooFewBlocks (warning)"}},
	{name: "nodes without a share of the pools", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab0, type: ipvlan, ipv4: {cidr: 192.0.2.0/24, pools: [192.0.2.16-192.0.2.47], gateway: 192.0.2.254}}")}, want: []string{"x.yaml:4 TooFewBlocks (warning)"}},
	{name: "a node's address on a VLAN's device", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab0, vlan: 9, ipv4: {cidr: 192.0.2.0/24}}")}},
	{name: "node's addresses reserved and the gateway", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab0, ipv4: {cidr: 192.0.2.0/24, gateway: 192.0.2.1}, reserved: [{name: a, ip: 192.0.2.2}]}")}},
	{name: "a plugin of a network as networkIDs' type", edits: [][3]string{{"tenants.yaml", "{macvlan: voice}", "{sroiv: voice}"}}, add: map[string]string{"x.yaml": net("x", "{type: sroiv, delegate: {file: x}}")}},
	{name: "a delegate's networkID may be long", edits: [][3]string{{"tenants.yaml", "{macvlan: voice}", "{flannel: more-than-ten-bytes}"}}},
	{name: "half the addresses are excluded twice", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab1, ipv4: {cidr: 10.7.0.0/24, exclude: [10.7.0.0-10.7.0.100, 10.7.0.50-10.7.0.200, 10.7.0.0-10.7.0.3]}}")}},
	{name: "all addresses are excluded twice", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab1, ipv4: {cidr: 10.7.0.0/24, exclude: [10.7.0.0-10.7.0.100, 10.7.0.50-10.7.0.200, 10.7.0.201-10.7.0.255]}}")}, want: []string{"x.yaml:4 NothingToHandOut (warning)"}},
	{name: "the last address there is is excluded", add: map[string]string{"x.yaml": net("beta/x", "{hostDevice: fab1, ipv4: {cidr: 223.255.255.0/24}, ipv6: {cidr: 'fd00:ffff::/126', exclude: ['fd00:ffff::1-fd00:ffff::3']}}")}, want: []string{"x.yaml:4 NothingToHandOut (warning)"}},
}
