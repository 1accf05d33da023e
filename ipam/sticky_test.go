package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

// Sticky addresses go from node to node, and only when nobody has them.
func TestStickyMovesOnlyWhenItIsFree(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	sticky := func(m *machine, uid string) (string, error) {
		in := intent("s-"+uid, uid, want("eth0", n, dynamic, noneMode))
		in.Claimed, in.Wants[0].Sticky = true, Sticky{Namespace: "acme", StatefulSet: "web", UID: "sts", Ordinal: 0}
		g, err := m.k.Acquire(ctx, in)
		if err != nil {
			return "", err
		}
		return g[0].Addresses[0].Addr().String(), nil
	}
	first := must(sticky(ms[0], "u1"))
	for range 20 {
		if _, got, _ := ms[0].pod(n, dynamic); got == first {
			t.Fatal("a kept address was given to another Pod")
		}
	}
	if got, err := sticky(ms[1], "u2"); !errors.Is(err, ErrOwner) || !strings.Contains(err.Error(), "node a still has it") {
		t.Fatal(got, err)
	}
	node := 0
	for i := range 6 {
		if err := ms[node].k.Release(ctx, fmt.Sprintf("s-u%d", i+1)); err != nil {
			t.Fatal(err)
		}
		ms[node].mustRound()
		if i%2 == 1 { // nobody has it for a day
			c.advance(24 * time.Hour)
			ms[0].mustRound()
			ms[1].mustRound()
		}
		if _, got, _ := ms[node].pod(n, static(first)); got == first {
			t.Fatal("a kept address was given to another Pod that asked for it")
		}
		node = i % 2
		if got, err := sticky(ms[node], fmt.Sprintf("u%d", i+2)); got != first {
			t.Fatalf("move %d: %s, then %q (%v)", i, first, got, err)
		}
	}
	var kept int
	for _, o := range api.blocks {
		if o.Spec.Reservation != nil {
			kept++
		}
	}
	if kept != 1 {
		t.Fatalf("%d kept addresses", kept)
	}
}

// A reservation is taken over only if it is what it says, and the block around it lists it (R10).
func TestAForgedReservationIsNotTaken(t *testing.T) {
	for name, forge := range map[string]func(o *v1alpha1.IPBlock, around *v1alpha1.IPBlock){
		"as it is":            func(_, _ *v1alpha1.IPBlock) {},
		"not listed":          func(_, around *v1alpha1.IPBlock) { around.Spec.Ceded = nil },
		"under another name":  func(o, _ *v1alpha1.IPBlock) { o.Name = "x-" + o.Name },
		"for another Pod":     func(o, _ *v1alpha1.IPBlock) { o.Spec.Reservation.Ordinal++ },
		"without reservation": func(o, _ *v1alpha1.IPBlock) { o.Spec.Reservation = nil },
		"the gateway":         func(_, _ *v1alpha1.IPBlock) {},
	} {
		t.Run(name, func(t *testing.T) {
			c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
			sticky := func(m *machine, uid string) (string, error) {
				net := n
				if name == "the gateway" && uid == "u2" {
					v4 := *n.IPv4
					for _, o := range api.blocks {
						if o.Spec.Role == v1alpha1.RoleSingle {
							v4.Gateway = netip.MustParsePrefix(o.Spec.CIDR).Addr()
						}
					}
					net.IPv4 = &v4
				}
				in := intent("s-"+uid, uid, want("eth0", net, dynamic, noneMode))
				in.Claimed, in.Wants[0].Sticky = true, Sticky{Namespace: "acme", StatefulSet: "web", UID: "sts", Ordinal: 0}
				g, err := m.k.Acquire(ctx, in)
				if err != nil {
					return "", err
				}
				return g[0].Addresses[0].Addr().String(), nil
			}
			first := must(sticky(ms[0], "u1"))
			if err := ms[0].k.Release(ctx, "s-u1"); err != nil {
				t.Fatal(err)
			}
			ms[0].mustRound()
			c.advance(time.Minute)
			var single, around *v1alpha1.IPBlock
			for _, o := range api.blocks {
				switch o.Spec.Role {
				case v1alpha1.RoleSingle:
					single = o
				case v1alpha1.RoleBlock:
					around = o
				}
			}
			if single.Spec.Owner != "" {
				t.Fatalf("not parked: %+v", single.Spec)
			}
			delete(api.blocks, single.Name)
			forge(single, around)
			api.blocks[single.Name] = single
			got, err := sticky(ms[1], "u2")
			if taken := single.Spec.Owner == "b" || api.blocks[single.Name].Spec.Owner == "b"; taken != (name == "as it is") || (got == first) != (name == "as it is") {
				t.Fatalf("%q (%v), first %s, owner %q", got, err, first, api.blocks[single.Name].Spec.Owner)
			}
		})
	}
}
