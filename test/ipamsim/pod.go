package ipamsim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/ipam"
)

var is = errors.Is

var knownErrors = []struct {
	err  error
	text string
}{
	{ErrKilled, "killed"}, {errNoAgent, "no agent"}, {errOff, "machine off"}, {errNetns, "no netns"}, {errLink, "link"},
	{ErrFull, "disk full"}, {ipam.ErrFailed, "journal failed"}, {ErrIO, "disk error"}, {ipam.ErrExhausted, "exhausted"}, {ipam.ErrTaken, "taken"}, {ipam.ErrNotOurs, "not ours"},
	{ipam.ErrReserved, "reserved"}, {ipam.ErrClaim, "no claim"}, {ipam.ErrOwner, "not ceded"}, {ipam.ErrLease, "lease over"},
	{ipam.ErrSuspect, "suspect"}, {ipam.ErrFrozen, "frozen"}, {ipam.ErrBack, "just back"}, {ipam.ErrNoRoot, "no root"}, {ipam.ErrOutside, "outside"}, {ipam.ErrCorrupt, "journal damaged"},
	{ipam.ErrClosed, "closed"}, {context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"}, {errAttached, "attached already"},
}

// pod is a Pod and what the kubelet of its machine does for it.
type pod struct {
	s      *Sim
	m      *Machine
	number int
	spec   PodSpec // without sandbox
	space  *spaceOf
	static bool
	rng    *rand.Rand
	made   int // sandboxes
	after  *pod
	gone   chan struct{} // closed when it is

	// Guarded by Sim.mu.
	deleted, restart, running bool
	kick                      chan struct{} // closed when one of them changes
	cancelAdd                 context.CancelFunc
	lastErr                   error
}

// podOptions say what kind of Pod it is.
type podOptions struct {
	wants   []ipam.Want
	static  bool   // an address is asked for: if it is not to be had, the Pod goes
	set     string // StatefulSet
	ordinal int32
	after   *pod // it starts when this one is gone
}

// newPod makes a Pod and lets it run.
func (s *Sim) newPod(number int, m *Machine, sp *spaceOf, o podOptions) *pod {
	uid := fmt.Sprint("uid-", number)
	p := &pod{s: s, m: m, number: number, space: sp, static: o.static, after: o.after, gone: make(chan struct{}), rng: rand.New(rand.NewPCG(s.cfg.Seed, s.coin(uid, 1))),
		spec: PodSpec{UID: uid, Namespace: "acme", Pod: fmt.Sprint("pod-", number), Wants: o.wants,
			StatefulSet: o.set, Ordinal: o.ordinal}, kick: make(chan struct{})}
	s.mu.Lock()
	s.pods[number] = p
	sp.pods = append(sp.pods, p)
	sp.on[m.Index]++
	s.mu.Unlock()
	s.tasks.Go(p.live)
	return p
}

// signal changes something about the Pod and wakes its kubelet.
func (p *pod) signal(change func()) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	change()
	close(p.kick)
	p.kick = make(chan struct{})
}

func (p *pod) remove(cancelAdd bool) {
	p.signal(func() {
		if !p.deleted {
			p.space.on[p.m.Index]--
		}
		p.deleted = true
		p.space.pods = slices.DeleteFunc(p.space.pods, func(x *pod) bool { return x == p })
		if cancelAdd && p.cancelAdd != nil {
			p.cancelAdd()
		}
	})
}

// live is the kubelet's work for one Pod: sandboxes are made until one is attached, and made again when it dies.
func (p *pod) live() {
	s := p.s
	defer close(p.gone)
	if p.after != nil {
		<-p.after.gone
		p.after = nil // or it would remember all that were before
	}
	backoff := time.Second
	for fails := 0; ; {
		boot, ok := p.awaitMachine()
		if !ok {
			break
		}
		id := p.newSandbox()
		err := p.add(id)
		p.jitter()
		if err == nil {
			fails, backoff = 0, time.Second
			again := p.attached(id, boot)
			if !again {
				p.detach(id, true)
				break
			}
			// The old sandbox may be detached before, while or after the new one is attached.
			p.detach(id, p.rng.IntN(3) == 0)
			continue
		}
		p.detach(id, p.rng.IntN(2) == 0)
		if fails++; p.static && fails == 3 {
			p.remove(false)
		}
		p.wait(backoff + time.Duration(p.rng.Int64N(int64(time.Second))))
		backoff = min(3*backoff, 5*time.Minute)
		s.mu.Lock()
		if s.settling {
			backoff = min(backoff, 10*time.Second)
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	delete(s.pods, p.number)
	s.mu.Unlock()
}

// awaitMachine waits until the machine is on; false: the Pod was deleted.
func (p *pod) awaitMachine() (boot int, ok bool) {
	for {
		p.s.mu.Lock()
		deleted, on, boot, kick, changed := p.deleted, p.m.on, p.m.boots, p.kick, p.m.changed
		p.s.mu.Unlock()
		switch {
		case deleted || p.s.ctx.Err() != nil:
			return 0, false
		case on:
			return boot, true
		}
		select {
		case <-kick:
		case <-changed:
		case <-p.s.ctx.Done():
		}
		p.jitter() // others woke up too
	}
}

// jitter lets the kubelets that woke up at one instant go on one after the other.
func (p *pod) jitter() {
	_ = p.s.clock.sleep(p.s.ctx, time.Duration(p.rng.Int64N(int64(10*time.Millisecond))))
}

func (p *pod) newSandbox() string {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	p.made++
	id := fmt.Sprintf("sandbox-%d-%d", p.number, p.made)
	if p.m.on {
		p.m.sandboxes[id] = &sandbox{pod: p.spec.UID, id: id}
	}
	if len(s.past) == 500 {
		s.past = append(s.past[:0], s.past[1:]...)
	}
	s.past = append(s.past, pastSandbox{p.m, id})
	return id
}

func (p *pod) add(id string) error {
	s := p.s
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second+time.Duration(p.rng.Int64N(int64(100*time.Second))))
	defer cancel()
	s.mu.Lock()
	p.cancelAdd = cancel
	s.mu.Unlock()
	spec := p.spec
	spec.Sandbox = id
	got, err := p.m.add(ctx, spec)
	if err == nil && len(got) != len(spec.Wants) {
		err = fmt.Errorf("%d answers to %d wants", len(got), len(spec.Wants))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.cancelAdd, p.running, p.lastErr = nil, err == nil, err
	if err == nil && spec.StatefulSet != "" {
		key := fmt.Sprint(spec.StatefulSet, " ", spec.Ordinal)
		if had, ok := s.kept[key]; ok && had != got[0][0] {
			s.noteLocked("another sticky address", fmt.Sprint(key, " ", had, " ", got[0][0]))
		} else if ok {
			s.noteLocked("same sticky address", key)
		}
		s.kept[key] = got[0][0]
	}
	s.noteLocked("add "+errText(err), fmt.Sprint(id, got))
	return err
}

// attached waits while the sandbox lives; false: the Pod was deleted.
func (p *pod) attached(id string, boot int) (again bool) {
	for {
		p.s.mu.Lock()
		deleted, restart, kick, changed, rebooted := p.deleted, p.restart, p.kick, p.m.changed, p.m.boots != boot || !p.m.on
		if deleted || restart || rebooted {
			p.restart, p.running = false, false
		}
		p.s.mu.Unlock()
		switch {
		case deleted || p.s.ctx.Err() != nil:
			return false
		case restart || rebooted:
			return true
		}
		select {
		case <-kick:
		case <-changed:
		case <-p.s.ctx.Done():
		}
		p.jitter()
	}
}

// wait sleeps, or until the Pod is deleted.
func (p *pod) wait(d time.Duration) {
	ctx, cancel := context.WithCancel(p.s.ctx)
	defer cancel()
	p.s.mu.Lock()
	kick, deleted := p.kick, p.deleted
	p.s.mu.Unlock()
	if deleted {
		return
	}
	done := make(chan struct{})
	p.s.tasks.Go(func() { _ = p.s.clock.sleep(ctx, d); close(done) })
	select {
	case <-kick:
	case <-done:
	}
}

// detach has DEL called until it succeeds, and perhaps again long after.
func (p *pod) detach(id string, wait bool) {
	s, m := p.s, p.m
	rng := rand.New(rand.NewPCG(p.rng.Uint64(), 2)) // del's alone
	del := func() {
		if !wait {
			_ = s.clock.sleep(s.ctx, time.Duration(rng.Int64N(int64(10*time.Second))))
		}
		for n := 0; !s.del(m, id, fmt.Sprint(" try ", n)); n++ {
			if s.clock.sleep(s.ctx, time.Second+time.Duration(rng.Int64N(int64(10*time.Second)))) != nil || !m.awaitOn(id+" waits") {
				return
			}
		}
		s.mu.Lock()
		m.clear(id) // the namespace goes, and with it what should be down already
		delete(m.sandboxes, id)
		s.mu.Unlock()
	}
	if wait {
		del()
	} else {
		s.tasks.Go(del)
	}
	for n := range p.rng.IntN(2) * p.rng.IntN(3) {
		late := time.Duration(p.rng.Int64N(int64(10 * time.Minute)))
		s.tasks.Go(func() {
			if s.clock.sleep(s.ctx, late) == nil {
				s.del(m, id, fmt.Sprint(" late ", n))
			}
		})
	}
}

// del is one call of DEL; who tells it from others for the same sandbox.
func (s *Sim) del(m *Machine, id, who string) bool {
	ctx, cancel := context.WithTimeout(s.ctx, 60*time.Second)
	defer cancel()
	err := m.del(ctx, id+who, id)
	s.note("del "+errText(err), id)
	return err == nil
}

// has says whether one of the Pod's sandboxes has an address of a space.
func (p *pod) has(spaceHash string, of netip.Prefix) bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	for _, sb := range p.m.sandboxes {
		for _, x := range sb.addrs {
			if sb.pod == p.spec.UID && of.Contains(x.Where.Addr) && p.s.hashes[x.Where.Space] == spaceHash {
				return true
			}
		}
	}
	return false
}

// starved names the Pod and its last error, if it does not run.
func (p *pod) starved() (string, string) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.running {
		return "", ""
	}
	return fmt.Sprintf("%s on %s", p.spec.UID, p.m.Name), fmt.Sprint(p.lastErr)
}
