package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
)

// The states of addresses, as show prints them.
const (
	Held      = "held"
	Ceded     = "ceded"
	Cooling   = "cooling"
	Kept      = "kept" // for a Pod of a StatefulSet that nobody has now
	Frozen    = "frozen"
	Releasing = "releasing"
	Claiming  = "claiming"
	Reserved  = "reserved"
	Gateway   = "gateway"
	Base      = "network base address"
	Broadcast = "broadcast address"
	Excluded  = "excluded"
	Free      = "free"
	Claimed   = "in a block" // in a block: what of it is held, only the node knows
	Unclaimed = "unclaimed"
	Elsewhere = "not this node's"
	Outside   = "out of pool"
)

// Range is neighbouring addresses of one state.
type Range struct {
	First     netip.Addr `json:"first"`
	Last      netip.Addr `json:"last"`
	State     string     `json:"state"`
	Pod       string     `json:"pod,omitempty"` // namespace/name
	Interface string     `json:"interface,omitempty"`
	Sandbox   string     `json:"sandbox,omitempty"`
	Node      string     `json:"node,omitempty"`
	For       string     `json:"for,omitempty"` // reservation, or whose
	Since     time.Time  `json:"since,omitzero"`
}

// idle says of a state whether show leaves it out unless all are asked for.
func (r Range) idle() bool {
	return r.State == Free || r.State == Outside || r.State == Unclaimed || r.State == Elsewhere
}

func (r Range) alike(o Range) bool {
	r.First, r.Last, o.First, o.Last = netip.Addr{}, netip.Addr{}, netip.Addr{}, netip.Addr{}
	return r == o
}

// Layers: what lies on a higher one hides what lies below.
const (
	layerCIDR = iota
	layerPool
	layerBlock
	layerState
	layerNever // addresses never chosen dynamically
	layerCeded
	layerCooling
	layerHeld
	layers
)

type mark struct {
	Range
	layer int
}

// over lays marks over one another: what is seen from above, in order, equal neighbours as one. Of marks that overlap in one
// layer, the one that begins first is seen as far as it reaches.
func over(marks []mark) []Range {
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.layer, b.layer)) })
	bounds := make([]netip.Addr, 0, 2*len(marks))
	for _, m := range marks {
		bounds = append(bounds, m.First)
		if next := m.Last.Next(); next.IsValid() {
			bounds = append(bounds, next)
		}
	}
	slices.SortFunc(bounds, netip.Addr.Compare)
	bounds = slices.Compact(bounds)
	var top [layers]*mark
	var under [layers][]*mark // begun, but hidden by another of their layer
	var out []Range
	next := 0
	for i, at := range bounds {
		for ; next < len(marks) && marks[next].First == at; next++ {
			under[marks[next].layer] = append(under[marks[next].layer], &marks[next])
		}
		for l := range layers {
			for top[l] == nil || top[l].Last.Less(at) {
				if top[l] = nil; len(under[l]) == 0 {
					break
				}
				top[l], under[l] = under[l][0], under[l][1:]
			}
		}
		for l := layers - 1; l >= 0; l-- {
			m := top[l]
			if m == nil {
				continue
			}
			r := m.Range
			r.First, r.Last = at, lastBefore(bounds, i, m.Last)
			if n := len(out); n > 0 && out[n-1].alike(r) && out[n-1].Last.Next() == r.First {
				out[n-1].Last = r.Last
			} else {
				out = append(out, r)
			}
			break
		}
	}
	return out
}

// lastBefore is the last address of the piece that begins at bounds[i].
func lastBefore(bounds []netip.Addr, i int, last netip.Addr) netip.Addr {
	if i+1 == len(bounds) {
		return last
	}
	if end := bounds[i+1].Prev(); end.Less(last) {
		return end
	}
	return last
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// SpaceOf is an ipam.Space as the API writes it.
func SpaceOf(s ipam.Space) v1alpha1.IPSpace {
	return v1alpha1.IPSpace{Domain: s.Domain, ID: int64(s.ID), VXLAN: s.VXLAN, CIDR: s.CIDR.String()}
}

// Parse is the inverse; ok is false if the CIDR is none.
func Parse(s v1alpha1.IPSpace) (out ipam.Space, ok bool) {
	p, err := netip.ParsePrefix(s.CIDR)
	if err != nil || s.ID < 0 || s.ID >= 1<<24 {
		return ipam.Space{}, false
	}
	return ipam.Space{Domain: s.Domain, ID: uint32(s.ID), VXLAN: s.VXLAN, CIDR: p.Masked()}, true //nolint:gosec // checked
}
