package validate

// sriovPool is a document of kind SRIOVPool for rows that add one; its spec stands in line 4.
func sriovPool(name, spec string) string {
	return "apiVersion: bundle.danm.io/v1\nkind: SRIOVPool\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

// deviceRows: virtual functions, host devices and what shares a wire. Lines were counted in the files.
var deviceRows = []row{
	// networks of virtual functions
	{"sriov without a pool", "hardware.yaml", "  devicePool: danm.io/kernel\n", "", []string{"hardware.yaml:50 DevicePoolMissing"}},
	{"sriov on a device", "hardware.yaml", "  vlan: 77", "  vlan: 77\n  hostDevice: fab1", []string{"hardware.yaml:54 PoolAndDevice"}},
	{"sriov with a VXLAN", "hardware.yaml", "  vlan: 77", "  vxlan: 77", []string{"hardware.yaml:53 FieldNotAllowed"}},
	{"sriov with a pool nobody offers", "hardware.yaml", "devicePool: danm.io/kernel", "devicePool: danm.io/kernle", []string{"hardware.yaml:52 PoolUnknown (warning)"}},
	{"sriov with a pool that is no resource", "hardware.yaml", "devicePool: danm.io/kernel", "devicePool: kernel", []string{"hardware.yaml:52 InvalidName", "hardware.yaml:52 PoolUnknown (warning)"}},
	{"macvlan with a pool", "networks.yaml", "  fabric: edge\n  vxlan: 5002", "  fabric: edge\n  devicePool: danm.io/fast\n  vxlan: 5002", []string{"networks.yaml:35 FieldNotAllowed"}},
	{"sriov with a VLAN the fabric does not offer", "hardware.yaml", "  vlan: 77", "  vlan: 77\n  fabric: edge", []string{"hardware.yaml:53 IDOutsideRange", "hardware.yaml:55 MTUAboveParent"}},
	{"sriov with an MTU above the functions'", "hardware.yaml", "  vlan: 77\n  mtu: 9000", "  vlan: 77\n  mtu: 9001", []string{"hardware.yaml:54 MTUAboveParent"}},
	{"two sriov networks on one VLAN", "x.yaml", "", net("x", "{type: sriov, devicePool: danm.io/kernel, vlan: 77}"), []string{"x.yaml:4 IDNotShared"}},
	{"two sriov networks with one range of addresses", "x.yaml", "", net("x", "{type: sriov, devicePool: danm.io/fast, ipv4: {cidr: 10.7.0.0/24}}") + "---\n" + net("y", "{type: sriov, devicePool: danm.io/fast, ipv4: {cidr: 10.7.0.0/16}}"), []string{"x.yaml:9 CIDROverlap"}},
	{"sriov and macvlan on one VLAN", "x.yaml", "", net("x", "{type: sriov, devicePool: danm.io/fast, fabric: edge, vlan: 310}"), []string{"x.yaml:4 IDNotShared"}},

	// host devices
	{"host-device without a device", "hardware.yaml", "  hostDevice: ens2f0\n", "", []string{"hardware.yaml:69 FabricOrDevice"}},
	{"host-device on a fabric", "hardware.yaml", "  hostDevice: ens2f0", "  fabric: edge", []string{"hardware.yaml:71 FabricOrDevice"}},
	{"host-device with a VLAN", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens2f0\n  vlan: 5", []string{"hardware.yaml:72 FieldNotAllowed"}},
	{"host-device with a VXLAN", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens2f0\n  vxlan: 5", []string{"hardware.yaml:72 FieldNotAllowed"}},
	{"host-device with a pool", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens2f0\n  devicePool: danm.io/fast", []string{"hardware.yaml:72 FieldNotAllowed"}},
	{"host-device that nobody declares", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens2f1", []string{"hardware.yaml:71 UnknownReference"}},
	{"host-device of a fabric", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: fab1", []string{"hardware.yaml:71 DeviceConflict"}},
	{"host-device that is a bridge's port", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: eth1", []string{"hardware.yaml:71 DeviceConflict"}},
	{"host-device that is a pool's function", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: ens1f1", []string{"hardware.yaml:71 DeviceConflict"}},
	{"host-device below another network's VLAN", "x.yaml", "", net("x", "{hostDevice: ens2f0, vlan: 5}"), []string{"hardware.yaml:71 DeviceConflict"}},
	{"host-device that is a bridge", "hardware.yaml", "  hostDevice: ens2f0", "  hostDevice: br-lan", []string{"hardware.yaml:71 HostDeviceUnfit"}},
	{"host-device with addresses of the host", "hardware.yaml", "{name: ens2f0}", "{name: ens2f0, addresses: [10.9.0.1/24]}", []string{"hardware.yaml:71 HostDeviceUnfit"}},
	{"host-device with an address of a node", "topology.yaml", "    - {name: fab0, addresses: [192.0.2.2/24]}", "    - {name: fab0, addresses: [192.0.2.2/24]}\n    - {name: ens2f0, addresses: [10.9.0.1/24]}", []string{"hardware.yaml:71 HostDeviceUnfit"}},
	{"host-device with routes of the host", "hardware.yaml", "    - {name: ens2f0}", "    - {name: ens2f0}\n    routes:\n    - {to: 10.70.0.0/16, dev: ens2f0}", []string{"hardware.yaml:73 HostDeviceUnfit"}},
	{"two networks of one host device", "x.yaml", "", net("x", "{type: host-device, hostDevice: ens2f0}"), []string{"x.yaml:4 HostDeviceTwice (warning)"}},

	// pools
	{"PFs by nothing", "tenants.yaml", "pfs: {names: [ens1f0]}", "pfs: {}", []string{"tenants.yaml:27 MissingField"}},
	{"PF of 16 bytes", "tenants.yaml", "[ens1f0]", "[ens1f0123456789a]", []string{"tenants.yaml:27 LinkNameTooLong"}},
	{"PF with a slash", "tenants.yaml", "[ens1f0]", "[ens1/f0]", []string{"tenants.yaml:27 InvalidName"}},
	{"PF by half a PCI address", "hardware.yaml", `"0000:3B:00.0"`, `"3B:00.0"`, []string{"hardware.yaml:20 InvalidPFSelector"}},
	{"vendor as C writes it", "hardware.yaml", `"8086"`, `"0x8086"`, []string{"hardware.yaml:21 InvalidPFSelector"}},
	{"vendor as a number", "hardware.yaml", `"8086"`, `8086`, []string{"hardware.yaml:21 WrongType"}},
	{"device id of three digits", "hardware.yaml", `"1572"`, `"572"`, []string{"hardware.yaml:22 InvalidPFSelector"}},
	{"driver with a blank", "hardware.yaml", "drivers: [i40e]", "drivers: [i40e, mlx5 core]", []string{"hardware.yaml:23 InvalidPFSelector"}},
	{"pool with 1025 functions", "tenants.yaml", "numVFs: 8", "numVFs: 1025", []string{"tenants.yaml:28 InvalidNumber"}},
	{"function number 16 of 16", "hardware.yaml", `"12-15"`, `"12-16"`, []string{"hardware.yaml:25 VFOutside"}},
	{"functions twice in a pool", "hardware.yaml", `"8-9"`, `"8-12"`, []string{"hardware.yaml:25 VFOverlap"}},
	{"functions backwards", "hardware.yaml", `"8-9"`, `"9-8"`, []string{"hardware.yaml:25 InvalidRange"}},
	{"functions no number", "hardware.yaml", `"8-9"`, `"8-"`, []string{"hardware.yaml:25 InvalidRange"}},
	{"functions in two pools", "hardware.yaml", `"0-7"`, `"0-8"`, []string{"hardware.yaml:41 VFOverlap"}},
	{"all functions in one of two pools", "hardware.yaml", "  vfs: [\"0-7\"]\n", "", []string{"hardware.yaml:38 VFOverlap"}},
	{"numVFs of two pools", "hardware.yaml", "  numVFs: 16\n  vfs: [\"0-7\"]", "  numVFs: 8\n  vfs: [\"0-7\"]", []string{"hardware.yaml:40 NumVFsDiffer"}},
	{"pools that find one function by PCI address", "x.yaml", "", sriovPool("x", `{pfs: {pciAddresses: ["0000:3b:00.0"]}, numVFs: 8, resourceName: danm.io/x}`), []string{"x.yaml:4 NumVFsDiffer"}},
	{"pools that find one function by driver", "x.yaml", "", sriovPool("x", `{pfs: {drivers: [i40e]}, numVFs: 16, vfs: ["15"], resourceName: danm.io/x}`), []string{"x.yaml:4 VFOverlap"}},
	{"driver no pool has", "hardware.yaml", "driver: vfio-pci", "driver: vfio", []string{"hardware.yaml:26 InvalidChoice"}},
	{"trust in words", "hardware.yaml", "trust: true", "trust: 'on'", []string{"hardware.yaml:27 WrongType"}},
	{"link state", "hardware.yaml", "linkState: auto", "linkState: up", []string{"hardware.yaml:29 InvalidChoice"}},
	{"promised more than allowed", "hardware.yaml", "minTxRate: 100", "minTxRate: 1001", []string{"hardware.yaml:30 RateOrder"}},
	{"rate negative", "hardware.yaml", "minTxRate: 100", "minTxRate: -1", []string{"hardware.yaml:30 InvalidNumber"}},
	{"rate of 2^32", "hardware.yaml", "maxTxRate: 1000", "maxTxRate: 4294967296", []string{"hardware.yaml:31 InvalidNumber"}},
	{"MTU of functions too small", "hardware.yaml", "  driver: kernel\n  mtu: 9000", "  driver: kernel\n  mtu: 67", []string{"hardware.yaml:43 InvalidMTU", "hardware.yaml:54 MTUAboveParent"}},
	{"MTU of functions above the PF's", "hardware.yaml", "  driver: kernel\n  mtu: 9000", "  driver: kernel\n  mtu: 9001", []string{"hardware.yaml:43 MTUAboveParent"}},
	{"MTU of functions without an interface", "hardware.yaml", "  resourceName: danm.io/dpdk", "  mtu: 1500\n  resourceName: danm.io/dpdk", []string{"hardware.yaml:32 FieldNotAllowed"}},
	{"resource of Kubernetes", "tenants.yaml", "danm.io/fast", "kubernetes.io/fast", []string{"tenants.yaml:29 ResourceReserved"}},
	{"resource of a part of Kubernetes", "tenants.yaml", "danm.io/fast", "node.kubernetes.io/fast", []string{"tenants.yaml:29 ResourceReserved"}},
	{"resource like a quota", "tenants.yaml", "danm.io/fast", "requests.danm.io/fast", []string{"tenants.yaml:29 ResourceReserved"}},
	{"resource of two slashes", "tenants.yaml", "danm.io/fast", "danm.io/fast/er", []string{"tenants.yaml:29 InvalidName"}},
	{"resource that ends with a dash", "tenants.yaml", "danm.io/fast", "danm.io/fast-", []string{"tenants.yaml:29 InvalidName"}},
	{"one resource, two drivers", "hardware.yaml", "resourceName: danm.io/dpdk", "resourceName: danm.io/kernel", []string{"hardware.yaml:44 ResourceMixed"}},
	{"pool in capitals", "tenants.yaml", "name: fast", "name: Fast", []string{"tenants.yaml:24 InvalidName"}},
	{"pool twice", "tenants.yaml", "name: fast", "name: dpdk", []string{"tenants.yaml:24 DuplicateName"}},

	// wires
	{"VLAN of a host device twice", "x.yaml", "", net("beta/x", "{hostDevice: fab1, vlan: 5}") + "---\n" + net("beta/y", "{hostDevice: fab1, vlan: 5}"), []string{"x.yaml:9 IDNotShared"}},
	{"shared by one side on another wire", "networks.yaml", "vxlan: 5002", "vxlan: 5002\n  sharedWith: [acme/voice]", []string{"networks.yaml:36 SharedMismatch"}},
	{"16-byte name of a VLAN left open", "x.yaml", "", net("x", "{networkID: elevenbytes, fabric: edge, vlan: auto}"), []string{"x.yaml:4 IDUnassigned", "x.yaml:4 LinkNameTooLong"}},
	{"IPv6 on a device too small for it", "topology.yaml", "      mtu: 1500\n      up: true", "      mtu: 1329\n      up: true", []string{"networks.yaml:21 MTUAboveParent", "topology.yaml:40 ConflictingInterface"}},
	{"networkID of 64 bytes", "x.yaml", "", net("x", "{networkID: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, hostDevice: fab1}"), []string{"x.yaml:4 InvalidName"}},

	// names, in documents of their own
	{"network in capitals", "x.yaml", "", net("Xy", "{hostDevice: fab1}"), []string{"x.yaml:3 InvalidName"}},
	{"topology in capitals", "x.yaml", "", "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: Xy}\nspec: {}\n", []string{"x.yaml:3 InvalidName"}},
	{"topology twice", "x.yaml", "", "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: hardware}\nspec: {}\n", []string{"x.yaml:3 DuplicateName"}},
	{"node in capitals", "x.yaml", "", topology + "  nodes: [{name: Lab-2, slot: 3}]\n", []string{"x.yaml:5 InvalidName"}},
	{"group in capitals", "x.yaml", "", topology + "  groups: [{name: Lab}]\n", []string{"x.yaml:5 InvalidName"}},
	{"group twice", "x.yaml", "", topology + "  groups: [{name: lab}]\n", []string{"x.yaml:5 DuplicateName"}},
	{"fabric in capitals", "x.yaml", "", topology + "  fabrics: [{name: Lab, groups: [lab], device: fab0}]\n", []string{"x.yaml:5 InvalidName"}},
	{"multicast group unreadable", "x.yaml", "", topology + "  fabrics: [{name: labs, groups: [lab], device: fab0, vxlan: {multicast: all}}]\n", []string{"x.yaml:5 InvalidAddress"}},
	{"match by a name of 16 bytes", "x.yaml", "", topology + "  groups: [{name: x, interfaces: [{name: e, match: {name: fabric0123456789}}]}]\n", []string{"x.yaml:5 LinkNameTooLong"}},
	{"metric of 2^32", "x.yaml", "", topology + "  groups: [{name: x, routes: [{to: 10.0.0.0/8, via: 10.9.0.1, metric: 4294967296}]}]\n", []string{"x.yaml:5 InvalidNumber"}},
	{"gateway of a host route unreadable", "x.yaml", "", topology + "  groups: [{name: x, routes: [{to: 10.0.0.0/8, via: gw}]}]\n", []string{"x.yaml:5 InvalidAddress"}},
	{"probe in capitals", "bundle.yaml", "name: ping", "name: Ping", []string{"bundle.yaml:11 InvalidName"}},
}
