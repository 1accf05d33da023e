package validate

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"github.com/google/go-cmp/cmp"
)

// row is a change of the good bundle and every problem it must cause, no more and no less.
type row struct {
	name           string
	file, old, new string // old "" appends, or makes the file
	want           []string
}

// badRows: the line of each problem was found by looking at the files, not by running the code.
var badRows = []row{
	// the files
	{"broken YAML", "x.yaml", "", "a:\n  - b\n c: d\n", []string{"x.yaml:3 BrokenYAML"}},
	{"no bundle document", "bundle.yaml", "kind: Bundle", "kind: Bandle", []string{"bundle.yaml:2 WrongKind"}},
	{"other kind", "x.yaml", "", "apiVersion: bundle.danm.io/v1\nkind: Netwrok\n", []string{"x.yaml:2 WrongKind"}},
	{"no kind", "x.yaml", "", "apiVersion: bundle.danm.io/v1\n", []string{"x.yaml:1 WrongKind"}},
	{"other version", "x.yaml", "", "kind: Network\napiVersion: bundle.danm.io/v2\n", []string{"x.yaml:2 WrongVersion"}},
	{"kustomization", "kustomization.yaml", "", "resources: [a.yaml]\n", []string{"kustomization.yaml:1 WrongVersion"}},
	{"unknown field", "networks.yaml", "  vxlan: 5001", "  vxlam: 5001", []string{"networks.yaml:10 UnknownField"}},
	{"unknown field in a list", "topology.yaml", "port: 4790", "prot: 4790", []string{"topology.yaml:55 UnknownField"}},
	{"duplicate field", "networks.yaml", "  mtu: 1400", "  type: ipvlan\n  mtu: 1400", []string{"networks.yaml:21 DuplicateField"}},
	{"duplicate label", "topology.yaml", "{site: lab}\n  groups", "{site: lab, site: edge}\n  groups", []string{"topology.yaml:20 DuplicateField"}},
	{"missing field", "networks.yaml", "    cidr: fd00:40::/64\n", "    gateway: fd00:40::1\n", []string{"networks.yaml:20 MissingField"}},
	{"number for a string", "bundle.yaml", "version: 1.2.0", "version: 1.2", []string{"bundle.yaml:6 WrongType"}},
	{"octal", "networks.yaml", "table: 300", "table: 0300", []string{"networks.yaml:23 WrongType"}},
	{"alias bomb", "x.yaml", "", bomb(8), []string{"x.yaml:5 AliasBomb"}},
	{"alias in itself", "x.yaml", "", "a: &a\n  b: *a\n", []string{"x.yaml:2 AliasBomb"}},
	{"too deep", "x.yaml", "", "a:\n  " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n", []string{"x.yaml:2 TooDeep"}},
	{"over 1 MiB", "x.yaml", "", "#" + strings.Repeat("x", 1<<20), []string{"x.yaml:0 FileTooLarge"}},

	// the bundle
	{"second bundle", "z.yaml", "", "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: other}\n", []string{"z.yaml:2 DuplicateBundle"}},
	{"version", "bundle.yaml", "1.2.0", "v1.2", []string{"bundle.yaml:6 InvalidVersion"}},
	{"confirmTimeout too short", "bundle.yaml", "confirmTimeout: 20s", "confirmTimeout: 1s", []string{"bundle.yaml:7 InvalidDuration"}},
	{"confirmTimeout too long", "bundle.yaml", "confirmTimeout: 20s", "confirmTimeout: 10m1s", []string{"bundle.yaml:7 InvalidDuration"}},
	{"confirmTimeout no duration", "bundle.yaml", "confirmTimeout: 20s", "confirmTimeout: soon", []string{"bundle.yaml:7 InvalidDuration"}},
	{"probe longer than confirmTimeout", "bundle.yaml", "timeout: 3s", "timeout: 21s", []string{"bundle.yaml:9 InvalidDuration"}},
	{"probe without target", "bundle.yaml", "{name: gw, gateway: true}", "{name: gw, gateway: false}", []string{"bundle.yaml:10 InvalidProbe"}},
	{"probe with two targets", "bundle.yaml", "{name: git, source: true}", "{name: git, source: true, gateway: true}", []string{"bundle.yaml:12 InvalidProbe"}},
	{"probe without port", "bundle.yaml", "10.9.0.254:443", "10.9.0.254", []string{"bundle.yaml:9 InvalidProbe"}},
	{"probe to port 0", "bundle.yaml", "10.9.0.254:443", "hub.example:0", []string{"bundle.yaml:9 InvalidProbe"}},
	{"probe to a bare IPv6 host", "bundle.yaml", "10.9.0.254:443", "fd00::1:443", []string{"bundle.yaml:9 InvalidProbe"}},
	{"probe to half a bracket", "bundle.yaml", "10.9.0.254:443", "[fd00::1:443", []string{"bundle.yaml:9 InvalidProbe"}},
	{"probe to a name by icmp", "bundle.yaml", `"fd00::1"`, "hub", []string{"bundle.yaml:11 InvalidAddress"}},
	{"two probes of a name", "bundle.yaml", "name: gw", "name: hub", []string{"bundle.yaml:10 DuplicateName"}},
	{"name in capitals", "bundle.yaml", "name: edge", "name: Edge", []string{"bundle.yaml:4 InvalidName"}},

	// nodes and groups
	{"node twice", "topology.yaml", "name: lab-1", "name: edge-1", []string{"topology.yaml:18 DuplicateName"}},
	{"slot out of range", "topology.yaml", "slot: 2", "slot: 4", []string{"topology.yaml:19 InvalidSlot"}},
	{"slot negative", "topology.yaml", "slot: 2", "slot: -1", []string{"topology.yaml:19 InvalidSlot"}},
	{"slot taken", "topology.yaml", "slot: 2", "slot: 1", []string{"topology.yaml:19 SlotTaken"}},
	{"slot missing", "topology.yaml", "    slot: 2\n", "", []string{"topology.yaml:18 InvalidSlot"}},
	{"slots missing", "topology.yaml", "  slots: 4\n", "", []string{"topology.yaml:13 InvalidSlot", "topology.yaml:18 InvalidSlot", "topology.yaml:8 InvalidSlot"}},
	{"slots negative", "topology.yaml", "slots: 4", "slots: -4", []string{"topology.yaml:6 InvalidSlot"}},
	{"slots differ", "z.yaml", "", "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: z}\nspec: {slots: 8}\n", []string{"z.yaml:4 InvalidSlot"}},
	{"16-byte interface", "topology.yaml", "name: fab1", "name: fabric0123456789", []string{"topology.yaml:28 LinkNameTooLong", "topology.yaml:58 UnknownReference"}},
	{"interface with a slash", "topology.yaml", "ports: [eth1]", "ports: [eth/1]", []string{"topology.yaml:32 InvalidName"}},
	{"interface twice", "topology.yaml", "    - name: fab1\n      match", "    - name: fab0\n      match", []string{"topology.yaml:28 DuplicateName", "topology.yaml:58 UnknownReference"}},
	{"match empty", "topology.yaml", `match: {mac: "52:54:00:AA:bb:cc"}`, "match: {}", []string{"topology.yaml:29 InvalidMatch"}},
	{"match no MAC", "topology.yaml", `"52:54:00:AA:bb:cc"`, `"52:54:00"`, []string{"topology.yaml:29 InvalidMatch"}},
	{"match no PCI address", "topology.yaml", `mac: "52:54:00:AA:bb:cc"`, `pci: "3b:00.0"`, []string{"topology.yaml:29 InvalidMatch"}},
	{"MTU too small", "topology.yaml", "      up: true", "      up: true\n    - {name: fab2, mtu: 67}", []string{"topology.yaml:28 InvalidMTU"}},
	{"address without length", "topology.yaml", "10.1.1.1/24", "10.1.1.1", []string{"topology.yaml:34 InvalidAddress"}},
	{"port twice", "topology.yaml", "ports: [eth1]", "ports: [eth1, eth1]", []string{"topology.yaml:32 DeviceConflict"}},
	{"bridge in a bridge", "topology.yaml", "ports: [eth1]", "ports: [br-lan]", []string{"topology.yaml:32 DeviceConflict"}},
	{"route host bits", "topology.yaml", "to: 10.50.0.0/16", "to: 10.50.1.0/16", []string{"topology.yaml:36 HostBitsSet"}},
	{"route over an unknown device", "topology.yaml", "dev: fab0}", "dev: fab7}", []string{"topology.yaml:36 UnknownReference"}},
	{"route to nowhere", "topology.yaml", ", via: 192.0.2.254, dev: fab0}", "}", []string{"topology.yaml:36 MissingField"}},
	{"route of two families", "topology.yaml", "via: 192.0.2.254", "via: fd00::1", []string{"topology.yaml:36 ViaOutside"}},
	{"route twice", "topology.yaml", "dev: fab0}\n", "dev: fab0}\n    - {to: 10.50.0.0/16, dev: fab0}\n", []string{"topology.yaml:37 DuplicateRoute"}},
	{"route table", "topology.yaml", "dev: fab0}\n", "dev: fab0, table: 2147483648}\n", []string{"topology.yaml:36 InvalidNumber"}},
	{"node's interface undeclared", "topology.yaml", "{name: fab0, addresses: [192.0.2.1/24]}", "{name: fab9, addresses: [192.0.2.1/24]}", []string{"topology.yaml:12 UnknownReference", "topology.yaml:8 UnderlayAddressMissing"}},
	{"node's interface twice", "topology.yaml", "    - {name: fab0, addresses: [192.0.2.1/24]}\n", "    - {name: fab0, addresses: [192.0.2.1/24]}\n    - {name: fab0}\n", []string{"topology.yaml:13 DuplicateName"}},
	{"groups disagree", "topology.yaml", "- {name: fab0, mtu: 1500}", "- {name: fab0, mtu: 9000}", []string{"topology.yaml:40 ConflictingInterface"}},

	// fabrics
	{"fabric on an unknown group", "topology.yaml", "groups: [lab]", "groups: [labs]", []string{"topology.yaml:61 UnknownReference"}},
	{"fabric on no group", "topology.yaml", "groups: [lab]", "groups: []", []string{"topology.yaml:61 MissingField"}},
	{"fabric on an undeclared device", "topology.yaml", "device: fab1", "device: fab2", []string{"topology.yaml:58 UnknownReference"}},
	{"fabric twice", "topology.yaml", "- name: second", "- name: uni", []string{"topology.yaml:56 DuplicateName"}},
	{"VLAN range", "topology.yaml", `"310"`, `"310-4095"`, []string{"topology.yaml:49 InvalidVLAN"}},
	{"VNI range", "topology.yaml", `"5000-5999"`, `"0-5999"`, []string{"topology.yaml:50 InvalidVNI"}},
	{"range backwards", "topology.yaml", `"100-199"`, `"199-100"`, []string{"topology.yaml:49 InvalidRange"}},
	{"range no number", "topology.yaml", `"310"`, `"x"`, []string{"topology.yaml:49 InvalidRange"}},
	{"UDP port", "topology.yaml", "port: 4790", "port: 65536", []string{"topology.yaml:55 InvalidNumber"}},
	{"multicast", "topology.yaml", "239.1.1.2", "10.1.1.2", []string{"topology.yaml:63 InvalidAddress"}},
	{"underlay address missing", "topology.yaml", "[192.0.2.2/24]", "[]", []string{"topology.yaml:13 UnderlayAddressMissing"}},
	{"underlay address of another family", "topology.yaml", "192.0.2.2/24", "fd00::2/64", []string{"topology.yaml:13 UnderlayAddressMissing"}},
	{"underlay address twice", "topology.yaml", "192.0.2.2/24", "192.0.2.1/24", []string{"topology.yaml:13 UnderlayAddressTaken"}},

	// one network
	{"VLAN 0", "networks.yaml", "vxlan: 5001", "vlan: 0", []string{"networks.yaml:10 InvalidVLAN"}},
	{"VLAN 4095", "networks.yaml", "vxlan: 5001", "vlan: 4095", []string{"networks.yaml:10 InvalidVLAN"}},
	{"VNI 0", "networks.yaml", "vxlan: 5001", "vxlan: 0", []string{"networks.yaml:10 InvalidVNI"}},
	{"VNI 2^24", "networks.yaml", "vxlan: 5001", "vxlan: 16777216", []string{"networks.yaml:10 InvalidVNI"}},
	{"VLAN and VXLAN", "networks.yaml", "vxlan: 5001", "vxlan: 5001\n  vlan: 100", []string{"networks.yaml:10 VLANAndVXLAN"}},
	{"host bits", "networks.yaml", "cidr: 10.1.0.0/24", "cidr: 10.1.0.7/24", []string{"networks.yaml:47 HostBitsSet"}},
	{"no CIDR", "networks.yaml", "cidr: 10.1.0.0/24", "cidr: 10.1.0.0", []string{"networks.yaml:47 InvalidCIDR"}},
	{"CIDR of the other family", "networks.yaml", "cidr: 10.1.0.0/24", "cidr: fd00::/64", []string{"networks.yaml:47 InvalidCIDR"}},
	{"multicast CIDR", "networks.yaml", "cidr: 10.1.0.0/24", "cidr: 239.0.0.0/24", []string{"networks.yaml:47 InvalidCIDR"}},
	{"link-local CIDR", "networks.yaml", "cidr: fd00:40::/64", "cidr: fe80::/64", []string{"networks.yaml:20 InvalidCIDR"}},
	{"pool outside", "networks.yaml", "10.40.0.10-10.40.0.200", "10.40.0.10-10.40.4.0", []string{"networks.yaml:13 PoolOutside"}},
	{"pool backwards", "networks.yaml", "10.40.0.10-10.40.0.200", "10.40.0.200-10.40.0.10", []string{"networks.yaml:13 InvalidRange"}},
	{"pool of two families", "networks.yaml", "10.40.0.10-10.40.0.200", `"10.40.0.10-fd00::"`, []string{"networks.yaml:13 InvalidRange"}},
	{"pools overlap", "networks.yaml", "10.40.0.10-10.40.0.200", "10.40.0.10-10.40.1.0", []string{"networks.yaml:13 PoolOverlap"}},
	{"pool overlaps one before the last", "networks.yaml", "    cidr: 10.1.0.0/24", "    cidr: 10.1.0.0/24\n    pools: [10.1.0.10-10.1.0.90, 10.1.0.20, 10.1.0.30]", []string{"networks.yaml:48 PoolOverlap", "networks.yaml:48 PoolOverlap"}},
	{"pool with the network address", "networks.yaml", "10.40.0.10-10.40.0.200", "10.40.0.0-10.40.0.0", []string{"networks.yaml:13 PoolUnusable"}},
	{"pool with the broadcast address", "networks.yaml", "10.40.0.10-10.40.0.200", "10.40.3.255", []string{"networks.yaml:13 PoolUnusable"}},
	{"exclude outside", "networks.yaml", "[10.40.0.50,", "[10.50.0.50,", []string{"networks.yaml:14 ExcludeOutside"}},
	{"gateway outside", "networks.yaml", "gateway: 10.40.0.1", "gateway: 10.41.0.1", []string{"networks.yaml:15 GatewayOutside"}},
	{"gateway in a pool", "networks.yaml", "gateway: 10.40.0.1", "gateway: 10.40.0.20", []string{"networks.yaml:15 GatewayInPool (warning)"}},
	{"gateway is the network", "networks.yaml", "gateway: 10.40.0.1", "gateway: 10.40.0.0", []string{"networks.yaml:15 GatewayUnusual (warning)"}},
	{"via outside", "networks.yaml", "via: 10.40.0.2", "via: 10.44.0.2", []string{"networks.yaml:18 ViaOutside"}},
	{"route of the other family", "networks.yaml", "to: 172.16.0.0/12", `to: "fd01::/64"`, []string{"networks.yaml:18 InvalidCIDR"}},
	{"Pod route twice", "networks.yaml", "to: 172.16.0.0/12", "to: 10.0.0.0/8", []string{"networks.yaml:18 DuplicateRoute"}},
	{"Pod route without via", "networks.yaml", "    cidr: 10.1.0.0/24", "    cidr: 10.1.0.0/24\n    routes:\n    - {to: 0.0.0.0/0}", []string{"networks.yaml:49 MissingField"}},
	{"16-byte link name", "networks.yaml", "networkID: bvoice", "networkID: thirteen-byte", []string{"networks.yaml:32 LinkNameTooLong"}},
	{"16-byte link name by default", "x.yaml", "", net("beta/thirteen-byte", "{fabric: edge, vxlan: 5003}"), []string{"x.yaml:3 LinkNameTooLong"}},
	{"name of 254 bytes", "x.yaml", "", net(strings.Repeat("a.", 126)+"ab", "{networkID: x, hostDevice: fab1}"), []string{"x.yaml:3 InvalidName"}},
	{"16-byte VLAN name", "x.yaml", "", net("beta/x", "{networkID: twelve-bytes, fabric: edge, vlan: 100}"), []string{"x.yaml:4 LinkNameTooLong"}},
	{"networkID with a slash", "networks.yaml", "networkID: bvoice", "networkID: ../voice", []string{"networks.yaml:32 InvalidName"}},
	{"prefix too long", "networks.yaml", "interfacePrefix: voice", "interfacePrefix: fourteen-bytes", []string{"networks.yaml:22 LinkNameTooLong"}},
	{"prefix with a blank", "networks.yaml", "interfacePrefix: voice", "interfacePrefix: my voice", []string{"networks.yaml:22 InvalidName"}},
	{"type", "networks.yaml", "type: bridge", "type: brigde", []string{"networks.yaml:44 InvalidType"}},
	{"no device", "networks.yaml", "  hostDevice: br-lan\n", "", []string{"networks.yaml:43 FabricOrDevice"}},
	{"two devices", "networks.yaml", "  fabric: edge\n  vxlan: 5001", "  fabric: edge\n  hostDevice: br-lan\n  vxlan: 5001", []string{"networks.yaml:10 FabricOrDevice"}},
	{"MTU of IPv6", "networks.yaml", "mtu: 1400", "mtu: 1279", []string{"networks.yaml:21 InvalidMTU"}},
	{"MTU above the parent's", "networks.yaml", "mtu: 1400", "mtu: 1451", []string{"networks.yaml:21 MTUAboveParent"}},
	{"table", "networks.yaml", "table: 300", "table: 2147483648", []string{"networks.yaml:23 InvalidNumber"}},
	{"block size no power of two", "networks.yaml", "blockSize: 16", "blockSize: 24", []string{"networks.yaml:24 InvalidBlockSize"}},
	{"block size above the CIDR", "networks.yaml", "blockSize: 16", "blockSize: 2048", []string{"networks.yaml:24 InvalidBlockSize"}},
	{"tenants on a tenant's network", "networks.yaml", "mtu: 1400", "allowedTenants: [beta]", []string{"networks.yaml:21 FieldNotAllowed"}},
	{"namespace in capitals", "networks.yaml", "  namespace: beta", "  namespace: Beta", []string{"networks.yaml:30 InvalidName"}},

	// references
	{"unknown fabric", "networks.yaml", "fabric: edge\n  vxlan: 5002", "fabric: egde\n  vxlan: 5002", []string{"networks.yaml:34 UnknownReference"}},
	{"unknown device", "networks.yaml", "hostDevice: br-lan", "hostDevice: br-wan", []string{"networks.yaml:45 UnknownReference"}},
	{"unknown tenant", "networks.yaml", "allowedTenants: [acme]", "allowedTenants: [acme, gamma]", []string{"networks.yaml:48 UnknownReference"}},
	{"unknown partner", "networks.yaml", "vxlan: 5002", "vxlan: 5002\n  sharedWith: [gamma/voice]", []string{"networks.yaml:36 UnknownReference"}},
	{"shared with itself", "networks.yaml", "vxlan: 5002", "vxlan: 5002\n  sharedWith: [beta/voice]", []string{"networks.yaml:36 SharedMismatch"}},
	{"network twice", "x.yaml", "", net("acme/voice", "{fabric: edge, vxlan: 5003}"), []string{"x.yaml:3 DuplicateName"}},
	{"tenant grants an unknown network", "tenants.yaml", "networks: [shared]", "networks: [shred]", []string{"tenants.yaml:19 UnknownReference"}},
	{"tenant grants a tenant's network", "tenants.yaml", "networks: [shared]", "networks: [acme/voice]", []string{"tenants.yaml:19 UnknownReference"}},
	{"tenant on an unknown fabric", "tenants.yaml", "{name: uni}", "{name: unu}", []string{"tenants.yaml:9 UnknownReference"}},
	{"tenant lists a fabric twice", "tenants.yaml", "{name: uni}", "{name: edge}", []string{"tenants.yaml:9 DuplicateName"}},
	{"tenant's range outside", "tenants.yaml", `"5000-5099"`, `"4999-5099"`, []string{"tenants.yaml:8 IDOutsideRange"}},
	{"tenant's default unknown", "tenants.yaml", "defaultNetwork: acme/voice", "defaultNetwork: acme/vioce", []string{"tenants.yaml:10 UnknownReference"}},
	{"tenant's default is another's", "tenants.yaml", "defaultNetwork: acme/voice", "defaultNetwork: beta/voice", []string{"tenants.yaml:10 DefaultNotAllowed"}},
	{"tenant's default not granted", "tenants.yaml", "  networks: [shared]\n", "  defaultNetwork: shared\n", []string{"tenants.yaml:19 DefaultNotAllowed"}},
	{"tenant without namespaces", "tenants.yaml", "namespaces: [beta]", "namespaces: []", []string{"tenants.yaml:18 TenantEmpty"}},
	{"namespace of two tenants", "tenants.yaml", "namespaces: [beta]", "namespaces: [beta, acme]", []string{"tenants.yaml:18 NamespaceTaken"}},
	{"namespace twice", "tenants.yaml", "namespaces: [beta]", "namespaces: [beta, beta]", []string{"tenants.yaml:18 DuplicateName"}},
	{"tenant's network type", "tenants.yaml", "{macvlan: voice}", "{mcavlan: voice}", []string{"tenants.yaml:11 InvalidType"}},
	{"pool without VFs", "tenants.yaml", "numVFs: 8", "numVFs: 0", []string{"tenants.yaml:28 InvalidNumber"}},
	{"pool without a resource", "tenants.yaml", "danm.io/fast", "fast", []string{"tenants.yaml:29 InvalidName"}},
	{"pool without PFs", "tenants.yaml", "names: [ens1f0]", "names: []", []string{"tenants.yaml:27 MissingField"}},

	// identifiers and addresses between networks
	{"fabric does not offer the VLAN", "x.yaml", "", net("beta/x", "{fabric: edge, vlan: 200}"), []string{"x.yaml:4 IDOutsideRange"}},
	{"tenant was not granted the VNI", "networks.yaml", "vxlan: 5001", "vxlan: 5100", []string{"networks.yaml:10 IDOutsideRange"}},
	{"tenant was granted VNIs only", "networks.yaml", "vxlan: 5001", "vlan: 100", []string{"networks.yaml:10 IDOutsideRange"}},
	{"tenant may not use the fabric", "x.yaml", "", net("acme/x", "{fabric: second, vxlan: 1}"), []string{"x.yaml:4 FabricNotGranted"}},
	{"no underlay", "topology.yaml", "    vxlan: {port: 4789, multicast: 239.1.1.1}\n", "", []string{"networks.yaml:10 NoUnderlay", "networks.yaml:35 NoUnderlay"}},
	{"VXLAN on a host device", "networks.yaml", "hostDevice: br-lan", "hostDevice: br-lan\n  vxlan: 7", []string{"networks.yaml:46 NoUnderlay"}},
	{"VNI left open", "networks.yaml", "vxlan: 5002", "vxlan: auto", []string{"networks.yaml:35 IDUnassigned"}},
	{"two networks on one VNI", "networks.yaml", "vxlan: 5002", "vxlan: 5001", []string{"networks.yaml:35 IDNotShared"}},
	{"shared by one side", "networks.yaml", "vxlan: 5002", "vxlan: 5001\n  sharedWith: [acme/voice]", []string{"networks.yaml:35 IDNotShared"}},
	{"VNI twice on one port", "x.yaml", "", net("beta/x", "{fabric: second, vxlan: 5001}"), []string{"x.yaml:4 VNITwiceOnPort"}},
	{"VLAN twice on one device", "x.yaml", "", net("beta/x", "{fabric: edge, vlan: 100}") + "---\n" + net("beta/y", "{fabric: uni, vlan: 100}"), []string{"x.yaml:9 VLANTwiceOnDevice"}},
	{"same addresses on one device", "x.yaml", "", net("other", "{type: bridge, hostDevice: br-lan, ipv4: {cidr: 10.1.0.128/25}}"), []string{"x.yaml:4 CIDROverlap"}},
	{"same addresses under two names", "x.yaml", "", net("beta/x", "{fabric: edge, ipv6: {cidr: 'fd01::/64'}}") + "---\n" + net("beta/y", "{fabric: uni, ipv6: {cidr: 'fd01::/64'}}"), []string{"x.yaml:9 CIDROverlap"}},

	// links
	{"link name taken", "networks.yaml", "networkID: bvoice", "networkID: voice", []string{"networks.yaml:32 LinkNameClash"}},
	{"link name of an interface", "topology.yaml", "ports: [eth1]", "ports: [vx_voice]", []string{"networks.yaml:7 LinkNameClash"}},
	{"macvlan and ipvlan on one device", "x.yaml", "", net("beta/x", "{fabric: uni, type: macvlan}") + "---\n" + net("beta/y", "{fabric: edge}"), []string{"x.yaml:9 DeviceConflict"}},
	{"Pods on a bridge port", "x.yaml", "", net("beta/x", "{hostDevice: eth1, type: macvlan}"), []string{"x.yaml:4 DeviceConflict"}},
	{"bridge network on a plain device", "x.yaml", "", net("beta/x", "{fabric: edge, type: bridge}"), []string{"x.yaml:4 BridgeNeedsBridge"}},
}

// allRows are the rows of every file.
func allRows() []row { return slices.Concat(badRows, networkRows, deviceRows, hostRows) }

// bomb is n+1 lists, each ten times the one before.
func bomb(n int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range n {
		before, now := string(rune('0'+i)), string(rune('1'+i))
		b.WriteString("a" + now + ": &a" + now + " [" + strings.Repeat("*a"+before+", ", 9) + "*a" + before + "]\n")
	}
	return b.String()
}

// codesOf notes which codes a list has.
func codesOf(l diag.List, into map[diag.Code]bool) {
	for _, d := range l {
		into[d.Code] = true
	}
}

func TestBadInput(t *testing.T) {
	for _, r := range allRows() {
		t.Run(r.name, func(t *testing.T) {
			m := good(t)
			edit(t, m, r.file, r.old, r.new)
			bundle, problems := Files(files(m))
			want := slices.Sorted(slices.Values(r.want))
			if d := cmp.Diff(want, brief(problems)); d != "" {
				t.Errorf("problems differ (-want +got):\n%s", d)
				for _, p := range problems {
					lines := append([]string{""}, strings.Split(m[p.File], "\n")...)
					t.Logf("%s\n%s", p, lines[p.Line])
				}
			}
			if problems.HasErrors() != (bundle.Name == "") {
				t.Error("a bundle is handed out with errors, or kept back without")
			}
			for _, p := range problems {
				if _, known := diag.Explain(p.Code); !known {
					t.Errorf("%s is not explained", p.Code)
				}
			}
		})
	}
}

// Nodes without slots are fine until a network hands out addresses: then no node would have any.
func TestSlotsForgotten(t *testing.T) {
	m := good(t)
	for name, text := range m {
		m[name] = regexp.MustCompile(`(?m)^ +slots?: [0-9]+.*\n`).ReplaceAllString(text, "")
	}
	_, problems := Files(files(m))
	if got := brief(problems); len(got) != 1 || !strings.HasSuffix(got[0], "InvalidSlot") || !strings.Contains(problems[0].Summary, "hands out addresses") {
		t.Errorf("%v", problems)
	}
	m = one(net("n", "{fabric: v, vlan: 5}"))
	m["t.yaml"] = strings.NewReplacer("  slots: 1\n", "", ", slot: 0", "").Replace(m["t.yaml"])
	if _, problems := Files(files(m)); len(problems) > 0 {
		t.Errorf("a network without addresses: %v", problems)
	}
}
