package audit

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// Space is who has what of one space.
type Space struct {
	Space    string            `json:"space"` // "edge vlan 310 10.40.0.0/22"
	Hash     string            `json:"hash"`
	CIDR     netip.Prefix      `json:"cidr"`
	Networks []string          `json:"networks,omitempty"`
	Counts   map[string]uint64 `json:"counts"` // addresses by state, saturating
	Nodes    []NodeUse         `json:"nodes,omitempty"`
	Ranges   []Range           `json:"ranges"`
}

// NodeUse is what a node says of its addresses of a space.
type NodeUse struct {
	Node    string `json:"node"`
	Held    int64  `json:"held"`
	Cooling int64  `json:"cooling,omitempty"`
	Frozen  int64  `json:"frozen,omitempty"`
	Free    int64  `json:"free,omitempty"`
}

// Node is what is known on one node.
type Node struct {
	Name     string
	Journal  ipam.Snapshot
	Networks []model.Network
	// Slot and Slots: in the local home the node has the blocks with number ≡ Slot mod Slots. Slots 0: blocks are claimed.
	Slot, Slots int
	Cooldown    time.Duration // how long a freed address is not chosen
	Now         time.Time
}

// Cluster is what an API server says.
type Cluster struct {
	Blocks    []v1alpha1.IPBlock
	Plans     []v1alpha1.NodePlan
	Endpoints []danmv1.DanmEp
	Networks  []model.Network
	Nodes     map[string]bool // Node objects that exist; nil = not known
	Now       time.Time
}

// sheet is a space while it is drawn.
type sheet struct {
	marks    []mark
	networks []string
	pools    []model.AddrRange
	nodes    []NodeUse
}

type sheets map[ipam.Space]*sheet

func (m sheets) of(s ipam.Space) *sheet {
	if m[s] == nil {
		m[s] = &sheet{marks: []mark{{Range{First: s.CIDR.Addr(), Last: lastOf(s.CIDR), State: Outside}, layerCIDR}}}
		if first, last := s.CIDR.Addr(), lastOf(s.CIDR); alloc.Reserved(s.CIDR, first) {
			m[s].add(layerNever, Range{First: first, Last: first, State: Base})
			if alloc.Reserved(s.CIDR, last) {
				m[s].add(layerNever, Range{First: last, Last: last, State: Broadcast})
			}
		}
	}
	return m[s]
}

func (s *sheet) add(layer int, r Range) { s.marks = append(s.marks, mark{r, layer}) }

func (s *sheet) one(layer int, a netip.Addr, r Range) {
	r.First, r.Last = a, a
	s.add(layer, r)
}

// pooled adds that part of a range that lies in a pool of some network.
func (s *sheet) pooled(p netip.Prefix, r Range) {
	r.First, r.Last = p.Masked().Addr(), lastOf(p)
	s.pooledRange(r)
}

func (s *sheet) pooledRange(r Range) {
	first, last := r.First, r.Last
	for _, q := range s.pools {
		r.First, r.Last = first, last
		if r.First.Less(q.First) {
			r.First = q.First
		}
		if q.Last.Less(r.Last) {
			r.Last = q.Last
		}
		if !r.Last.Less(r.First) {
			s.add(layerBlock, r)
		}
	}
}

// SpacesOf are the spaces of a network, with their subnets.
func SpacesOf(n model.Network) map[ipam.Space]model.Subnet {
	out := map[ipam.Space]model.Subnet{}
	for _, sub := range []*model.Subnet{n.IPv4, n.IPv6} {
		if sub != nil {
			out[ipam.Space{Domain: n.SpaceDomain, ID: n.ID(), VXLAN: n.VXLAN, CIDR: sub.CIDR}] = *sub
		}
	}
	return out
}

// networks draws pools and what is never chosen dynamically. inPool is the state of what no block says more of.
func (m sheets) networks(all []model.Network, inPool string) {
	for _, n := range all {
		for key, sub := range SpacesOf(n) {
			s := m.of(key)
			s.networks = append(s.networks, n.Key())
			pools := sub.Pools
			if len(pools) == 0 {
				pools = []model.AddrRange{{First: sub.CIDR.Addr(), Last: lastOf(sub.CIDR)}}
			}
			for _, p := range pools {
				s.pools = append(s.pools, p)
				s.add(layerPool, Range{First: p.First, Last: p.Last, State: inPool})
			}
			for _, r := range n.Reserved {
				for _, a := range []netip.Addr{r.IP, r.IP6} {
					if a.IsValid() && key.CIDR.Contains(a) {
						s.one(layerNever, a, Range{State: Reserved, For: r.Namespace + "/" + r.Name})
					}
				}
			}
			for _, a := range sub.Routers() {
				s.one(layerNever, a, Range{State: Gateway})
			}
			for _, x := range sub.Exclude { // what is reserved stands among it, too
				s.add(layerNever, Range{First: x.First, Last: x.Last, State: Excluded})
			}
		}
	}
}

// View draws what a node knows, a Space a space, sorted. filter keeps those of one network, "" all.
func (n Node) View(filter string) []Space {
	m := sheets{}
	m.networks(n.Networks, Elsewhere)
	for _, net := range n.Networks {
		for key, sub := range SpacesOf(net) {
			n.bySlot(m.of(key), sub, net.BlockSize)
		}
	}
	for _, b := range n.Journal.Blocks {
		m.of(b.Space).block(b)
	}
	for _, c := range n.Journal.Cooling {
		if n.Now.Sub(c.Since) < n.Cooldown {
			m.of(c.Space).one(layerCooling, c.Addr, Range{State: Cooling, Since: c.Since})
		}
	}
	for _, r := range n.Journal.Records {
		for _, h := range r.Holds {
			m.of(h.Space).one(layerHeld, h.Addr, Range{State: Held, Pod: podName(r.Namespace, r.Pod), Interface: h.IfName, Sandbox: r.Sandbox, Node: n.Name})
		}
	}
	return m.list(filter)
}

// mostDrawn bounds the blocks by slot that are drawn one by one; behind them a pool is shown as another's.
const mostDrawn = 1 << 16

// bySlot draws the blocks of the local home that are this node's.
func (n Node) bySlot(s *sheet, sub model.Subnet, blockSize int) {
	if n.Slots == 0 {
		return
	}
	g, err := alloc.NewGeometry(sub.CIDR, blockSize, n.Slot, n.Slots)
	if err != nil {
		return
	}
	for i := range uint64(mostDrawn) {
		at := (i*uint64(n.Slots) + uint64(n.Slot)) * g.Block //nolint:gosec // small
		r := Range{First: alloc.Offset(sub.CIDR.Addr(), at), Last: alloc.Offset(sub.CIDR.Addr(), at+g.Block-1), State: Free}
		if at > math.MaxUint64-g.Block || !r.First.IsValid() || !sub.CIDR.Contains(r.First) {
			return
		}
		if !r.Last.IsValid() || !sub.CIDR.Contains(r.Last) {
			r.Last = lastOf(sub.CIDR)
		}
		s.pooledRange(r)
	}
}

// podName is "namespace/name", or what there is of it.
func podName(namespace, pod string) string { return strings.Trim(namespace+"/"+pod, "/") }

func (s *sheet) block(b ipam.BlockView) {
	whole := Range{First: b.CIDR.Masked().Addr(), Last: lastOf(b.CIDR), Since: b.Since}
	switch b.State {
	case ipam.Owned:
		switch {
		case b.Kept:
			whole.State = Kept
			s.add(layerCeded+1, whole)
		case b.Role == v1alpha1.RoleSingle:
			whole.State = Free
			s.add(layerCeded+1, whole)
		default:
			s.pooled(b.CIDR, Range{State: Free})
		}
	case ipam.Frozen:
		whole.State = Frozen
		s.add(layerState, whole)
	case ipam.Releasing, ipam.Parking:
		whole.State = Releasing
		s.add(layerState, whole)
	case ipam.Claiming, ipam.Asked:
		whole.State = Claiming
		s.add(layerState, whole)
	}
	for _, c := range b.Ceded {
		s.one(layerCeded, c.Addr, Range{State: Ceded, For: "node " + c.Node})
	}
}

// View draws what the API knows. What is held is told by DanmEps, where they are published, and by what was imported.
func (c Cluster) View(filter string) []Space {
	m := sheets{}
	m.networks(c.Networks, Unclaimed)
	for i := range c.Blocks {
		b := &c.Blocks[i]
		key, ok := Parse(b.Spec.Space)
		p, err := netip.ParsePrefix(b.Spec.CIDR)
		if !ok || err != nil {
			continue // check names it
		}
		m.of(key).object(b, p)
	}
	byHash := map[string]ipam.Space{}
	for key := range m {
		byHash[SpaceOf(key).Hash()] = key
	}
	for i := range c.Plans {
		for _, u := range c.Plans[i].Status.Addresses {
			if key, ok := byHash[u.Space]; ok {
				m[key].nodes = append(m[key].nodes, NodeUse{c.Plans[i].Name, u.Held, u.Cooling, u.Frozen, u.Free})
			}
		}
	}
	for _, u := range c.uses() {
		m.of(u.space).one(layerHeld, u.addr, Range{State: Held, Pod: u.pod, Interface: u.ifName, Sandbox: u.sandbox, Node: u.node, Since: u.since})
	}
	return m.list(filter)
}

func (s *sheet) object(b *v1alpha1.IPBlock, p netip.Prefix) {
	whole := Range{First: p.Masked().Addr(), Last: lastOf(p), Node: b.Spec.Owner, Since: b.CreationTimestamp.Time}
	switch b.Spec.Role {
	case v1alpha1.RoleBlock:
		r := Range{State: Claimed, Node: b.Spec.Owner}
		if b.Spec.Owner == "" {
			r = Range{State: Claimed, For: "the controller"}
		}
		s.pooled(p, r)
		for _, x := range b.Spec.Ceded {
			if a, err := netip.ParseAddr(x.Address); err == nil {
				s.one(layerCeded, a, Range{State: Ceded, For: "node " + x.Node})
			}
		}
		for _, x := range b.Spec.Held {
			if a, err := netip.ParseAddr(x.Address); err == nil {
				s.one(layerHeld, a, Range{State: Held, Pod: podName(x.Namespace, x.Pod), Node: x.Node, For: "from before DANM's blocks"})
			}
		}
	case v1alpha1.RoleSingle:
		whole.State = Claimed
		if r := b.Spec.Reservation; r != nil {
			whole.For = fmt.Sprintf("Pod %d of StatefulSet %s/%s", r.Ordinal, r.Namespace, r.StatefulSet)
			whole.State = Kept
		}
		s.add(layerCooling, whole)
	}
}

// use is one address that a DanmEp says somebody has.
type use struct {
	space                                 ipam.Space
	addr                                  netip.Addr
	name, pod, uid, ifName, sandbox, node string
	since                                 time.Time
}

// uses are the addresses of DanmEps whose network is known, in the order of the DanmEps.
func (c Cluster) uses() (out []use) {
	type key struct{ kind, namespace, name string }
	of := map[key]model.Network{}
	for _, n := range c.Networks {
		of[key{string(n.Kind), n.Namespace, n.Name}] = n
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		kind, namespace, name := e.Spec.Network(e.Namespace)
		n, ok := of[key{kind, namespace, name}]
		if !ok {
			continue
		}
		for space := range SpacesOf(n) {
			for _, text := range []string{e.Spec.Iface.Address, e.Spec.Iface.AddressIPv6} {
				if p, err := netip.ParsePrefix(text); err == nil && space.CIDR.Contains(p.Addr()) {
					out = append(out, use{space, p.Addr(), e.Namespace + "/" + e.Name, podName(e.Namespace, e.Spec.Pod), e.Spec.PodUID,
						e.Spec.Iface.Name, e.Spec.CID, e.Spec.Host, e.CreationTimestamp.Time})
				}
			}
		}
	}
	return out
}

// list is the finished sheets, by space.
func (m sheets) list(filter string) []Space {
	out := []Space{}
	for key, s := range m {
		slices.Sort(s.networks)
		s.networks = slices.Compact(s.networks)
		if filter != "" && !slices.Contains(s.networks, filter) {
			continue
		}
		id := SpaceOf(key)
		sp := Space{Space: id.String(), Hash: id.Hash(), CIDR: key.CIDR, Networks: s.networks, Counts: map[string]uint64{}, Nodes: s.nodes, Ranges: over(s.marks)}
		for _, r := range sp.Ranges {
			if n := sp.Counts[r.State]; n <= math.MaxUint64-size(r) {
				sp.Counts[r.State] = n + size(r)
			} else {
				sp.Counts[r.State] = math.MaxUint64
			}
		}
		out = append(out, sp)
	}
	slices.SortFunc(out, func(a, b Space) int { return strings.Compare(a.Space, b.Space) })
	return out
}

// size of a range, saturating.
func size(r Range) uint64 {
	a, b := r.First.As16(), r.Last.As16()
	var hi, lo [2]uint64
	for i := range 8 {
		hi[0], hi[1] = hi[0]<<8|uint64(a[i]), hi[1]<<8|uint64(b[i])
		lo[0], lo[1] = lo[0]<<8|uint64(a[8+i]), lo[1]<<8|uint64(b[8+i])
	}
	n := lo[1] - lo[0]
	high := hi[1] - hi[0]
	if lo[1] < lo[0] {
		high--
	}
	if high > 0 || n == math.MaxUint64 {
		return math.MaxUint64
	}
	return n + 1
}

// Shown are the ranges that show prints: all, or those that say more than "free".
func (s Space) Shown(all bool) []Range {
	if all {
		return s.Ranges
	}
	return slices.DeleteFunc(slices.Clone(s.Ranges), Range.idle)
}
