package ipamsim

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/test/ipamsim/history"
)

// flawed is a local home with a mistake.
type flawed struct {
	Local
	env   func(*Env)
	stack func(Stack) Stack
}

func (f flawed) Start(ctx context.Context, e Env) (Stack, error) {
	if f.env != nil {
		f.env(&e)
	}
	s, err := f.Local.Start(ctx, e)
	if err == nil && f.stack != nil {
		s = f.stack(s)
	}
	return s, err
}

// noSync is a disk that says it wrote.
type noSync struct{ ipam.Disk }

type noSyncFile struct{ ipam.File }

func (noSyncFile) Sync() error { return nil }

func (d noSync) Open(name string) (ipam.File, error)   { return d.file(d.Disk.Open(name)) }
func (d noSync) Create(name string) (ipam.File, error) { return d.file(d.Disk.Create(name)) }
func (noSync) file(f ipam.File, err error) (ipam.File, error) {
	if err != nil {
		return nil, err
	}
	return noSyncFile{f}, nil
}

// byPod frees by Pod, not by sandbox: trace 1 of docs/ipam.md.
type byPod struct{ Stack }

func (b byPod) Del(ctx context.Context, sandbox string) error {
	list, err := b.Entries()
	if err != nil {
		return err
	}
	pod := sandbox[:strings.LastIndex(sandbox, "-")+1]
	for _, e := range list {
		if strings.HasPrefix(e.Sandbox, pod) && e.Sandbox != sandbox {
			if err := b.Stack.(*localNode).s.Release(ctx, e.Sandbox); err != nil {
				return err
			}
		}
	}
	return b.Stack.Del(ctx, sandbox)
}

// leaky forgets every tenth DEL, and says that all is well.
type leaky struct{ Stack }

func (l leaky) Del(ctx context.Context, sandbox string) error {
	if mix(uint64(len(sandbox))+uint64(sandbox[len(sandbox)-3])<<8+uint64(sandbox[len(sandbox)-4]))%10 == 0 {
		return nil
	}
	return l.Stack.Del(ctx, sandbox)
}

// outsider answers with addresses that it never recorded.
type outsider struct {
	Stack
	env Env
}

func (o outsider) Add(ctx context.Context, p PodSpec) ([][]netip.Prefix, error) {
	got, err := o.Stack.Add(ctx, p)
	if err == nil && len(p.Sandbox)%2 == 0 {
		w := history.Where{Space: SpaceName("edge", 1, p.Wants[0].Network.IPv4.CIDR), Addr: p.Wants[0].Network.IPv4.CIDR.Addr()}
		_ = o.env.Kernel.Up(ctx, p.Sandbox, []Address{{IfName: "eth9", Where: w}})
	}
	return got, err
}

// TestSimulatorFinds: homes with a mistake are found out, each by the kinds of violation that follow from it.
func TestSimulatorFinds(t *testing.T) {
	var env Env
	base := local(3, seed(t, 7))
	home := base.Home.(Local)
	for name, c := range map[string]struct {
		home  Home
		kinds []string
	}{
		"nothing":             {home, nil},
		"no cooldown":         {Local{Slots: 3, Cooldown: -1}, []string{history.Warm}},
		"short cooldown":      {Local{Slots: 3, Cooldown: 20 * time.Second}, []string{history.Warm}},
		"two nodes, one slot": {flawed{Local: home, env: func(e *Env) { e.Index /= 2 }}, []string{history.Double, history.TwoBooks, history.Warm}},
		"journal in memory":   {flawed{Local: home, env: func(e *Env) { e.Disk = NewDisk().Process(0, nil, nil) }}, []string{history.Double, history.Unrecorded, history.Warm}},
		"no fsync":            {flawed{Local: home, env: func(e *Env) { e.Disk = noSync{e.Disk} }}, []string{history.Starved, history.Unrecorded, history.Warm, history.Double}},
		"DEL frees by Pod":    {flawed{Local: home, stack: func(s Stack) Stack { return byPod{s} }}, []string{history.Unrecorded, history.Double}},
		"DEL does nothing":    {flawed{Local: home, stack: func(s Stack) Stack { return leaky{s} }}, []string{history.Leaked, history.Starved}},
		"unrecorded":          {flawed{Local: home, env: func(e *Env) { env = *e }, stack: func(s Stack) Stack { return outsider{s, env} }}, []string{history.Outside, history.Unrecorded, history.Double}},
	} {
		cfg := base
		cfg.Home, cfg.Calls = c.home, 6000
		r := Run(t, cfg, Plan(cfg, 6000))
		switch {
		case c.kinds == nil && len(r.Violations) > 0:
			t.Errorf("%s: blamed for %v", name, r.Violations[0])
		case c.kinds != nil && len(r.Violations) == 0:
			t.Errorf("%s: not found in %d operations", name, r.Calls)
		case c.kinds != nil && !slices.Contains(c.kinds, r.Violations[0].Kind):
			t.Errorf("%s: found %v, want one of %q", name, r.Violations[0], c.kinds)
		case c.kinds != nil:
			t.Logf("%s: %s after %d operations", name, r.Violations[0].Kind, r.Calls)
		}
	}
}

// faulty is a local home to which everything is done that it does not notice.
type faulty struct{ Local }

func (faulty) Faults() Faults { return Faults{API: true, Sticky: true} }

// TestEveryFault: what is done to a home with an API is really done.
func TestEveryFault(t *testing.T) {
	cfg := local(3, seed(t, 9))
	cfg.Home = faulty{cfg.Home.(Local)}
	cfg.Spaces[0].Net.Sticky = true
	r := Run(t, cfg, Plan(cfg, 8000))
	if len(r.Violations) > 0 {
		t.Error(r.Violations[0])
	}
	for k, w := range weights(cfg.Home.Faults()) {
		if w > 3 && r.Stats["op "+Kind(k).String()] == 0 {
			t.Errorf("%s was not done", Kind(k))
		}
	}
}

// TestShrink: few of many operations remain, and they still fail.
func TestShrink(t *testing.T) {
	cfg := local(3, 1)
	ops := Plan(cfg, 400)
	fails := func(ops []Op) bool {
		has := map[int]bool{}
		for _, o := range ops {
			has[o.N] = true
		}
		return has[17] && has[18] && has[300]
	}
	few := Shrink(ops, fails, 1000)
	if len(few) != 3 || !fails(few) {
		t.Errorf("%d operations are left: %v", len(few), few)
	}
	var whole, rest time.Duration
	for _, o := range ops[:301] {
		whole += o.Gap
	}
	for _, o := range few {
		rest += o.Gap
	}
	if whole != rest {
		t.Errorf("the last operation happens at %s instead of %s", rest, whole)
	}
}
