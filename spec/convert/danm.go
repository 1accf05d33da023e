package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// native says whether a type is one of ours. ipvlan, macvlan and sriov always are, as in DANM (contract 1.9). bridge and
// host-device are CNI plugins with a file on the node there, which needs no device; ours have one. So is vlan, which may have one.
func native(typ string, s danmv1.NetworkSpec) bool {
	switch typ {
	case "", "ipvlan", "macvlan", "sriov":
		return true
	case "bridge", "host-device":
		return s.Options.Device != "" || s.Extension != nil && s.Extension.Fabric != ""
	case "vlan":
		return s.Extension != nil && s.Extension.Native
	}
	return false
}

func (c *converter) network(kind, namespace, name string, s danmv1.NetworkSpec) {
	note := func(format string, args ...any) { c.note(kind, namespace, name, format, args...) }
	n := v1.Network{Metadata: v1.NetworkMetadata{Name: name, Namespace: namespace}}
	spec, o := &n.Spec, s.Options
	if s.NetworkID != name {
		spec.NetworkID = s.NetworkID
	}
	spec.Type = strings.ToLower(s.NetworkType) // DANM's own types in any case
	if spec.Type == "ipvlan" {
		spec.Type = ""
	}
	switch {
	case !native(spec.Type, s):
		spec.Type = s.NetworkType // a plugin's name keeps its case
		spec.Delegate = &v1.Delegate{File: s.NetworkID}
		note("stays a CNI plugin with its file %s.conf on every node", s.NetworkID)
	case spec.Type == "sriov":
		spec.DevicePool = o.DevicePool
		spec.VLAN = id(o.Vlan)
	case kind == danmv1.KindTenantNetwork && o.Device != "" && len(c.configs) > 0 && !c.tenantsMayUse(o.Device):
		c.refuse(kind, namespace, name, "host_device %s is not one that tenants may use: no TenantConfig lists it", o.Device)
		return
	default:
		c.standing(kind, &n, s)
	}
	spec.IPv4 = c.subnet(note, o.Cidr, o.Pool, "", o.Routes)
	spec.IPv6 = c.subnet(note, o.Net6, o.PoolV6.IPPool, o.PoolV6.Cidr, o.Routes6)
	if o.Alloc != "" || o.Alloc6 != "" {
		note("its bitmap of addresses in use is not carried over: detach its Pods before the switch, or keep their addresses out of the pools with exclude")
	}
	spec.InterfacePrefix, spec.Table, spec.MTU = o.Prefix, o.RTables, o.MTU
	c.extension(spec, s.Extension)
	for _, namespace := range s.AllowedTenants {
		if c.ofATenant(namespace) { // rendered from a bundle: its tenants are named beside
			continue
		}
		c.namespaces[namespace] = true
		spec.AllowedTenants = append(spec.AllowedTenants, namespace)
	}
	c.add(kind, n)
}

func id(n int) *v1.ID {
	if n == 0 {
		return nil
	}
	return &v1.ID{Value: int64(n)}
}

// standing finds what an ipvlan or macvlan stands on.
func (c *converter) standing(kind string, n *v1.Network, s danmv1.NetworkSpec) {
	o := s.Options
	device := o.Device
	if device == "" && kind == danmv1.KindTenantNetwork {
		if device = c.tenantDevice(); device != "" {
			c.note(kind, n.Metadata.Namespace, n.Metadata.Name, "DANM chose its interface at random; %s is written, check it", device)
		}
	}
	if device == "" {
		c.note(kind, n.Metadata.Namespace, n.Metadata.Name, "names no host_device: write fabric or hostDevice")
	}
	n.Spec.VLAN = id(o.Vlan)
	if o.Vlan == 0 && o.Vxlan == 0 && kind == danmv1.KindTenantNetwork {
		c.openID(n, device)
	}
	if o.Vxlan != 0 {
		n.Spec.VXLAN = id(o.Vxlan)
	}
	if device == "" {
		return
	}
	c.devices[device] = true
	if f := c.fabricFor(device, n.Spec.VXLAN != nil); f != "" {
		n.Spec.Fabric = f
	} else {
		n.Spec.HostDevice = device
	}
}

// ofATenant says whether a TenantConfig that was rendered from a bundle has the namespace.
func (c *converter) ofATenant(namespace string) bool {
	return slices.ContainsFunc(c.configs, func(t *danmv1.TenantConfig) bool {
		return t.Extension != nil && slices.Contains(t.Extension.Namespaces, namespace)
	})
}

func (c *converter) tenantsMayUse(device string) bool {
	return slices.ContainsFunc(c.configs, func(t *danmv1.TenantConfig) bool {
		return slices.ContainsFunc(t.HostDevices, func(d danmv1.IfaceProfile) bool { return d.Name == device })
	})
}

// tenantDevice is the first interface that tenants may use; DANM picks one at random.
func (c *converter) tenantDevice() string {
	for _, t := range c.configs {
		for _, d := range t.HostDevices {
			if !strings.Contains(d.Name, "/") {
				return d.Name
			}
		}
	}
	return ""
}

// openID: a TenantNetwork gets its number from the tenant's range when it is created. An exported one has it; a manifest has not.
func (c *converter) openID(n *v1.Network, device string) {
	for _, t := range c.configs {
		for _, d := range t.HostDevices {
			if d.Name != device || d.VniRange == "" {
				continue
			}
			if d.VniType == "vxlan" {
				n.Spec.VXLAN = &v1.ID{Auto: true}
			} else {
				n.Spec.VLAN = &v1.ID{Auto: true}
			}
			c.note(danmv1.KindTenantNetwork, n.Metadata.Namespace, n.Metadata.Name, "its number is left open, as DANM chooses it; convert the object as the cluster has it (kubectl get -o yaml) to keep the one it has")
			return
		}
	}
}

// danmGroups is where DANM's netwatcher takes the multicast group of a VXLAN from: the block's first address and the VNI.
const danmGroups = "239.0.0.0/8"

// fabricFor is the fabric of a device: one for each device that tenants have ranges on, or that carries a VXLAN.
func (c *converter) fabricFor(device string, vxlan bool) string {
	ranged := false
	for _, t := range c.configs {
		ranged = ranged || slices.ContainsFunc(t.HostDevices, func(d danmv1.IfaceProfile) bool { return d.Name == device && d.VniRange != "" })
	}
	if !ranged && !vxlan && c.fabrics[device] == nil {
		return ""
	}
	f := c.fabrics[device]
	if f == nil {
		f = &v1.Fabric{Name: device, Groups: []string{"all"}, Device: device}
		c.fabrics[device] = f
	}
	if vxlan && f.VXLAN == nil {
		f.VXLAN = &v1.Underlay{Multicast: danmGroups}
		c.note("fabric", "", device, "its VXLANs keep DANM's multicast groups (239.0.0.0/8 + VNI), so that nodes of both understand each other; where the device has IPv6 addresses only DANM takes ff02::/16, which vxlan.multicast then has to say")
	}
	return f.Name
}

// subnet converts one family; nil if there is none. DANM tolerates host bits in a CIDR, a bundle does not.
func (c *converter) subnet(note func(string, ...any), cidr string, pool danmv1.IPPool, part string, routes map[string]string) *v1.Subnet {
	if cidr == "" {
		return nil
	}
	s := &v1.Subnet{CIDR: cidr}
	if p, err := netip.ParsePrefix(cidr); err == nil && p != p.Masked() {
		s.CIDR = p.Masked().String()
		note("CIDR %s is written %s", cidr, s.CIDR)
	}
	switch {
	case pool.Start != "" && pool.End != "":
		s.Pools = []string{pool.Start + "-" + pool.End}
	case pool.Start != "" || pool.End != "":
		note("its pool has only one end (%s%s); the whole subnet is the pool", pool.Start, pool.End)
	case part != "" && part != cidr:
		if p, err := netip.ParsePrefix(part); err == nil {
			s.Pools = []string{ends(p)}
		}
	}
	for _, to := range slices.Sorted(keys(routes)) {
		s.Routes = append(s.Routes, v1.Route{To: to, Via: routes[to]})
	}
	return s
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// ends is a prefix as a range of addresses without its first, which is the subnet-router anycast address in IPv6 (RFC 4291).
func ends(p netip.Prefix) string {
	return p.Masked().Addr().Next().String() + "-" + lastOf(p).String()
}

func lastOf(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 1 << (7 - i%8)
	}
	end, _ := netip.AddrFromSlice(last)
	return end
}

// extension carries what was rendered from a bundle back.
func (c *converter) extension(spec *v1.NetworkSpec, e *danmv1.NetworkExtension) {
	if e == nil {
		return
	}
	if e.Fabric != "" {
		spec.Fabric, spec.HostDevice = e.Fabric, ""
	}
	spec.Mode, spec.BlockSize, spec.SharedWith, spec.Sticky = e.Mode, e.BlockSize, e.SharedWith, e.Sticky
	for _, f := range []struct {
		s              *v1.Subnet
		pools, exclude []string
		gateway        string
	}{{spec.IPv4, e.Pools, e.Exclude, e.Gateway}, {spec.IPv6, e.PoolsV6, e.ExcludeV6, e.GatewayV6}} {
		if f.s == nil {
			continue
		}
		if len(f.pools) > 0 {
			f.s.Pools = f.pools
		}
		f.s.Exclude, f.s.Gateway = f.exclude, f.gateway
	}
	spec.AllowedTenants, spec.Sysctls, spec.VLANQoS = e.AllowedTenants, e.Sysctls, e.VLANQoS
	for _, r := range e.Reserved {
		spec.Reserved = append(spec.Reserved, v1.Reservation{Name: r.Name, Namespace: r.Namespace, IP: r.IP, IP6: r.IP6})
	}
	if d := e.Delegate; d != nil {
		spec.Delegate = &v1.Delegate{Conf: d.Conf, ConfList: d.ConfList, File: d.File}
	}
}

// ranges makes the fabrics that tenants may use, with their numbers there. They bind tenants, as in DANM, not the networks of
// the cluster.
func (c *converter) ranges() {
	for _, t := range c.configs {
		for _, d := range t.HostDevices {
			switch {
			case slices.ContainsFunc(c.out.Pools, func(p v1.SRIOVPool) bool { return p.Spec.ResourceName == d.Name }):
			case strings.Contains(d.Name, "/"):
				c.note(danmv1.KindTenantConfig, "", t.Name, "device pool %s: write an SRIOVPool with this resourceName", d.Name)
			case (d.VniType == "") != (d.VniRange == ""):
				c.refuse(danmv1.KindTenantConfig, "", t.Name, "hostDevice %s has vniType or vniRange alone; they go together", d.Name)
			case d.VniRange != "":
				c.devices[d.Name] = true
				c.share(c.fabricFor(d.Name, d.VniType == "vxlan"), d)
			}
			if d.Alloc != "" {
				c.note(danmv1.KindTenantConfig, "", t.Name, "its bitmap of numbers in use on %s is not needed: numbers stand in the networks", d.Name)
			}
		}
	}
}

func (c *converter) share(fabric string, d danmv1.IfaceProfile) {
	i := slices.IndexFunc(c.shares, func(s v1.TenantFabric) bool { return s.Name == fabric })
	if i < 0 {
		i = len(c.shares)
		c.shares = append(c.shares, v1.TenantFabric{Name: fabric})
	}
	for _, r := range strings.Split(d.VniRange, ",") {
		if d.VniType == "vxlan" {
			c.shares[i].VNIRanges = append(c.shares[i].VNIRanges, strings.TrimSpace(r))
		} else {
			c.shares[i].VLANRanges = append(c.shares[i].VLANRanges, strings.TrimSpace(r))
		}
	}
}

// tenants: in DANM a tenant is a namespace. TenantConfigs hold for all of them, unless labelled with one.
func (c *converter) tenants() {
	granted := map[string][]string{}
	ids := map[string]string{}
	for _, t := range c.configs {
		if name := t.Labels[danmv1.LabelTenant]; name != "" && t.Extension != nil {
			c.tenantOf(t, name)
			continue
		}
		for k, v := range t.NetworkIds {
			ids[strings.ToLower(k)] = v
		}
		for _, n := range t.AllowedClusterNetworks {
			granted[t.Name] = append(granted[t.Name], n.Name)
			c.note(danmv1.KindTenantConfig, "", t.Name, "allows everyone the cluster network %s with privileges [%s]; write it as networks of the tenants that need it", n.Name, strings.Join(n.Privileges, ", "))
		}
	}
	own := map[string]bool{}
	for _, t := range c.out.Tenants {
		for _, ns := range t.Spec.Namespaces {
			own[ns] = true
		}
	}
	for ns := range c.namespaces {
		if own[ns] {
			continue
		}
		t := v1.Tenant{APIVersion: v1.APIVersion, Kind: v1.KindTenant, Metadata: v1.Metadata{Name: ns}, Spec: v1.TenantSpec{Namespaces: []string{ns}, Fabrics: c.shares}}
		if len(ids) > 0 {
			t.Spec.NetworkIDs = ids
		}
		c.out.Tenants = append(c.out.Tenants, t)
	}
	slices.SortFunc(c.out.Tenants, func(a, b v1.Tenant) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
}

// tenantOf carries a tenant that was rendered from a bundle back.
func (c *converter) tenantOf(t *danmv1.TenantConfig, name string) {
	e := t.Extension
	out := v1.Tenant{APIVersion: v1.APIVersion, Kind: v1.KindTenant, Metadata: v1.Metadata{Name: name},
		Spec: v1.TenantSpec{Namespaces: e.Namespaces, DefaultNetwork: e.DefaultNetwork, NetworkIDs: t.NetworkIds}}
	for _, f := range e.Fabrics {
		out.Spec.Fabrics = append(out.Spec.Fabrics, v1.TenantFabric{Name: f.Name, VLANRanges: list(f.VLANRanges), VNIRanges: list(f.VNIRanges)})
	}
	for _, n := range t.AllowedClusterNetworks {
		out.Spec.Networks = append(out.Spec.Networks, n.Name)
	}
	if q := e.Quotas; q != nil {
		out.Spec.Quotas = v1.Quotas{Networks: q.Networks, Endpoints: q.Endpoints, Addresses: q.Addresses}
	}
	c.out.Tenants = append(c.out.Tenants, out)
}

func list(cpuset string) []string {
	if cpuset == "" {
		return nil
	}
	return strings.Split(cpuset, ",")
}

// topology declares the interfaces that networks stand on, on every node.
func (c *converter) topology() {
	g := v1.Group{Name: "all"}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for d := range c.devices {
			if !yield(d) {
				return
			}
		}
	}) {
		g.Interfaces = append(g.Interfaces, v1.Interface{Name: name})
		if f := c.fabrics[name]; f != nil {
			c.out.Topology.Spec.Fabrics = append(c.out.Topology.Spec.Fabrics, *f)
		}
	}
	if len(g.Interfaces) > 0 {
		c.out.Topology.Spec.Groups = []v1.Group{g}
		c.out.Notes = append(c.out.Notes, Note{Object: "topology", Text: fmt.Sprintf("the group all declares %d interfaces on every node: give groups selectors where nodes differ", len(g.Interfaces))})
	}
}
