package ipam

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/ipam/alloc"
)

// facts.md, trace 1: sandbox S1 of Pod U holds an address and dies; ADD(S2) has the same key and gets it; the late
// DEL(S1), repeated, must not free it under the live S2.
func TestTrace1LateReleaseOfAnOldSandbox(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "fd00::/64")
	first := must(s.Acquire(ctx, intent("S1", "U", want("eth0", n, dynamic, dynamic))))
	var evicted []Record
	again := intent("S2", "U", want("eth0", n, dynamic, dynamic))
	again.Evict = func(_ context.Context, old Record) error {
		if _, err := s.Lookup("S2"); !errors.Is(err, ErrNotFound) {
			t.Errorf("the record moved before the links were down: %v", err)
		}
		evicted = append(evicted, old)
		return nil
	}
	second := must(s.Acquire(ctx, again))
	if !reflect.DeepEqual(first, second) || len(first[0].Addresses) != 2 {
		t.Errorf("the Pod's addresses changed from %v to %v", first, second)
	}
	if len(evicted) != 1 || evicted[0].Sandbox != "S1" || string(evicted[0].Data) != fmt.Sprint(first) || len(evicted[0].Holds) != 2 {
		t.Errorf("evicted %+v", evicted)
	}
	for range 3 {
		if err := s.Release(ctx, "S1"); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Lookup("S2"); err != nil || len(r.Holds) != 2 {
		t.Errorf("after the late releases: %+v %v", r, err)
	}
	other := must(s.Acquire(ctx, intent("S3", "V", want("eth0", n, dynamic, dynamic))))
	if other[0].Addresses[0] == second[0].Addresses[0] || other[0].Addresses[1] == second[0].Addresses[1] {
		t.Errorf("%v given out twice", other)
	}
}

// facts.md, trace 7: two networks on one VLAN and CIDR with disjoint pools; a static address asked through one, legally
// outside its pool, is not handed out through the other.
func TestTrace7NetworksOnOneSpace(t *testing.T) {
	s := service(t, newClock())
	a, b := network("a", "10.0.0.0/24", ""), network("b", "10.0.0.0/24", "")
	a.IPv4.Pools, b.IPv4.Pools = pool("10.0.0.10", "10.0.0.49"), pool("10.0.0.50", "10.0.0.59")
	must(s.Acquire(ctx, intent("S0", "U0", want("eth0", a, static("10.0.0.55"), noneMode))))
	for i := range 9 {
		g, err := s.Acquire(ctx, intent(fmt.Sprint("S", i+1), fmt.Sprint("U", i+1), want("eth0", b, dynamic, noneMode)))
		if got := only(t, g, err); got == "10.0.0.55" {
			t.Fatal("10.0.0.55 given out twice")
		}
	}
	_, err := s.Acquire(ctx, intent("S10", "U10", want("eth0", b, dynamic, noneMode)))
	if e := (*alloc.ExhaustedError)(nil); !errors.As(err, &e) || !errors.Is(err, ErrExhausted) || e.Held != 10 || e.Reserved != 0 {
		t.Errorf("the tenth of nine: %v", err)
	}
	if err != nil && !strings.Contains(err.Error(), "interface eth0 on network b: no address left in the pools of 10.0.0.0/24 (10.0.0.50-10.0.0.59)") {
		t.Errorf("what is full is not named: %v", err)
	}
	_, err = s.Acquire(ctx, intent("S11", "U11", want("eth0", b, static("10.0.0.55"), noneMode)))
	if e := (*TakenError)(nil); !errors.Is(err, ErrTaken) || !errors.As(err, &e) || e.Pod != "pod-U0" || e.Sandbox != "S0" || e.Namespace != "acme" {
		t.Errorf("taken: %v", err)
	}
	foreign := intent("S13", "U13", want("eth0", b, static("10.0.0.55"), noneMode))
	foreign.Namespace = "other"
	if _, err = s.Acquire(ctx, foreign); !errors.Is(err, ErrTaken) || strings.Contains(err.Error(), "U0") || strings.Contains(err.Error(), "S0") {
		t.Errorf("told to another tenant: %v", err)
	}
	b.VLAN = 11 // another domain: the same address is another one
	if got := only(t, must(s.Acquire(ctx, intent("S12", "U12", want("eth0", b, static("10.0.0.55"), noneMode)))), nil); got != "10.0.0.55" {
		t.Error(got)
	}
}

// facts.md, trace 8: nodes [a, b, c] minus a would shift b's share onto c while b's Pods live. Slots and block size do
// not change while an address is held, and what was freed before the change goes on cooling.
func TestTrace8SlotsDoNotMoveUnderPods(t *testing.T) {
	c := newClock()
	s := service(t, c)
	n := network("voice", "10.0.0.0/28", "")
	at := func(sandbox string, slot, slots, block int) ([]Grant, error) {
		n := n
		n.BlockSize = block
		in := intent(sandbox, sandbox, want("eth0", n, dynamic, noneMode))
		in.Slot, in.Slots = slot, slots
		return s.Acquire(ctx, in)
	}
	if got := only(t, must(at("S1", 1, 3, 0)), nil); got != "10.0.0.1" { // blocks of one, numbers 1, 4, 7, ...
		t.Errorf("slot 1 of 3 got %s", got)
	}
	for name, try := range map[string][3]int{"slots": {1, 2, 0}, "slot": {0, 3, 0}, "block size": {1, 3, 4}} {
		if _, err := at("S2", try[0], try[1], try[2]); !errors.Is(err, ErrBlockGeometry) {
			t.Errorf("%s changed under a Pod: %v", name, err)
		}
	}
	if got := only(t, must(at("S3", 1, 3, 1)), nil); got != "10.0.0.4" {
		t.Errorf("slot 1 of 3 got %s", got)
	}
	for _, sandbox := range []string{"S1", "S3"} {
		if err := s.Release(ctx, sandbox); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for i := range 5 { // 1 is cooling, and 3, 5, ... 13 are slot 1's of 2
		got = append(got, only(t, must(at(fmt.Sprint("T", i), 1, 2, 1)), nil))
	}
	if want := []string{"10.0.0.3", "10.0.0.5", "10.0.0.7", "10.0.0.9", "10.0.0.11"}; !slices.Equal(got, want) {
		t.Errorf("after the change: %v, want %v", got, want)
	}
}
