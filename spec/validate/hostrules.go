package validate

import (
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// The kernel's own rules ask main and default at these priorities (fib_default_rules_init in net/ipv4/fib_rules.c).
const (
	mainPriority    = 32766
	defaultPriority = 32767
)

// hostRule reads one routing rule; without a family it is two.
func (c *checker) hostRule(g *group, s spot, r v1.Rule) {
	out := model.Rule{Priority: uint32(r.Priority), IIF: r.IIF, OIF: r.OIF, Mark: uint32(r.Mark), Mask: uint32(r.Mask), Table: uint32(r.Table)}
	sound := c.number(diag.InvalidNumber, s.in("priority"), r.Priority, 1, 1<<32-1)
	sound = c.number(diag.InvalidNumber, s.in("table"), r.Table, 1, 1<<31-1) && sound
	sound = c.number(diag.InvalidNumber, s.in("mark"), r.Mark, 0, 1<<32-1) && sound
	sound = c.number(diag.InvalidNumber, s.in("mask"), r.Mask, 0, 1<<32-1) && sound
	if r.Priority == mainPriority || r.Priority == defaultPriority {
		c.error(diag.InvalidRule, s.in("priority"), fmt.Sprintf("priority %d is that of one of the kernel's own rules", r.Priority), "take a lower number to be asked before them")
		sound = false
	}
	if sound && r.Mask != 0 && r.Mark&^r.Mask != 0 {
		c.error(diag.InvalidRule, s.in("mask"), fmt.Sprintf("the mark %d has bits outside of the mask %d, so nothing matches", r.Mark, r.Mask), "correct one of them")
	}
	if r.Mask != 0 && r.Mark == 0 {
		c.error(diag.InvalidRule, s.in("mask"), "there is a mask, but no mark", "give mark, or remove mask")
	}
	out.From = c.ruleCIDR(s.in("from"), r.From, &sound)
	out.To = c.ruleCIDR(s.in("to"), r.To, &sound)
	for _, dev := range []struct{ field, name string }{{"iif", r.IIF}, {"oif", r.OIF}} {
		if dev.name != "" && dev.name != "lo" && g.links[dev.name] == nil {
			c.dangling("device", dev.name, s.in(dev.field), append(keys(g.links), "lo"), false)
		}
	}
	families := c.ruleFamilies(s, r.Family, out.From, out.To)
	if !sound {
		return
	}
	for _, f := range families {
		out.Family = f
		if slices.Contains(g.Rules, out) {
			c.error(diag.DuplicateRule, s, fmt.Sprintf("group %s has this rule already", g.Name), "remove one of them")
			return
		}
		g.Rules = append(g.Rules, out)
	}
}

func (c *checker) ruleCIDR(s spot, text string, sound *bool) netip.Prefix {
	if text == "" {
		return netip.Prefix{}
	}
	p, ok := c.cidr(s, text)
	*sound = *sound && ok
	return p
}

// ruleFamilies are the families that a rule is for: as written, else those of its prefixes, else both.
func (c *checker) ruleFamilies(s spot, word string, from, to netip.Prefix) []int {
	var seen []int
	for _, p := range []netip.Prefix{from, to} {
		if p.IsValid() && p.Addr().Is4() {
			seen = append(seen, 4)
		} else if p.IsValid() {
			seen = append(seen, 6)
		}
	}
	switch word {
	case "ipv4":
		seen = append(seen, 4)
	case "ipv6":
		seen = append(seen, 6)
	default:
		c.choice(s.in("family"), word, "ipv4", "ipv6")
	}
	slices.Sort(seen)
	seen = slices.Compact(seen)
	switch len(seen) {
	case 0:
		return []int{4, 6}
	case 2:
		c.error(diag.InvalidRule, s, "from, to and family are of two families, so nothing matches", "write one rule for each family")
		return nil
	}
	return seen
}
