package validate

import (
	"net/netip"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr       { return netip.MustParseAddr(s) }
func between(a, b string) model.AddrRange {
	return model.AddrRange{First: ip(a), Last: ip(b)}
}

// TestModel writes the good bundle down once more, by hand: nothing is lost on the way, everything is parsed and sorted.
func TestModel(t *testing.T) {
	got, problems := Files(files(good(t)))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := model.Bundle{
		Name: "edge", Version: "1.2.0", ConfirmTimeout: 20 * time.Second, Slots: 4, Monotonic: true,
		Rollout: model.Rollout{CanarySelector: map[string]string{"site": "lab"}, CanaryCount: 2, MaxUnavailable: model.IntOrPercent{Percent: 25},
			Soak: 5 * time.Minute, RevertOnFailure: true, AllowsDisruptive: true},
		Prune: model.Prune{MaxNetworks: new(5), MaxTenants: new(0)},
		Probes: []model.Probe{
			{Name: "git", Kind: model.ProbeSource, Timeout: 2 * time.Second},
			{Name: "gw", Kind: model.ProbeGateway, Timeout: 2 * time.Second},
			{Name: "hub", Kind: model.ProbeTCP, Target: "10.9.0.254:443", Timeout: 3 * time.Second},
			{Name: "ping", Kind: model.ProbeICMP, Target: "fd00::1", Timeout: 2 * time.Second},
		},
		Nodes: []model.Node{
			{Name: "edge-1", Slot: 0, Labels: map[string]string{"site": "edge"}, Interfaces: map[string][]netip.Prefix{"fab0": {prefix("192.0.2.1/24")}}},
			{Name: "edge-2", Slot: 1, Labels: map[string]string{"site": "edge", "role": "spare"}, Interfaces: map[string][]netip.Prefix{"fab0": {prefix("192.0.2.2/24")}}},
			{Name: "lab-1", Slot: 2, Labels: map[string]string{"site": "lab"}},
		},
		Groups: []model.NodeGroup{
			{Name: "core", Selector: map[string]string{"site": "lab"}, Interfaces: []model.Link{
				{Name: "bond0", Kind: model.Bond, MTU: 9000, Up: true, Adopt: model.AdoptNever, Addresses: []netip.Prefix{prefix("10.2.0.1/24")},
					Bond: &model.BondOptions{Mode: "802.3ad", MIIMonitor: 100, UpDelay: 200, DownDelay: 300, XmitHashPolicy: "layer3+4", LACPRate: "fast", MinLinks: 1}},
				{Name: "bond1", Kind: model.Bond, Up: true, Master: "br-core", Adopt: model.AdoptNever, Bond: &model.BondOptions{Mode: "active-backup", Primary: "ens4"},
					PortVLANs: &model.PortVLANs{Untagged: 10}},
				{Name: "br-core", Kind: model.Bridge, MTU: 9000, Up: true, Filtering: true, Adopt: model.AdoptNever,
					PortVLANs: &model.PortVLANs{Untagged: 10, Tagged: []model.Range32{{First: 30, Last: 32}}}},
				{Name: "ens1", Kind: model.Physical, Up: true, Master: "bond0", Adopt: model.AdoptNever},
				{Name: "ens2", Kind: model.Physical, Master: "bond0", Adopt: model.AdoptNever},
				{Name: "ens3", Kind: model.Physical, MTU: 9000, Master: "br-core", Adopt: model.AdoptNever,
					PortVLANs: &model.PortVLANs{Tagged: []model.Range32{{First: 10, Last: 10}, {First: 20, Last: 39}}}},
				{Name: "ens4", Kind: model.Physical, Master: "bond1", Adopt: model.AdoptNever},
				{Name: "ens5", Kind: model.Physical, Master: "bond1", Adopt: model.AdoptNever},
				{Name: "ens6", Kind: model.Physical, Master: "mgmt", Adopt: model.AdoptNever},
				{Name: "lo1", Kind: model.Dummy, Up: true, Adopt: model.AdoptNever, Addresses: []netip.Prefix{prefix("10.4.0.1/32"), prefix("fd00:4::1/128")}},
				{Name: "mgmt", Kind: model.VRF, Up: true, Table: 1001, Adopt: model.AdoptNever, Addresses: []netip.Prefix{prefix("10.5.0.1/32")}},
				{Name: "oam", Kind: model.VLAN, Up: true, Parent: "bond0", VLANID: 20, MTU: 1500, Master: "mgmt", Adopt: model.AdoptNever, Addresses: []netip.Prefix{prefix("10.3.0.1/24")}},
				{Name: "sig", Kind: model.VLAN, Up: true, Parent: "br-core", VLANID: 30, Adopt: model.AdoptNever},
			}, Rules: []model.Rule{
				{Priority: 1000, Family: 4, From: prefix("10.3.0.0/24"), Table: 1001},
				{Priority: 1001, Family: 4, IIF: "oam", Mark: 4, Mask: 12, Table: 1001},
				{Priority: 1001, Family: 6, IIF: "oam", Mark: 4, Mask: 12, Table: 1001},
				{Priority: 1002, Family: 6, To: prefix("fd00:4::/64"), OIF: "lo", Table: 300},
			}, Sysctls: []model.Sysctl{
				{Key: "net.ipv4.conf.all.forwarding", Value: "1"}, {Key: "net.ipv4.tcp_rmem", Value: "4096 131072 6291456"}, {Key: "net.ipv6.conf.oam.accept_ra", Value: "0"},
			}},
			{Name: "edge", Selector: map[string]string{"site": "edge"}, Interfaces: []model.Link{
				{Name: "br-lan", Kind: model.Bridge, MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("10.1.1.1/24")}},
				{Name: "eth1", Kind: model.Physical, Master: "br-lan"},
				{Name: "fab0", Kind: model.Physical, MTU: 1500, Up: true},
				{Name: "fab1", Kind: model.Physical, Match: &model.Match{MAC: "52:54:00:aa:bb:cc"}},
			}, Routes: []model.Route{{To: prefix("10.50.0.0/16"), Via: ip("192.0.2.254"), Dev: "fab0"}}},
			{Name: "hardware", Selector: map[string]string{"site": "edge"}, Interfaces: []model.Link{
				{Name: "ens1f1", Kind: model.Physical, MTU: 9000}, {Name: "ens2f0", Kind: model.Physical}}},
			{Name: "lab", Selector: map[string]string{"site": "lab"}, Interfaces: []model.Link{{Name: "fab0", Kind: model.Physical}}},
			{Name: "spare", Selector: map[string]string{"role": "spare"}, Interfaces: []model.Link{{Name: "fab0", Kind: model.Physical, MTU: 1500}}},
		},
		Fabrics: []model.Fabric{
			{Name: "edge", Groups: []string{"edge"}, Device: "fab0", VLANRanges: []model.Range32{{First: 100, Last: 199}, {First: 310, Last: 310}},
				VNIRanges: []model.Range32{{First: 5000, Last: 5999}}, VXLAN: &model.Underlay{Port: 4789, Multicast: ip("239.1.1.1")}},
			{Name: "lab", Groups: []string{"lab"}, Device: "fab0", VXLAN: &model.Underlay{Port: 4789, Multicast: ip("239.1.1.2")}},
			{Name: "second", Groups: []string{"edge"}, Device: "fab1", VXLAN: &model.Underlay{Port: 4789, Multicast: ip("ff05::1")}},
			{Name: "uni", Groups: []string{"edge"}, Device: "fab0", VXLAN: &model.Underlay{Port: 4790}},
		},
		Networks: []model.Network{
			{Kind: model.ClusterNetwork, Name: "chain", NetworkID: "chain", Type: "ptp", SpaceDomain: "network:chain", Delegate: &model.Delegate{
				ConfList: `{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}, {"type": "portmap", "capabilities": {"portMappings": true}}]}` + "\n"}},
			{Kind: model.ClusterNetwork, Name: "flannel", NetworkID: "flannel", Type: "flannel", SpaceDomain: "file:flannel", Delegate: &model.Delegate{File: "flannel"}},
			{Kind: model.ClusterNetwork, Name: "media", NetworkID: "media", Type: model.SRIOV, DevicePool: "danm.io/kernel", SpaceDomain: "danm.io/kernel",
				VLAN: 77, MTU: 9000, Sticky: true, NAD: true, IPv4: &model.Subnet{CIDR: prefix("10.60.0.0/24"), Gateway: ip("10.60.0.1")}, IPv6: &model.Subnet{CIDR: prefix("fd00:60::/64")},
				Reserved: []model.Reservation{{Name: "vip", IP: ip("10.60.0.9"), IP6: ip("fd00:60::9")}, {Name: "vip", Namespace: "acme", IP: ip("10.60.0.8")}}},
			{Kind: model.ClusterNetwork, Name: "private", NetworkID: "private", Type: model.MACVLAN, Fabric: "edge", VLAN: 107, SpaceDomain: "edge", Delegate: &model.Delegate{
				Conf: `{"cniVersion": "1.0.0", "name": "private", "type": "macvlan", "mode": "private", "ipam": {"type": "dhcp"}}`}},
			{Kind: model.ClusterNetwork, Name: "shared", NetworkID: "shared", Type: model.BRIDGE, HostDevice: "br-lan", SpaceDomain: "br-lan",
				IPv4: &model.Subnet{CIDR: prefix("10.1.0.0/24")}, AllowedTenants: []string{"acme"}, AllowedNamespaces: []string{"acme", "acme-dev", "beta"}},
			{Kind: model.ClusterNetwork, Name: "tap", NetworkID: "tap", Type: "macvtap", Fabric: "edge", SpaceDomain: "edge", VLAN: 310,
				Delegate: &model.Delegate{Conf: "{\"cniVersion\": \"0.3.1\", \"name\": \"tap\", \"type\": \"macvtap\",\n \"ipam\": {}}\n"}},
			{Kind: model.ClusterNetwork, Name: "urgent", NetworkID: "urgent", Type: model.SRIOV, DevicePool: "danm.io/kernel", SpaceDomain: "danm.io/kernel", VLAN: 78, QoS: 7},
			{Kind: model.TenantNetwork, Namespace: "acme", Name: "voice", NetworkID: "voice", Type: model.MACVLAN, Fabric: "edge", SpaceDomain: "edge",
				VNI: 5001, VXLAN: true, MTU: 1400, InterfacePrefix: "voice", Table: 300, BlockSize: 16,
				IPv4: &model.Subnet{CIDR: prefix("10.40.0.0/22"),
					Pools:   []model.AddrRange{between("10.40.0.10", "10.40.0.200"), between("10.40.1.0", "10.40.1.200")},
					Exclude: []model.AddrRange{between("10.40.0.50", "10.40.0.50"), between("10.40.0.60", "10.40.0.70")},
					Gateway: ip("10.40.0.1"),
					Routes:  []model.PodRoute{{To: prefix("10.0.0.0/8"), Via: ip("10.40.0.1")}, {To: prefix("172.16.0.0/12"), Via: ip("10.40.0.2")}}},
				IPv6: &model.Subnet{CIDR: prefix("fd00:40::/64")}},
			{Kind: model.TenantNetwork, Namespace: "beta", Name: "timing", NetworkID: "timing", Type: model.HOSTDEVICE, HostDevice: "ens2f0", SpaceDomain: "ens2f0"},
			{Kind: model.TenantNetwork, Namespace: "beta", Name: "voice", NetworkID: "bvoice", Type: model.MACVLAN, Fabric: "edge", SpaceDomain: "edge",
				VNI: 5002, VXLAN: true, IPv4: &model.Subnet{CIDR: prefix("10.40.0.0/22")}},
		},
		Tenants: []model.Tenant{
			{Name: "acme", Namespaces: []string{"acme", "acme-dev"}, DefaultNetwork: "acme/voice", NetworkIDs: map[string]string{"macvlan": "voice"},
				Fabrics: []model.TenantFabric{{Fabric: "edge", VNIRanges: []model.Range32{{First: 5000, Last: 5099}}}, {Fabric: "uni"}}},
			{Name: "beta", Namespaces: []string{"beta"}, Networks: []string{"shared"}},
			{Name: "quota", Namespaces: []string{"quota"}, NetworkIDs: map[string]string{"macvtap": "taps", "sriov": "a-name-that-names-no-link"},
				Quotas: model.Quotas{Networks: new(0), Endpoints: new(100), Addresses: new(200)}},
		},
		SRIOVPools: []model.SRIOVPool{
			{Name: "dpdk", NodeSelector: map[string]string{"site": "edge"}, NumVFs: 16, VFs: []model.Range32{{First: 8, Last: 9}, {First: 12, Last: 15}},
				PFs:    model.PFSelector{Names: []string{"ens1f1"}, PCI: []string{"0000:3b:00.0"}, Vendors: []string{"8086"}, Devices: []string{"1572", "158b"}, Drivers: []string{"i40e"}},
				Driver: "vfio-pci", Trust: new(true), SpoofCheck: new(false), LinkState: "auto", MinTxRate: 100, MaxTxRate: 1000, ResourceName: "danm.io/dpdk"},
			{Name: "fast", NodeSelector: map[string]string{"site": "edge"}, PFs: model.PFSelector{Names: []string{"ens1f0"}}, NumVFs: 8, ResourceName: "danm.io/fast"},
			{Name: "kernel", PFs: model.PFSelector{Names: []string{"ens1f1"}}, NumVFs: 16, VFs: []model.Range32{{First: 0, Last: 7}}, MTU: 9000, ResourceName: "danm.io/kernel"},
		},
		Origins: map[string]model.Origin{
			"Topology/core": {File: "host.yaml", Line: 1},
			"Bundle/edge":   {File: "bundle.yaml", Line: 1}, "Topology/edge": {File: "topology.yaml", Line: 1},
			"Network/acme/voice": {File: "networks.yaml", Line: 1}, "Network/beta/voice": {File: "networks.yaml", Line: 26}, "Network/shared": {File: "networks.yaml", Line: 39},
			"Tenant/acme": {File: "tenants.yaml", Line: 1}, "Tenant/beta": {File: "tenants.yaml", Line: 13}, "SRIOVPool/fast": {File: "tenants.yaml", Line: 21},
			"Topology/hardware": {File: "hardware.yaml", Line: 1}, "SRIOVPool/dpdk": {File: "hardware.yaml", Line: 12}, "SRIOVPool/kernel": {File: "hardware.yaml", Line: 34},
			"Network/media": {File: "hardware.yaml", Line: 46}, "Network/beta/timing": {File: "hardware.yaml", Line: 66}, "Network/flannel": {File: "hardware.yaml", Line: 73}, "Network/private": {File: "plugins.yaml", Line: 1},
			"Network/urgent": {File: "hardware.yaml", Line: 113},
			"Network/tap":    {File: "hardware.yaml", Line: 81}, "Network/chain": {File: "hardware.yaml", Line: 93}, "Tenant/quota": {File: "hardware.yaml", Line: 102},
		},
	}
	compare := cmp.Options{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
	if d := cmp.Diff(want, got, compare); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDefaults(t *testing.T) {
	b, problems := Files(files(map[string]string{"b.yaml": anyBundle, "t.yaml": topology + "  groups: [{name: g, interfaces: [{name: e0, match: {name: e0}}]}]\n  fabrics: [{name: f, groups: [g], device: e0, vxlan: {}}]\n",
		"n.yaml": net("n", "{fabric: f, vxlan: auto}"), "p.yaml": "apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: t}\nspec: {namespaces: [x]}\n"}))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	n := b.Networks[0]
	switch {
	case b.ConfirmTimeout != 15*time.Second:
		t.Errorf("confirmTimeout %s", b.ConfirmTimeout)
	case b.Rollout.CanaryCount != 1 || b.Rollout.MaxUnavailable != model.IntOrPercent{Percent: 10} || b.Rollout.Soak != 30*time.Second || b.Rollout.RevertOnFailure || b.Rollout.AllowsDisruptive:
		t.Errorf("rollout %+v", b.Rollout)
	case b.Prune.MaxNetworks != nil || b.Prune.MaxTenants != nil || b.Monotonic:
		t.Errorf("prune %+v, monotonic %t", b.Prune, b.Monotonic)
	case b.Fabrics[0].VXLAN.Port != 4789:
		t.Errorf("port %d", b.Fabrics[0].VXLAN.Port)
	case n.Type != model.IPVLAN || n.NetworkID != "n" || !n.VXLAN || n.VNI != 0:
		t.Errorf("network %+v", n)
	case n.AllowedNamespaces != nil:
		t.Errorf("a network nobody restricts is for %v", n.AllowedNamespaces)
	case b.Groups[0].Interfaces[0].Match != nil:
		t.Error("a match by its own name stays")
	}
}
