package blocks

import (
	"cmp"
	"net/netip"
	"slices"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// space is everything of one space.
type space struct {
	id      v1alpha1.IPSpace
	cidr    netip.Prefix
	subnets []model.Subnet // of the networks on it, with what is reserved by name among the excluded
	keys    []string       // of those networks, sorted
	size    int            // the smallest blockSize that one of them wishes, 0 = none
	root    *v1alpha1.IPBlock
	blocks  []block // of role Block and of the root's grid, in the order of addresses
	strays  []block // of role Block and of another grid
	singles []block
	byUID   map[string]bool         // Singles, and those whose place they take
	unclear bool                    // nothing says how it is cut
	crowded bool                    // more addresses are to be imported than there may be
	status  *v1alpha1.IPBlockStatus // what the root should say, nil while there is none
}

// block is an IPBlock with its range, parsed.
type block struct {
	*v1alpha1.IPBlock
	prefix netip.Prefix
	stray  bool
	void   bool // it has no Range: it takes a name, and means nothing
}

func (s *space) used() bool  { return len(s.subnets) > 0 }
func (s *space) empty() bool { return len(s.blocks)+len(s.strays)+len(s.singles) == 0 }

// cover is the block around an address, nil if there is none.
func (s *space) cover(a netip.Addr) *block {
	i, exact := slices.BinarySearchFunc(s.blocks, a, func(b block, a netip.Addr) int { return b.prefix.Addr().Compare(a) })
	if !exact {
		i--
	}
	if i < 0 || !s.blocks[i].prefix.Contains(a) {
		return nil
	}
	return &s.blocks[i]
}

// bits is the prefix length that the space is cut by: the root's; else that of the blocks which somebody relies on; else that of an
// import that was cut off; else a new one. ok is false if those relied on disagree.
func (s *space) bits(nodes int) (bits int, ok bool) {
	if s.root != nil {
		return int(s.root.Spec.BlockBits), true
	}
	relied, begun := -1, -1
	for _, b := range slices.Concat(s.blocks, s.strays) {
		if n := b.prefix.Bits(); b.Spec.Owner == "" && len(b.Spec.Ceded) == 0 {
			begun = max(begun, n)
		} else if relied >= 0 && n != relied {
			return 0, false
		} else {
			relied = n
		}
	}
	switch {
	case relied >= 0:
		return relied, true
	case begun >= 0:
		return begun, true
	}
	return s.cut(nodes), true
}

// sort puts blocks in order, those of another grid apart: nodes neither claim by them nor ask of them.
func (s *space) sort(nodes int) {
	byAddress := func(a, b block) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
	}
	slices.SortFunc(s.singles, byAddress)
	slices.Sort(s.keys)
	s.keys = slices.Compact(s.keys)
	if len(s.blocks) > 0 {
		if bits, ok := s.bits(nodes); ok {
			all := s.blocks
			s.blocks = nil
			for _, b := range all {
				if b.stray = b.prefix.Bits() != bits; b.stray {
					s.strays = append(s.strays, b)
				} else {
					s.blocks = append(s.blocks, b)
				}
			}
		}
	}
	slices.SortFunc(s.blocks, byAddress)
}

// cut is how the space would be cut if it were new.
func (s *space) cut(nodes int) int {
	var pools []model.AddrRange
	for _, sub := range s.subnets {
		if len(sub.Pools) == 0 {
			pools = nil
			break
		}
		pools = append(pools, sub.Pools...)
	}
	bits := alloc.CutBits(s.cidr, pools, s.size, nodes)
	if whole := s.cidr.Addr().BitLen(); bits == whole && s.cidr.Bits() < whole {
		// What is kept for a Pod, or asked of another node, is an object of its own in a block, and would have the name of a block of
		// one: nobody could ask for the address of such a block, which its node keeps for an hour after its last Pod.
		return bits - 1
	}
	return bits
}

// gateway says whether an address is one that no Pod has.
func (s *space) gateway(a netip.Addr) bool {
	for _, sub := range s.subnets {
		if slices.Contains(sub.Routers(), a) {
			return true
		}
	}
	return false
}

// spaces puts networks and IPBlocks together, sorted by name. blind says that a plan names a segment that is not known: networks
// may be on spaces that seem to have none. served are the networks that nodes are told of, by key, with and without addresses. void
// are the IPBlocks without a Range.
func spaces(w World) (list []*space, void []block, served map[string]bool, blind bool) {
	served = map[string]bool{}
	all := map[v1alpha1.IPSpace]*space{}
	at := func(id v1alpha1.IPSpace) *space {
		s := all[id]
		if s == nil {
			cidr, err := netip.ParsePrefix(id.CIDR)
			if err != nil {
				return nil
			}
			s = &space{id: id, cidr: cidr.Masked(), byUID: map[string]bool{}}
			all[id] = s
		}
		return s
	}
	seen := map[string]bool{}
	for i := range w.Plans {
		spec := &w.Plans[i].Spec
		for _, l := range []*v1alpha1.Layer{spec.Layers.Bundle, spec.Layers.API, spec.LastGood} {
			if l == nil {
				continue
			}
			for _, name := range l.Segments {
				if seen[name] {
					continue
				}
				seen[name] = true
				segment, known := w.Segments[name]
				blind = blind || !known
				for j := range segment.Networks {
					n := &segment.Networks[j]
					served[networkKey(string(n.Kind), n.Namespace, n.Name)] = true
					place(n, at)
				}
			}
		}
	}
	for i := range w.Blocks {
		b := &w.Blocks[i]
		_, p, err := b.Range()
		if err != nil {
			void = append(void, block{IPBlock: b, void: true})
			continue
		}
		s := at(b.Spec.Space)
		switch b.Spec.Role {
		case v1alpha1.RoleRoot:
			s.root = b
		case v1alpha1.RoleBlock:
			s.blocks = append(s.blocks, block{IPBlock: b, prefix: p})
		case v1alpha1.RoleSingle:
			s.singles = append(s.singles, block{IPBlock: b, prefix: p})
			s.byUID[string(b.UID)] = true
			if b.Spec.Before != "" { // made again: its cession is still listed under what was lost
				s.byUID[b.Spec.Before] = true
			}
		}
	}
	for _, s := range all {
		s.sort(len(w.Nodes))
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *space) int {
		return cmp.Or(cmp.Compare(a.id.String(), b.id.String()), cmp.Compare(a.id.Hash(), b.id.Hash()))
	})
	return list, void, served, blind
}

// place puts a network onto its spaces.
func place(n *model.Network, at func(v1alpha1.IPSpace) *space) {
	for _, sub := range []*model.Subnet{n.IPv4, n.IPv6} {
		if sub == nil {
			continue
		}
		s := at(spaceOf(n, sub.CIDR))
		if s == nil {
			continue
		}
		own := *sub
		own.Exclude = slices.Clone(own.Exclude)
		for _, r := range n.Reserved {
			for _, a := range []netip.Addr{r.IP, r.IP6} {
				if a.IsValid() && sub.CIDR.Contains(a) {
					own.Exclude = append(own.Exclude, model.AddrRange{First: a, Last: a})
				}
			}
		}
		s.subnets = append(s.subnets, own)
		s.keys = append(s.keys, networkKey(string(n.Kind), n.Namespace, n.Name))
		if n.BlockSize > 0 && (s.size == 0 || n.BlockSize < s.size) {
			s.size = n.BlockSize
		}
	}
}

// spaceOf is the space as package ipam makes it on the nodes.
func spaceOf(n *model.Network, cidr netip.Prefix) v1alpha1.IPSpace {
	return v1alpha1.IPSpace{Domain: n.SpaceDomain, ID: int64(n.ID()), VXLAN: n.VXLAN, CIDR: cidr.String()}
}
