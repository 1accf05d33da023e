package plan_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// randomRule varies every field over a small space.
func randomRule(r *rand.Rand) model.Rule {
	rule := model.Rule{Priority: uint32(100 + r.IntN(3)), Family: 4, Table: pick[uint32](r, 90, 254, 1000)}
	if chance(r, 60) {
		rule.From = netip.MustParsePrefix(pick(r, "10.0.0.0/24", "10.1.0.0/16", "10.0.0.7/24"))
	}
	if chance(r, 20) {
		rule.To = netip.MustParsePrefix("10.8.0.0/16")
	}
	if chance(r, 20) {
		rule.Family, rule.From, rule.To = 6, netip.MustParsePrefix("fd00::/64"), netip.Prefix{}
	}
	if chance(r, 20) {
		rule.IIF = pick(r, "eth1", "uplink", "a")
	}
	if chance(r, 10) {
		rule.OIF = "eth1"
	}
	if chance(r, 20) {
		rule.Mark, rule.Mask = 1, pick[uint32](r, 0, 0xff)
	}
	return rule
}

// foreignRule is one of another maker, now and then equal to what plans want.
func foreignRule(k *fake.Kernel, r *rand.Rand) {
	rule := randomRule(r)
	if rule.IIF == "uplink" {
		rule.IIF = "eth0"
	}
	_ = k.AddRule(plan.ObservedRule{Rule: rule, Protocol: pick(r, 0, 3, 186)})
}

func randomRules(r *rand.Rand) []model.Rule {
	var out []model.Rule
	for range r.IntN(4) {
		if rule := randomRule(r); !slices.ContainsFunc(out, func(o model.Rule) bool { return plan.RuleID(o) == plan.RuleID(rule) }) {
			out = append(out, rule)
		}
	}
	return out
}

// checkRules: each declared rule is there once or more, ours that are not declared are gone.
func checkRules(d plan.Desired, after plan.Observed) error {
	declared := map[plan.ObjectID]bool{}
	for _, r := range d.Plan.Rules {
		hasUplink := slices.ContainsFunc(d.Plan.Links, func(l model.Link) bool { return l.Name == "uplink" })
		if r.IIF == "uplink" && hasUplink {
			r.IIF = "eth0"
		}
		id := plan.RuleID(r)
		declared[id] = true
		if !slices.ContainsFunc(after.Rules, func(o plan.ObservedRule) bool { return plan.RuleID(o.Rule) == id }) {
			return fmt.Errorf("rule %s is missing", id)
		}
	}
	for _, o := range after.Rules {
		if o.Protocol == plan.RouteProtocol && !declared[plan.RuleID(o.Rule)] {
			return fmt.Errorf("rule %+v is left over", o)
		}
	}
	return nil
}

// everySysctl asks for all that the fake has.
var everySysctl = []string{"net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.conf.*.forwarding", "net.ipv4.conf.*.rp_filter", "net.ipv4.conf.*.accept_redirects",
	"net.ipv6.conf.*.forwarding", "net.ipv6.conf.*.accept_ra", "net.ipv4.neigh.*.gc_stale_time"}

func randomSysctls(r *rand.Rand) []model.Sysctl {
	values := map[string][]string{
		"net.core.somaxconn": {"4096", "8192"}, "net.ipv4.tcp_rmem": {"4096 131072 6291456", "1 2 3"}, "net.core.nowhere": {"1"},
		"net.ipv4.conf.all.accept_redirects": {"0", "1"},
	}
	for _, param := range []string{"net.ipv4.conf.*.forwarding", "net.ipv4.conf.*.rp_filter", "net.ipv6.conf.*.forwarding", "net.ipv6.conf.*.accept_ra"} {
		for _, link := range []string{"all", "default", "uplink", "eth1", "a", "b", "absent"} {
			values[strings.ReplaceAll(param, "*", link)] = []string{"0", "1"}
		}
	}
	var out []model.Sysctl
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if chance(r, 12) {
			out = append(out, model.Sysctl{Key: key, Value: pick(r, values[key]...)})
		}
	}
	return out
}

// checkSysctls: what is declared is so, or blocked.
func checkSysctls(d plan.Desired, after plan.Observed, blocked func(plan.ObjectID) bool) error {
	for _, s := range d.Plan.Sysctls {
		if slices.ContainsFunc(d.Plan.Links, func(l model.Link) bool { return l.Name == "uplink" }) {
			s.Key = strings.ReplaceAll(s.Key, ".uplink.", ".eth0.")
		}
		if !slices.Contains(after.Sysctls, s) && !blocked(plan.SysctlID(s.Key)) {
			return fmt.Errorf("sysctl %s is not %s", s.Key, s.Value)
		}
	}
	return nil
}

func randomBond(r *rand.Rand) *model.BondOptions {
	b := &model.BondOptions{Mode: pick(r, "active-backup", "balance-xor", "802.3ad"), MIIMonitor: pick(r, 0, 50, 200), UpDelay: pick(r, 0, 200), DownDelay: pick(r, 0, 400),
		XmitHashPolicy: pick(r, "", "layer3+4"), MinLinks: pick(r, 0, 0, 1)}
	switch b.Mode {
	case "802.3ad":
		b.LACPRate = pick(r, "", "fast", "slow")
	case "active-backup":
		b.Primary = pick(r, "", "eth1")
	}
	return b
}

func randomVLANs(r *rand.Rand) *model.PortVLANs {
	return pick(r, &model.PortVLANs{Untagged: 10}, &model.PortVLANs{Tagged: []model.Range32{{First: 20, Last: 29}, {First: 40, Last: 40}}},
		&model.PortVLANs{Untagged: 20, Tagged: []model.Range32{{First: 21, Last: 21}}})
}

// checkKind compares what only some kinds have. Declared zero values are the kernel's defaults on links of ours, and not
// looked at on others.
func checkKind(l model.Link, o, master plan.ObservedLink, blocked func(plan.ObjectID) bool) error {
	ours := o.Group == plan.Group
	if l.Kind == model.VRF && o.Table != l.Table {
		return fmt.Errorf("%s table is %d", l.Name, o.Table)
	}
	if l.Kind == model.Bridge && ours && o.Filtering != l.Filtering {
		return fmt.Errorf("%s filtering is %v", l.Name, o.Filtering)
	}
	bridge := master
	if l.Kind == model.Bridge {
		bridge = o
	}
	if l.PortVLANs != nil && bridge.Filtering && !blocked(plan.PropertyID(o.Name, "vlans")) {
		if plan.PortVLANsText(o.PortVLANs) != plan.PortVLANsText(l.PortVLANs) {
			return fmt.Errorf("%s is in %v", l.Name, o.PortVLANs)
		}
	}
	if l.Bond == nil || o.Bond == nil {
		return nil
	}
	want, have := *l.Bond, *o.Bond
	fill := func(w *int, h, def int) {
		if *w == 0 && ours {
			*w = def
		} else if *w == 0 {
			*w = h
		}
	}
	fill(&want.MIIMonitor, have.MIIMonitor, 100)
	if have.MIIMonitor == 0 { // one of others that does not watch its ports has no delays
		want.UpDelay, want.DownDelay = 0, 0
	}
	fill(&want.UpDelay, have.UpDelay, 0)
	fill(&want.DownDelay, have.DownDelay, 0)
	fill(&want.MinLinks, have.MinLinks, 0)
	text := func(w *string, h, def string) {
		if *w == "" && ours {
			*w = def
		} else if *w == "" {
			*w = h
		}
	}
	text(&want.XmitHashPolicy, have.XmitHashPolicy, "layer2")
	text(&want.LACPRate, have.LACPRate, "slow")
	text(&want.Primary, have.Primary, "")
	if want != have {
		return fmt.Errorf("%s is %+v, not %+v", l.Name, have, want)
	}
	return nil
}
