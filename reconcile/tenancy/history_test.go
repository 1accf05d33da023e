package tenancy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// errCrash is what every operation of a process that died returns.
var errCrash = errors.New("crash")

// play runs processes that take turns, one operation each, in an order that the seed decides. A process that is not chosen for
// long is one that was stopped or swapped out. It fails at the first moment at which a number has two owners.
type play struct {
	t       *testing.T
	r       *rand.Rand
	w       *world
	procs   []*proc
	given   map[string]string // by UID: what a network was once told to have
	yields  int
	crashes int
	calm    bool // nobody crashes or sleeps any more
	last    bool // nobody begins another round
}

// proc is a coroutine: it waits for its turn before each operation.
type proc struct {
	turn, done chan struct{}
	pause      int // turns until it begins another round
	asleep     int
	running    bool
	dead       bool
	body       func() (yielded int)
}

func (p *play) proc(body func(step func(string) error, lost func(string) error) int) {
	q := &proc{turn: make(chan struct{}), done: make(chan struct{})}
	q.body = func() int {
		first := true
		return body(func(string) error {
			if !first {
				q.done <- struct{}{}
				<-q.turn
			}
			first = false
			if q.dead || !p.calm && p.r.IntN(60) == 0 {
				p.crash(q)
				return errCrash
			}
			return nil
		}, func(string) error {
			if !p.calm && !q.dead && p.r.IntN(120) == 0 { // written, and the process died before it knew
				p.crash(q)
				return errCrash
			}
			return nil
		})
	}
	p.procs = append(p.procs, q)
}

func (p *play) crash(q *proc) {
	if !q.dead {
		p.crashes++
	}
	q.dead = true
}

// next lets one process make one operation.
func (p *play) next() {
	q := p.procs[p.r.IntN(len(p.procs))]
	if q.asleep > 0 && !p.calm {
		q.asleep--
		return
	}
	if !p.calm && p.r.IntN(100) == 0 {
		q.asleep = p.r.IntN(60)
	}
	if !q.running {
		if p.last {
			return
		}
		if q.pause > 0 {
			q.pause--
			return
		}
		q.running, q.dead = true, false
		go func() {
			<-q.turn
			if yielded := q.body(); yielded > 0 {
				p.yields += yielded
				q.pause = p.r.IntN(30)
			}
			q.running = false
			q.done <- struct{}{}
		}()
	}
	before := p.w.version
	q.turn <- struct{}{}
	<-q.done
	if p.w.version != before {
		p.check()
	}
}

// check is the oracle.
func (p *play) check() {
	p.t.Helper()
	use := p.w.inUse()
	for _, a := range p.w.bundle.Status.Inventory { // what the bundle's play uses
		at := fmt.Sprintf("vlan ens4 %s", a.Name)
		use[at] = append(use[at], "bundle "+a.Name)
	}
	for at, who := range use {
		if len(who) > 1 {
			p.t.Fatalf("%s has two owners: %v", at, who)
		}
	}
	for key, n := range p.w.networks {
		for _, c := range n.Status.Conditions {
			if c.Type != "Assigned" || c.Status != "True" {
				continue
			}
			has := fmt.Sprint(n.Spec.Options.Device, n.Spec.Options.Vlan, n.Spec.Options.Vxlan)
			if was := p.given[string(n.UID)]; was != "" && was != has {
				p.t.Fatalf("%s had %s and has %s", key, was, has)
			}
			p.given[string(n.UID)] = has
		}
	}
	for number, uid := range p.w.links {
		for at, who := range use {
			if at == fmt.Sprintf("vlan %s %d", number.Device, number.ID) && number.Kind == "vlan" || at == fmt.Sprintf("vni %d", number.ID) && number.Kind == "vxlan" {
				if owner := who[0]; owner[len(owner)-len(uid):] != uid {
					p.t.Fatalf("%s belongs to %s while nodes still have the link of %s", at, owner, uid)
				}
			}
		}
	}
}

// bundleProc is sync's part of the protocol, in its shortest form: it wants `wanted` ids on ens4. It records, looks, and uses or drops.
func (p *play) bundleProc(wanted int) {
	p.proc(func(step, _ func(string) error) int {
		if step("read") != nil {
			return 0
		}
		b := p.w.bundle.DeepCopy()
		used := map[int64]bool{}
		for _, a := range b.Status.Assignments {
			used[a.ID] = true
		}
		if len(used) < wanted {
			if step("configs") != nil {
				return 0
			}
			for _, c := range p.w.configs {
				for _, r := range c.Status.Reserved {
					used[r.ID] = true
				}
			}
			id := int64(100)
			for used[id] {
				id++
			}
			if step("record") != nil || p.w.bundle.ResourceVersion != b.ResourceVersion {
				return 0
			}
			p.w.bundle.Status.Assignments = append(p.w.bundle.Status.Assignments, v1alpha1.Assignment{Network: fmt.Sprint("n", id), ID: id})
			p.w.touch(&p.w.bundle)
		}
		if step("read again") != nil {
			return 0
		}
		b = p.w.bundle.DeepCopy()
		if step("look") != nil {
			return 0
		}
		taken := map[int64]bool{}
		for _, c := range p.w.configs {
			for _, r := range c.Status.Reserved {
				taken[r.ID] = true
			}
		}
		if step("use") != nil || p.w.bundle.ResourceVersion != b.ResourceVersion {
			return 0
		}
		inUse := map[string]bool{}
		for _, i := range p.w.bundle.Status.Inventory {
			inUse[i.Name] = true
		}
		dropped := 0
		p.w.bundle.Status.Assignments = slices.DeleteFunc(p.w.bundle.Status.Assignments, func(a v1alpha1.Assignment) bool {
			drop := taken[a.ID] && !inUse[fmt.Sprint(a.ID)]
			if drop {
				dropped++
			}
			return drop
		})
		for _, a := range p.w.bundle.Status.Assignments {
			if !inUse[fmt.Sprint(a.ID)] {
				p.w.bundle.Status.Inventory = append(p.w.bundle.Status.Inventory, v1alpha1.ObjectReference{Name: fmt.Sprint(a.ID)})
			}
		}
		p.w.touch(&p.w.bundle)
		return dropped
	})
}

func (p *play) tenancyProc() {
	p.proc(func(step, lost func(string) error) int {
		res, _ := round(context.Background(), actor{direct{world: p.w, before: step, after: lost}})
		return res.yielded
	})
}

// user does what people do.
func (p *play) user(serial int) {
	key := fmt.Sprintf("%s/n%d", pick(p.r, "acme", "globex"), p.r.IntN(12))
	if old := p.w.networks[key]; old != nil {
		switch p.r.IntN(4) {
		case 0, 1:
			delete(p.w.networks, key)
		case 2: // changes what it was given
			old.Spec.Options.MTU = serial
			old.Generation++
			p.w.touch(old)
		}
		return
	}
	p.w.create(key, func(n *danmv1.TenantNetwork) {
		switch p.r.IntN(6) {
		case 0:
			n.Spec.Options.Device, n.Spec.Options.Vlan = "ens4", 100+p.r.IntN(25)
		case 1:
			n.Spec.Options.Vlan = 100 + p.r.IntN(25)
		case 2:
			n.Spec.Options.Device = pick(p.r, "ens4", "ens5")
		}
	})
}

// TestNeverTwoOwners plays random histories: three tenancy processes without a leader and a bundle's, people who make and delete
// networks with and without numbers, nodes that are late, processes that die between any two operations or sleep for long.
func TestNeverTwoOwners(t *testing.T) {
	yields, crashes, assigned := 0, 0, 0
	for seed := range uint64(60) {
		if testing.Short() && seed >= 20 {
			break
		}
		p := &play{t: t, r: rand.New(rand.NewPCG(seed, 1)), given: map[string]string{}, w: newWorld(
			config("a", "acme", profileOf("ens4", "vlan", "100-119"), profileOf("ens5", "vxlan", "100-140")),
			config("b", "globex", profileOf("ens4", "vlan", "100-125"), profileOf("ens6", "vxlan", "100-140")),
		)}
		for range 3 {
			p.tenancyProc()
		}
		p.bundleProc(4)
		for i := range 1500 {
			if p.r.IntN(25) == 0 {
				p.user(i)
				p.check()
			}
			if p.r.IntN(40) == 0 {
				p.w.relink()
			}
			p.next()
		}
		p.calm = true
		for range 1500 {
			if p.r.IntN(40) == 0 {
				p.w.relink()
			}
			p.next()
		}
		for p.last = true; slices.ContainsFunc(p.procs, func(q *proc) bool { return q.running }); { // to the ends of their rounds
			p.next()
		}
		yields, crashes = yields+p.yields, crashes+p.crashes
		for _, key := range slices.Sorted(maps.Keys(p.w.networks)) {
			n := p.w.networks[key]
			c := conditionOf(n)
			switch {
			case c == nil || c.Status == "Unknown":
				t.Fatalf("seed %d: nobody decided about %s: %+v", seed, key, n.Status)
			case c.Status == "True":
				assigned++
			case p.w.empty[n.UID] && c.Reason != "RangeExhausted" && c.Reason != "DeviceNotAllowed":
				t.Fatalf("seed %d: %s has nothing: %s %s", seed, key, c.Reason, c.Message)
			}
		}
		for _, c := range p.w.configs {
			for _, r := range c.Status.Reserved {
				if n := p.w.networks[r.Network]; n == nil || string(n.UID) != r.UID {
					t.Fatalf("seed %d: the reservation %+v was never freed", seed, r)
				}
			}
		}
	}
	t.Logf("%d networks assigned, %d numbers yielded, %d crashes", assigned, yields, crashes)
	if yields == 0 || crashes == 0 || assigned < 100 {
		t.Error("the histories did not try what they are for")
	}
}

// TestKilledAtEveryWrite: whatever write is the last one of a process, the next process comes to the same end.
func TestKilledAtEveryWrite(t *testing.T) {
	make := func() *world {
		w := newWorld(config("a", "acme", profileOf("ens4", "vlan", "100-110")), config("b", "globex", profileOf("ens4", "vlan", "100-110")))
		for i := range 4 {
			w.create(fmt.Sprintf("acme/n%d", i))
			w.create(fmt.Sprintf("globex/n%d", i))
		}
		w.create("acme/old", func(n *danmv1.TenantNetwork) { n.Spec.Options.Device, n.Spec.Options.Vlan = "ens4", 103 })
		return w
	}
	want := make()
	if err := want.settle(); err != nil {
		t.Fatal(err)
	}
	total := want.writes
	for _, lost := range []bool{false, true} { // before the write, or after it and before the answer
		for kill := range total {
			w, count := make(), 0
			end := func(op string) error {
				if op == "condition" || op == "reserve" || op == "write" || op == "judge" {
					if count++; count > kill {
						return errCrash
					}
				}
				return nil
			}
			d := direct{world: w, before: end}
			if lost {
				d = direct{world: w, after: end}
			}
			if _, err := round(context.Background(), actor{d}); !errors.Is(err, errCrash) {
				t.Fatalf("write %d: %v", kill, err)
			}
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			for key, n := range want.networks {
				if got := w.networks[key].Spec.Options; got.Device != n.Spec.Options.Device || got.Vlan != n.Spec.Options.Vlan || conditionOf(w.networks[key]).Status != "True" {
					t.Errorf("killed at write %d: %s has %+v, else %+v", kill, key, got, n.Spec.Options)
				}
			}
		}
	}
	t.Logf("%d writes, killed before and after each", total)
}
