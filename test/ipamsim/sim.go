package ipamsim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// Config of a run.
type Config struct {
	Home     Home
	Nodes    int
	Seed     uint64
	Spaces   []Space
	Cooldown time.Duration
	Busy     bool // little time between operations
	Slow     bool // much time, so that most of it passes in health although faults last long
	Mild     bool // nothing that loses a memory: no journal, machine, Node or API is set back
	Calls    int  // end the operations after so many ADDs, DELs and faults; 0 = when they are all done
	Trace    func(line string)
}

// Space is a network that Pods use.
type Space struct {
	Net    model.Network
	Weight int // how often it is used
	Most   int // Pods at most, 0 = as many as it has addresses
}

// Sim is one run.
type Sim struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	clock  *clock
	tasks  sync.WaitGroup
	world  *world.World

	mu          sync.Mutex
	check       *history.Checker
	machines    []*Machine
	spaces      []*spaceOf
	pods        map[int]*pod
	past        []pastSandbox
	stats       map[string]int
	startErrors map[string]int
	calls       int // ADDs, DELs and faults
	settling    bool
	ordinals    map[[2]int]*pod         // the newest Pods of StatefulSets; of the operations alone
	kept        map[string]netip.Prefix // what Pods of StatefulSets had last, by set and ordinal
	hashes      map[string]string       // of spaces, by SpaceName
	backup      *world.Snapshot
	restored    bool               // the API from it, once at least
	controller  context.CancelFunc // nil: it is away
	controllers int
}

// spaceOf is a space and the Pods that are on it first.
type spaceOf struct {
	Space
	allowed  func(netip.Addr) bool
	shares   []int // by node; nil: any node can give any address
	capacity int
	pods     []*pod
	on       []int // Pods by node
}

type pastSandbox struct {
	m  *Machine
	id string
}

// Result is what a run showed.
type Result struct {
	Violations  []history.Violation
	Stats       map[string]int
	StartErrors map[string]int
	Sets        int
	Calls       int // ADDs, DELs and faults
	Virtual     time.Duration
	Digest      uint64 // of everything that kernels had, with the times
}

// newSim makes a run; it must be called in a bubble.
func newSim(cfg Config) *Sim {
	if trace := cfg.Trace; trace != nil {
		var mu sync.Mutex
		cfg.Trace = func(line string) { mu.Lock(); defer mu.Unlock(); trace(line) }
	}
	s := &Sim{cfg: cfg, clock: newClock(), check: history.New(), pods: map[int]*pod{}, ordinals: map[[2]int]*pod{}, kept: map[string]netip.Prefix{}, hashes: map[string]string{}, stats: map[string]int{}, startErrors: map[string]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.world = world.New(time.Now)
	if cfg.Trace != nil {
		s.world.OnChange(s.traceBlock)
	}
	for i := range cfg.Nodes {
		m := &Machine{sim: s, Name: fmt.Sprint("n", i), Index: i, MachineID: fmt.Sprint("machine-", i), Disk: NewDisk(),
			rng: rand.New(rand.NewPCG(cfg.Seed, uint64(1000+i))), sandboxes: map[string]*sandbox{}, changed: make(chan struct{})}
		s.machines = append(s.machines, m)
	}
	for _, sp := range cfg.Spaces {
		s.spaces = append(s.spaces, s.space(sp))
	}
	return s
}

// log is what a node's agent writes: it goes to Config.Trace.
func (s *Sim) log(node string) *slog.Logger {
	if s.cfg.Trace == nil {
		return slog.New(slog.DiscardHandler)
	}
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(slog.NewTextHandler(tracer(s.cfg.Trace), &slog.HandlerOptions{ReplaceAttr: plain})).With("node", node)
}

// tracer writes to a Config's Trace.
type tracer func(line string)

func (t tracer) Write(p []byte) (int, error) {
	t(time.Now().Format("02 15:04:05.000000000 ") + "log " + strings.TrimSpace(string(p)))
	return len(p), nil
}

// traceBlock tells Config.Trace what became of an IPBlock.
func (s *Sim) traceBlock(kind, _, name string) {
	if kind != world.IPBlock {
		return
	}
	what := name + " is gone"
	if o, err := s.world.Get(kind, "", name); err == nil {
		b := o.(*v1alpha1.IPBlock)
		if b.Spec.Role == v1alpha1.RoleRoot {
			return
		}
		what = fmt.Sprintf("%s %s %s of %q (%s %d) asked %q %s ceded %v", name, b.UID, b.Spec.CIDR, b.Spec.Owner, b.Spec.Identity, b.Spec.Epoch, b.Spec.Asked, b.Status.Answer, b.Spec.Ceded)
	}
	s.cfg.Trace(time.Now().Format("02 15:04:05.000000000 ") + "IPBlock " + what)
}

// space tells the checker of a space and counts its addresses.
func (s *Sim) space(sp Space) *spaceOf {
	out := &spaceOf{Space: sp, on: make([]int, s.cfg.Nodes)}
	n := sp.Net
	for _, sub := range []*model.Subnet{n.IPv4, n.IPv6} {
		if sub == nil {
			continue
		}
		allowed := Allowed(*sub)
		s.hashes[SpaceName(n.SpaceDomain, n.ID(), sub.CIDR)] = v1alpha1.IPSpace{Domain: n.SpaceDomain, ID: int64(n.ID()), VXLAN: n.VXLAN, CIDR: sub.CIDR.String()}.Hash()
		s.check.Space(SpaceName(n.SpaceDomain, n.ID(), sub.CIDR), history.Pool{Allowed: allowed, Cooldown: s.cfg.Cooldown})
		if sub == n.IPv4 {
			out.allowed = allowed
		}
	}
	for i := range s.cfg.Nodes {
		share := s.cfg.Home.Share(i, n, out.allowed)
		if share < 0 {
			break
		}
		out.shares = append(out.shares, share)
		out.capacity += share
	}
	if out.shares == nil {
		for a := n.IPv4.CIDR.Addr(); n.IPv4.CIDR.Contains(a); a = a.Next() {
			if out.allowed(a) {
				out.capacity++
			}
		}
	}
	return out
}

// Allowed says of an address whether it may be chosen: in a pool, not excluded, no router, not the network's own.
func Allowed(sub model.Subnet) func(netip.Addr) bool {
	in := func(list []model.AddrRange, a netip.Addr) bool {
		for _, r := range list {
			if r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 {
				return true
			}
		}
		return false
	}
	host := sub.CIDR.Addr().BitLen() - sub.CIDR.Bits()
	return func(a netip.Addr) bool {
		first := a == sub.CIDR.Addr()
		last := a.Is4() && !sub.CIDR.Contains(a.Next())
		switch {
		case !sub.CIDR.Contains(a) || a == sub.Gateway || slices.ContainsFunc(sub.Routes, func(r model.PodRoute) bool { return r.Via == a }) || in(sub.Exclude, a):
			return false
		case host > 1 && (first || last):
			return false
		}
		return len(sub.Pools) == 0 || in(sub.Pools, a)
	}
}

// coin is a number that depends on the seed, a name and what it is for, and on nothing else.
func (s *Sim) coin(name string, purpose int) uint64 {
	h := s.cfg.Seed + uint64(purpose)*0x9e3779b97f4a7c15
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return mix(h)
}

// mix spreads a number's bits.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// uncounted are what calls and faults come from, or what does nothing to a node.
var uncounted = map[string]bool{"op churn": true, "op restart": true, "op late DEL": true, "op audit": true, "op image": true, "add no agent": true, "evicted": true, "add machine off": true, "del no agent": true, "del machine off": true, "same sticky address": true, "another sticky address": true, "agent up": true, "machine on": true}

// note counts what happened, and tells Config.Trace.
func (s *Sim) note(what, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLocked(what, detail)
}

func (s *Sim) noteLocked(what, detail string) {
	s.stats[what]++
	if !uncounted[what] {
		s.calls++
	}
	if s.cfg.Trace != nil {
		s.cfg.Trace(time.Now().Format("02 15:04:05.000000000 ") + what + " " + detail)
	}
}

// caller is the key of a context's CNI call.
type caller struct{}

func (s *Sim) newClient(name string, p *agent) *world.Client {
	start := p.m.starts
	requests := map[string]int{} // by caller
	var mu sync.Mutex
	return &world.Client{
		World: s.world, Name: "danm-node",
		Sleep: func(ctx context.Context, d time.Duration) error {
			who, _ := ctx.Value(caller{}).(string) // what woke up together goes on one after the other
			err := s.clock.sleep(ctx, d+time.Duration(s.coin(name+" "+who, 62)%1_000_000))
			if gerr := p.gate(name + " " + who); gerr != nil {
				return gerr
			}
			return err
		},
		Fate: func(ctx context.Context, write bool) world.Fate {
			who, _ := ctx.Value(caller{}).(string)
			mu.Lock()
			requests[who]++
			n := requests[who]
			mu.Unlock()
			return s.fate(rand.New(rand.NewPCG(s.coin(name+" "+who, 50+start), uint64(n))), write)
		},
	}
}

// fate is what becomes of a request in ordinary times; when the run settles, all goes well.
func (s *Sim) fate(rng *rand.Rand, write bool) world.Fate {
	f := world.Fate{Before: time.Duration(1 + rng.IntN(4_000_000)), After: time.Duration(1 + rng.IntN(3_000_000))}
	s.mu.Lock()
	settling := s.settling
	s.mu.Unlock()
	if settling {
		return f
	}
	f.Orphan = rng.IntN(2) == 0
	switch rng.IntN(400) { // a claim may take many requests
	case 0:
		f.Refused = true
	case 1:
		f.Lost = true
	case 2:
		f.Late = time.Duration(rng.Int64N(int64(world.RequestBound)))
	case 3:
		f.Before += time.Duration(rng.Int64N(int64(10 * time.Second)))
	}
	return f
}

// books is what journals and API say now.
func (s *Sim) books() history.Books {
	b := history.Books{Nodes: map[string]string{}}
	for _, m := range s.machines {
		p, _, _ := m.running()
		if p == nil {
			continue
		}
		list, err := p.stack.Entries()
		if err != nil {
			s.note("journal unreadable", m.Name)
		}
		b.Entries = append(b.Entries, list...)
	}
	nodes, _ := s.world.List(world.Node, nil)
	for _, n := range nodes {
		for _, m := range s.machines {
			if m.Name == n.GetName() {
				api := world.NodeAPI{Client: &world.Client{World: s.world}, Node: m.Name, Machine: m.MachineID}
				b.Nodes[m.Name], _ = api.Identity(s.ctx)
			}
		}
	}
	blocks, _ := s.world.List(world.IPBlock, nil)
	for _, o := range blocks {
		b.Blocks = append(b.Blocks, BlockOf(o.(*v1alpha1.IPBlock)))
	}
	return b
}

// BlockOf is an object as the checker is told of it.
func BlockOf(o *v1alpha1.IPBlock) history.Block {
	x := history.Block{Name: o.Name, UID: string(o.UID), Root: o.Spec.Role == v1alpha1.RoleRoot, Single: o.Spec.Role == v1alpha1.RoleSingle,
		Owner: o.Spec.Owner, Identity: o.Spec.Identity, Deleting: o.DeletionTimestamp != nil, Held: len(o.Spec.Held), Kept: o.Spec.Reservation != nil}
	for _, c := range o.Spec.Ceded {
		x.Ceded = append(x.Ceded, c.UID)
	}
	return x
}

// audit compares one machine's kernel with its journal, if nothing is under way there.
func (s *Sim) audit(m *Machine) {
	p, _, _ := m.running()
	s.mu.Lock()
	busy := m.busy > 0 || p == nil || p.frozen != nil
	s.mu.Unlock()
	if busy {
		return
	}
	list, err := p.stack.Entries()
	if err != nil {
		return // it may just have been killed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var live []history.Holder
	for _, id := range slices.Sorted(maps.Keys(m.sandboxes)) {
		if m.sandboxes[id].strange {
			continue
		}
		live = append(live, history.Holder{Node: m.Name, Sandbox: id, Pod: m.sandboxes[id].pod})
	}
	s.check.Recorded(time.Now(), m.Name, live, list)
	s.stats["audit"]++
	if f, ok := p.stack.(interface{ Frozen() []string }); ok && s.cfg.Mild {
		for _, block := range f.Frozen() {
			s.check.Froze(time.Now(), m.Name, block)
		}
	}
}

// errText is an error without what differs from one to the next.
func errText(err error) string {
	if err == nil {
		return "ok"
	}
	for _, known := range knownErrors {
		if is(err, known.err) {
			return known.text
		}
	}
	return err.Error()
}
