package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
)

// settling is how long a Single may be there without being listed: its owner has not answered yet, or it is being given up.
const settling = 2 * time.Minute

// block is an IPBlock, parsed.
type block struct {
	*v1alpha1.IPBlock
	space ipam.Space
	cidr  netip.Prefix
}

// Check compares the IPBlocks of a cluster with one another, with its Nodes and with the DanmEps. No finding means that they
// agree.
func (c Cluster) Check() []Finding {
	var out []Finding
	spaces := map[ipam.Space][]block{}
	for i := range c.Blocks {
		b, bad := parse(&c.Blocks[i])
		if bad != nil {
			out = append(out, *bad)
			continue
		}
		spaces[b.space] = append(spaces[b.space], b)
		out = append(out, labels(b)...)
	}
	for space, all := range spaces {
		slices.SortFunc(all, func(a, b block) int {
			if n := a.cidr.Addr().Compare(b.cidr.Addr()); n != 0 {
				return n
			}
			return a.cidr.Bits() - b.cidr.Bits()
		})
		out = append(out, c.cut(space, all)...)
		out = append(out, c.cessions(space, all)...)
	}
	out = append(out, c.endpoints(spaces)...)
	out = append(out, c.strays(spaces)...)
	return sorted(out)
}

func parse(o *v1alpha1.IPBlock) (block, *Finding) {
	space, ok := Parse(o.Spec.Space)
	p, err := netip.ParsePrefix(o.Spec.CIDR)
	b := block{o, space, p}
	switch {
	case !ok || err != nil || p != p.Masked():
		return b, &Finding{BadObject, "", "IPBlock " + o.Name, fmt.Sprintf("space %s, range %q: not to be understood", o.Spec.Space, o.Spec.CIDR), "nodes and controller do not see it; kubectl delete it, if no Pod has an address of it"}
	case o.Spec.Role == v1alpha1.RoleRoot && o.Name != o.Spec.Space.RootName(), o.Spec.Role != v1alpha1.RoleRoot && o.Name != o.Spec.Space.BlockName(p):
		return b, &Finding{BadObject, o.Spec.Space.String(), "IPBlock " + o.Name, "its name is not that of its space and range, so it excludes nobody", "kubectl delete it, if no Pod has an address of it"}
	case !space.CIDR.Overlaps(p) || p.Bits() < space.CIDR.Bits(), o.Spec.Role == v1alpha1.RoleSingle && !p.IsSingleIP():
		return b, &Finding{BadObject, o.Spec.Space.String(), "IPBlock " + o.Name, fmt.Sprintf("range %s is none of a %s of its space", p, o.Spec.Role), "kubectl delete it, if no Pod has an address of it"}
	}
	return b, nil
}

func labels(b block) (out []Finding) {
	want := map[string]string{v1alpha1.LabelSpace: b.Spec.Space.Hash(), v1alpha1.LabelOwner: v1alpha1.LabelValue(b.Spec.Owner)}
	if b.Spec.Role == v1alpha1.RoleSingle {
		want[v1alpha1.LabelAsked] = v1alpha1.LabelValue(b.Spec.Asked)
		if r := b.Spec.Reservation; r != nil {
			want[v1alpha1.LabelReservation] = r.Hash(b.Spec.Space)
		}
	}
	if b.Spec.Role == v1alpha1.RoleRoot {
		delete(want, v1alpha1.LabelOwner)
	}
	for key, value := range want {
		if have, ok := b.Labels[key]; have != value || !ok && value != "" {
			out = append(out, Finding{BadLabels, b.Spec.Space.String(), "IPBlock " + b.Name, fmt.Sprintf("label %s is %q, and its spec says %q: who looks by label does not find it", key, have, value),
				fmt.Sprintf("kubectl label --overwrite ipblock %s %s=%s", b.Name, key, value)})
		}
	}
	return out
}

// cut checks the grid, the owners and overlaps of one space. all is sorted by address.
func (c Cluster) cut(space ipam.Space, all []block) (out []Finding) {
	root := slices.IndexFunc(all, func(b block) bool { return b.Spec.Role == v1alpha1.RoleRoot })
	if root < 0 {
		out = append(out, Finding{NoRoot, name(space), "the space", "it has IPBlocks and no root", "the controller makes it while a network is on the space: see its log"})
	}
	var last block
	for _, b := range all {
		if b.Spec.Role != v1alpha1.RoleBlock {
			if b.Spec.Role == v1alpha1.RoleSingle {
				out = append(out, c.owner(space, b)...)
			}
			continue
		}
		if root >= 0 && int32(b.cidr.Bits()) != all[root].Spec.BlockBits { //nolint:gosec // at most 128
			out = append(out, Finding{OffGrid, name(space), "IPBlock " + b.Name, fmt.Sprintf("it is a /%d, and the root cuts the space into /%d", b.cidr.Bits(), all[root].Spec.BlockBits), "drain its owner; it gives the block back"})
		}
		if last.IPBlock != nil && last.cidr.Overlaps(b.cidr) {
			out = append(out, Finding{Overlap, name(space), "IPBlock " + b.Name, fmt.Sprintf("it overlaps with IPBlock %s (node %q, node %q): an address may be given to two", last.Name, last.Spec.Owner, b.Spec.Owner), "drain one of both nodes; it gives the block back"})
		}
		if last.IPBlock == nil || !last.cidr.Overlaps(b.cidr) {
			last = b
		}
		out = append(out, c.owner(space, b)...)
	}
	return out
}

func (c Cluster) owner(space ipam.Space, b block) []Finding {
	if c.Nodes == nil || b.Spec.Owner == "" || c.Nodes[b.Spec.Owner] {
		return nil
	}
	return []Finding{{OwnerGone, name(space), "IPBlock " + b.Name, "its owner " + b.Spec.Owner + " is no Node", "it is freed a block lease (12 h) after the node's last sign of life; danmctl ipam release --node " + b.Spec.Owner + " --powered-off frees it now"}}
}

// cessions compares Singles with the lists of the blocks around them.
func (c Cluster) cessions(space ipam.Space, all []block) (out []Finding) {
	type entry struct {
		in block
		by v1alpha1.IPCession
	}
	listed := map[string]entry{} // by UID
	var blocks []block
	for _, b := range all {
		if b.Spec.Role == v1alpha1.RoleBlock {
			blocks = outer(blocks, b)
			for _, x := range b.Spec.Ceded {
				listed[x.UID] = entry{b, x}
			}
		}
	}
	for _, b := range all {
		if b.Spec.Role != v1alpha1.RoleSingle {
			continue
		}
		e, ok := listed[string(b.UID)]
		delete(listed, string(b.UID))
		young := c.Now.Sub(b.CreationTimestamp.Time) < settling
		going := b.Status.Answer == v1alpha1.AnswerRefused || b.DeletionTimestamp != nil
		switch {
		case ok && e.by.Address != b.cidr.Addr().String():
			out = append(out, Finding{NotCeded, name(space), "IPBlock " + b.Name, fmt.Sprintf("IPBlock %s lists it as %s", e.in.Name, e.by.Address), "delete the Pod that has " + b.cidr.Addr().String()})
		case !ok && !young && !going:
			what := "no block is around it: another node may claim one and give the address out"
			if o, some := cover(blocks, b.cidr.Addr()); some {
				what = fmt.Sprintf("IPBlock %s of node %q does not list it: both may give the address out", o.Name, o.Spec.Owner)
			}
			out = append(out, Finding{NotCeded, name(space), "IPBlock " + b.Name, what, fmt.Sprintf("delete the Pod on node %q that has %s; the node gives it back", b.Spec.Owner, b.cidr.Addr())})
		}
	}
	for _, e := range listed {
		out = append(out, Finding{CededNoSingle, name(space), "IPBlock " + e.in.Name, fmt.Sprintf("it lists %s as ceded to node %q, and that Single is not there", e.by.Address, e.by.Node),
			fmt.Sprintf("its owner %q takes it back within ten minutes; see the log of its agent if it stays", e.in.Spec.Owner)})
	}
	return out
}

// outer adds a block unless it lies in the last: then cut names the overlap.
func outer(blocks []block, b block) []block {
	if n := len(blocks); n > 0 && blocks[n-1].cidr.Overlaps(b.cidr) {
		return blocks
	}
	return append(blocks, b)
}

// strays are the addresses that nodes say to have out of their blocks.
func (c Cluster) strays(spaces map[ipam.Space][]block) (out []Finding) {
	names := map[string]string{}
	for s := range spaces {
		names[SpaceOf(s).Hash()] = name(s)
	}
	for i := range c.Plans {
		node := c.Plans[i].Name
		for _, u := range c.Plans[i].Status.Addresses {
			if u.Stray == 0 {
				continue
			}
			named := slices.Clone(u.Strays)
			for i, text := range named { // a node wrote it, and a terminal shows it
				if _, err := netip.ParsePrefix(text); err != nil && !isAddr(text) {
					named[i] = strconv.Quote(text)
				}
			}
			where := strings.Join(named, ", ")
			if more := u.Stray - int64(len(u.Strays)); more > 0 {
				where += fmt.Sprintf(" and %d more", more)
			}
			out = append(out, Finding{NoBlock, cmp.Or(names[u.Space], "space "+u.Space), where, "Pods of node " + node + " have it, in no block of the node: another node may give it out",
				"delete these Pods: `danmctl ipam show` on the node names them; of a whole block, those that are older than its journal"})
		}
	}
	return out
}

func isAddr(text string) bool {
	a, err := netip.ParseAddr(text)
	return err == nil && a.Zone() == ""
}

// cover is the block around an address, of disjoint blocks sorted by address.
func cover(blocks []block, a netip.Addr) (block, bool) {
	i, exact := slices.BinarySearchFunc(blocks, a, func(b block, a netip.Addr) int { return b.cidr.Addr().Compare(a) })
	if !exact {
		i--
	}
	if i < 0 || !blocks[i].cidr.Contains(a) {
		return block{}, false
	}
	return blocks[i], true
}

// endpoints compares DanmEps with one another and with the blocks.
func (c Cluster) endpoints(spaces map[ipam.Space][]block) (out []Finding) {
	first := map[at]use{}
	grids := map[ipam.Space][]block{}
	singles := map[at]block{}
	for space, all := range spaces {
		for _, b := range all {
			switch b.Spec.Role {
			case v1alpha1.RoleBlock:
				grids[space] = outer(grids[space], b)
			case v1alpha1.RoleSingle:
				singles[at{space, b.cidr.Addr()}] = b
			}
		}
	}
	for _, u := range c.uses() {
		key := at{u.space, u.addr}
		if o, twice := first[key]; twice && o.uid != u.uid {
			out = append(out, Finding{Double, name(u.space), u.addr.String(), fmt.Sprintf("Pod %s on node %s (DanmEp %s) and Pod %s on node %s (DanmEp %s) have it", o.pod, o.node, o.name, u.pod, u.node, u.name), "delete the younger Pod: kubectl delete pod"})
		} else if !twice {
			first[key] = u
		}
		if single, ok := singles[key]; ok && single.Spec.Owner == u.node {
			continue
		}
		b, ok := cover(grids[u.space], u.addr)
		switch {
		case !ok:
			out = append(out, Finding{NoBlock, name(u.space), u.addr.String(), fmt.Sprintf("Pod %s on node %s has it, and no block is around it", u.pod, u.node), "delete the Pod: another node may claim the address; if the Pod is gone, the DanmEp " + u.name})
		case b.Spec.Owner == u.node:
			if i := slices.IndexFunc(b.Spec.Ceded, func(x v1alpha1.IPCession) bool { return x.Address == u.addr.String() && x.Node != u.node }); i >= 0 {
				out = append(out, Finding{HeldAndCeded, name(u.space), u.addr.String(), fmt.Sprintf("Pod %s on node %s has it, and the node has ceded it to node %s", u.pod, u.node, b.Spec.Ceded[i].Node), "delete the Pod"})
			}
		case b.Spec.Owner == "" && slices.ContainsFunc(b.Spec.Held, func(h v1alpha1.IPHolder) bool { return h.Address == u.addr.String() }):
		default:
			owner := "the controller"
			if b.Spec.Owner != "" {
				owner = "node " + b.Spec.Owner
			}
			out = append(out, Finding{NoBlock, name(u.space), u.addr.String(), fmt.Sprintf("Pod %s on node %s has it, and its block is %s's", u.pod, u.node, owner), "delete the Pod: " + owner + " may give the address out; if the Pod is gone, the DanmEp " + u.name})
		}
	}
	return out
}

// Waiting are the nodes that wait for a check since the API server went back in time, with what each waits for.
func Waiting(annotations map[string]map[string]string) (nodes []string) {
	for node, a := range annotations {
		if n := a[ipam.AnnotationSuspect]; n != "" && a[ipam.AnnotationChecked] != n {
			nodes = append(nodes, node)
		}
	}
	slices.SortFunc(nodes, strings.Compare)
	return nodes
}
