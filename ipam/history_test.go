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
