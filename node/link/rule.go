package link

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (k *Kernel) observeRules(o *plan.Observed) error {
	for family, af := range map[int]int{4: netlink.FAMILY_V4, 6: netlink.FAMILY_V6} {
		rules, err := RulesIn(k.h, af)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without policy routing, or without IPv6
		}
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		for _, r := range rules {
			if m, plain := modelRule(r, family); plain {
				o.Rules = append(o.Rules, plan.ObservedRule{Rule: m, Protocol: int(r.Protocol)})
			}
		}
	}
	return nil
}

// modelRule is a rule of the kernel as a model.Rule; plain is false if that cannot say all of it, or if it is the kernel's.
func modelRule(r netlink.Rule, family int) (m model.Rule, plain bool) {
	blank := netlink.NewRule()
	plain = r.Protocol != unix.RTPROT_KERNEL && r.Table > 0 && !r.Invert && r.Tos == 0 && r.TunID == 0 && r.Goto == blank.Goto && r.Flow == blank.Flow &&
		r.SuppressPrefixlen == blank.SuppressPrefixlen && r.SuppressIfgroup == blank.SuppressIfgroup && r.IPProto == 0 &&
		r.Dport == nil && r.Sport == nil && r.UIDRange == nil
	if !plain {
		return m, false
	}
	m = model.Rule{Priority: uint32(r.Priority), Family: family, From: prefixOf(r.Src), To: prefixOf(r.Dst), IIF: r.IifName, OIF: r.OifName,
		Mark: r.Mark, Table: uint32(r.Table)}
	if r.Mask != nil {
		m.Mask = *r.Mask
	}
	return m, true
}

// rule adds or deletes one. A rule of the same maker that is there already is no error; equal rules of others stay.
func (k *Kernel) rule(s plan.Step) error {
	r := netlinkRule(*s.Rule, protocolOf(s))
	if s.Op == plan.AddRule {
		if err := k.h.RuleAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add rule: %w", err)
		}
		return nil
	}
	if err := k.h.RuleDel(r); err != nil && !isErrno(err, unix.ENOENT, unix.ESRCH) {
		return fmt.Errorf("delete rule: %w", err)
	}
	return nil
}

func netlinkRule(m model.Rule, protocol int) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Family, r.Protocol = int(m.Priority), int(m.Table), netlink.FAMILY_V4, uint8(protocol)
	if m.Family == 6 {
		r.Family = netlink.FAMILY_V6
	}
	selector := func(p netip.Prefix) bool { return p.IsValid() && p.Bits() > 0 }
	if selector(m.From) {
		r.Src = ipNet(m.From.Masked())
	}
	if selector(m.To) {
		r.Dst = ipNet(m.To.Masked())
	}
	r.IifName, r.OifName = m.IIF, m.OIF
	if mask := m.Mask; m.Mark != 0 || mask != 0 {
		if mask == 0 {
			mask = math.MaxUint32
		}
		r.Mark, r.Mask = m.Mark, &mask
	}
	return r
}
