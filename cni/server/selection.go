package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/model"
)

// isBeside says whether a request comes beside the default network, as the NPWG's do.
func isBeside(q model.InterfaceRequest) bool { return q.Selection != nil && !q.Selection.Default }

// systemNamespace is where Multus looks for networks in the default network's place (its option multusNamespace).
const systemNamespace = "kube-system"

// inNamespace fills in the namespace of a definition that is named without one: the Pod's, or for one in the default network's place
// the system's.
func inNamespace(q model.InterfaceRequest, namespace string) model.InterfaceRequest {
	if q.Selection != nil && q.Selection.Namespace == "" {
		own := *q.Selection
		own.Namespace = namespace
		if own.Default {
			own.Namespace = systemNamespace
		}
		q.Selection = &own
	}
	return q
}

// usable says whether a Pod of a namespace may have the network that it asks for. A definition of the system's namespace is everyone's
// in the default network's place, and nobody's beside it.
func usable(n model.Network, q model.InterfaceRequest, namespace string) bool {
	return n.UsableFrom(namespace) || q.Selection != nil && q.Selection.Default && n.Kind == model.Definition && n.Namespace == systemNamespace
}

// nameOf is how the Pod names a network, with a definition's namespace.
func nameOf(q model.InterfaceRequest) string {
	if q.Selection == nil {
		return q.Network
	}
	return q.Selection.Namespace + "/" + q.Network
}

// hasOwnMAC says whether a network's interfaces have a hardware address of their own, not their device's. In passthru mode the kernel
// gives them the device's whatever is asked (Linux, macvlan_common_newlink).
func hasOwnMAC(n model.Network) bool {
	return n.Driver() == model.MACVLAN && n.Mode != model.PASSTHRU || n.Driver() == model.BRIDGE
}

// takesMAC says whether a Pod can choose the hardware address of an interface on a network. Cards set that of a virtual function.
func takesMAC(n model.Network) bool { return hasOwnMAC(n) || n.Driver() == model.SRIOV }

// selected turns what the NPWG's dialect says into addresses asked of the network: those that are named, or else one of each subnet.
// It refuses what the network could not do. What only the configuration of another plugin can tell is configure's to refuse.
func selected(q model.InterfaceRequest, n model.Network) (model.InterfaceRequest, error) {
	s := q.Selection
	if n.Delegate == nil {
		for _, key := range slices.Sorted(maps.Keys(s.Capabilities)) {
			return q, fmt.Errorf("%s is for networks whose plugin declares the capability, and type %s is made without a plugin", key, n.Type)
		}
		if s.MAC != "" && !takesMAC(n) {
			return q, fmt.Errorf("mac %s: interfaces of type %s have their device's address", s.MAC, n.Type)
		}
		if s.MAC != "" && n.Kind == model.ClusterNetwork && !strings.ContainsAny(s.MAC[1:2], "26ae") { // IEEE 802, section 8.4: the bit of local addresses
			return q, fmt.Errorf("mac %s: on a network of the cluster Pods have locally administered addresses, such as 02:…, which no card and no router has", s.MAC)
		}
	}
	if givesAddresses(n) && len(s.Addresses) == 0 {
		if n.IPv4 != nil {
			q.IP.Mode = model.AddressDynamic
		}
		if n.IPv6 != nil {
			q.IP6.Mode = model.AddressDynamic
		}
		return q, nil
	}
	if !givesAddresses(n) {
		return q, nil // named addresses are the plugin's to take or refuse
	}
	for _, text := range s.Addresses {
		bare, _, _ := strings.Cut(text, "/") // the network's own length counts
		a, err := netip.ParseAddr(bare)
		if err != nil {
			return q, fmt.Errorf("ips: %w", err)
		}
		family := &q.IP
		if a.Is6() {
			family = &q.IP6
		}
		if family.Mode != model.NoAddress {
			return q, fmt.Errorf("ips: a second address of a family, %s; an interface gets one", a)
		}
		if !subnetOf(n, a).CIDR.Contains(a) {
			return q, fmt.Errorf("ips: %s is in no subnet of the network", a)
		}
		*family = model.AddressRequest{Mode: model.AddressStatic, Addr: a}
	}
	return q, nil
}

// givesAddresses says whether the network's addresses are DANM's to give: else another plugin has its own.
func givesAddresses(n model.Network) bool {
	return n.Delegate == nil || n.IPv4 != nil || n.IPv6 != nil
}

// callWith is what a plugin's configuration becomes, and which capabilities it is called with, by what a Pod says of the interface. A
// capability that no plugin of the list declares would be passed over by them all, so it is refused (NPWG, 4.1.2.1).
func callWith(list json.RawMessage, s *model.Selection, n model.Network, runtime map[string]any) (json.RawMessage, map[string]any, error) {
	if s == nil {
		return list, runtime, nil
	}
	wanted := maps.Clone(s.Capabilities)
	if wanted == nil {
		wanted = map[string]any{}
	}
	if s.MAC != "" {
		wanted["mac"] = s.MAC
	}
	if len(s.Addresses) > 0 && !givesAddresses(n) {
		wanted["ips"] = s.Addresses
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if !delegate.Declares(list, name) {
			return nil, nil, fmt.Errorf("the Pod asks for %s, and no plugin of the network declares that capability", name)
		}
	}
	list, err := delegate.WithArgs(list, s.Args)
	if err != nil {
		return nil, nil, err
	}
	out := maps.Clone(runtime)
	if out == nil {
		out = wanted
	}
	maps.Copy(out, wanted)
	return list, out, nil
}
