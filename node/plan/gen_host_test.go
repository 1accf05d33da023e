package plan_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

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
