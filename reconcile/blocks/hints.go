package blocks

import (
	"cmp"
	"net/netip"
	"slices"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
)

// prefixes are the ranges of the blocks.
func (s *space) prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(s.blocks))
	for i, b := range s.blocks {
		out[i] = b.prefix
	}
	return out
}

func (s *space) prefixOf(b *v1alpha1.IPBlock) netip.Prefix {
	p, err := netip.ParsePrefix(b.Spec.CIDR)
	if err != nil {
		panic("blocks: a range of our own does not parse: " + b.Spec.CIDR)
	}
	return p
}

// maxUsed is where counts of addresses stop: the largest number that JSON readers keep exact.
const maxUsed = 1 << 53

// offer is who could cede what in a space.
type offer struct {
	node string
	list []string
}

// offers are addresses that others could cede: of orphans first, which always answer, then of each node in turn, so that not
// everybody asks the same one.
func (x *decider) offers(s *space, grid alloc.Grid) []v1alpha1.IPOffer {
	asked := map[netip.Addr]bool{}
	for _, b := range s.singles {
		asked[b.prefix.Addr()] = true
	}
	var out []v1alpha1.IPOffer
	for _, b := range s.blocks {
		if b.Spec.Owner != "" || x.waiting {
			continue
		}
		for a := b.prefix.Addr(); len(out) < maxOffers/2 && b.prefix.Contains(a); a = a.Next() {
			if grid.Dynamic(a) && !asked[a] && occupied(b.IPBlock, a.String()) == "" && unheardOf(b.IPBlock, x.w.Now) == "" {
				out = append(out, v1alpha1.IPOffer{Address: a.String()})
			}
		}
	}
	list := x.offered[s.id.Hash()]
	for round, more := 0, true; more && len(out) < maxOffers; round++ {
		more = false
		for _, o := range list {
			if round >= len(o.list) || len(out) >= maxOffers {
				continue
			}
			more = true
			a, err := netip.ParseAddr(o.list[round])
			if err != nil || asked[a] || !grid.Dynamic(a) {
				continue
			}
			if b := s.cover(a); b != nil && b.Spec.Owner == o.node {
				out = append(out, v1alpha1.IPOffer{Address: a.String(), Owner: o.node})
			}
		}
	}
	return out
}

// reported sums up what nodes say: addresses held by Pods, offers, and Pods attached to networks.
func (x *decider) reported() {
	x.used, x.offered, x.attached = map[string]int64{}, map[string][]offer{}, map[string][]string{}
	for i := range x.w.Plans {
		p := &x.w.Plans[i]
		for _, a := range p.Status.Addresses {
			x.used[a.Space] = min(x.used[a.Space]+min(max(a.Held, 0), maxUsed), maxUsed)
			if len(a.Offers) > 0 {
				x.offered[a.Space] = append(x.offered[a.Space], offer{p.Name, a.Offers})
			}
		}
		for key, n := range p.Status.Attached {
			if n > 0 {
				x.attached[key] = append(x.attached[key], p.Name)
			}
		}
	}
	for _, list := range x.offered {
		slices.SortFunc(list, func(a, b offer) int { return cmp.Compare(a.node, b.node) })
	}
	for _, nodes := range x.attached {
		slices.Sort(nodes)
	}
}
