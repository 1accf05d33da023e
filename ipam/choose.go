package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"danm.io/danm/ipam/alloc"
)

// choose takes an address for each ask under number ri: given ones first, then those the Pod had before, then new ones,
// so that no choice of ours stands in the way of a wish of the Pod's own.
func (s *Service) choose(wanted []ask, kept map[Hold]bool, ri uint32, ready int64, namespace string) ([]ask, error) {
	out := make([]ask, len(wanted))
	spaces := make([]*spaceState, len(wanted))
	for i, a := range wanted {
		ss, changed, err := s.st.space(a.space, a.geo)
		if err != nil {
			return nil, fmt.Errorf("interface %s on network %s: %w", a.ifName, a.network, err)
		}
		if changed {
			s.framed = appendSpace(s.framed, ss.id, ss.key, a.geo)
		}
		spaces[i], out[i] = ss, a
		had := a.static.IsValid() && kept[Hold{Space: a.space, IfName: a.ifName, Addr: a.static}]
		if a.static.IsValid() && !(had && s.keep(ss, a.static, ri)) {
			if err := s.takeStatic(ss, a, ri); err != nil {
				return nil, fmt.Errorf("interface %s on network %s: %w", a.ifName, a.network, s.named(err, namespace))
			}
		}
		out[i].got = a.static
	}
	for h := range kept {
		for i, a := range out {
			if !a.got.IsValid() && h.IfName == a.ifName && h.Space == a.space && s.keep(spaces[i], h.Addr, ri) {
				out[i].got = h.Addr
			}
		}
	}
	for i, a := range out {
		if a.got.IsValid() {
			continue
		}
		got, err := s.takeAny(spaces[i], a, ri, ready)
		if err != nil {
			return nil, fmt.Errorf("interface %s on network %s: %w", a.ifName, a.network, s.named(err, namespace))
		}
		out[i].got = got
	}
	return out, nil
}

// keep gives the Pod an address back that it had until this very transaction, be the block frozen meanwhile or the lease
// expired: the address was live, and giving it to the same Pod makes it no more so.
func (s *Service) keep(ss *spaceState, a netip.Addr, ri uint32) bool {
	if !ss.space.Geometry().Claimed {
		return s.st.tx.Static(ss.space, a, ri) == nil
	}
	if _, held := ss.space.Holder(a); held || !ss.covers(a) {
		return false
	}
	s.st.tx.Take(ss.space, a, ri)
	return true
}

func (s *Service) takeStatic(ss *spaceState, a ask, ri uint32) error {
	if err := s.mayGive(a); err != nil {
		return err
	}
	if b, ok := ss.blocks[singlePrefix(a.static)]; ok && b.Single && b.State == Owned {
		if b.Reservation != "" {
			return fmt.Errorf("address %s is kept for a Pod of a StatefulSet: %w", a.static, ErrReserved)
		}
		return s.takeSingle(ss, a.static, ri)
	}
	err := s.st.tx.Static(ss.space, a.static, ri)
	if a.geo.Claimed && errors.Is(err, ErrNotOurs) {
		return &NeedError{Space: a.space, Subnet: a.sub, Static: a.static, Err: err}
	}
	return err
}

func (s *Service) takeSingle(ss *spaceState, a netip.Addr, ri uint32) error {
	if h, held := ss.space.Holder(a); held {
		return &alloc.TakenError{Addr: a, Holder: h}
	}
	s.st.tx.Take(ss.space, a, ri)
	return nil
}

// takeAny chooses an address: the one that is kept for the Pod, if its network is sticky.
func (s *Service) takeAny(ss *spaceState, a ask, ri uint32, ready int64) (netip.Addr, error) {
	if err := s.mayGive(a); err != nil {
		return netip.Addr{}, err
	}
	if a.sticky != nil {
		p, ok := ss.reserved[a.kept]
		if !ok || ss.blocks[p].State != Owned {
			return netip.Addr{}, &NeedError{Space: a.space, Subnet: a.sub, Sticky: a.sticky, Err: ErrNotOurs}
		}
		return p.Addr(), s.takeSingle(ss, p.Addr(), ri)
	}
	got, err := s.st.tx.Dynamic(ss.space, a.sub, ri, ready)
	if a.geo.Claimed && errors.Is(err, ErrExhausted) {
		return got, &NeedError{Space: a.space, Subnet: a.sub, Err: err}
	}
	return got, err
}

// mayGive says why no new address may be given out now.
func (s *Service) mayGive(a ask) error {
	if !a.geo.Claimed && s.st.meta.LostSince != 0 {
		return fmt.Errorf("the address journal was lost; %d sandboxes from before may have addresses that it does not know: %w", len(s.st.meta.Lost), ErrFrozen)
	}
	if permit := s.permit.Load(); a.geo.Claimed && permit != nil {
		return (*permit)()
	}
	return nil
}

// named puts the Pod's name into an error that knows only the number of the holder, for who asks from the same namespace: to others
// what runs elsewhere is not told.
func (s *Service) named(err error, namespace string) error {
	var taken *alloc.TakenError
	if !errors.As(err, &taken) {
		return err
	}
	out := &TakenError{Addr: taken.Addr}
	if int(taken.Holder) < len(s.st.recs) && s.st.recs[taken.Holder].n > 0 {
		if r, err := s.readRecord(taken.Holder); err == nil && r.Namespace == namespace {
			out.Namespace, out.Pod, out.Sandbox = r.Namespace, r.Pod, r.Sandbox
		}
	}
	return out
}
