package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// Attached is what the attachment record of a sandbox says of its links.
type Attached struct {
	Netns string          // path on the node
	Links map[string]bool // interfaces that are kernel links made by DANM
	Error string          // why the record cannot be read, "" = it can
}

// Namespace is what the kernel says of a sandbox.
type Namespace struct {
	Gone      string // why it is not the recorded one, "" = it is
	Error     string // why it could not be looked at
	Addresses map[string][]netip.Addr
}

// NodeCheck is what is compared on a node. A nil map or slice was not looked at.
type NodeCheck struct {
	Node      string
	Journal   ipam.Snapshot
	Attached  map[string]Attached  // by sandbox
	Kernel    map[string]Namespace // by sandbox
	Blocks    []v1alpha1.IPBlock   // those whose owner the node is
	AskedAPI  bool                 // Blocks were read
	Published []danmv1.DanmEp      // those of this node
}

// Check compares them. No finding means that they agree.
func (c NodeCheck) Check() []Finding {
	holders := map[at][]holding{}
	var out []Finding
	for _, r := range c.Journal.Records {
		for _, h := range r.Holds {
			holders[at{h.Space, h.Addr}] = append(holders[at{h.Space, h.Addr}], holding{r, h})
		}
		if a := c.Attached[r.Sandbox]; a.Error != "" {
			out = append(out, Finding{Unreadable, "", "sandbox " + r.Sandbox, "its attachment record: " + a.Error, "a newer agent wrote it: use the danmctl of the same release"})
		}
	}
	for key, hs := range holders {
		if len(hs) > 1 {
			out = append(out, Finding{Double, name(key.space), key.addr.String(), "the journal has it for " + hs[0].who() + " and for " + hs[1].who(),
				"delete the younger Pod; the journal is damaged: report it"})
		}
	}
	out = append(out, c.blocks(holders)...)
	if c.Kernel != nil {
		out = append(out, c.kernel(holders)...)
	}
	if c.AskedAPI {
		out = append(out, c.api()...)
	}
	if c.Published != nil {
		out = append(out, c.published(holders)...)
	}
	if c.Journal.Suspect != "" {
		out = append(out, Finding{Waits, "", "node " + c.Node, "it claims nothing since the API server went back in time", "`danmctl ipam check --live --accept`, when the cluster is clean"})
	}
	return sorted(out)
}

// holding is one address with its record.
type holding struct {
	ipam.Record
	ipam.Hold
}

func (h holding) who() string {
	return fmt.Sprintf("Pod %s (%s, sandbox %s)", podName(h.Namespace, h.Pod), h.IfName, h.Sandbox)
}

// blocks compares what is held with the journal's own blocks. Without any, as in the local home, there is nothing to compare.
func (c NodeCheck) blocks(holders map[at][]holding) (out []Finding) {
	if len(c.Journal.Blocks) == 0 && c.Journal.Identity == "" {
		return nil
	}
	bySpace := map[ipam.Space][]ipam.BlockView{}
	for _, b := range c.Journal.Blocks {
		bySpace[b.Space] = append(bySpace[b.Space], b)
	}
	cooling := map[at]bool{}
	for _, x := range c.Journal.Cooling {
		cooling[at{x.Space, x.Addr}] = true
	}
	for key, hs := range holders {
		found := func(k Kind, what, remedy string) {
			out = append(out, Finding{k, name(key.space), key.addr.String(), what, remedy})
		}
		if cooling[key] {
			found(HeldAndFreed, hs[0].who()+" has it, and it cools down", "delete the Pod; the journal is damaged: report it")
		}
		b, ok := around(bySpace[key.space], key.addr)
		switch {
		case !ok:
			found(NoBlock, hs[0].who()+" has it, and the journal has no block around it", "delete the Pod: another node may give the address out")
		case b.State == ipam.Releasing || b.State == ipam.Parking:
			found(NoBlock, fmt.Sprintf("%s has it, and its %s %s is %s", hs[0].who(), strings.ToLower(b.Role), b.CIDR, b.State), "delete the Pod: another node may give the address out; report it")
		}
		if i := slices.IndexFunc(b.Ceded, func(x ipam.Cession) bool { return x.Addr == key.addr }); ok && i >= 0 {
			found(HeldAndCeded, fmt.Sprintf("%s has it, and it was ceded to node %s", hs[0].who(), b.Ceded[i].Node), "delete the Pod on this node, or the one on node "+b.Ceded[i].Node)
		}
	}
	return out
}

// around is the smallest block around an address.
func around(blocks []ipam.BlockView, a netip.Addr) (found ipam.BlockView, ok bool) {
	for _, b := range blocks {
		if b.CIDR.Contains(a) && (!ok || b.CIDR.Bits() > found.CIDR.Bits()) {
			found, ok = b, true
		}
	}
	return found, ok
}

// kernel compares records with network namespaces.
func (c NodeCheck) kernel(holders map[at][]holding) (out []Finding) {
	live := map[netip.Addr][]string{} // of addresses that no record explains
	held := c.held()
	for _, r := range c.Journal.Records {
		ns, looked := c.Kernel[r.Sandbox]
		a := c.Attached[r.Sandbox]
		where := "sandbox " + r.Sandbox + " of Pod " + podName(r.Namespace, r.Pod)
		switch {
		case !looked:
			continue
		case ns.Error != "":
			out = append(out, Finding{Unreadable, "", where, "network namespace " + a.Netns + ": " + ns.Error, "run it as root on the node; --sys-root names where the node's files are"})
			continue
		case ns.Gone != "":
			if len(r.Holds) > 0 {
				out = append(out, Finding{SandboxGone, "", where, "its network namespace " + a.Netns + " " + ns.Gone + ", and it has " + addresses(r),
					"the agent frees it within ten minutes, if the runtime does not list the sandbox; crictl rmp " + r.Sandbox + " otherwise"})
			}
			continue
		}
		for _, h := range r.Holds {
			if _, there := ns.Addresses[h.IfName]; a.Links[h.IfName] && !slices.Contains(ns.Addresses[h.IfName], h.Addr) {
				what := "the interface has not the address"
				if !there {
					what = "the interface is not there"
				}
				out = append(out, Finding{NotInKernel, name(h.Space), h.Addr.String(), fmt.Sprintf("%s, interface %s: %s", where, h.IfName, what), "delete the Pod: its network was changed from inside, or by another"})
			}
		}
		for ifName, have := range ns.Addresses {
			for _, addr := range have {
				if a.Links[ifName] && !slices.Contains(held[inside{container(r.Sandbox), ifName}], addr) && c.inSpaces(addr) {
					live[addr] = append(live[addr], where+", interface "+ifName)
				}
			}
		}
	}
	for addr, places := range live {
		var others []string
		for key, hs := range holders {
			if key.addr == addr {
				others = append(others, hs[0].who())
			}
		}
		slices.Sort(others)
		f := Finding{NotInJournal, "", addr.String(), "on " + strings.Join(places, " and on ") + ", and the journal does not say so", "delete the Pod: somebody gave it the address, or the journal is of another time"}
		if len(others) > 0 {
			f.Kind, f.What = Double, f.What+"; it is held by "+others[0]
		}
		out = append(out, f)
	}
	return out
}

// inside is an interface of a container.
type inside struct{ container, ifName string }

// held is what records say that interfaces have. A plugin that DANM calls for a Pod may ask DANM for addresses in its turn: these have
// a record of their own.
func (c NodeCheck) held() map[inside][]netip.Addr {
	out := map[inside][]netip.Addr{}
	for _, r := range c.Journal.Records {
		for _, h := range r.Holds {
			key := inside{container(r.Sandbox), h.IfName}
			out[key] = append(out[key], h.Addr)
		}
	}
	return out
}

// container is that of a sandbox; where a plugin asked for addresses alone, the sandbox is "container/interface".
func container(sandbox string) string {
	out, _, _ := strings.Cut(sandbox, "/")
	return out
}

func addresses(r ipam.Record) string {
	var out []string
	for _, h := range r.Holds {
		out = append(out, h.Addr.String())
	}
	return strings.Join(out, ", ")
}

// inSpaces says whether an address is of a space that the journal knows.
func (c NodeCheck) inSpaces(a netip.Addr) bool {
	for _, b := range c.Journal.Blocks {
		if b.Space.CIDR.Contains(a) {
			return true
		}
	}
	for _, r := range c.Journal.Records {
		for _, h := range r.Holds {
			if h.Space.CIDR.Contains(a) {
				return true
			}
		}
	}
	return false
}

// api compares the journal's blocks with the cluster's.
func (c NodeCheck) api() (out []Finding) {
	type place struct {
		space ipam.Space
		cidr  netip.Prefix
	}
	there := map[place]*v1alpha1.IPBlock{}
	for i := range c.Blocks {
		b := &c.Blocks[i]
		space, ok := Parse(b.Spec.Space)
		if p, err := netip.ParsePrefix(b.Spec.CIDR); ok && err == nil && b.Spec.Owner == c.Node && b.Spec.Role != v1alpha1.RoleRoot {
			there[place{space, p.Masked()}] = b
		}
	}
	for _, b := range c.Journal.Blocks {
		o, ok := there[place{b.Space, b.CIDR}]
		delete(there, place{b.Space, b.CIDR})
		settled := b.State == ipam.Owned || b.State == ipam.Frozen
		where := strings.ToLower(b.Role) + " " + b.CIDR.String()
		switch {
		case !settled:
		case !ok:
			out = append(out, Finding{BlockMissing, name(b.Space), where, fmt.Sprintf("the journal has it as %s, and the API has none of this node", b.State), "drain the node, if another node has it; else the agent makes it again at its next renewal, within ten minutes"})
		case b.UID != "" && string(o.UID) != b.UID:
			out = append(out, Finding{BlockForeign, name(b.Space), where, "the API's is another object than the journal's: " + string(o.UID) + ", not " + b.UID, "the agent freezes it at its next renewal, within ten minutes; drain the node if it stays"})
		case !sameCeded(b.Ceded, o.Spec.Ceded):
			out = append(out, Finding{CededDiffers, name(b.Space), where, "journal and API do not list the same addresses as ceded", "the agent writes its list at its next renewal, within ten minutes; see its log if it stays"})
		}
	}
	for p, o := range there {
		out = append(out, Finding{BlockUnknown, name(p.space), "IPBlock " + o.Name, "it is this node's, and the journal does not list it", "the agent freezes it at its next renewal, within ten minutes; is the journal of another node, or set aside?"})
	}
	return out
}

func sameCeded(a []ipam.Cession, b []v1alpha1.IPCession) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		if !slices.ContainsFunc(b, func(y v1alpha1.IPCession) bool { return y.Address == x.Addr.String() && y.UID == x.UID }) {
			return false
		}
	}
	return true
}

// published compares with the DanmEps of this node, in a cluster that has any.
func (c NodeCheck) published(holders map[at][]holding) (out []Finding) {
	have := map[string]bool{} // container/address
	for _, hs := range holders {
		for _, h := range hs {
			have[container(h.Sandbox)+"/"+h.Addr.String()] = true
		}
	}
	for i := range c.Published {
		e := &c.Published[i]
		for _, text := range []string{e.Spec.Iface.Address, e.Spec.Iface.AddressIPv6} {
			p, err := netip.ParsePrefix(text)
			if err != nil || !c.inSpaces(p.Addr()) {
				continue
			}
			key := e.Spec.CID + "/" + p.Addr().String()
			if a, known := c.Attached[e.Spec.CID]; known && a.Error == "" && !a.Links[e.Spec.Iface.Name] && !have[key] {
				continue // another plugin's own address
			}
			if !have[key] {
				out = append(out, Finding{EndpointStale, "", "DanmEp " + e.Namespace + "/" + e.Name, fmt.Sprintf("it says that Pod %s has %s, and the journal does not", e.Spec.Pod, p.Addr()), "kubectl delete danmep -n " + e.Namespace + " " + e.Name + ", if the Pod is gone"})
			}
			delete(have, key)
		}
	}
	return out
}
