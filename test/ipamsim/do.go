package ipamsim

import (
	"fmt"
	"net/netip"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
)

// do does one operation. What takes long goes on while others are done.
func (s *Sim) do(o Op) {
	m := s.machines[int(o.A)%len(s.machines)]
	s.note("op "+o.Kind.String(), m.Name)
	long := time.Duration(o.B) * time.Second / (1 << 24) // up to 256 s
	switch o.Kind {
	case Churn:
		s.churn(o)
	case Restart:
		if p := s.anyPod(o); p != nil {
			p.signal(func() { p.restart = p.running })
		}
	case LateDel:
		s.mu.Lock()
		var x pastSandbox
		if len(s.past) > 0 {
			x = s.past[int(o.B)%len(s.past)]
		}
		s.mu.Unlock()
		if x.m != nil && !s.sandboxNeeded(x) {
			s.tasks.Go(func() { s.del(x.m, x.id, fmt.Sprint(" op ", o.N)) })
		}
	case KillNow:
		m.kill()
	case KillWriting:
		s.mu.Lock()
		if p := m.proc; p != nil && o.C%2 == 0 {
			p.disk.DieAfter(1 + int(o.B%9))
		} else {
			m.diskLeft = 1 + int(o.B%12) // the next process, perhaps while it starts
		}
		s.mu.Unlock()
	case DiskError:
		s.mu.Lock()
		if p := m.proc; p != nil {
			p.disk.FailAfter(1 + int(o.B%9))
		}
		s.mu.Unlock()
	case Freeze:
		s.freeze(m, long/4)
	case PowerCut, OldDisk, BlankDisk:
		s.powerCut(o, m, long)
	case DiskFull:
		m.Disk.Limit(int64(o.C % 2000))
		s.later(long, func() { m.Disk.Limit(-1) })
	case Audit:
		s.audit(m)
	case Image:
		s.mu.Lock()
		m.images = append(m.images[max(0, len(m.images)-2):], m.Disk.Image())
		s.mu.Unlock()
	case Move:
		s.move(o, m)
	default:
		s.clusterOp(o, m, long)
	}
}

// later does something after a while, or when the run settles.
func (s *Sim) later(d time.Duration, do func()) {
	s.tasks.Go(func() {
		for end := time.Now().Add(d); time.Now().Before(end) && !s.isSettling(); {
			_ = s.clock.sleep(s.ctx, min(time.Until(end), 10*time.Second))
			if s.ctx.Err() != nil {
				break
			}
		}
		do()
	})
}

func (s *Sim) isSettling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settling
}

func (s *Sim) freeze(m *Machine, d time.Duration) {
	s.mu.Lock()
	p := m.proc
	if p == nil || p.frozen != nil {
		s.mu.Unlock()
		return
	}
	thaw := make(chan struct{})
	p.frozen = thaw
	s.mu.Unlock()
	s.later(d, func() {
		s.mu.Lock()
		p.frozen = nil
		s.mu.Unlock()
		close(thaw)
	})
}

// powerCut turns a machine off and on again. A changed disk is only put in after a cooldown: without a cluster nobody else
// could know what cools.
func (s *Sim) powerCut(o Op, m *Machine, d time.Duration) {
	m.powerOff()
	s.mu.Lock()
	switch {
	case o.Kind == OldDisk && len(m.images) > 0:
		m.Disk.Become(m.images[int(o.C)%len(m.images)])
		m.notBefore = time.Now().Add(s.cfg.Cooldown)
	case o.Kind == BlankDisk:
		m.Disk.Lose(true)
		m.images = nil
		m.notBefore = time.Now().Add(s.cfg.Cooldown)
	}
	s.mu.Unlock()
	s.later(d, func() {
		s.register(m) // as its kubelet does, if the Node was deleted meanwhile
		m.powerOn()
	})
}

// sandboxNeeded says whether a sandbox is the one its Pod runs in, of which no DEL may come.
func (s *Sim) sandboxNeeded(x pastSandbox) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return x.m.sandboxes[x.id] != nil
}

func (s *Sim) anyPod(o Op) *pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.spaces {
		if sp := s.spaces[(int(o.A)+i)%len(s.spaces)]; len(sp.pods) > 0 {
			return sp.pods[int(o.B)%len(sp.pods)]
		}
	}
	return nil
}

// churn adds a Pod to a space, or takes one away if it has many.
func (s *Sim) churn(o Op) {
	sp := s.pick(o.A)
	target := sp.capacity * 85 / 100
	if o.C%16 == 0 {
		target = sp.capacity + 2 // more than there are addresses
	}
	if sp.Most > 0 {
		target = min(target, sp.Most)
	}
	s.mu.Lock()
	n := len(sp.pods)
	var old *pod
	if n > 0 {
		old = sp.pods[int(o.B)%n]
	}
	s.mu.Unlock()
	if n >= max(1, target) || n > 0 && o.C%5 == 1 {
		old.remove(o.C%2 == 0)
		return
	}
	m := s.machines[int(o.B>>4)%len(s.machines)]
	for try := 0; sp.crowded(m.Index) && o.C%16 != 0 && try < len(s.machines); try++ {
		m = s.machines[(m.Index+1)%len(s.machines)]
	}
	wants, static := s.wants(o, sp)
	s.newPod(o.N, m, sp, podOptions{wants: wants, static: static})
}

// move has the Pod of some ordinal of some StatefulSet start on a machine. Its predecessor goes, and is waited for, unless
// somebody deleted it by force: then both may run for a while.
func (s *Sim) move(o Op, m *Machine) {
	set, ordinal := int(o.B%4), int(o.C%3)
	var sp *spaceOf
	for i := range s.spaces {
		if x := s.spaces[(set+i)%len(s.spaces)]; x.Net.Sticky {
			sp = x
			break
		}
	}
	if sp == nil {
		return
	}
	at := [2]int{set, ordinal}
	opts := podOptions{wants: dynamicWants(sp), set: fmt.Sprint("set-", set), ordinal: int32(ordinal)}
	if old := s.ordinals[at]; old != nil {
		old.remove(o.C%2 == 0)
		if o.C>>4%4 != 0 {
			opts.after = old
		}
	}
	s.ordinals[at] = s.newPod(o.N, m, sp, opts)
}

// crowded says that a node has as many Pods on the space as it can give addresses to, or nearly.
func (sp *spaceOf) crowded(node int) bool {
	return sp.shares != nil && sp.on[node] >= (sp.shares[node]*7+7)/8
}

func (s *Sim) pick(a uint32) *spaceOf {
	total := 0
	for _, sp := range s.spaces {
		total += sp.Weight
	}
	r := int(a>>3) % total
	for _, sp := range s.spaces {
		if r -= sp.Weight; r < 0 {
			return sp
		}
	}
	return s.spaces[0]
}

// wants are one interface mostly, sometimes one more; now and then an address is asked for.
func (s *Sim) wants(o Op, sp *spaceOf) (out []ipam.Want, static bool) {
	out = append(out, dynamicWant("eth0", sp.Net))
	if o.C>>4%16 == 0 {
		asked := addressAt(sp.Net.IPv4.CIDR, mix(uint64(o.C)<<32|uint64(o.B)))
		out[0].IP, static = model.AddressRequest{Mode: model.AddressStatic, Addr: asked}, true
	}
	if o.C>>8%8 == 0 {
		out = append(out, dynamicWant("net1", s.spaces[int(o.C>>12)%len(s.spaces)].Net))
	}
	return out, static
}

func dynamicWant(name string, n model.Network) ipam.Want {
	w := ipam.Want{IfName: name, Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}
	if n.IPv6 != nil {
		w.IP6 = model.AddressRequest{Mode: model.AddressDynamic}
	}
	return w
}

// addressAt is some address of an IPv4 network.
func addressAt(cidr netip.Prefix, r uint64) netip.Addr {
	b := cidr.Addr().As4()
	off := uint32(r) & (1<<(32-cidr.Bits()) - 1)
	n := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]) + off
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func dynamicWants(sp *spaceOf) []ipam.Want { return []ipam.Want{dynamicWant("eth0", sp.Net)} }
