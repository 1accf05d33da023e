package plan

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// ObservedRule is one routing rule that looks up a table, with the protocol that made it. Rules that do anything else, or
// select by what a model.Rule cannot say, are not observed and never touched, the kernel's own (protocol kernel) neither.
type ObservedRule struct {
	model.Rule
	Protocol int `json:"protocol,omitempty"`
}

// RuleID is the step ID of a rule: all that it selects by. The kernel holds equal rules of several makers side by side.
func RuleID(r model.Rule) ObjectID {
	r = canonicalRule(r)
	return ObjectID(fmt.Sprintf("rule/%d/%d/%s", r.Family, r.Priority, selectorText(r)))
}

// canonicalRule writes defaults out, so that equal rules are equal values: a prefix of length 0 selects nothing, a mark
// without a mask means all its bits (fib_nl2rule in the kernel).
func canonicalRule(r model.Rule) model.Rule {
	r.From, r.To = selector(r.From), selector(r.To)
	if r.Mark != 0 && r.Mask == 0 {
		r.Mask = math.MaxUint32
	}
	return r
}

func selector(p netip.Prefix) netip.Prefix {
	if p.Bits() <= 0 {
		return netip.Prefix{}
	}
	return p.Masked()
}

func selectorText(r model.Rule) string {
	var b strings.Builder
	field(&b, "from", r.From, r.From.IsValid())
	field(&b, "to", r.To, r.To.IsValid())
	field(&b, "iif", r.IIF, r.IIF != "")
	field(&b, "oif", r.OIF, r.OIF != "")
	switch {
	case r.Mask == math.MaxUint32:
		field(&b, "fwmark", fmt.Sprintf("%#x", r.Mark), true)
	case r.Mask != 0:
		field(&b, "fwmark", fmt.Sprintf("%#x/%#x", r.Mark, r.Mask), true)
	}
	field(&b, "lookup", r.Table, true)
	return strings.TrimSpace(b.String())
}

func ruleText(r model.Rule) string {
	r = canonicalRule(r)
	family := ""
	if r.Family == 6 && !r.From.IsValid() && !r.To.IsValid() {
		family = "ipv6 "
	}
	return fmt.Sprintf("%s%d %s", family, r.Priority, selectorText(r))
}

func compareRules(a, b ObservedRule) int {
	return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(selectorText(a.Rule), selectorText(b.Rule)), cmp.Compare(a.Protocol, b.Protocol))
}

func (s *state) sortedRules() []ObservedRule {
	out := make([]ObservedRule, 0, len(s.rules))
	for r := range s.rules {
		out = append(out, r)
	}
	slices.SortFunc(out, compareRules)
	return out
}

// hasRule says whether a rule is there, whoever made it.
func (s *state) hasRule(r model.Rule) bool {
	for have := range s.rules {
		if have.Rule == r {
			return true
		}
	}
	return false
}

// applyRule does what an add-rule or delete-rule step does.
func (s *state) applyRule(step Step) {
	r := ObservedRule{Rule: canonicalRule(*step.Rule), Protocol: step.protocol()}
	if step.Op == DeleteRule {
		delete(s.rules, r)
		return
	}
	s.rules[r] = true
}

// wantRules: a declared rule is there if anybody made it; those of RouteProtocol that nobody declares any more are ours to
// delete. They need no record, their protocol marks them.
func (d *differ) wantRules() {
	declared := map[model.Rule]bool{}
	for _, r := range d.desired.Plan.Rules {
		if r.IIF != "" {
			r.IIF = d.kernelName(r.IIF)
		}
		if r.OIF != "" {
			r.OIF = d.kernelName(r.OIF)
		}
		r = canonicalRule(r)
		declared[r] = true
		if !d.to.hasRule(r) {
			d.to.rules[ObservedRule{Rule: r, Protocol: RouteProtocol}] = true
		}
	}
	for r := range d.to.rules {
		if r.Protocol == RouteProtocol && !declared[r.Rule] {
			delete(d.to.rules, r)
		}
	}
}

// addRules come after the routes of the tables that they ask, deleteRules before those routes go.
func (t *transition) addRules() {
	var out []Step
	for _, r := range t.to.sortedRules() {
		if !t.now.rules[r] {
			out = append(out, t.ruleStep(AddRule, r, None))
		}
	}
	t.emit(out)
}

func (t *transition) deleteRules() {
	var out []Step
	for _, r := range slices.Backward(t.now.sortedRules()) {
		if !t.to.rules[r] {
			out = append(out, t.ruleStep(DeleteRule, r, Blip))
		}
	}
	t.emit(out)
}

func (t *transition) ruleStep(op Op, r ObservedRule, d Disruption) Step {
	s := t.step(op, RuleID(r.Rule), d)
	s.Rule = &r.Rule
	if r.Protocol != RouteProtocol {
		s.Protocol = r.Protocol
	}
	return s
}

// touchRule puts one rule back as it was, that of the step's maker only.
func (r *reverter) touchRule(s Step) {
	rule := ObservedRule{Rule: canonicalRule(*s.Rule), Protocol: s.protocol()}
	if r.before.rules[rule] {
		r.to.rules[rule] = true
	} else {
		delete(r.to.rules, rule)
	}
}
