package kill

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim"
	"danm.io/danm/test/ipamsim/history"
)

const (
	nodes    = 3
	cooldown = time.Second
)

func home(nodes int) ipamsim.Home { return ipamsim.Local{Slots: nodes, Cooldown: cooldown} }

func TestMain(m *testing.M) {
	Child(home, nodes)
	os.Exit(m.Run())
}

func network(name string, vlan uint16, cidr string) model.Network {
	return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.MACVLAN, SpaceDomain: "edge", VLAN: vlan,
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix(cidr)}}
}

var networks = []model.Network{network("tight", 1, "10.1.0.0/27"), network("wide", 2, "10.2.0.0/24")}

func wants(n model.Network) []ipam.Want {
	return []ipam.Want{{IfName: "eth0", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}}
}

func duration(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv("DANM_IPAMSIM_KILL")
	if v == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("DANM_IPAMSIM_KILL=%s: %v", v, err)
	}
	return d
}

// TestProcesses: processes with real journals are killed wherever they are, and no address is given twice, given too
// early, or lost.
func TestProcesses(t *testing.T) {
	dir, err := os.MkdirTemp("", "ipam-kill-") // a unix socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r, err := newRun(dir, nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer r.server.Close()
	for _, n := range networks {
		r.check.Space(ipamsim.SpaceName("edge", uint32(n.VLAN), n.IPv4.CIDR), history.Pool{Allowed: ipamsim.Allowed(*n.IPv4), Cooldown: cooldown})
	}
	for _, n := range r.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = n.kill() }()
	}
	storm(t, r, duration(t))
	time.Sleep(cooldown + 100*time.Millisecond)
	if r.isBroken() {
		t.Fatalf("a node does not start any more; found so far: %v", r.check.Violations())
	}
	quiet(t, r)
	fill(t, r)
	quiet(t, r)
	for _, what := range slices.Sorted(maps.Keys(r.stats)) {
		t.Logf("%7d %s", r.stats[what], what)
	}
	for what := range r.stats {
		if strings.HasPrefix(what, "del given up") {
			t.Error(what)
		}
	}
	t.Logf("%7d addresses set, %d kills", r.check.Sets(), r.stats["kill"])
	for _, v := range r.check.Violations() {
		t.Error(v)
	}
	if r.stats["kill"] == 0 || r.stats["add failed"] == 0 {
		t.Error("nothing was killed in the middle of an ADD: the test does not test it")
	}
}

// storm has Pods come and go while processes are killed.
func storm(t *testing.T, r *run, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var wg sync.WaitGroup
	var pods atomic.Int64
	for w := range 24 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			for ctx.Err() == nil {
				n, net := r.nodes[rng.IntN(nodes)], networks[rng.IntN(len(networks))]
				w := wants(net)
				if rng.IntN(8) == 0 { // of another node, or taken: then it is refused and the Pod goes
					w[0].IP = model.AddressRequest{Mode: model.AddressStatic, Addr: netip.AddrFrom4([4]byte{10, byte(net.VLAN), 0, byte(1 + rng.IntN(30))})}
				}
				r.pod(ctx, rng, n, fmt.Sprint("uid-", pods.Add(1)), w, time.Duration(rng.IntN(30))*time.Millisecond)
			}
		})
	}
	for _, n := range r.nodes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n.index), 6))
			for ctx.Err() == nil {
				sleep(ctx, time.Duration(50+rng.IntN(600))*time.Millisecond)
				if err := n.kill(); err != nil {
					t.Error(err)
					cancel()
					return
				}
				r.count("kill")
				if err := n.start(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func quiet(t *testing.T, r *run) {
	t.Helper()
	b, err := r.books()
	if err != nil {
		t.Errorf("read the journals: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check.Consistent(time.Now(), b)
	r.check.Quiet(time.Now(), b)
}

// fill has as many Pods as there are addresses in the tight network.
func fill(t *testing.T, r *run) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	total, all := 0, make(chan struct{})
	var waiting atomic.Int64
	n := networks[0]
	for _, x := range r.nodes {
		share := home(nodes).Share(x.index, n, ipamsim.Allowed(*n.IPv4))
		total += share
		waiting.Add(int64(share))
		for i := range share {
			wg.Go(func() {
				uid := fmt.Sprintf("full-%d-%d", x.index, i)
				id := uid + "-sandbox"
				r.mu.Lock()
				x.sandboxes[id] = uid
				r.mu.Unlock()
				var err error
				for ctx.Err() == nil {
					if _, err = x.call(ctx, nodeCall{Add: &ipamsim.PodSpec{Sandbox: id, UID: uid, Wants: wants(n)}}); err == nil {
						break
					}
					sleep(ctx, 50*time.Millisecond)
				}
				if err != nil {
					t.Errorf("Pod %s on %s: %v", uid, x.name, err)
				}
				if waiting.Add(-1) == 0 {
					close(all)
				}
				<-all
				r.del(x, id)
			})
		}
	}
	wg.Wait()
	if total != 30 {
		t.Errorf("%d Pods in a network of 30 addresses", total)
	}
}
