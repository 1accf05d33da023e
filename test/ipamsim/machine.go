package ipamsim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// Machine is one node's hardware, kernel and runtime. What it holds is guarded by Sim.mu.
type Machine struct {
	sim       *Sim
	Name      string
	Index     int
	MachineID string
	Disk      *Disk
	rng       *rand.Rand
	on        bool
	boots     int
	bootAt    time.Time
	notBefore time.Time // it must not boot earlier
	wallOff   time.Duration
	sandboxes map[string]*sandbox
	proc      *agent
	changed   chan struct{} // closed when an agent came up or the machine went on
	client    *world.Client // of the newest process
	cut       bool          // from the API
	images    []*Disk
	busy      int // ADDs and DELs under way
	kills     int
	starts    int
	diskLeft  int // writes until the next process dies, 0 = it lives
	doubtful  bool
	highWater *atomic.Uint64 // of this boot
	bootWall  time.Time
}

// sandbox is a network namespace and what is set in it.
type sandbox struct {
	pod, id string
	addrs   []Address
	strange bool // the journal that recorded it was taken away
}

// agent is one process of the agent.
type agent struct {
	m      *Machine
	ctx    context.Context
	cancel context.CancelFunc
	dead   atomic.Bool
	disk   *process
	stack  Stack         // nil until it is up
	frozen chan struct{} // closed at the thaw
}

var (
	errOff     = errors.New("the machine is off")
	errNoAgent = errors.New("nobody answers on the agent's socket")
	errNetns   = errors.New("the sandbox has no network namespace")
	errLink    = errors.New("make link: device or resource busy")
)

// wake tells who waits for the machine. Sim.mu is held.
func (m *Machine) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// powerOn boots the machine, but not before it may.
func (m *Machine) powerOn() {
	s := m.sim
	s.mu.Lock()
	for time.Now().Before(m.notBefore) {
		wait := time.Until(m.notBefore)
		s.mu.Unlock()
		_ = s.clock.sleep(context.Background(), wait)
		s.mu.Lock()
	}
	if m.on || s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	m.on, m.bootAt, m.highWater, m.bootWall = true, time.Now(), new(atomic.Uint64), time.Now().Add(m.wallOff)
	m.boots++
	m.wake()
	s.noteLocked("machine on", m.Name)
	after := time.Duration(m.rng.Int64N(int64(2 * time.Second)))
	s.mu.Unlock()
	m.startAgent(after)
}

// powerOff ends everything on the machine at once. What was not synced is lost in part.
func (m *Machine) powerOff() {
	s := m.sim
	s.mu.Lock()
	if !m.on {
		s.mu.Unlock()
		return
	}
	m.on = false
	s.check.Off(time.Now(), m.Name, slices.Sorted(maps.Keys(m.sandboxes)))
	clear(m.sandboxes)
	stack := m.killLocked()
	m.Disk.PowerCut(m.rng)
	m.wake()
	s.mu.Unlock()
	if stack != nil {
		stack.Kill()
	}
}

// killLocked is kill -9 of the agent.
func (m *Machine) killLocked() Stack {
	p := m.proc
	m.proc = nil
	if p == nil {
		return nil
	}
	p.dead.Store(true)
	m.kills++
	p.disk.Kill()
	p.cancel()
	return p.stack
}

// kill ends the agent, and something starts it again.
func (m *Machine) kill() {
	m.sim.mu.Lock()
	on, stack := m.on, m.killLocked()
	after := time.Duration(m.rng.Int64N(int64(3 * time.Second)))
	m.sim.mu.Unlock()
	if stack != nil {
		stack.Kill()
	}
	if on {
		m.startAgent(after)
	}
}

// startAgent starts one after a while, unless there is one by then, again and again until it is up.
func (m *Machine) startAgent(after time.Duration) {
	s := m.sim
	s.tasks.Go(func() {
		s.mu.Lock()
		boot := m.boots
		s.mu.Unlock()
		for {
			_ = s.clock.sleep(s.ctx, after)
			after = time.Second
			s.mu.Lock()
			if !m.on || m.boots != boot || m.proc != nil || s.ctx.Err() != nil {
				s.mu.Unlock()
				return
			}
			p := m.newAgent()
			m.proc = p
			m.starts++
			s.mu.Unlock()
			stack, err := s.cfg.Home.Start(p.ctx, p.env())
			if p.up(stack, err) {
				return
			}
		}
	})
}

// up takes note of a started stack, or of its end.
func (p *agent) up(stack Stack, err error) bool {
	m, s := p.m, p.m.sim
	s.mu.Lock()
	if err == nil && !p.dead.Load() {
		p.stack, m.doubtful = stack, false
		m.wake()
		s.noteLocked("agent up", m.Name)
		s.mu.Unlock()
		return true
	}
	if err != nil && !p.dead.Load() {
		s.startErrors[errText(err)]++
	}
	if m.proc == p {
		m.proc = nil
	}
	p.dead.Store(true)
	p.disk.Kill()
	p.cancel()
	s.mu.Unlock()
	if stack != nil {
		stack.Kill()
	}
	return false
}

func (m *Machine) newAgent() *agent {
	p := &agent{m: m}
	p.ctx, p.cancel = context.WithCancel(m.sim.ctx)
	torn := rand.New(rand.NewPCG(m.rng.Uint64(), 1))
	p.disk = m.Disk.Process(m.diskLeft, func() bool { return torn.IntN(2) == 0 }, func() { m.diedWriting(p) })
	m.diskLeft = 0
	return p
}

// diedWriting is called when a process made its last write. From then on it does nothing; that it ended is seen at an
// instant of its own.
func (m *Machine) diedWriting(p *agent) {
	p.dead.Store(true)
	m.sim.tasks.Go(func() {
		_ = m.sim.clock.sleep(m.sim.ctx, 1)
		m.sim.mu.Lock()
		mine := m.proc == p
		m.sim.mu.Unlock()
		if mine {
			m.kill()
		}
	})
}

func (p *agent) env() Env {
	m, s := p.m, p.m.sim
	s.mu.Lock()
	defer s.mu.Unlock()
	bootAt, off := m.bootAt, m.wallOff
	e := Env{
		Node: m.Name, Index: m.Index, MachineID: m.MachineID, BootID: fmt.Sprint(m.Name, " boot ", m.boots), Disk: p.disk, Kernel: p,
		Wall:     func() time.Time { return time.Now().Add(off) },
		Boottime: func() time.Duration { return time.Since(bootAt) },
		Random:   rand.New(rand.NewPCG(s.cfg.Seed, s.coin(m.Name, 90+m.starts))).Float64,
		Log:      m.sim.log(m.Name),
		Doubtful: m.doubtful, HighWater: m.highWater, BootWall: m.bootWall,
	}
	if m.sim.cfg.Home.Faults().API {
		m.client = s.newClient(m.Name, p)
		m.client.Cut(m.cut)
		e.API = &world.NodeAPI{Client: m.client, Node: m.Name, Machine: m.MachineID}
	}
	return e
}

// gate holds a frozen process up; it fails when the process is dead.
func (p *agent) gate(who string) error {
	for {
		p.m.sim.mu.Lock()
		dead, frozen := p.dead.Load() || p.ctx.Err() != nil, p.frozen
		p.m.sim.mu.Unlock()
		switch {
		case dead:
			return ErrKilled
		case frozen == nil:
			return nil
		}
		select {
		case <-frozen:
			p.m.jitter(who)
		case <-p.ctx.Done():
		}
	}
}

// Up implements Kernel. A process that is killed meanwhile may have set the addresses just before.
func (p *agent) Up(ctx context.Context, id string, addrs []Address) error {
	s, m := p.m.sim, p.m
	if err := p.gate(id); err != nil {
		return err
	}
	serr := s.clock.sleep(p.ctx, time.Duration(100_000+s.coin(id, 40)%5_000_000))
	if serr == nil {
		if err := p.gate(id); err != nil {
			serr = err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sb := m.sandboxes[id]
	switch {
	case sb == nil:
		return fmt.Errorf("sandbox %s: %w", id, errNetns)
	case serr != nil && (!m.on || s.coin(id, 41)%2 == 0):
		return ErrKilled
	case serr == nil && s.coin(id, 42)%50 == 0:
		return errLink
	}
	for _, a := range addrs {
		sb.addrs = append(sb.addrs, a)
		s.check.Set(time.Now(), history.Holder{Node: m.Name, Sandbox: id, Pod: sb.pod, IfName: a.IfName}, a.Where, a.Why)
	}
	if serr != nil {
		return ErrKilled
	}
	return nil
}

// Down implements Kernel.
func (p *agent) Down(ctx context.Context, id string) error {
	s, m := p.m.sim, p.m
	if err := p.gate(id); err != nil {
		return err
	}
	if err := s.clock.sleep(p.ctx, time.Duration(50_000+s.coin(id, 43)%2_000_000)); err != nil {
		return ErrKilled
	}
	if err := p.gate(id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m.clear(id)
	return nil
}

// clear takes a sandbox's links down. Sim.mu is held.
func (m *Machine) clear(id string) {
	if sb := m.sandboxes[id]; sb != nil && len(sb.addrs) > 0 {
		sb.addrs = nil
		m.sim.check.Clear(time.Now(), m.Name, id)
	}
}

// Sandboxes implements Kernel.
func (p *agent) Sandboxes() []string {
	p.m.sim.mu.Lock()
	defer p.m.sim.mu.Unlock()
	return slices.Sorted(maps.Keys(p.m.sandboxes))
}
