package validate

import (
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
)

// rule is one line of a list of rules that this rule book has to hold, with the code that tells of a breach and the cases
// that show it. A rule that a bundle cannot break, or that needs more than a bundle, says why instead.
type rule struct {
	list, says string
	code       diag.Code
	cases      []string // names of rows or of whole bundles
	why        string
}

const (
	danm     = "DANM's webhook, networks"
	configs  = "DANM's webhook, TenantConfigs"
	hosts    = "host links"
	pods     = "in the Pod"
	unspoken = "the field does not exist, so it is unknown"
)

var rules = []rule{
	{danm, "1a routes need a CIDR", diag.MissingField, []string{"a subnet's CIDR is missing"}, ""},
	{danm, "1b the CIDR parses", diag.InvalidCIDR, []string{"no CIDR"}, ""},
	{danm, "1c gateways lie inside", diag.ViaOutside, []string{"via outside"}, ""},
	{danm, "1c gateways lie inside", diag.GatewayOutside, []string{"gateway outside"}, ""},
	{danm, "2a routes need a CIDR, IPv6", diag.MissingField, []string{"missing field"}, ""},
	{danm, "2b the CIDR parses, IPv6", diag.InvalidCIDR, []string{"IPv6 CIDR unreadable"}, ""},
	{danm, "2c gateways lie inside, IPv6", diag.ViaOutside, []string{"IPv6 via outside"}, ""},
	{danm, "2c gateways lie inside, IPv6", diag.GatewayOutside, []string{"IPv6 gateway outside"}, ""},
	{danm, "3a no bitmaps", diag.UnknownField, []string{"network's bitmap"}, unspoken},
	{danm, "3b pools need a CIDR", diag.MissingField, []string{"pools without a CIDR"}, ""},
	{danm, "3c the CIDR is an IPv4 one", diag.InvalidCIDR, []string{"CIDR of the other family"}, ""},
	{danm, "3d the CIDR is /9 at most", "", nil, "a limit of DANM's bitmaps"},
	{danm, "3e pools lie inside", diag.PoolOutside, []string{"pool outside"}, ""},
	{danm, "3f pools begin before they end", diag.InvalidRange, []string{"pool backwards"}, "a pool of one address is meant here"},
	{danm, "3g pools need a CIDR, IPv6", diag.MissingField, []string{"missing field"}, ""},
	{danm, "3h the CIDR is an IPv6 one", diag.InvalidCIDR, []string{"IPv4 CIDR as IPv6"}, ""},
	{danm, "3i pools parse, IPv6", diag.InvalidRange, []string{"pool of two families", "pool that is a CIDR"}, ""},
	{danm, "3j the IPv6 pool fits the bitmap", "", nil, "a limit of DANM's bitmaps"},
	{danm, "3k pools lie inside, IPv6", diag.PoolOutside, []string{"IPv6 pool outside"}, ""},
	{danm, "3l pools begin before they end, IPv6", diag.InvalidRange, []string{"IPv6 pool backwards"}, ""},
	{danm, "4 VLAN or VXLAN", diag.VLANAndVXLAN, []string{"VLAN and VXLAN"}, ""},
	{danm, "5a there is a NetworkID", "", nil, "it is the network's name where none is written"},
	{danm, "5b the NetworkID fits links", diag.LinkNameTooLong, []string{"16-byte link name", "16-byte link name by default", "16-byte VLAN name", "16-byte name of a VLAN left open"}, ""},
	{danm, "6 a namespace's network allows no tenants", diag.FieldNotAllowed, []string{"tenants on a tenant's network"}, ""},
	{danm, "T1 a TenantNetwork is made without ids", "", nil, "the bundle is the administrator's: its TenantNetworks get ids, inside what the tenant was granted"},
	{danm, "T2 a TenantNetwork keeps its physical side", "", nil, "about a change: admission sees both objects"},
	{danm, "7a sriov has a pool", diag.DevicePoolMissing, []string{"sriov without a pool"}, ""},
	{danm, "7a sriov has no host device", diag.PoolAndDevice, []string{"sriov on a device"}, ""},
	{danm, "7a whatever the case", diag.InvalidType, []string{"type in capitals", "plugin named like a type but for case"}, ""},
	{danm, "7b a pool or a host device", diag.PoolAndDevice, []string{"delegate with a device and a pool"}, ""},
	{danm, "7b a pool or a host device", diag.FieldNotAllowed, []string{"macvlan with a pool", "host-device with a pool"}, ""},
	{danm, "8 ids stay while Pods are connected", "", nil, "about a change and live Pods"},
	{danm, "D no deletion while Pods are connected", "", nil, "about live Pods"},

	{configs, "1 it says something", diag.TenantEmpty, []string{"tenant without namespaces"}, ""},
	{configs, "2 devices have a name", diag.UnknownReference, []string{"tenant's fabric without a name"}, ""},
	{configs, "3 a type and a range go together", diag.UnknownField, []string{"tenant's ids of a sort there is not"}, "vlanRanges and vniRanges are type and range in one"},
	{configs, "4 the type is vlan or vxlan", diag.UnknownField, []string{"tenant's ids of a sort there is not"}, ""},
	{configs, "5 no bitmaps", diag.UnknownField, []string{"tenant's bitmap"}, unspoken},
	{configs, "6 the range parses", diag.InvalidRange, []string{"tenant's range unreadable"}, ""},
	{configs, "7 no id above 5000", "", nil, "a limit of DANM's bitmaps; the protocol's own are kept: VLAN 4094, VNI 2^24-1"},
	{configs, "8 networkIds have a key", diag.InvalidType, []string{"tenant's networkID of no type", "tenant's network type", "tenant's networkID type in capitals"}, ""},
	{configs, "8 networkIds have a value", diag.InvalidName, []string{"tenant's networkID empty"}, ""},
	{configs, "9 the NetworkID fits links", diag.LinkNameTooLong, []string{"tenant's networkID of eleven bytes"}, ""},

	{hosts, "names have 15 bytes", diag.LinkNameTooLong, []string{"16-byte link name", "16-byte VLAN name", "16-byte interface", "13 bytes make a long bridge"}, ""},
	{hosts, "names are free of collisions", diag.LinkNameClash, []string{"link name taken", "link name of an interface", "bridge's name is taken", "VXLANs left open with one networkID"}, ""},
	{hosts, "a VNI is unique on a node and port", diag.VNITwiceOnPort, []string{"VNI twice on one port", "another group on the same node"}, ""},
	{hosts, "a VLAN is unique on a device", diag.VLANTwiceOnDevice, []string{"VLAN twice on one device"}, ""},
	{hosts, "one kind of user: ipvlan or macvlan", diag.DeviceConflict, []string{"macvlan and ipvlan on one device", "shared, left open, two types"}, "ipvlan has one mode here, l2"},
	{hosts, "one kind of user: bridge port", diag.DeviceConflict, []string{"Pods on a bridge port", "shared, macvlan and bridge", "port twice", "bridge in a bridge"}, ""},
	{hosts, "one kind of user: host-device", diag.DeviceConflict, []string{"host-device of a fabric", "host-device that is a bridge's port", "host-device below another network's VLAN", "host-device that is a pool's function"}, ""},
	{hosts, "one kind of user: host-device", diag.HostDeviceTwice, []string{"two networks of one host device"}, ""},
	{hosts, "a device that goes is not missed", diag.HostDeviceUnfit, []string{"host-device that is a bridge", "host-device with addresses of the host", "host-device with routes of the host"}, ""},
	{hosts, "addresses of one routing domain do not overlap", diag.CIDROverlap, []string{"same addresses on one device", "same addresses under two names", "one network inside another two places up", "two sriov networks with one range of addresses"}, ""},
	{hosts, "addresses of one routing domain do not overlap: a node's", diag.NodeAddressInPool, []string{"a bridge's own address would be a Pod's", "a node's own address would be a Pod's"}, ""},
	{hosts, "one VLAN or VNI is shared by both", diag.IDNotShared, []string{"two networks on one VNI", "shared by one side", "two sriov networks on one VLAN", "VLAN of a host device twice"}, ""},
	{hosts, "one VLAN or VNI is shared by both", diag.SharedMismatch, []string{"shared by one side on another wire", "left open and shared by one side", "shared, two block sizes", "shared, overlapping but not equal"}, ""},
	{hosts, "references lead somewhere", diag.UnknownReference, []string{"unknown fabric", "unknown device", "unknown tenant", "unknown partner", "fabric on an unknown group", "fabric on an undeclared device", "tenant grants an unknown network", "tenant's default unknown", "host-device that nobody declares"}, ""},
	{hosts, "references lead somewhere: pools", diag.PoolUnknown, []string{"sriov with a pool nobody offers"}, "a warning: another device plugin may offer the resource"},
	{hosts, "pools lie inside", diag.PoolOutside, []string{"pool outside"}, ""},
	{hosts, "gateways lie inside", diag.GatewayOutside, []string{"gateway outside"}, ""},
	{hosts, "the MTU fits the parent's, encapsulation counted", diag.MTUAboveParent, []string{"MTU above the parent's", "VXLAN over IPv6 multicast", "VXLAN over IPv6 unicast", "VLAN takes the whole MTU", "sriov with an MTU above the functions'", "MTU of functions above the PF's"}, ""},
	{hosts, "the MTU left fits IPv6", diag.InvalidMTU, []string{"IPv6 that does not fit"}, ""},
	{hosts, "an open number is for one node", diag.IDUnassigned, []string{"VNI left open", "VLAN left open"}, ""},
	{hosts, "an open number comes from a range", diag.IDOutsideRange, []string{"a VLAN left open where there are VNIs only", "a tenant without VLANs leaves one open"}, ""},
	{hosts, "numbers come from what was granted", diag.IDOutsideRange, []string{"fabric does not offer the VLAN", "tenant was not granted the VNI"}, ""},
	{hosts, "a virtual function has one owner", diag.VFOverlap, []string{"functions in two pools", "functions twice in a pool"}, ""},
	{hosts, "a physical function has one number of functions", diag.NumVFsDiffer, []string{"numVFs of two pools"}, ""},

	{pods, "interface names have 15 bytes", diag.LinkNameTooLong, []string{"prefix too long"}, ""},
	{pods, "a destination has one route", diag.DuplicateRoute, []string{"Pod route twice", "route to everywhere beside a gateway"}, ""},
	{pods, "policy routes have a table of their own", diag.TableReserved, []string{"table of the kernel"}, ""},
	{pods, "the table is one", diag.InvalidNumber, []string{"table", "table negative"}, ""},
	{pods, "no path leads out of the CNI directory", diag.DelegateFile, []string{"file with a path", "file with a slash"}, ""},
	{pods, "no path leads out of the CNI directory", diag.InvalidName, []string{"networkID that leads out of a directory", "conf with a path for a name", "list with a path for a name"}, ""},
	{pods, "no path leads out of the plugins' directory", diag.InvalidType, []string{"plugin with a path", "list with a path for a plugin"}, ""},
	{pods, "a delegate does not call DANM", diag.InvalidType, []string{"plugin that is DANM", "list that calls DANM"}, ""},
}

// TestRules: each rule is shown by cases that exist and that tell of it with its code.
func TestRules(t *testing.T) {
	wants := map[string][]string{}
	for _, r := range allRows() {
		if wants[r.name] != nil {
			t.Errorf("two rows are called %q", r.name)
		}
		wants[r.name] = r.want
	}
	for _, w := range allWholes() {
		if wants[w.name] != nil {
			t.Errorf("two cases are called %q", w.name)
		}
		wants[w.name] = w.want
	}
	for _, r := range rules {
		if (r.code == "" || len(r.cases) == 0) && r.why == "" {
			t.Errorf("%s: %s: neither a code with cases nor a reason", r.list, r.says)
		}
		for _, name := range r.cases {
			if !strings.Contains(strings.Join(wants[name], " ")+" ", " "+string(r.code)+" ") {
				t.Errorf("%s: %s: %q does not tell of %s, but of %v", r.list, r.says, name, r.code, wants[name])
			}
		}
	}
}

// TestEnoughBrokenBundles: the rule book is shown by at least 200 broken bundles, each with every problem it has.
func TestEnoughBrokenBundles(t *testing.T) {
	n := 0
	for _, r := range allRows() {
		if len(r.want) > 0 {
			n++
		}
	}
	for _, w := range allWholes() {
		if len(w.want) > 0 {
			n++
		}
	}
	t.Logf("%d broken bundles", n)
	if n < 200 {
		t.Errorf("only %d broken bundles", n)
	}
}
