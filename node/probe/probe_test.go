package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

func run(t *testing.T, p model.Probe, env Env) error {
	t.Helper()
	p.Name = "p"
	rs := Run(context.Background(), []model.Probe{p}, env)
	if len(rs) != 1 || rs[0].Name != "p" {
		t.Fatalf("results %v", rs)
	}
	return rs[0].Err
}

func listener(t *testing.T) (addr string, accepted chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	accepted = make(chan struct{}, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			_ = c.Close()
		}
	}()
	return l.Addr().String(), accepted
}

func TestTCPOpensANewConnectionEachTime(t *testing.T) {
	addr, accepted := listener(t)
	for range 3 {
		if err := run(t, model.Probe{Kind: model.ProbeTCP, Target: addr}, Env{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-accepted:
		case <-time.After(10 * time.Second):
			t.Fatal("passed without a connection")
		}
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	closed := l.Addr().String()
	_ = l.Close()
	if err := run(t, model.Probe{Kind: model.ProbeTCP, Target: closed}, Env{}); err == nil {
		t.Error("passed without a listener")
	}
}

func TestSource(t *testing.T) {
	addr, _ := listener(t)
	if err := run(t, model.Probe{Kind: model.ProbeSource, Target: "192.0.2.1:1"}, Env{Source: addr}); err != nil {
		t.Error(err)
	}
	if err := run(t, model.Probe{Kind: model.ProbeSource}, Env{}); !errors.Is(err, ErrNotApplicable) {
		t.Errorf("without a source: %v", err)
	}
}

func TestWhatCannotBeProbedNeverPasses(t *testing.T) {
	none := func(context.Context) ([]Gateway, error) { return nil, nil }
	unknown := errors.New("dump interrupted")
	for name, tc := range map[string]struct {
		p    model.Probe
		env  Env
		want error
	}{
		"no gateways known": {model.Probe{Kind: model.ProbeGateway}, Env{}, ErrNotApplicable},
		"no gateway":        {model.Probe{Kind: model.ProbeGateway}, Env{Gateways: none}, ErrNotApplicable},
		"gateways unknown": {model.Probe{Kind: model.ProbeGateway},
			Env{Gateways: func(context.Context) ([]Gateway, error) { return nil, unknown }}, unknown},
		"kind": {model.Probe{Kind: "dns"}, Env{}, nil},
	} {
		if err := run(t, tc.p, tc.env); err == nil || tc.want != nil && !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestTimeoutsAreEachProbesOwn(t *testing.T) {
	slow := func(ctx context.Context) ([]Gateway, error) { <-ctx.Done(); return nil, ctx.Err() }
	start := time.Now()
	rs := Run(context.Background(), []model.Probe{
		{Name: "a", Kind: model.ProbeGateway, Timeout: 50 * time.Millisecond},
		{Name: "b", Kind: model.ProbeGateway, Timeout: 60 * time.Millisecond},
	}, Env{Gateways: slow})
	if took := time.Since(start); took > 5*time.Second || rs[0].Err == nil || rs[1].Err == nil || rs[0].Name != "a" {
		t.Errorf("%s %v", took, rs)
	}
}

// Vectors by hand: RFC 1071's example, and a neighbour solicitation whose checksum closes to zero.
func TestPackets(t *testing.T) {
	if got := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %#x", got)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	from, to := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::abcd:ef01")
	group := netip.MustParseAddr("ff02::1:ffcd:ef01")
	b := solicitation(mac, from, group, to)
	pseudo := append(append(append([]byte{}, from.AsSlice()...), group.AsSlice()...), 0, 0, 0, 32, 0, 0, 0, 58)
	if len(b) != 72 || checksum(append(pseudo, b[40:]...)) != 0 {
		t.Errorf("solicitation of %d bytes, checksum does not close", len(b))
	}
	if isAdvertisement(b, to) {
		t.Error("our own solicitation counts as an answer")
	}
	req := arpRequest(mac, netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.1"))
	if len(req) != 28 || isARPReply(req, netip.MustParseAddr("192.0.2.10")) {
		t.Error("our own ARP request counts as an answer")
	}
	reply := append([]byte{}, req...)
	reply[7] = 2
	if !isARPReply(reply, netip.MustParseAddr("192.0.2.10")) || isARPReply(reply, netip.MustParseAddr("192.0.2.1")) {
		t.Error("a reply counts for the wrong address")
	}
}
