package convert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/bundle/v1"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// plugin is what is read of a CNI network configuration; everything else makes a definition stay as it is.
type plugin struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Master       string          `json:"master"`
	Mode         string          `json:"mode"`
	MTU          int             `json:"mtu"`
	VLAN         int             `json:"vlan"`
	VLANID       int             `json:"vlanId"`  // of the plugin vlan
	VLANQoS      int             `json:"vlanQoS"` // of the plugin sriov
	Device       string          `json:"device"`  // of the plugin host-device
	IPAM         json.RawMessage `json:"ipam"`
	Plugins      []any           `json:"plugins"`
	Capabilities map[string]bool `json:"capabilities"`
}

// known are the keys of a configuration that the native drivers stand for.
var known = map[string]bool{"cniVersion": true, "name": true, "type": true, "master": true, "mode": true, "mtu": true, "vlan": true, "vlanId": true, "device": true, "ipam": true}

// knownOfSRIOV are further ones of the plugin sriov. What it says of the function itself (trust, spoofchk, rates) is the pool's here, so
// a definition with that stays the plugin's.
var knownOfSRIOV = map[string]bool{"vlanQoS": true, "logLevel": true, "logFile": true}

// modes are those of the native drivers that have some, the default first.
var modes = map[string][]string{"macvlan": {"bridge", "private", "vepa", "passthru"}, "ipvlan": {"l2", "l3", "l3s"}}

// definition converts a NetworkAttachmentDefinition: to a native network where that is the same, else to a delegate with the
// configuration as it stands. Either is rendered as a definition again, so Pods go on naming it.
func (c *converter) definition(d *npwgv1.NetworkAttachmentDefinition) {
	note := func(format string, args ...any) { c.note(npwgv1.Kind, d.Namespace, d.Name, format, args...) }
	if by := c.operators[d.Namespace+"/"+d.Name]; by != "" {
		note("left out: it is what the operator made of SriovNetwork %s", by)
		return
	}
	n := v1.Network{Metadata: v1.NetworkMetadata{Name: d.Name, Namespace: d.Namespace}}
	n.Spec.Render = "nad"
	n.Spec.DevicePool = d.Annotations[npwgv1.ResourceName]
	var p plugin
	if d.Spec.Config == "" {
		note("has no config: its file on the nodes is kept; write the type of its plugin")
		n.Spec.Delegate = &v1.Delegate{File: d.Name}
		c.add(npwgv1.Kind, n)
		return
	}
	if err := json.Unmarshal([]byte(d.Spec.Config), &p); err != nil {
		note("left out: its config is no JSON (%v)", err)
		return
	}
	if p.Plugins != nil {
		n.Spec.Type = firstType(p.Plugins)
		n.Spec.Delegate = &v1.Delegate{ConfList: d.Spec.Config}
		c.delegate(d, n, "is a list of plugins")
		return
	}
	n.Spec.Type = p.Type
	if reason := c.native(&n, p, d.Spec.Config, note); reason != "" {
		n = v1.Network{Metadata: n.Metadata, Spec: v1.NetworkSpec{Type: p.Type, Render: "nad", DevicePool: d.Annotations[npwgv1.ResourceName], Delegate: &v1.Delegate{Conf: d.Spec.Config}}}
		c.delegate(d, n, reason)
		return
	}
	c.add(npwgv1.Kind, n)
}

// delegate keeps a definition as it is, for the plugin that it names.
func (c *converter) delegate(d *npwgv1.NetworkAttachmentDefinition, n v1.Network, reason string) {
	c.note(npwgv1.Kind, d.Namespace, d.Name, "%s: kept as a delegate", reason)
	c.add(npwgv1.Kind, n)
}

func firstType(plugins []any) string {
	if len(plugins) > 0 {
		if m, ok := plugins[0].(map[string]any); ok {
			t, _ := m["type"].(string)
			return t
		}
	}
	return ""
}

// native fills in a network of DANM's own; it says why the definition cannot be one.
func (c *converter) native(n *v1.Network, p plugin, config string, note func(string, ...any)) (reason string) {
	var all map[string]any
	if json.Unmarshal([]byte(config), &all) != nil {
		return "its config is no object"
	}
	for key := range all {
		if !known[key] && (p.Type != "sriov" || !knownOfSRIOV[key]) {
			return fmt.Sprintf("it has %q, which no native driver knows", key)
		}
	}
	switch {
	case (p.Type == "macvlan" || p.Type == "ipvlan") && p.VLANID == 0 && p.Device == "":
		if modes := modes[p.Type]; p.Mode != "" && !slices.Contains(modes, p.Mode) {
			return fmt.Sprintf("mode %s of %s is none that there is", p.Mode, p.Type)
		} else if p.Mode != modes[0] {
			n.Spec.Mode = p.Mode
		}
		if p.Master == "" {
			return "it names no master"
		}
		if p.VLAN != 0 {
			n.Spec.VLAN = id(p.VLAN)
		}
		n.Spec.HostDevice = p.Master
	case p.Type == "vlan" && p.VLANID != 0 && p.Master != "" && p.Device == "" && p.Mode == "" && p.VLAN == 0:
		n.Spec.VLAN, n.Spec.HostDevice = id(p.VLANID), p.Master
	case p.Type == "host-device" && p.Device != "" && p.Master == "" && p.Mode == "" && p.VLAN == 0 && p.VLANID == 0:
		n.Spec.HostDevice = p.Device
	case p.VLANID != 0 || p.Device != "":
		return fmt.Sprintf("type %s in this form is no native driver", p.Type)
	case p.Type == "sriov" && n.Spec.DevicePool != "":
		if n.Spec.VLAN = id(p.VLAN); p.VLAN != 0 {
			n.Spec.VLANQoS = p.VLANQoS
		}
	default:
		return fmt.Sprintf("type %s in this form is no native driver", p.Type)
	}
	n.Spec.MTU = p.MTU
	if reason := addressing(n, p.IPAM, note); reason != "" {
		return reason
	}
	if n.Spec.HostDevice != "" {
		c.devices[n.Spec.HostDevice] = true
	}
	return ""
}

// ipam is the part of host-local and whereabouts that says which addresses there are.
type ipam struct {
	Type       string        `json:"type"`
	Subnet     string        `json:"subnet"`
	RangeStart string        `json:"rangeStart"`
	RangeEnd   string        `json:"rangeEnd"`
	Gateway    string        `json:"gateway"`
	Ranges     [][]ipamRange `json:"ranges"`
	Routes     []ipamRoute   `json:"routes"`
	Range      string        `json:"range"` // whereabouts
	Start      string        `json:"range_start"`
	End        string        `json:"range_end"`
	Exclude    []string      `json:"exclude"`
	Addresses  []any         `json:"addresses"`
	IPRanges   []ipam        `json:"ipRanges"`
}

type ipamRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

type ipamRoute struct {
	Dst string `json:"dst"`
	GW  string `json:"gw"`
}

func addressing(n *v1.Network, raw json.RawMessage, note func(string, ...any)) (reason string) {
	if len(raw) == 0 || string(raw) == "{}" {
		return ""
	}
	var a ipam
	if err := json.Unmarshal(raw, &a); err != nil {
		return "its ipam cannot be read"
	}
	var ranges []ipamRange
	switch a.Type {
	case "":
		return ""
	case "host-local":
		if a.Subnet != "" {
			ranges = append(ranges, ipamRange{a.Subnet, a.RangeStart, a.RangeEnd, a.Gateway})
		}
		for _, set := range a.Ranges {
			ranges = append(ranges, set...)
		}
	case "whereabouts":
		for _, r := range append([]ipam{a}, a.IPRanges...) {
			if r.Range != "" {
				ranges = append(ranges, ipamRange{r.Range, r.Start, r.End, r.Gateway})
			}
		}
	default:
		return fmt.Sprintf("its addresses come from %s", a.Type)
	}
	for _, r := range ranges {
		if reason := addRange(n, r); reason != "" {
			return reason
		}
	}
	for _, r := range a.Routes {
		if !addRoute(n, r) {
			note("route to %s has no gateway inside a subnet of it: left out", r.Dst)
		}
	}
	for _, e := range a.Exclude {
		p, err := netip.ParsePrefix(e)
		if s := familyOf(n, p.Addr()); err == nil && s != nil {
			s.Exclude = append(s.Exclude, whole(p))
		} else {
			note("exclude %s is of no family it has: left out", e)
		}
	}
	note("addresses that %s has given out are not carried over: detach its Pods before the switch, or exclude them", a.Type)
	return ""
}

func addRange(n *v1.Network, r ipamRange) (reason string) {
	p, err := netip.ParsePrefix(r.Subnet)
	if err != nil {
		return fmt.Sprintf("its range %q is no CIDR", r.Subnet)
	}
	at := &n.Spec.IPv4
	if p.Addr().Is6() {
		at = &n.Spec.IPv6
	}
	if *at == nil {
		*at = &v1.Subnet{CIDR: p.Masked().String(), Gateway: r.Gateway}
	} else if (*at).CIDR != p.Masked().String() {
		return "it has two subnets of one family"
	}
	switch {
	case r.RangeStart != "" && r.RangeEnd != "":
		(*at).Pools = append((*at).Pools, r.RangeStart+"-"+r.RangeEnd)
	case r.RangeStart != "" || r.RangeEnd != "":
		return "its range has one end"
	}
	return ""
}

func familyOf(n *v1.Network, a netip.Addr) *v1.Subnet {
	if a.Is6() {
		return n.Spec.IPv6
	}
	return n.Spec.IPv4
}

// addRoute adds a route; without a gateway of its own it has the subnet's, as in host-local.
func addRoute(n *v1.Network, r ipamRoute) bool {
	to, err := netip.ParsePrefix(r.Dst)
	if err != nil {
		return false
	}
	s := familyOf(n, to.Addr())
	if s == nil || r.GW == "" && s.Gateway == "" {
		return false
	}
	if r.GW == "" && to.Bits() == 0 {
		return true // the gateway is the default route already
	}
	s.Routes = append(s.Routes, v1.Route{To: to.Masked().String(), Via: r.GW})
	return true
}

// whole is a prefix as a range of all its addresses.
func whole(p netip.Prefix) string {
	p = p.Masked()
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.Addr().String() + "-" + lastOf(p).String()
}
