package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

// life plays random histories: Pods come, restart in a new sandbox, go, their sandboxes are released late and twice; the
// disk fails, the machine crashes at any write, the journal is opened again. A model that shares no code with the
// allocator says after each step what must hold.
type life struct {
	t     *testing.T
	rng   *rand.Rand
	clock *clock
	disk  *memDisk
	s     *Service
	nets  []model.Network
	slots int
	n     int    // of sandboxes made
	now   Intent // being acquired

	acked map[string]Record // sandbox → what was promised
	freed map[where]time.Time
}

type where struct {
	space Space
	addr  netip.Addr
}

const testCooldown = 10 * time.Second

func newLife(t *testing.T, seed uint64) *life {
	l := &life{t: t, rng: rand.New(rand.NewPCG(seed, 1)), clock: newClock(), disk: newMemDisk(seed), slots: 2,
		acked: map[string]Record{}, freed: map[where]time.Time{}}
	a := network("a", "10.0.0.0/27", "fd00::/123") // two networks on one space
	b := network("b", "10.0.0.0/27", "")
	a.IPv4.Pools, b.IPv4.Pools = pool("10.0.0.1", "10.0.0.15"), pool("10.0.0.12", "10.0.0.30")
	a.IPv4.Gateway = netip.MustParseAddr("10.0.0.2")
	c := network("c", "192.0.2.0/29", "2001:db8::/64")
	c.VLAN, c.BlockSize = 11, 1
	l.nets = []model.Network{a, b, c, network("l2", "", "")}
	l.open()
	return l
}

func (l *life) open() {
	opts := l.clock.options()
	opts.Cooldown, opts.segmentMin, opts.extendBy = testCooldown, 3000, 4096
	s, err := open(l.disk, opts)
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.s = s
}

func (l *life) randomIntent() Intent {
	uid := fmt.Sprint("uid-", l.rng.IntN(16))
	l.n++
	sandbox := fmt.Sprint("sandbox-", l.n)
	if l.rng.IntN(20) == 0 && l.n > 3 {
		sandbox = fmt.Sprint("sandbox-", l.n-l.rng.IntN(3))
	}
	var wants []Want
	for i := range 1 + l.rng.IntN(3) {
		n := l.nets[l.rng.IntN(len(l.nets))]
		w := Want{IfName: fmt.Sprint("eth", i), Network: n}
		if n.IPv4 != nil {
			w.IP = l.request(n.IPv4)
		}
		if n.IPv6 != nil {
			w.IP6 = l.request(n.IPv6)
		}
		wants = append(wants, w)
	}
	in := intent(sandbox, uid, wants...)
	in.Slots, in.Slot = l.slots, 1
	return in
}

func (l *life) request(sub *model.Subnet) model.AddressRequest {
	switch l.rng.IntN(5) {
	case 0:
		a := sub.CIDR.Addr()
		for range l.rng.IntN(20) {
			a = a.Next()
		}
		return model.AddressRequest{Mode: model.AddressStatic, Addr: a}
	case 1:
		return noneMode
	}
	return dynamic
}

// acquire is one ADD; the error is returned only if the disk was at fault.
func (l *life) acquire() error {
	in := l.randomIntent()
	l.now = in
	before := maps.Clone(l.acked)
	var evicted []string
	evictFails := l.rng.IntN(15) == 0
	in.Evict = func(_ context.Context, old Record) error {
		evicted = append(evicted, old.Sandbox)
		if evictFails {
			return errInjected
		}
		if !reflect.DeepEqual(old, before[old.Sandbox]) {
			l.t.Fatalf("evicted %+v, recorded was %+v", old, before[old.Sandbox])
		}
		return nil
	}
	grants, err := l.s.Acquire(ctx, in)
	olds := map[string]Record{}
	for sb, r := range l.acked {
		if r.PodUID == in.PodUID || sb == in.Sandbox {
			olds[sb] = r
		}
	}
	if err == nil && len(evicted) != len(olds) {
		l.t.Fatalf("evicted %v, the older ones are %v", evicted, olds)
	}
	switch {
	case err == nil:
		l.promise(in, grants, olds)
	case errors.Is(err, ErrExhausted):
		l.checkExhausted(in, err, olds)
	case errors.Is(err, ErrTaken):
		var e *TakenError
		if errors.As(err, &e) && e.Sandbox != "" && e.Sandbox != in.Sandbox && !l.holds(e.Sandbox, e.Addr) {
			l.t.Fatalf("%v, but it is not", err)
		}
	case errors.Is(err, ErrReserved), errors.Is(err, ErrOutside), errors.Is(err, ErrNotOurs):
	case evictFails && len(evicted) > 0:
	default:
		return err
	}
	return nil
}

func (l *life) holds(sandbox string, a netip.Addr) bool {
	return slices.ContainsFunc(l.acked[sandbox].Holds, func(h Hold) bool { return h.Addr == a })
}

// promise notes a successful ADD and checks each address of it.
func (l *life) promise(in Intent, grants []Grant, olds map[string]Record) {
	r := Record{Sandbox: in.Sandbox, PodUID: in.PodUID, Namespace: in.Namespace, Pod: in.Pod, Data: []byte(fmt.Sprint(grants))}
	for i, w := range in.Wants {
		got := grants[i].Addresses
		for _, f := range []struct {
			req model.AddressRequest
			sub *model.Subnet
		}{{w.IP, w.Network.IPv4}, {w.IP6, w.Network.IPv6}} {
			if f.req.Mode != model.AddressDynamic && f.req.Mode != model.AddressStatic {
				continue
			}
			a := got[0]
			got = got[1:]
			n := w.Network
			h := Hold{Space: Space{Domain: n.SpaceDomain, ID: n.ID(), CIDR: f.sub.CIDR}, IfName: w.IfName, Addr: a.Addr()}
			l.checkAddress(w, f.req, *f.sub, h, a, olds)
			r.Holds = append(r.Holds, h)
		}
		if len(got) > 0 {
			l.t.Fatalf("%s got %v more than it wanted", w.IfName, got)
		}
	}
	l.forget(olds, r.Holds)
	l.acked[in.Sandbox] = r
}

func (l *life) forget(olds map[string]Record, still []Hold) {
	for sb, old := range olds {
		delete(l.acked, sb)
		for _, h := range old.Holds {
			if !slices.ContainsFunc(still, func(s Hold) bool { return s.Space == h.Space && s.Addr == h.Addr }) {
				l.freed[where{h.Space, h.Addr}] = l.clock.t
			}
		}
	}
}

func (l *life) checkAddress(w Want, req model.AddressRequest, sub model.Subnet, h Hold, a netip.Prefix, olds map[string]Record) {
	if a.Bits() != sub.CIDR.Bits() || !sub.CIDR.Contains(a.Addr()) {
		l.t.Fatalf("%s for %s", a, sub.CIDR)
	}
	for sb, r := range l.acked {
		if _, old := olds[sb]; old {
			continue
		}
		for _, other := range r.Holds {
			if other.Space == h.Space && other.Addr == h.Addr {
				l.t.Fatalf("%s given to %s has the live holder %s", h.Addr, w.IfName, sb)
			}
		}
	}
	if req.Mode == model.AddressStatic {
		if a.Addr() != req.Addr {
			l.t.Fatalf("%s instead of %s", a, req.Addr)
		}
		return
	}
	for _, old := range olds {
		for _, o := range old.Holds {
			if old.PodUID == l.now.PodUID && o.Space == h.Space && o.IfName == h.IfName && o.Addr == h.Addr {
				return // kept
			}
		}
	}
	if at, was := l.freed[where{h.Space, h.Addr}]; was && l.clock.t.Sub(at) < testCooldown {
		l.t.Fatalf("%s came back after %s", h.Addr, l.clock.t.Sub(at))
	}
	if !l.eligible(w.Network.BlockSize, sub, h.Addr) {
		l.t.Fatalf("%s chosen outside %+v", h.Addr, sub)
	}
}

// eligible is by enumeration of small networks; slot 1 of l.slots.
func (l *life) eligible(blockSize int, sub model.Subnet, addr netip.Addr) bool {
	size := blockSize
	if size == 0 {
		size = 4 // of 32 addresses, 8 blocks for two slots
	}
	i := 0
	for a := sub.CIDR.Addr(); a != addr; a = a.Next() {
		i++
	}
	last := addr.Is4() && !sub.CIDR.Contains(addr.Next())
	in := len(sub.Pools) == 0 || slices.ContainsFunc(sub.Pools, func(r model.AddrRange) bool { return r.Contains(addr) })
	return i > 0 && !last && i/size%l.slots == 1 && in && addr != sub.Gateway
}

// checkExhausted: nothing leaks, so a network is exhausted only if every eligible address is held or cooling.
func (l *life) checkExhausted(in Intent, err error, olds map[string]Record) {
	busy := map[where]bool{}
	for _, r := range l.acked {
		for _, h := range r.Holds {
			busy[where{h.Space, h.Addr}] = true
		}
	}
	for w, at := range l.freed {
		busy[w] = busy[w] || l.clock.t.Sub(at) < testCooldown
	}
	short := false
	for _, w := range in.Wants {
		if w.Network.IPv4 == nil || w.IP.Mode != model.AddressDynamic {
			continue
		}
		sp := Space{Domain: w.Network.SpaceDomain, ID: w.Network.ID(), CIDR: w.Network.IPv4.CIDR}
		left := 0
		for a := sp.CIDR.Addr(); sp.CIDR.Contains(a); a = a.Next() {
			if l.eligible(w.Network.BlockSize, *w.Network.IPv4, a) && !busy[where{sp, a}] {
				left++
			}
		}
		short = short || left < len(in.Wants) // the intent itself may take the others
	}
	for _, w := range in.Wants {
		short = short || w.Network.IPv6 != nil && w.IP6.Mode == model.AddressDynamic && w.Network.IPv6.CIDR.Bits() > 64
	}
	if !short {
		l.t.Fatalf("%v, but there are addresses left (older %v)", err, olds)
	}
}

func (l *life) release() error {
	sandbox := fmt.Sprint("sandbox-", 1+l.rng.IntN(l.n+1))
	if l.rng.IntN(2) == 0 {
		for _, sb := range slices.Sorted(maps.Keys(l.acked)) {
			sandbox = sb
			if l.rng.IntN(4) == 0 {
				break
			}
		}
	}
	if err := l.s.Release(ctx, sandbox); err != nil {
		return err
	}
	if r, ok := l.acked[sandbox]; ok {
		l.forget(map[string]Record{sandbox: r}, nil)
	}
	return nil
}

// recorded is what the service says now.
func (l *life) recorded() map[string]Record {
	list, err := l.s.List()
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]Record{}
	held := map[where]string{}
	for _, r := range list {
		out[r.Sandbox] = r
		for _, h := range r.Holds {
			if other, twice := held[where{h.Space, h.Addr}]; twice {
				l.t.Fatalf("%s is held by %s and %s", h.Addr, other, r.Sandbox)
			}
			held[where{h.Space, h.Addr}] = r.Sandbox
			if got, err := l.s.Holder(h.Space, h.Addr); err != nil || got.Sandbox != r.Sandbox {
				l.t.Fatalf("holder of %s is %s %v, recorded is %s", h.Addr, got.Sandbox, err, r.Sandbox)
			}
		}
	}
	for _, ss := range l.s.st.spaces {
		n := 0
		for w := range held {
			if w.space == ss.key {
				n++
			}
		}
		if ss.space.Held() != n {
			l.t.Fatalf("space %v holds %d addresses, the records %d", ss.key, ss.space.Held(), n)
		}
	}
	return out
}

func (l *life) check() {
	if got := l.recorded(); !reflect.DeepEqual(got, l.acked) && len(got)+len(l.acked) > 0 {
		l.t.Fatalf("recorded %v\npromised %v", got, l.acked)
	}
}

// settle takes what a request in doubt really did for granted: it is all there, or not at all.
func (l *life) settle(before map[string]Record) {
	got := l.recorded()
	replaced := 0 // the same sandbox once more
	for sb, r := range before {
		now, ok := got[sb]
		if ok && !reflect.DeepEqual(now, r) {
			replaced++
		}
		if !ok || !reflect.DeepEqual(now, r) {
			for _, h := range r.Holds {
				if _, err := l.s.Holder(h.Space, h.Addr); err != nil {
					l.freed[where{h.Space, h.Addr}] = l.clock.t
				}
			}
		}
	}
	gone, made := 0, 0
	for sb := range before {
		if _, ok := got[sb]; !ok {
			gone++
		}
	}
	for sb := range got {
		if _, ok := before[sb]; !ok {
			made++
		}
	}
	if made+replaced > 1 || made+replaced == 0 && gone > 1 || gone > 2 {
		l.t.Fatalf("one request in doubt made %d records and removed %d", made, gone)
	}
	l.acked = got
}

func (l *life) reopen(doubt map[string]Record) {
	_ = l.s.Close()
	l.disk = l.disk.reboot()
	l.open()
	if doubt != nil {
		l.settle(doubt)
	}
	l.check()
}

func (l *life) step() {
	l.clock.advance(time.Duration(l.rng.IntN(3000)) * time.Millisecond)
	before := maps.Clone(l.acked)
	trouble := l.rng.IntN(12)
	l.disk.failAt, l.disk.crashAt = 0, 0
	switch trouble {
	case 0:
		l.disk.crashAt = l.disk.calls + 1 + l.rng.IntN(8)
	case 1:
		l.disk.failAt = l.disk.calls + 1 + l.rng.IntN(6)
	}
	do := l.acquire
	if l.rng.IntN(5) < 2 {
		do = l.release
	}
	err := do()
	switch {
	case l.disk.crashed:
		if err != nil {
			l.reopen(before)
		} else {
			l.reopen(nil)
		}
	case errors.Is(err, ErrFailed):
		l.reopen(before)
	case err != nil && !errors.Is(err, errInjected):
		l.t.Fatal(err)
	case l.s.j.failed != nil: // the request was answered; what came after it failed
		l.reopen(nil)
	default:
		if err != nil {
			l.acked = before
		}
		if l.rng.IntN(25) == 0 {
			l.reopen(nil)
		}
		l.check()
	}
}

func TestHistories(t *testing.T) {
	seeds := uint64(60)
	if n, err := strconv.ParseUint(os.Getenv("DANM_IPAM_SEEDS"), 10, 64); err == nil {
		seeds = n
	}
	rotations := uint64(0)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed)
			defer func() { _ = l.s.Close() }()
			for range 200 {
				l.step()
			}
			rotations += l.s.j.cur.gen - 1
			if size := l.disk.used(); size > 128<<10 {
				t.Errorf("the journal has grown to %d bytes", size)
			}
		})
	}
	if rotations < seeds {
		t.Errorf("only %d rotations: the test does not test them", rotations)
	}
}
