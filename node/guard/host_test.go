package guard

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// hostDesired has a rule and parameters that change others.
func hostDesired() plan.Desired {
	return plan.Desired{Plan: model.NodePlan{
		Rules:   []model.Rule{{Priority: 100, Family: 4, From: netip.MustParsePrefix("10.0.0.0/24"), Table: 90}},
		Sysctls: []model.Sysctl{{Key: "net.ipv4.conf.all.forwarding", Value: "1"}, {Key: "net.ipv4.conf.eth0.forwarding", Value: "0"}},
	}}
}

var forwarding = []string{"net.ipv4.conf.*.forwarding", "net.ipv4.conf.all.accept_redirects"}

// TestRulesAndSysctlsAreUndone: without a confirmation the node has its rules and parameters back, also those of links that
// the plan did not name, and the ledger forgets them.
func TestRulesAndSysctlsAreUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fake.New()
		must(t, k.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true}}))
		must(t, k.SetSysctl("net.ipv4.conf.lo.forwarding", "1"))
		before := k.Dump(forwarding...)
		dir := t.TempDir()
		g := openGuard(t, dir, k, "b", nil)
		d := hostDesired()
		out, err := g.Submit(context.Background(), Submission{Desired: d, Digest: d.Plan.Digest(), ConfirmTimeout: 100 * time.Millisecond})
		must(t, err)
		if len(out.Steps) != 3 || k.Dump(forwarding...) == before {
			t.Fatalf("nothing was applied: %v", out.Steps)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if k.Dump(forwarding...) != before || len(g.ledger.Records()) > 0 || g.journal().Phase.Open() {
			t.Fatalf("not undone:\n%s%v", k.Dump(forwarding...), g.ledger.Records())
		}
	})
}

// TestSysctlDriftIsRepaired: what somebody else writes into a confirmed parameter is put right without a window.
func TestSysctlDriftIsRepaired(t *testing.T) {
	k := fake.New()
	must(t, k.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true}}))
	g := openGuard(t, t.TempDir(), k, "b", nil)
	d := hostDesired()
	_, err := g.Submit(context.Background(), Submission{Desired: d, Digest: d.Plan.Digest()})
	must(t, err)
	must(t, g.Confirm(context.Background(), d.Plan.Digest()))
	want := k.Dump(forwarding...)
	must(t, k.SetSysctl("net.ipv4.conf.all.forwarding", "0"))
	must(t, k.DeleteRule(plan.ObservedRule{Rule: d.Plan.Rules[0], Protocol: plan.RouteProtocol}))
	out, err := g.Repair(context.Background(), d, nil)
	must(t, err)
	if len(out.Rest) > 0 || k.Dump(forwarding...) != want {
		t.Fatalf("not repaired, left %v:\n%s", out.Rest, k.Dump(forwarding...))
	}
}
