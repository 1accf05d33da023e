package ipamsim

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/test/ipamsim/world"
)

// clusterOp does what only a home with an API may have done to it.
func (s *Sim) clusterOp(o Op, m *Machine, long time.Duration) {
	switch o.Kind {
	case LoseJournal:
		if s.unheard(m) {
			return
		}
		m.kill()
		s.mu.Lock()
		for _, sb := range m.sandboxes {
			sb.strange = true
		}
		if o.C%2 == 0 || len(m.images) == 0 {
			m.Disk.Lose(o.C%4 == 0)
		} else {
			m.Disk.Become(m.images[int(o.C)%len(m.images)])
			m.doubtful = true
		}
		s.mu.Unlock()
	case CutAPI:
		if o.C%8 == 0 {
			long *= 16 // up to 68 min: longer than a node may give without the API
		}
		s.cutAPI([]*Machine{m}, long)
	case CutAll:
		s.cutAPI(s.machines, long)
	case FreezeAPI:
		s.world.Freeze()
		s.later(long/2, s.world.Thaw)
	case EtcdBackup:
		b := s.world.Snapshot()
		s.mu.Lock()
		s.backup = b
		s.mu.Unlock()
	case EtcdRestore:
		s.mu.Lock()
		b := s.backup
		s.mu.Unlock()
		if b != nil && !s.forgetful() {
			s.world.Restore(b, 0) // with versions that jump ahead nobody can tell at once: docs/ipam.md
			s.mu.Lock()
			s.restored = true
			s.mu.Unlock()
			if h, ok := s.cfg.Home.(interface{ Restored() }); ok {
				h.Restored()
			}
		}
	case ControllerOff:
		s.stopController()
		s.later(long*4, s.startController)
	case DeleteNode:
		if o.C%4 == 0 {
			long *= 20 // up to 85 min: a block lease passes, or not
		}
		s.deleteNode(m, long)
	case Clone:
		s.clone(s.machines[int(o.B)%len(s.machines)], m, long)
	case Step:
		s.mu.Lock()
		m.wallOff += time.Duration(int64(o.B)-1<<31) * 10 * time.Microsecond // up to 6 h each way
		s.mu.Unlock()
	}
}

// forgetful says that a machine has lost its journal, has Pods from before, and has not learned from the API yet which blocks are
// its own. If etcd is set back now, nobody knows of them: docs/ipam.md has it among the limits.
func (s *Sim) forgetful() bool {
	h, ok := s.cfg.Home.(interface{ Reached(node string) bool })
	if !ok {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		for _, sb := range m.sandboxes {
			if sb.strange && len(sb.addrs) > 0 && (m.proc == nil || m.proc.stack == nil || !h.Reached(m.Name)) {
				return true
			}
		}
	}
	return false
}

// unheard says that etcd was set back and the machine's journal alone may know what its Pods have: if it is lost now, nobody does.
// docs/ipam.md has that among the limits.
func (s *Sim) unheard(m *Machine) bool {
	h, ok := s.cfg.Home.(interface{ Reached(node string) bool })
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && s.restored && (m.proc == nil || m.proc.stack == nil || !h.Reached(m.Name))
}

func (s *Sim) cutAPI(machines []*Machine, d time.Duration) {
	cut := func(on bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range machines {
			m.cut = on
			if m.client != nil {
				m.client.Cut(on)
			}
		}
	}
	cut(true)
	s.later(d, func() { cut(false) })
}

// deleteNode is an administrator who removes a machine that is off; it comes back as a new Node.
func (s *Sim) deleteNode(m *Machine, d time.Duration) {
	m.powerOff()
	_ = s.world.Delete(world.Node, "", m.Name, world.Preconditions{})
	for _, p := range s.allPods() {
		if p.m == m {
			p.remove(true)
		}
	}
	s.later(d, func() {
		s.register(m)
		m.powerOn()
	})
}

// clone makes a machine that is off a copy of another, with its machine-id.
func (s *Sim) clone(from, to *Machine, d time.Duration) {
	if from == to {
		return
	}
	to.powerOff()
	image := from.Disk.Image()
	s.mu.Lock()
	to.Disk.Become(image)
	to.doubtful = true
	to.MachineID = from.MachineID
	s.mu.Unlock()
	s.later(d, func() {
		s.register(to)
		to.powerOn()
	})
}

// register makes a machine's Node object.
func (s *Sim) register(m *Machine) {
	_, _ = s.world.Create("kubelet", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Name}})
}

func (s *Sim) startController() {
	c, ok := s.cfg.Home.(Controlled)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.controller != nil || s.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.controller = cancel
	s.controllers++
	client := &world.Client{World: s.world, Name: fmt.Sprint("danm-controller"), Sleep: s.clock.sleep}
	s.tasks.Go(func() { c.RunController(ctx, client) })
}

func (s *Sim) stopController() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.controller != nil {
		s.controller()
		s.controller = nil
	}
}
