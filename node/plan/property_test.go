package plan_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
)

const sequences, plansEach = 200, 5

// check is the oracle: it looks at the kernel's end state and the declaration alone and knows nothing of steps.
func check(d plan.Desired, blocked []plan.Blocked, before, after plan.Observed) error {
	isBlocked := func(id plan.ObjectID) bool {
		return slices.ContainsFunc(blocked, func(b plan.Blocked) bool { return b.ID == id })
	}
	links := map[string]plan.ObservedLink{}
	for _, l := range after.Links {
		links[l.Name] = l
	}
	real := func(n string) string {
		if n == "uplink" {
			return "eth0"
		}
		return n
	}
	declared := map[string]model.Link{}
	for _, l := range d.Plan.Links {
		declared[real(l.Name)] = l
		if isBlocked(plan.LinkID(l.Name)) || isBlocked(plan.LinkID(real(l.Name))) {
			continue
		}
		o, ok := links[real(l.Name)]
		if !ok {
			return fmt.Errorf("%s is not there and not blocked", l.Name)
		}
		made := l.Kind != model.Physical
		if made && (o.Kind != l.Kind || o.Parent != real(l.Parent) || o.VLANID != l.VLANID) {
			return fmt.Errorf("%s is %+v", l.Name, o)
		}
		if made && l.VXLAN != nil {
			w := *l.VXLAN
			if o.Group != plan.Group {
				w.Learning = o.VXLAN.Learning
				if !o.VXLAN.Local.IsValid() {
					w.Local = netip.Addr{}
				}
			}
			if *o.VXLAN != w {
				return fmt.Errorf("%s vxlan is %+v", l.Name, *o.VXLAN)
			}
		}
		if m := links[o.Master]; l.MTU != 0 && o.MTU != l.MTU && (m.Kind != model.Bond || o.MTU != m.MTU) && !isBlocked(plan.PropertyID(o.Name, "mtu")) {
			return fmt.Errorf("%s mtu is %d", l.Name, o.MTU)
		}
		if (made || l.Up) && !o.Up {
			return fmt.Errorf("%s is down", l.Name)
		}
		if o.Master != real(l.Master) && (l.Master != "" || o.Group == plan.Group) && !isBlocked(plan.PropertyID(o.Name, "master")) {
			return fmt.Errorf("%s master is %q", l.Name, o.Master)
		}
		if made || l.PortVLANs != nil {
			if err := checkKind(l, o, links[real(l.Master)], isBlocked); err != nil {
				return err
			}
		}
		if o.Group == plan.Group && o.Alias != l.Alias {
			return fmt.Errorf("%s alias is %q", l.Name, o.Alias)
		}
		for _, a := range l.Addresses {
			if !slices.Contains(o.Addresses, a) && !isBlocked(plan.AddressID(o.Name, a)) {
				return fmt.Errorf("%s lacks %s", l.Name, a)
			}
		}
	}
	for _, o := range after.Links {
		if _, want := declared[o.Name]; o.Group == plan.Group && !want && !isBlocked(plan.LinkID(o.Name)) {
			return fmt.Errorf("%s is left over", o.Name)
		}
	}
	for _, r := range d.Plan.Routes {
		found := slices.ContainsFunc(after.Routes, func(o plan.ObservedRoute) bool {
			return o.To == r.To && o.Via == r.Via && o.Dev == real(r.Dev) && plan.RouteID(o.Route) == plan.RouteID(r)
		})
		if !found && !isBlocked(plan.RouteID(r)) {
			return fmt.Errorf("route %+v is missing", r)
		}
	}
	for _, o := range after.Routes {
		want := slices.ContainsFunc(d.Plan.Routes, func(r model.Route) bool { return plan.RouteID(r) == plan.RouteID(o.Route) })
		if o.Protocol == plan.RouteProtocol && !want {
			return fmt.Errorf("route %+v is left over", o)
		}
	}
	for _, p := range d.Peers {
		if l, ok := links[p.Link]; ok && l.Kind == model.VXLAN && !isBlocked(plan.LinkID(p.Link)) && !slices.Contains(after.Peers, p) {
			return fmt.Errorf("peer %+v is missing", p)
		}
	}
	for _, p := range after.Peers {
		if !slices.Contains(d.Peers, p) && !isBlocked(plan.LinkID(p.Link)) && links[p.Link].Group == plan.Group {
			return fmt.Errorf("peer %+v is left over", p)
		}
	}
	return errors.Join(checkRules(d, after), checkSysctls(d, after, isBlocked), checkPools(d, links, isBlocked))
}

// foreign is what must never change: objects without our marks, less the properties that we ever declared.
func foreign(o plan.Observed, records map[plan.ObjectID]plan.Record) string {
	var b strings.Builder
	withPools := mtusOfPools(o, records)
	for _, l := range o.Links {
		if l.Group == plan.Group {
			continue
		}
		line := fmt.Sprintf("%s %s %s %s %d %v %d", l.Name, l.Kind, l.KernelKind, l.Parent, l.VLANID, l.VXLAN, l.Group)
		for name, value := range map[string]any{"mtu": l.MTU, "up": l.Up, "master": l.Master, "vlans": plan.PortVLANsText(l.PortVLANs), "vlan_filtering": l.Filtering} {
			if _, ours := records[plan.PropertyID(l.Name, name)]; !ours && !(name == "mtu" && withPools[l.Name]) {
				line += fmt.Sprintf(" %s=%v", name, value)
			}
		}
		line += foreignFunctions(l, records)
		parts := strings.Fields(line)
		slices.Sort(parts[5:])
		fmt.Fprintln(&b, strings.Join(parts, " "), l.Alias)
		for _, a := range l.Addresses {
			if r, ours := records[plan.AddressID(l.Name, a)]; !ours || r.Prior != "" {
				fmt.Fprintln(&b, " ", a)
			}
		}
	}
	for _, r := range o.Routes {
		if r.Protocol != plan.RouteProtocol {
			fmt.Fprintln(&b, r)
		}
	}
	for _, r := range o.Rules {
		if r.Protocol != plan.RouteProtocol {
			fmt.Fprintln(&b, "rule", r)
		}
	}
	return b.String()
}

// TestSequences walks random plans over random worlds; after each the oracle, the dry run and a second Diff must agree.
func TestSequences(t *testing.T) {
	for seed := range uint64(sequences) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := newNode(world(t, r))
		everOurs := map[plan.ObjectID]plan.Record{}
		var walked []plan.Desired
		for i := range plansEach {
			d := randomDesired(r)
			walked = append(walked, d)
			before, p, err := n.to(d)
			where := fmt.Sprintf("seed %d plan %d\n%s\nbefore:\n%s", seed, i, p.Text(), before.Dump())
			if err != nil {
				t.Fatalf("%s\n%v", where, err)
			}
			after, _ := n.observe()
			where += "after:\n" + after.Dump()
			if err := check(d, p.Blocked, before, after); err != nil {
				t.Fatalf("%s\n%v", where, err)
			}
			for _, c := range p.Claims {
				everOurs[c.ID] = c
			}
			if diff := cmp.Diff(foreign(before, everOurs), foreign(after, everOurs)); diff != "" {
				t.Fatalf("%s\nforeign objects changed:\n%s", where, diff)
			}
			if diff := cmp.Diff(after.Dump(), asFarAsKnown(plan.Simulate(before, p.Steps), after).Dump()); diff != "" {
				t.Fatalf("%s\ndry run differs from run:\n%s", where, diff)
			}
			if again := plan.Diff(d, after); !again.Empty() {
				t.Fatalf("%s\nsecond diff is not empty:\n%s%v %v", where, again.Text(), again.Claims, again.Released)
			}
		}
		checkHistory(t, seed, n, walked)
	}
}

// checkHistory: the end state depends on the last plan alone, and nothing is left after the empty one.
func checkHistory(t *testing.T, seed uint64, n *node, walked []plan.Desired) {
	t.Helper()
	last := walked[len(walked)-1]
	fresh := newNode(world(t, rand.New(rand.NewPCG(seed, 1))))
	start := fresh.kernel.Dump(everySysctl...)
	_, p, err := fresh.to(last)
	must(t, err)
	got, err := n.observe()
	must(t, err)
	q := plan.Diff(last, got)
	if len(p.Blocked) == 0 && len(q.Blocked) == 0 {
		if diff := cmp.Diff(fresh.kernel.Dump(everySysctl...), n.kernel.Dump(everySysctl...)); diff != "" {
			t.Fatalf("seed %d: the end depends on the way (fresh -, walked +):\n%s", seed, diff)
		}
	}
	_, p, err = n.to(plan.Desired{})
	must(t, err)
	if len(p.Blocked) == 0 {
		if diff := cmp.Diff(start, n.kernel.Dump(everySysctl...)); diff != "" {
			t.Fatalf("seed %d: something is left after release:\n%s%s%v\n%s", seed, diff, p.Text(), got.Owned, got.Dump())
		}
		if len(n.ledger) > 0 {
			t.Fatalf("seed %d: records are left: %v", seed, n.ledger)
		}
	}
}

// TestFaults fails every kernel call of an apply once, in every way, and retries: the end is the same.
func TestFaults(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		first, second := randomDesired(r), randomDesired(r)
		start := func() *node {
			n := newNode(world(t, rand.New(rand.NewPCG(seed, 3))))
			_, _, err := n.to(first)
			must(t, err)
			return n
		}
		clean := start()
		base := clean.kernel.Calls()
		_, _, err := clean.to(second)
		must(t, err)
		want, calls := clean.kernel.Dump(everySysctl...), clean.kernel.Calls()-base
		for at := 1; at <= calls; at++ {
			for _, f := range []fake.Fault{fake.Before, fake.After, fake.Half} {
				n := start()
				n.kernel.FailAt(at, f)
				if _, _, err := n.to(second); !errors.Is(err, fake.ErrInjected) {
					t.Fatalf("seed %d call %d: want the injected fault, got %v", seed, at, err)
				}
				_, retry, err := n.to(second)
				if err != nil {
					t.Fatalf("seed %d call %d fault %d: retry: %v", seed, at, f, err)
				}
				if diff := cmp.Diff(want, n.kernel.Dump(everySysctl...)); diff != "" {
					t.Fatalf("seed %d call %d fault %d: the retry ends elsewhere:\n%s%s", seed, at, f, diff, retry.Text())
				}
			}
		}
	}
}

// TestRevert undoes every prefix of every plan: the dump before comes back, by the kernel and by the model.
func TestRevert(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 4))
		first, second := randomDesired(r), randomDesired(r)
		probe := newNode(world(t, rand.New(rand.NewPCG(seed, 5))))
		_, _, err := probe.to(first)
		must(t, err)
		o, _ := probe.observe()
		steps := plan.Diff(second, o).Steps
		for cut := range len(steps) + 1 {
			n := newNode(world(t, rand.New(rand.NewPCG(seed, 5))))
			_, _, err := n.to(first)
			must(t, err)
			before, _ := n.observe()
			for _, s := range steps[:cut] {
				if err := n.kernel.Apply(context.Background(), s); err != nil {
					t.Fatalf("seed %d: %v\n%s%s", seed, err, plan.Plan{Steps: steps}.Text(), before.Dump())
				}
			}
			after, _ := n.observe()
			done := steps[:min(cut+1, len(steps))] // the next was begun, perhaps
			undo := plan.Revert(before, after, done)
			for _, s := range undo {
				if err := n.kernel.Apply(context.Background(), s); err != nil {
					t.Fatalf("seed %d cut %d: %v\ndone:\n%s\nundo:\n%s", seed, cut, err, plan.Plan{Steps: done}.Text(), plan.Plan{Steps: undo}.Text())
				}
			}
			if diff := cmp.Diff(before.Dump(), n.kernel.Dump(everySysctl...)); diff != "" {
				t.Fatalf("seed %d cut %d: not as before:\n%s\ndone:\n%s\nundo:\n%s", seed, cut, diff, plan.Plan{Steps: done}.Text(), plan.Plan{Steps: undo}.Text())
			}
			if diff := cmp.Diff(before.Dump(), asFarAsKnown(plan.Simulate(after, undo), before).Dump()); diff != "" {
				t.Fatalf("seed %d cut %d: the dry run of the undo differs:\n%s", seed, cut, diff)
			}
			if again := plan.Revert(before, before, done); len(again) != 0 {
				t.Fatalf("seed %d: nothing to undo, and yet: %v", seed, again)
			}
		}
	}
}
