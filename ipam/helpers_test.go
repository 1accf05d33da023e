package ipam

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

var (
	ctx      = context.Background()
	dynamic  = model.AddressRequest{Mode: model.AddressDynamic}
	noneMode = model.AddressRequest{Mode: model.AddressNone}
)

func static(a string) model.AddressRequest {
	return model.AddressRequest{Mode: model.AddressStatic, Addr: netip.MustParseAddr(a)}
}

// network is a macvlan network; "" leaves a family out.
func network(name, v4, v6 string) model.Network {
	n := model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.MACVLAN, SpaceDomain: "edge", VLAN: 10}
	if v4 != "" {
		n.IPv4 = &model.Subnet{CIDR: netip.MustParsePrefix(v4)}
	}
	if v6 != "" {
		n.IPv6 = &model.Subnet{CIDR: netip.MustParsePrefix(v6)}
	}
	return n
}

func pool(first, last string) []model.AddrRange {
	return []model.AddrRange{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}
}

func intent(sandbox, uid string, wants ...Want) Intent {
	return Intent{
		Sandbox: sandbox, PodUID: uid, Namespace: "acme", Pod: "pod-" + uid, Wants: wants,
		Record: func(g []Grant) ([]byte, error) { return []byte(fmt.Sprint(g)), nil },
	}
}

func want(ifname string, n model.Network, ip, ip6 model.AddressRequest) Want {
	return Want{IfName: ifname, Network: n, IP: ip, IP6: ip6}
}

// clock is a time that tests move.
type clock struct{ t time.Time }

func newClock() *clock                    { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }
func (c *clock) now() time.Time           { return c.t }
func (c *clock) advance(by time.Duration) { c.t = c.t.Add(by) }
func (c *clock) options() Options         { return Options{Clock: c.now, Log: slog.New(slog.DiscardHandler)} }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// service opens a journal in a directory of the test's own.
func service(t *testing.T, c *clock) *Service {
	t.Helper()
	s, err := Open(t.TempDir(), c.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// only is the one address of the one interface.
func only(t *testing.T, g []Grant, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(g) != 1 || len(g[0].Addresses) != 1 {
		t.Fatalf("grants %v, want one address", g)
	}
	return g[0].Addresses[0].Addr().String()
}
