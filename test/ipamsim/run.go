package ipamsim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Run plays operations and, if nothing was wrong by then, brings everything to rest and looks for leaks: all Pods go, all
// is healthy, time passes; then there are as many Pods as addresses, and each must get one; then all go again. It ends at
// the first violation.
func Run(t *testing.T, cfg Config, ops []Op) (out Result) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(cfg)
		start := time.Now()
		s.begin()
		s.play(ops)
		s.settle()
		if s.good() {
			s.quiet("after the operations")
		}
		if s.good() {
			s.fill()
		}
		if s.good() {
			s.quiet("after as many Pods as addresses")
		}
		s.end()
		out = Result{Violations: s.check.Violations(), Stats: s.stats, StartErrors: s.startErrors, Sets: s.check.Sets(), Calls: s.calls, Virtual: time.Since(start), Digest: s.check.Digest()}
	})
	return out
}

func (s *Sim) begin() {
	if h, ok := s.cfg.Home.(interface {
		Evictor(evict func(node, spaceHash string, of netip.Prefix))
	}); ok {
		h.Evictor(s.evict)
	}
	for _, m := range s.machines {
		s.register(m)
		m.powerOn()
	}
	s.startController()
	_ = s.clock.sleep(s.ctx, time.Minute)
}

// evict deletes the Pods of a node that have an address of a space.
func (s *Sim) evict(node, spaceHash string, of netip.Prefix) {
	for _, p := range s.allPods() {
		if p.m.Name == node && p.has(spaceHash, of) {
			s.note("evicted", p.spec.UID)
			p.remove(false)
		}
	}
}

func (s *Sim) good() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.check.Violations()) == 0
}

func (s *Sim) play(ops []Op) {
	for i, o := range ops {
		_ = s.clock.sleep(s.ctx, o.Gap)
		s.do(o)
		if i%256 == 0 {
			s.mu.Lock()
			s.check.Forget(time.Now().Add(-time.Hour))
			over := s.cfg.Calls > 0 && s.calls >= s.cfg.Calls || len(s.check.Violations()) > 0
			s.mu.Unlock()
			if over {
				return
			}
		}
	}
}

// settle makes everything healthy and takes all Pods away.
func (s *Sim) settle() {
	_ = s.clock.sleep(s.ctx, time.Second) // what the last operation set off comes first
	s.mu.Lock()
	s.settling = true
	for _, m := range s.machines {
		m.diskLeft = 0
		m.Disk.Limit(-1)
		if m.proc != nil {
			m.proc.disk.DieAfter(0)
			m.proc.disk.FailAfter(0)
		}
	}
	s.mu.Unlock()
	if s.cfg.Home.Faults().API {
		for _, m := range s.machines {
			s.register(m) // the Nodes that an etcd restore took away
		}
	}
	s.removeAll()
	if h, ok := s.cfg.Home.(interface{ SetsDeleted() }); ok {
		h.SetsDeleted()
	}
	for range 2 { // machines with a changed disk take a cooldown longer
		_ = s.clock.sleep(s.ctx, s.cfg.Cooldown+time.Minute)
		for _, m := range s.machines {
			m.powerOn()
		}
	}
}

func (s *Sim) removeAll() {
	for _, p := range s.allPods() {
		p.remove(false)
	}
}

func (s *Sim) allPods() (out []*pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range slices.Sorted(maps.Keys(s.pods)) {
		out = append(out, s.pods[n])
	}
	return out
}

// quiet waits until the last Pod is gone and looks for what is left.
func (s *Sim) quiet(when string) {
	left := func() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.pods) }
	for end := time.Now().Add(time.Hour); left() > 0 && time.Now().Before(end); {
		_ = s.clock.sleep(s.ctx, 10*time.Second)
	}
	_ = s.clock.sleep(s.ctx, 15*time.Minute) // DELs are repeated that late
	_ = s.clock.sleep(s.ctx, s.cfg.Home.Settle())
	b := s.books()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		if m.proc == nil || m.proc.stack == nil {
			s.check.Starve(time.Now(), "", m.Name, "its agent does not start "+when+fmt.Sprint(s.startErrors))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.pods)) {
		p := s.pods[n]
		s.check.Starve(time.Now(), "", p.spec.UID, "it does not end "+when+": "+fmt.Sprint(p.lastErr))
	}
	s.check.Consistent(time.Now(), b)
	s.check.Quiet(time.Now(), b)
}

// fillMost is the size of a space beyond which it is not filled: the small ones show the same.
const fillMost = 600

// fill has exactly as many Pods in each small space as there are addresses.
func (s *Sim) fill() {
	number := 1 << 30
	var all []*pod
	for i, sp := range s.spaces {
		if sp.capacity > fillMost {
			continue
		}
		for n, m := range s.fillNodes(sp, i) {
			number++
			all = append(all, s.newPod(number, m, sp, podOptions{wants: dynamicWants(sp)}))
			if n%8 == 0 {
				_ = s.clock.sleep(s.ctx, time.Millisecond)
			}
		}
	}
	waiting := func() (n int) {
		for _, p := range all {
			if pod, _ := p.starved(); pod != "" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(30*time.Minute + s.cfg.Home.Settle()); waiting() > 0 && time.Now().Before(end); {
		_ = s.clock.sleep(s.ctx, 5*time.Second)
	}
	for _, p := range all {
		if pod, why := p.starved(); pod != "" {
			s.mu.Lock()
			s.check.Starve(time.Now(), p.space.Net.Name, pod, why)
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	s.stats["filled"] += len(all)
	s.mu.Unlock()
	s.removeAll()
}

// fillNodes are the nodes of the Pods that fill a space: as many Pods as the node can give addresses to, or, where any node
// can give any address, all of them unevenly spread.
func (s *Sim) fillNodes(sp *spaceOf, salt int) (out []*Machine) {
	for i, n := range sp.shares {
		for range n {
			out = append(out, s.machines[i])
		}
	}
	if sp.shares == nil {
		for i := range sp.capacity {
			r := mix(s.cfg.Seed + uint64(i*1000+salt))
			out = append(out, s.machines[int(r%uint64(1+r>>32%uint64(len(s.machines))))])
		}
	}
	return out
}

// end stops everything.
func (s *Sim) end() {
	s.stopController()
	s.world.Thaw()
	s.cancel()
	for _, m := range s.machines {
		s.mu.Lock()
		m.on = false
		stack := m.killLocked()
		s.mu.Unlock()
		if stack != nil {
			stack.Kill()
		}
	}
	s.tasks.Wait()
	time.Sleep(2 * time.Minute) // requests that are under way land
	synctest.Wait()
}
