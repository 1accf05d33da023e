package model

import (
	"slices"
	"testing"
)

// What networks make of a device stands against another use of it where the kernel says so.
func TestUseOfADevice(t *testing.T) {
	net := func(name string, kind NetworkType, mode string) Network {
		return Network{Name: name, Type: kind, Mode: mode}
	}
	for _, c := range []struct {
		a, b     Network
		together bool
	}{
		{net("a", MACVLAN, ""), net("b", MACVLAN, ""), true},
		{net("a", MACVLAN, ""), net("b", MACVLAN, PRIVATE), true},
		{net("a", MACVLAN, VEPA), net("b", MACVLAN, PRIVATE), true},
		{net("a", IPVLAN, ""), net("b", IPVLAN, ""), true},
		{net("a", IPVLAN, L3), net("b", IPVLAN, L3), true},
		{net("a", IPVLAN, ""), net("b", IPVLAN, L3), false},
		{net("a", IPVLAN, L3S), net("b", IPVLAN, L3), false},
		{net("a", IPVLAN, ""), net("b", MACVLAN, ""), false},
		{net("a", MACVLAN, PASSTHRU), net("b", MACVLAN, ""), false},
		{net("a", MACVLAN, PASSTHRU), net("b", MACVLAN, PASSTHRU), false},
	} {
		if (c.a.Use() == c.b.Use()) != c.together {
			t.Errorf("%s %s and %s %s: %q and %q", c.a.Type, c.a.Mode, c.b.Type, c.b.Mode, c.a.Use(), c.b.Use())
		}
	}
	for n, one := range map[*Network]bool{{Type: SRIOV}: true, {Type: HOSTDEVICE}: true, {Type: MACVLAN, Mode: PASSTHRU}: true, {Type: MACVLAN}: false, {Type: IPVLAN, Mode: L3}: false, {Type: BRIDGE}: false} {
		if n.ServesOne() != one {
			t.Errorf("%s %s serves one: %v", n.Type, n.Mode, !one)
		}
	}
	if m := Modes(MACVLAN); !slices.Equal(m, []string{"bridge", "private", "vepa", "passthru"}) || len(Modes(BRIDGE)) != 0 || DefaultMode(SRIOV) != "" || Modes(IPVLAN)[0] != DefaultMode(IPVLAN) {
		t.Error(m)
	}
}
