package ipam

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

const (
	maxExact  = 1 << 53 // above it JSON numbers lose digits
	maxOffers = 4       // addresses that a node offers of a space
	maxStrays = 8       // addresses out of its blocks that a node names of a space
)

// Usage is what this node's addresses are doing, by space: what its NodePlan's status says.
func (k *Keeper) Usage() []v1alpha1.AddressUse {
	k.mu.Lock()
	wanted := make(map[Space]model.Subnet, len(k.wanted))
	for s, sub := range k.wanted {
		wanted[s] = sub
	}
	unlisted := k.unlisted // never changed in place
	k.mu.Unlock()
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	ready := k.now() - int64(k.opts.Cooldown)
	var out []v1alpha1.AddressUse
	for key, ss := range k.st.spaces {
		if len(ss.blocks) == 0 && ss.space.Held() == 0 {
			continue
		}
		sub, ok := wanted[key]
		if !ok {
			sub = model.Subnet{CIDR: key.CIDR}
		}
		u := v1alpha1.AddressUse{Space: key.object().Hash(), Held: int64(ss.space.Held())}
		free, some := ss.space.Free(sub, ready, maxOffers)
		u.Free = exact(free)
		for _, a := range some {
			u.Offers = append(u.Offers, a.String())
		}
		for _, b := range ss.blocks {
			_, cooling := ss.space.Busy(b.CIDR, ready)
			u.Cooling += int64(cooling)
			if b.State == Frozen {
				u.Frozen += exact(uint64(1) << min(b.CIDR.Addr().BitLen()-b.CIDR.Bits(), 63))
			}
		}
		u.Frozen = min(u.Frozen, maxExact)
		for _, p := range ss.strays(key, k.st.meta.unknown(ready), unlisted) {
			if u.Stray++; len(u.Strays) < maxStrays {
				u.Strays = append(u.Strays, strings.TrimSuffix(p.String(), fmt.Sprintf("/%d", p.Addr().BitLen())))
			}
		}
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b v1alpha1.AddressUse) int { return cmp.Compare(a.Space, b.Space) })
	return out
}

// unknown says that Pods may have, or had until after ready, what the journal does not know of.
func (m Meta) unknown(ready int64) bool {
	return m.LostSince != 0 && (len(m.Lost) > 0 || m.LostSince > ready)
}

// strays are what Pods have and no block of this node answers for, in order: whoever has the block may give them to others. As
// long as the journal does not know what they have, whole blocks are that went to others meanwhile, and Singles that nobody lists.
func (ss *spaceState) strays(key Space, lost bool, unlisted map[placed]bool) (out []netip.Prefix) {
	if lost {
		for p, b := range ss.blocks {
			if b.State == Frozen && (b.UID == "" || unlisted[placed{key, p}]) {
				out = append(out, p)
			}
		}
	}
	ss.space.EachHeld(func(a netip.Addr) {
		b, ok := ss.around(a)
		if ok && !b.Foreign && !unlisted[placed{key, b.CIDR}] && (b.State != Frozen || b.UID != "") {
			if _, ceded := b.ceded(a); !ceded {
				return
			}
		}
		out = append(out, singlePrefix(a))
	})
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

func exact(n uint64) int64 { return int64(min(n, maxExact, math.MaxInt64)) } //nolint:gosec // bounded

// Err is why the journal takes nothing more until it is opened again, nil while it works.
func (s *Service) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.j.failed
}

// Meta is what the journal knows of its node.
func (s *Service) Meta() Meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.st.meta.clone()
}

// Blocks are the blocks in the journal, by space and address.
func (s *Service) Blocks() []Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.st.allBlocks()
	slices.SortFunc(out, func(a, b Block) int {
		return cmp.Or(cmp.Compare(a.Space.object().Hash(), b.Space.object().Hash()), a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()))
	})
	return out
}
