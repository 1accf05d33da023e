package server

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"

	"danm.io/danm/cni/attach"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// choice is what a Pod gets, before it has addresses: one entry an interface.
type choice struct {
	sandbox string
	state   model.NodeState
	pod     Pod // what the API says of it, as far as it was asked
	items   []chosen
}

type chosen struct {
	request model.InterfaceRequest
	network model.Network
	ifName  string
	mac     string
	device  string // of network.DevicePool
}

// choose resolves what a Pod asks for, or its default network, against the networks of this node.
func choose(state model.NodeState, c call, requests []model.InterfaceRequest) (choice, error) {
	if len(requests) == 0 || isBeside(requests[0]) {
		n, err := defaultNetwork(state, c.args.namespace)
		if err != nil {
			return choice{}, err
		}
		requests = append([]model.InterfaceRequest{defaultRequest(n)}, requests...)
	}
	out, names, sole := choice{sandbox: c.ContainerID, state: state}, map[string]bool{}, map[string]string{}
	for i, q := range requests {
		item, err := chooseOne(state, c, i, q)
		if err != nil {
			return choice{}, err
		}
		if names[item.ifName] {
			return choice{}, fail(CodeRequestRefused, diag.PodInterfaceName, fmt.Errorf("interface %d on network %s would be called %q, and so is another", i, item.network.Key(), item.ifName))
		}
		names[item.ifName] = true
		if use := soleUse(item.network); use != "" {
			if other, twice := sole[use]; twice {
				return choice{}, fail(CodeRequestRefused, diag.PodDeviceBusy, fmt.Errorf("interfaces %s and %s both want %s, which one interface can have; ask for it once", other, item.ifName, use))
			}
			sole[use] = item.ifName
		}
		out.items = append(out.items, item)
	}
	if err := out.routesFit(); err != nil {
		return choice{}, fail(CodeRequestRefused, diag.PodSelectionRefused, err)
	}
	return out, nil
}

// chooseOne resolves the i-th interface, without regard to the others.
func chooseOne(state model.NodeState, c call, i int, q model.InterfaceRequest) (chosen, error) {
	q = inNamespace(q, c.args.namespace)
	n, err := findNetwork(state, c.args.namespace, q)
	if err != nil {
		return chosen{}, err
	}
	if err := policyRoutesFit(q, n); err != nil {
		return chosen{}, fail(CodeRequestRefused, diag.PodPolicyTable, err)
	}
	if q.Selection != nil {
		if q, err = selected(q, n); err != nil {
			return chosen{}, fail(CodeRequestRefused, diag.PodSelectionRefused, fmt.Errorf("network %s: %w", n.Key(), err))
		}
	}
	if n.Delegate != nil {
		q = ofSubnets(q, n)
	}
	if q, err = permitted(q, n, c.args.namespace); err != nil {
		return chosen{}, fail(CodeAddressUnusable, diag.PodAddressUnusable, err)
	}
	item := chosen{request: q, network: n, ifName: interfaceName(i, q, n, c)}
	if e := utils.ValidateInterfaceName(item.ifName); e != nil || strings.Contains(item.ifName, "%") { // the kernel puts a number for %d
		return chosen{}, fail(CodeRequestRefused, diag.PodInterfaceName, fmt.Errorf("interface %d on network %s would be called %q, which is longer than 15 bytes or no name", i, n.Key(), clip(item.ifName)))
	}
	if q.Selection != nil && q.Selection.Default && q.Selection.IfName != "" && q.Selection.IfName != c.IfName {
		return chosen{}, fail(CodeRequestRefused, diag.PodInterfaceName, fmt.Errorf("the default network's interface is %s, which the runtime says, not %q", c.IfName, clip(q.Selection.IfName)))
	}
	switch {
	case takesMAC(n) && q.Selection != nil && q.Selection.MAC != "":
		item.mac = q.Selection.MAC
	case hasOwnMAC(n):
		item.mac = attach.NewMAC()
	}
	return item, nil
}

// interfaceName: the first is what the runtime asks for (eth0); others have the network's prefix, or eth, and the
// position in the list. DANM's legacy scheme takes the prefix alone. In the NPWG's dialect others are what the Pod says, or net and
// the position.
func interfaceName(i int, q model.InterfaceRequest, n model.Network, c call) string {
	switch {
	case i == 0:
		return c.IfName
	case q.Selection != nil && q.Selection.IfName != "":
		return q.Selection.IfName
	case q.Selection != nil:
		return fmt.Sprintf("net%d", i)
	case n.InterfacePrefix == "":
		return fmt.Sprintf("eth%d", i)
	case c.conf.NamingScheme == "legacy":
		return n.InterfacePrefix
	}
	return fmt.Sprintf("%s%d", n.InterfacePrefix, i)
}

func findNetwork(state model.NodeState, namespace string, q model.InterfaceRequest) (model.Network, error) {
	for _, n := range named(state.Networks, q) {
		if !usable(n, q, namespace) {
			continue
		}
		if n.Delegate == nil && ((n.DevicePool != "") != (n.Type == model.SRIOV) || !slices.Contains(attachable, n.Type)) {
			return n, fail(CodeRequestRefused, diag.PodTypeUnsupported, fmt.Errorf("%s %s is of type %s, which this version does not attach", n.Kind, n.Key(), n.Type))
		}
		if n.Device == "" && n.Delegate == nil && n.DevicePool == "" {
			return n, fail(CodeNetworkUnknown, diag.PodNetworkUnknown, fmt.Errorf("%s %s has no host link on node %s", n.Kind, n.Key(), state.Node))
		}
		return n, nil
	}
	what := fmt.Sprintf("%s %q does not exist for Pods of namespace %q", q.Kind, nameOf(q), namespace)
	if q.Selection != nil {
		return model.Network{}, unknownDefinition(state, namespace, what)
	}
	return model.Network{}, unknown(state, namespace, what)
}

// attachable are the types that cni/attach has drivers for.
var attachable = []model.NetworkType{model.IPVLAN, model.MACVLAN, model.BRIDGE, model.TAGGED, model.HOSTDEVICE, model.SRIOV}

// named are the networks that a request can mean, its own kind first. A bundle has no DanmNets: what was one before is a
// network of its namespace, and Pods go on asking for it by "network". A definition is one that was made by hand, or a network that
// is rendered as one.
func named(networks []model.Network, q model.InterfaceRequest) (out []model.Network) {
	if q.Selection != nil {
		for _, n := range networks {
			if n.Name == q.Network && slices.Contains(n.DefinedIn(), q.Selection.Namespace) {
				out = append(out, n)
			}
		}
		return out
	}
	kinds := []model.APIKind{q.Kind}
	if q.Kind == model.DanmNet {
		kinds = append(kinds, model.TenantNetwork)
	}
	for _, kind := range kinds {
		for _, n := range networks {
			if n.Kind == kind && n.Name == q.Network {
				out = append(out, n)
			}
		}
	}
	return out
}

// unknown lists what the tenant could use; a network of another one looks like one that does not exist.
func unknown(state model.NodeState, namespace, what string) error {
	var names []string
	for _, n := range state.Networks {
		if n.Kind != model.Definition && n.UsableFrom(namespace) {
			names = append(names, string(n.Kind)+" "+n.Name)
		}
	}
	return thereAre(what, names)
}

// unknownDefinition lists what the tenant could name in the NPWG's dialect.
func unknownDefinition(state model.NodeState, namespace, what string) error {
	var names []string
	for _, n := range state.Networks {
		for _, in := range n.DefinedIn() {
			if n.UsableFrom(namespace) {
				names = append(names, in+"/"+n.Name)
			}
		}
	}
	return thereAre(what, names)
}

func thereAre(what string, names []string) error {
	slices.Sort(names)
	if len(names) > 20 {
		names = append(names[:20], fmt.Sprintf("and %d more", len(names)-20))
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return fail(CodeNetworkUnknown, diag.PodNetworkUnknown, fmt.Errorf("%s; there are: %s", what, strings.Join(names, ", ")))
}

// defaultNetwork is the tenant's own choice, or the object called "default": as DanmNet, then TenantNetwork of the
// namespace, then ClusterNetwork.
func defaultNetwork(state model.NodeState, namespace string) (model.Network, error) {
	for _, t := range state.Tenants {
		if t.DefaultNetwork == "" || !slices.Contains(t.Namespaces, namespace) {
			continue
		}
		for _, n := range state.Networks {
			if n.Key() == t.DefaultNetwork && n.UsableFrom(namespace) {
				return n, nil
			}
		}
		return model.Network{}, unknown(state, namespace, fmt.Sprintf("the default network %q of tenant %s does not exist for Pods of namespace %q", t.DefaultNetwork, t.Name, namespace))
	}
	for _, kind := range []model.APIKind{model.DanmNet, model.TenantNetwork, model.ClusterNetwork} {
		for _, n := range state.Networks {
			if n.Kind == kind && n.Name == "default" && n.UsableFrom(namespace) {
				return n, nil
			}
		}
	}
	return model.Network{}, unknown(state, namespace, fmt.Sprintf("no interface is asked for, and there is no network called default for Pods of namespace %q", namespace))
}

// defaultRequest asks for an IPv4 address, as DANM's default network does; for an IPv6 one only where there is no other.
func defaultRequest(n model.Network) model.InterfaceRequest {
	q := model.InterfaceRequest{Kind: n.Kind, Network: n.Name}
	switch {
	case n.IPv4 != nil:
		q.IP.Mode = model.AddressDynamic
	case n.IPv6 != nil:
		q.IP6.Mode = model.AddressDynamic
	}
	return q
}

// ofSubnets leaves a family without a subnet to the plugin that makes the interface, as DANM does (contract 1.9).
func ofSubnets(q model.InterfaceRequest, n model.Network) model.InterfaceRequest {
	if n.IPv4 == nil {
		q.IP = model.AddressRequest{}
	}
	if n.IPv6 == nil {
		q.IP6 = model.AddressRequest{}
	}
	return q
}

func asked(q model.AddressRequest) bool {
	return q.Mode == model.AddressDynamic || q.Mode == model.AddressStatic || q.Mode == model.AddressReserved
}

// permitted turns a reservation's name into its address. An address that is reserved is given to nobody who asks otherwise, and
// the gateway of a network of the cluster to nobody: who has it reads what all tenants send.
func permitted(q model.InterfaceRequest, n model.Network, namespace string) (model.InterfaceRequest, error) {
	for _, f := range []struct {
		request *model.AddressRequest
		of      func(model.Reservation) netip.Addr
	}{{&q.IP, func(r model.Reservation) netip.Addr { return r.IP }}, {&q.IP6, func(r model.Reservation) netip.Addr { return r.IP6 }}} {
		switch f.request.Mode {
		case model.AddressStatic:
			i := slices.IndexFunc(n.Reserved, func(r model.Reservation) bool { return f.of(r) == f.request.Addr })
			if i >= 0 {
				return q, fmt.Errorf("address %s of network %s is reserved; it is given by its reservation's name only", f.request.Addr, n.Key())
			}
			if n.Kind == model.ClusterNetwork && subnetOf(n, f.request.Addr).Gateway == f.request.Addr {
				return q, fmt.Errorf("address %s is the gateway of the cluster's network %s, which no Pod gets; take another address", f.request.Addr, n.Key())
			}
		case model.AddressReserved:
			i := slices.IndexFunc(n.Reserved, func(r model.Reservation) bool {
				return r.Name == f.request.Name && f.of(r).IsValid() && (r.Namespace == "" || r.Namespace == namespace)
			})
			if i < 0 {
				return q, fmt.Errorf("network %s has no reservation %q of this family for namespace %q; write dynamic, none or an address if that was meant", n.Key(), f.request.Name, namespace)
			}
			*f.request = model.AddressRequest{Mode: model.AddressStatic, Addr: f.of(n.Reserved[i])}
		}
	}
	return q, nil
}

// policyRoutesFit refuses policy routes that could not be set; leaving them out would send the Pod's traffic elsewhere.
func policyRoutesFit(q model.InterfaceRequest, n model.Network) error {
	for _, r := range q.Routes {
		if n.Delegate != nil {
			return fmt.Errorf("policy routes on network %s, whose interfaces another plugin makes", n.Key())
		}
		if n.Table == 0 {
			return fmt.Errorf("policy routes on network %s, which has no routing table", n.Key())
		}
		if r.To.Addr().Is4() && !asked(q.IP) || r.To.Addr().Is6() && !asked(q.IP6) {
			return fmt.Errorf("policy route to %s on network %s without an address of that family", r.To, n.Key())
		}
	}
	return nil
}

// sticky says whether a network keeps addresses for StatefulSets.
func (p choice) sticky() bool {
	return slices.ContainsFunc(p.items, func(it chosen) bool { return it.network.Sticky })
}

// inNPWGs says whether the Pod speaks the NPWG's dialect.
func (p choice) inNPWGs() bool {
	return slices.ContainsFunc(p.items, func(it chosen) bool { return it.request.Selection != nil })
}

func (p choice) wants() (out []ipam.Want) {
	for _, it := range p.items {
		w := ipam.Want{IfName: it.ifName, Network: it.network, IP: it.request.IP, IP6: it.request.IP6}
		if it.network.Sticky {
			w.Sticky = p.pod.Sticky
		}
		out = append(out, w)
	}
	return out
}

// attachments completes the choice with the addresses given, one grant an interface. It is pure.
func (p choice) attachments(grants []ipam.Grant) []model.Attachment {
	out := p.bare(grants)
	for i, it := range p.items {
		if it.request.Selection != nil && it.request.Selection.DefaultRoute {
			takeDefaults(out, i, it.request.Selection.Gateways)
		}
	}
	first := out
	// In the NPWG's dialect a network's gateway makes no default route beside the default network; nor anywhere beside a first interface
	// whose plugin sets the routes: it brings its own as a rule, and two would stand in each other's way.
	if p.inNPWGs() || !givesAddresses(p.items[0].network) {
		first = out[:1]
	}
	addDefaults(first, out)
	return out
}

// bare is attachments without a default route that no network brings.
func (p choice) bare(grants []ipam.Grant) []model.Attachment {
	out := make([]model.Attachment, len(p.items))
	for i, it := range p.items {
		n := it.network
		at := model.Attachment{
			NetworkKind: n.Kind, Network: n.Key(), NetworkID: n.NetworkID, Type: n.Type, Mode: n.Mode, Device: n.Device, Pool: n.DevicePool, DeviceID: it.device, IfName: it.ifName, MAC: it.mac, MTU: n.MTU, Sysctls: n.Sysctls,
			Addresses: grants[i].Addresses, Table: n.Table, PolicyRoutes: it.request.Routes, IPv6: it.request.IP6.Mode != model.NoAddress,
		}
		switch n.Driver() { //nolint:exhaustive // others have their VLAN from the device that they stand on
		case model.TAGGED:
			at.VLAN = n.VLAN
		case model.SRIOV:
			at.VLAN, at.QoS = n.VLAN, n.QoS
		}
		if n.Driver() == model.BRIDGE {
			at.HostLink = attach.HostLinkName(p.sandbox, it.ifName)
		}
		for _, a := range at.Addresses {
			s := subnetOf(n, a.Addr())
			for _, r := range s.Routes {
				if r.Via != a.Addr() { // the Pod is the gateway itself
					at.Routes = append(at.Routes, r)
				}
			}
			if s.Gateway.IsValid() && s.Gateway != a.Addr() {
				at.Gateways = append(at.Gateways, s.Gateway)
			}
		}
		out[i] = at
	}
	return out
}

func subnetOf(n model.Network, a netip.Addr) model.Subnet {
	s := n.IPv6
	if a.Is4() {
		s = n.IPv4
	}
	if s == nil {
		return model.Subnet{}
	}
	return *s
}
