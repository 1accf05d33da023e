package blocks

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// crowd is a space with some number of blocks of 1,000 nodes, and a Single in every tenth.
func crowd(t *testing.T, blocks int) World {
	s := newSite(t)
	for i := range 1000 {
		s.node(fmt.Sprint("n", i))
	}
	wide := v1alpha1.IPSpace{Domain: "edge", ID: 10, CIDR: "10.0.0.0/8"}
	s.network("wide", wide.CIDR, nil)
	in := func(b *v1alpha1.IPBlock) {
		b.Spec.Space = wide
		b.Name = wide.BlockName(netip.MustParsePrefix(b.Spec.CIDR))
	}
	s.put(v1alpha1.RoleRoot, wide.CIDR, "", func(b *v1alpha1.IPBlock) {
		b.Spec.Space, b.Name, b.Spec.BlockBits = wide, wide.RootName(), 26
	})
	for i := range blocks {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)})
		s.put(v1alpha1.RoleBlock, netip.PrefixFrom(a, 26).String(), fmt.Sprint("n", i%1000), in)
		if i%10 == 0 {
			s.put(v1alpha1.RoleSingle, netip.PrefixFrom(a.Next(), 32).String(), fmt.Sprint("n", (i+1)%1000), in).Spec.Asked = fmt.Sprint("n", i%1000)
		}
	}
	return s.w
}

// spent is the processor's time of this thread: what others do on a busy machine is not in it.
func spent(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestRoundIsNotQuadratic: sixteen times the blocks cost far less than 256 times as much, and 20,000 of them do not stop a loop.
func TestRoundIsNotQuadratic(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	round := func(w World) time.Duration {
		best := time.Hour
		for range 8 {
			runtime.GC()
			start := spent(t)
			d := Decide(w)
			best = min(best, spent(t)-start)
			if len(d.Actions) != 2 { // the root's status and the network's
				t.Fatalf("%d actions: %.300s", len(d.Actions), summary(d))
			}
		}
		return best
	}
	small, middle, large := round(crowd(t, 2000)), round(crowd(t, 20000)), round(crowd(t, 32000))
	t.Logf("2,000 blocks: %s; 20,000: %s; 32,000: %s", small, middle, large)
	if large > 80*small || middle > 3*time.Second {
		t.Errorf("2,000 blocks take %s, 20,000 take %s, 32,000 take %s", small, middle, large)
	}
}

// TestManyNetworks: a thousand spaces that are opened at once, with an endpoint each, are opened in one round.
func TestManyNetworks(t *testing.T) {
	s := newSite(t, "n1")
	for i := range 1000 {
		s.network(fmt.Sprint("net", i), fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), func(n *model.Network, o *danmv1.TenantNetwork) {
			n.VLAN = uint16(i + 1)
			o.Spec.Options.Vlan = i + 1
		})
		s.w.Endpoints = append(s.w.Endpoints, ep(fmt.Sprint("net", i), fmt.Sprintf("10.%d.%d.9/24", i/250, i%250), fmt.Sprint("p", i), fmt.Sprint("u", i)))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := spent(t)
	d := s.decide()
	if took := spent(t) - start; len(d.Actions) != 1000 || took > 2*time.Second {
		t.Errorf("%d actions in %s", len(d.Actions), took)
	}
	s.w.Pods = nil
	for i := range d.Actions {
		s.carry(&d.Actions[i])
	}
	if d := s.decide(); len(d.Actions) != 1000 || d.Actions[0].Block.Spec.Role != v1alpha1.RoleRoot {
		t.Errorf("%.300s", summary(d))
	}
}
