package ipamsim

import (
	"context"
	"net/netip"
	"time"

	"danm.io/danm/ipam"
)

// running is the agent that answers now, or nil, and a channel that tells of a change.
func (m *Machine) running() (*agent, bool, <-chan struct{}) {
	m.sim.mu.Lock()
	defer m.sim.mu.Unlock()
	if m.proc == nil || m.proc.dead.Load() || m.proc.stack == nil {
		return nil, m.on, m.changed
	}
	return m.proc, m.on, m.changed
}

// call is one CNI call: it waits a second for an agent and then for the agent's answer, which it does not get from a dead
// one. The agent goes on with what it does after the caller has left. who is the caller, as no other is called.
func (m *Machine) call(ctx context.Context, who string, do func(ctx context.Context, s Stack) error) error {
	p, err := m.reach(ctx, who)
	if err != nil {
		return err
	}
	s := m.sim
	inner, cancel := context.WithCancel(context.WithValue(p.ctx, caller{}, who))
	defer cancel()
	answer := make(chan error, 1)
	s.mu.Lock()
	m.busy++
	s.mu.Unlock()
	s.tasks.Go(func() {
		err := p.gate(who)
		if err == nil { // the shim's way to the agent: calls that were held up together come one after the other
			err = s.clock.sleep(inner, time.Duration(s.coin(who, 61)%1_000_000))
		}
		if err == nil {
			err = do(inner, p.stack)
		}
		if gerr := p.gate(who); gerr != nil {
			err = gerr
		}
		s.mu.Lock()
		m.busy--
		s.mu.Unlock()
		answer <- err
	})
	select {
	case err = <-answer:
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.ctx.Done():
	}
	if p.ctx.Err() != nil { // many hear of it at once
		m.jitter(who)
		return ErrKilled
	}
	if is(err, ipam.ErrFailed) { // only opening it again helps, so whoever watches the agent ends it
		m.diedWriting(p)
	}
	return err
}

func (m *Machine) reach(ctx context.Context, who string) (*agent, error) {
	if p, on, _ := m.running(); p != nil || !on {
		if p == nil {
			return nil, errOff
		}
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		p, on, changed := m.running()
		if !on {
			return nil, errOff
		}
		if p != nil {
			return p, nil
		}
		select {
		case <-changed:
			m.jitter(who)
		case <-ctx.Done():
			return nil, errNoAgent
		}
	}
}

// add is a CNI ADD.
func (m *Machine) add(ctx context.Context, p PodSpec) ([][]netip.Prefix, error) {
	var out [][]netip.Prefix
	got := make(chan [][]netip.Prefix, 1)
	err := m.call(ctx, p.Sandbox, func(ctx context.Context, s Stack) error {
		a, err := s.Add(ctx, p)
		got <- a
		return err
	})
	if err == nil {
		out = <-got
	}
	return out, err
}

func (m *Machine) del(ctx context.Context, who, sandbox string) error {
	return m.call(ctx, who, func(ctx context.Context, s Stack) error { return s.Del(ctx, sandbox) })
}

// jitter lets those who woke up at one instant go on one after the other.
func (m *Machine) jitter(who string) {
	_ = m.sim.clock.sleep(m.sim.ctx, time.Duration(m.sim.coin(who, 60)%10_000_000)*time.Nanosecond)
}

// awaitOn waits until the machine is on; false: the run is over.
func (m *Machine) awaitOn(who string) bool {
	for {
		_, on, changed := m.running()
		if on || m.sim.ctx.Err() != nil {
			return on
		}
		select {
		case <-changed:
			m.jitter(who)
		case <-m.sim.ctx.Done():
		}
	}
}
