package convert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/bundle/v1"
)

// operatorNamespaces are those in which the operator is deployed: a SriovNetwork there is for everybody.
var operatorNamespaces = []string{"openshift-sriov-network-operator", "sriov-network-operator"}

// policy converts a SriovNetworkNodePolicy: to one pool, or to as many as its cards have different ranges of functions.
func (c *converter) policy(p *NodePolicy) {
	s := p.Spec
	note := func(format string, args ...any) { c.note(kindNodePolicy, "", p.Metadata.Name, format, args...) }
	if p.unknown != nil {
		note("%v: left out", p.unknown)
	}
	switch {
	case s.NumVFs == 0:
		note("left out: it makes no virtual functions")
		return
	case strings.EqualFold(s.LinkType, "ib"):
		note("left out: its cards are InfiniBand's")
		return
	}
	spec := v1.SRIOVPoolSpec{NodeSelector: s.NodeSelector, NumVFs: s.NumVFs, ResourceName: c.prefix + s.ResourceName, MTU: s.MTU}
	if s.DeviceType == "vfio-pci" {
		spec.Driver, spec.MTU = s.DeviceType, 0
	}
	c.policyNotes(s, note)
	parts := partitions(s.NICSelector.PFNames)
	for i, part := range parts {
		spec.PFs, spec.VFs = v1.PFSelector{Names: part.names, PCIAddresses: s.NICSelector.RootDevices}, part.vfs
		if s.NICSelector.Vendor != "" {
			spec.PFs.Vendors = []string{s.NICSelector.Vendor}
		}
		if s.NICSelector.DeviceID != "" {
			spec.PFs.Devices = []string{s.NICSelector.DeviceID}
		}
		if len(part.names)+len(spec.PFs.PCIAddresses)+len(spec.PFs.Vendors)+len(spec.PFs.Devices) == 0 {
			note("left out: nothing is left that would select cards")
			return
		}
		pool := v1.SRIOVPool{APIVersion: v1.APIVersion, Kind: v1.KindSRIOVPool, Metadata: v1.Metadata{Name: p.Metadata.Name}, Spec: spec}
		if i > 0 {
			pool.Metadata.Name = fmt.Sprintf("%s-%d", p.Metadata.Name, i+1)
		}
		c.meets(p, pool)
		c.out.Pools = append(c.out.Pools, pool)
	}
	if len(parts) > 1 {
		note("its cards have different ranges of functions: one pool for each range, all of one resource")
	}
}

// policyNotes says what of a policy is not carried over.
func (c *converter) policyNotes(s NodePolicySpec, note func(string, ...any)) {
	for _, x := range []struct {
		given bool
		text  string
	}{
		{s.NICSelector.NetFilter != "", "netFilter is left out: name the cards"},
		{s.DeviceType == "vfio-pci" && s.MTU != 0, "mtu is left out: a function of vfio-pci has no interface in the kernel"},
		{s.DeviceType != "vfio-pci" && s.MTU != 0, fmt.Sprintf("mtu %d is that of the virtual functions; the operator set it on the cards too: declare their interfaces with it in the topology", s.MTU)},
		{s.DeviceType != "" && s.DeviceType != "netdevice" && s.DeviceType != "vfio-pci", fmt.Sprintf("deviceType %s is left out: the functions keep the kernel's driver", s.DeviceType)},
		{s.EswitchMode != "" && s.EswitchMode != "legacy", fmt.Sprintf("eSwitchMode %s is left out: virtual functions are made in legacy mode", s.EswitchMode)},
		{s.IsRDMA, "isRdma is left out: RDMA devices of a function are reported to its Pod, not moved"},
		{s.NeedVhostNet, "needVhostNet is left out: Pods get no /dev/vhost-net"},
		{s.VDPAType != "", "vdpaType is left out"},
		{s.ExcludeTopology, "excludeTopology is left out: the kubelet is told of each device's NUMA node"},
		{s.ExternallyManaged, "externallyManaged is left out: DANM makes the virtual functions, or leaves them where their number is numVFs already"},
		{len(s.Bridge) > 0 && string(s.Bridge) != "{}" && string(s.Bridge) != "null", "bridge is left out"},
	} {
		if x.given {
			note("%s", x.text)
		}
	}
}

// partition is cards of which a policy has the same functions; no range is all of them.
type partition struct{ names, vfs []string }

// partitions sorts names such as ens1f0#0-3 by their ranges, in the order in which they are first named.
func partitions(pfNames []string) []partition {
	var order []string
	ranges := map[string][]string{}
	for _, text := range pfNames {
		name, r, ranged := strings.Cut(text, "#")
		if _, seen := ranges[name]; !seen {
			order = append(order, name)
			ranges[name] = nil
		}
		if ranged && !slices.Contains(ranges[name], r) {
			ranges[name] = append(ranges[name], r)
		}
	}
	var out []partition
	for _, name := range order {
		i := slices.IndexFunc(out, func(p partition) bool { return slices.Equal(p.vfs, ranges[name]) })
		if i < 0 {
			i = len(out)
			out = append(out, partition{vfs: ranges[name]})
		}
		out[i].names = append(out[i].names, name)
	}
	if len(out) == 0 {
		out = []partition{{}}
	}
	return out
}

// meets notes pools of other policies that may find the same cards. The operator lets the policy with the smaller priority win there;
// in a bundle each function has one pool.
func (c *converter) meets(p *NodePolicy, pool v1.SRIOVPool) {
	for _, o := range c.out.Pools {
		other := c.policies[o.Metadata.Name]
		if other == p || !oneCard(o.Spec, pool.Spec) || o.Spec.NumVFs == pool.Spec.NumVFs && apart(o.Spec.VFs, pool.Spec.VFs) {
			continue
		}
		c.note(kindNodePolicy, "", p.Metadata.Name, "may find the cards of %s (priorities %d and %d; the smaller one won): see that numVFs is the same in both and that vfs do not overlap", other.Metadata.Name, p.Spec.Priority, other.Spec.Priority)
	}
	c.policies[pool.Metadata.Name] = p
}

// oneCard says whether two pools may find one card of one node, as far as they say.
func oneCard(a, b v1.SRIOVPoolSpec) bool {
	for k, v := range a.NodeSelector {
		if w, both := b.NodeSelector[k]; both && v != w {
			return false
		}
	}
	for _, x := range [][2][]string{{a.PFs.Names, b.PFs.Names}, {a.PFs.PCIAddresses, b.PFs.PCIAddresses}, {a.PFs.Vendors, b.PFs.Vendors}, {a.PFs.Devices, b.PFs.Devices}} {
		if len(x[0]) > 0 && len(x[1]) > 0 && !slices.ContainsFunc(x[0], func(s string) bool { return slices.Contains(x[1], s) }) {
			return false
		}
	}
	return true
}

// apart says whether two pools' ranges have no function in common.
func apart(a, b []string) bool {
	bounds := func(text string) (first, last int) {
		low, high, ranged := strings.Cut(text, "-")
		if !ranged {
			high = low
		}
		first, _ = strconv.Atoi(low)
		last, _ = strconv.Atoi(high)
		return first, last
	}
	for _, x := range a {
		for _, y := range b {
			low, high := bounds(x)
			if first, last := bounds(y); first <= high && low <= last {
				return false
			}
		}
	}
	return len(a) > 0 && len(b) > 0
}

// functionSettings is what a SriovNetwork says of the functions that its Pods get: in a bundle it is said of the pool.
type functionSettings struct {
	trust, spoofChk, linkState string
	minTxRate, maxTxRate       int64
}

// networkSettings is what one network says, by its key.
type networkSettings struct {
	network string
	functionSettings
}

func (s functionSettings) text() string {
	var words []string
	for _, w := range []struct{ name, value string }{{"trust", s.trust}, {"spoofChk", s.spoofChk}, {"linkState", s.linkState}} {
		if w.value != "" {
			words = append(words, w.name+" "+w.value)
		}
	}
	for _, w := range []struct {
		name  string
		value int64
	}{{"minTxRate", s.minTxRate}, {"maxTxRate", s.maxTxRate}} {
		if w.value != 0 {
			words = append(words, fmt.Sprintf("%s %d", w.name, w.value))
		}
	}
	return cmp.Or(strings.Join(words, ", "), "nothing")
}

// operatorNetwork converts a SriovNetwork.
func (c *converter) operatorNetwork(o *OperatorNetwork) {
	s := o.Spec
	note := func(format string, args ...any) { c.note(kindNetwork, "", o.Metadata.Name, format, args...) }
	if o.unknown != nil {
		note("%v: left out", o.unknown)
	}
	n := v1.Network{Metadata: v1.NetworkMetadata{Name: o.Metadata.Name, Namespace: c.namespaceOf(o)}}
	n.Spec = v1.NetworkSpec{Type: "sriov", DevicePool: c.prefix + s.ResourceName, VLAN: id(s.VLAN), Render: "nad"}
	if n.Metadata.Namespace == "" {
		note("says no networkNamespace: it is a network of the cluster; give it allowedTenants, or a namespace. Its definition moves from namespace %s to default, or to those of its tenants: change the annotations of Pods that name it", o.Metadata.Namespace)
	}
	if n.Spec.VLANQoS = s.VLANQoS; s.VLANQoS != 0 && s.VLAN == 0 {
		note("vlanQoS is left out: without a VLAN there is no tag that it could be in")
		n.Spec.VLANQoS = 0
	}
	if p := s.VLANProto; p != "" && !strings.EqualFold(p, "802.1q") {
		note("vlanProto %s is left out: tags are those of 802.1Q", p)
	}
	if s.MetaPlugins != "" {
		note("metaPlugins are left out: sysctls of a network stand in for the plugin tuning")
	}
	var capabilities map[string]bool
	if json.Unmarshal([]byte(cmp.Or(s.Capabilities, "{}")), &capabilities) != nil {
		note("its capabilities cannot be read: left out")
	}
	for _, k := range slices.Sorted(maps.Keys(capabilities)) {
		if capabilities[k] && k != "mac" && k != "ips" {
			note("its capability %s is left out", k)
		}
	}
	if reason := addressing(&n, json.RawMessage(s.IPAM), note); reason != "" {
		n.Spec.IPv4, n.Spec.IPv6 = nil, nil
		note("%s: it has no addresses until you write ipv4 or ipv6", reason)
	}
	c.settings[n.Spec.DevicePool] = append(c.settings[n.Spec.DevicePool], networkSettings{key(&n), functionSettings{s.Trust, s.SpoofChk, s.LinkState, s.MinTxRate, s.MaxTxRate}})
	c.operators[cmp.Or(n.Metadata.Namespace, o.Metadata.Namespace)+"/"+o.Metadata.Name] = o.Metadata.Name
	c.add(kindNetwork, n)
}

// namespaceOf is where the operator puts the definition; "" for its own namespace, from which all may use it.
func (c *converter) namespaceOf(o *OperatorNetwork) string {
	switch own := o.Metadata.Namespace; {
	case o.Spec.NetworkNamespace != "":
		return o.Spec.NetworkNamespace
	case slices.Contains(operatorNamespaces, own), slices.ContainsFunc(slices.Collect(maps.Values(c.policies)), func(p *NodePolicy) bool { return p.Metadata.Namespace == own }):
		return ""
	default:
		return own
	}
}

// poolSettings gives pools what all their networks say of the functions.
func (c *converter) poolSettings() {
	for _, resource := range slices.Sorted(maps.Keys(c.settings)) {
		all := c.settings[resource]
		first := all[0].functionSettings
		found := false
		for i := range c.out.Pools {
			found = found || c.out.Pools[i].Spec.ResourceName == resource
		}
		switch {
		case slices.ContainsFunc(all, func(s networkSettings) bool { return s.functionSettings != first }):
			var texts []string
			for _, s := range all {
				texts = append(texts, s.network+": "+s.text())
			}
			slices.Sort(texts)
			c.note("resource", "", resource, "its networks want different things of its functions (%s): give each a pool with a resourceName and vfs of its own, and change the Pods' requests", strings.Join(texts, "; "))
		case first == functionSettings{}:
		case !found:
			c.note("resource", "", resource, "its networks want %s of its functions: write that into the SRIOVPool, which was not converted here", first.text())
		default:
			c.setFunctions(resource, first)
		}
	}
}

func (c *converter) setFunctions(resource string, s functionSettings) {
	for i := range c.out.Pools {
		p := &c.out.Pools[i]
		if p.Spec.ResourceName != resource {
			continue
		}
		p.Spec.Trust, p.Spec.SpoofCheck, p.Spec.LinkState = onOff(s.trust), onOff(s.spoofChk), s.linkState
		p.Spec.MinTxRate, p.Spec.MaxTxRate = s.minTxRate, s.maxTxRate
	}
	c.note("resource", "", resource, "%s, which its networks say, is said of the pool", s.text())
}

func onOff(word string) *bool {
	if word == "" {
		return nil
	}
	on := word == "on"
	return &on
}
