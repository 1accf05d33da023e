package kernel

import (
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// Of each: links, addresses, routes, rules of others. Together with what comes with them well over a thousand objects.
const foreignEach = 260

// counters change by themselves, and so do the states of links that come up.
var fleeting = regexp.MustCompile(` (\w+_timer +\S+|tentative|dadfailed|proto kernel_l[lo]|qdisc \w+|state \w+|expires \S+)|,LOWER_UP|NO-CARRIER,|,M-DOWN`)

// everything is what iproute2 shows of a namespace: an oracle that shares nothing with node/link.
func (r real) everything(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, args := range []string{"-d -o link", "-o addr", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule", "-o maddr", "-d nexthop", "-s tunnel"} {
		var out []byte
		must(t, r.ns.Do(func() (err error) {
			out, err = exec.Command("ip", strings.Fields(args)...).Output()
			return err
		}))
		for line := range strings.SplitSeq(string(out), "\n") {
			lines = append(lines, args+": "+strings.TrimSpace(fleeting.ReplaceAllString(line, "")))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// populate makes objects of others, some of them on the cards that the plan takes into a bond and a VRF.
func (r real) populate(t *testing.T) {
	t.Helper()
	for _, name := range []string{"eth0", "eth1", "eth2"} {
		must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: 1500, Up: true}, KernelKind: "veth"}))
	}
	must(t, r.AddAddress("eth0", netip.MustParsePrefix("198.18.0.1/16")))
	must(t, r.AddAddress("eth0", netip.MustParsePrefix("2001:db8::1/64")))
	must(t, r.AddAddress("eth2", netip.MustParsePrefix("2001:db8:2::1/64")))
	for i := range foreignEach {
		name := fmt.Sprintf("other%d", i)
		l := plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Bridge, Up: i%3 > 0, MTU: 1300 + i}, KernelKind: "bridge", Group: uint32(i % 5)}
		if i%2 == 0 {
			l.Kind, l.KernelKind, l.VXLAN = model.VXLAN, "vxlan", &model.VXLANOptions{VNI: uint32(9000 + i), Port: 4789 + i%3, Learning: i%4 == 0}
		}
		must(t, r.AddLink(l))
		must(t, r.AddAddress(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, byte(i), 1}), 24)))
		must(t, r.AddAddress([]string{"eth0", "eth2"}[i%2], netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::1", 0x100+i)), 64)))
		must(t, r.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24), Via: netip.MustParseAddr("198.18.0.9"), Dev: "eth0", Metric: uint32(i % 7), Table: uint32(254 - i%2*100)}, Protocol: 3 + i%100}))
		must(t, r.AddRule(plan.ObservedRule{Rule: model.Rule{Priority: uint32(1000 + i), From: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10, byte(i), 0}), 24), Table: 154}, Protocol: 3 + i%100}))
	}
}

// TestKernelForeignObjects: beside a thousand objects of others a plan with a bond, a VRF, a bridge and parameters is applied,
// changed, undone and released, its links going down with others' addresses and routes on them. iproute2 sees no difference.
func TestKernelForeignObjects(t *testing.T) {
	r := newReal(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed")
	}
	for _, kind := range []string{"bond", "vrf", "vlan"} {
		if !r.knows(kind) {
			t.Skip("kernel lacks " + kind)
		}
	}
	r.populate(t)
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	first := model.NodePlan{Links: []model.Link{
		{Name: "b0", Kind: model.Bond, MTU: 1450, Bond: &model.BondOptions{Mode: "active-backup"}},
		{Name: "eth0", Kind: model.Physical, Master: "b0"}, {Name: "eth1", Kind: model.Physical, Master: "b0"},
		{Name: "b0.10", Kind: model.VLAN, Parent: "b0", VLANID: 10, Addresses: prefixes("192.0.2.1/24", "2001:db8:10::1/64")},
		{Name: "blue", Kind: model.VRF, Table: 1000}, {Name: "eth2", Kind: model.Physical, Master: "blue", MTU: 1400},
	}, Rules: []model.Rule{{Priority: 1000, Family: 4, From: netip.MustParsePrefix("192.0.2.0/24"), Table: 154}},
		Routes:  []model.Route{{To: netip.MustParsePrefix("172.31.0.0/16"), Via: netip.MustParseAddr("192.0.2.9"), Table: 154}},
		Sysctls: []model.Sysctl{{Key: "net.ipv4.conf.eth2.rp_filter", Value: "1"}}}
	second := model.NodePlan{Links: []model.Link{
		{Name: "b0", Kind: model.Bond, Bond: &model.BondOptions{Mode: "802.3ad", LACPRate: "fast"}}, {Name: "eth1", Kind: model.Physical, Master: "b0"},
		{Name: "br", Kind: model.Bridge}, {Name: "eth2", Kind: model.Physical, Master: "br"},
	}}
	s := &run{t: t, host: r, ledger: map[plan.ObjectID]plan.Record{}}
	apply := func(p model.NodePlan) {
		t.Helper()
		s.desired = plan.Desired{Plan: p}
		s.before = s.observe()
		d := plan.Diff(s.desired, s.before)
		if len(d.Blocked) > 0 {
			t.Fatal(d.Text())
		}
		for _, c := range d.Claims {
			s.ledger[c.ID] = c
		}
		s.done = d.Steps
		must(t, s.steps(s.done))
		for _, id := range d.Released {
			delete(s.ledger, id)
		}
	}
	settle(t, r, "")
	start := r.everything(t)
	if n := strings.Count(start, "\n"); n < 1000 {
		t.Fatalf("only %d lines of objects", n)
	}
	apply(first)
	if r.everything(t) == start {
		t.Fatal("iproute2 sees nothing of the plan")
	}
	must(t, s.steps(plan.Revert(s.before, s.observe(), s.done)))
	clear(s.ledger)
	settle(t, r, start)
	apply(first)
	apply(second)
	apply(model.NodePlan{})
	settle(t, r, start)
	if len(s.ledger) > 0 {
		t.Errorf("records are left: %v", s.ledger)
	}
}

// lineDiff lists the first lines that only one side has.
func lineDiff(want, got string) string {
	var out []string
	for _, side := range []struct{ sign, here, there string }{{"- ", want, got}, {"+ ", got, want}} {
		there := strings.Split(side.there, "\n")
		for line := range strings.SplitSeq(side.here, "\n") {
			if _, found := slices.BinarySearch(there, line); !found && len(out) < 40 {
				out = append(out, side.sign+line)
			}
		}
	}
	return strings.Join(out, "\n")
}

// settle waits until the namespace is as wanted, or, if nothing is wanted, until two looks agree.
func settle(t *testing.T, r real, want string) {
	t.Helper()
	last := want
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(300 * time.Millisecond) {
		now := r.everything(t)
		if now == last {
			return
		}
		if time.Now().After(end) {
			t.Fatal(lineDiff(last, now))
		}
		if want == "" {
			last = now
		}
	}
}
