package kill

import (
	"context"
	"errors"
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// workers is how many Pods are under way at once.
const workers = 24

// Run has Pods come and go on processes that are killed, and then as many Pods as the first network has addresses: no address is
// given twice, given too early, or lost. It returns what happened how often.
func Run(t *testing.T, cfg Config) map[string]int {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipam-kill-") // a unix socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r, err := newRun(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer r.server.Close()
	if cfg.Claimed && cfg.Server == nil {
		defer r.control()()
	}
	for _, n := range cfg.Networks {
		r.check.Space(ipamsim.SpaceName(n.SpaceDomain, n.ID(), n.IPv4.CIDR), history.Pool{Allowed: ipamsim.Allowed(*n.IPv4), Cooldown: cfg.Cooldown})
	}
	for _, n := range r.nodes {
		if err := n.start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = n.kill() }()
	}
	for _, step := range []struct {
		name string
		do   func(*testing.T, *run)
	}{{"Pods come and go", storm}, {"nothing is left", quiet}, {"as many Pods as addresses", fill}, {"nothing is left", quiet}} {
		start := time.Now()
		step.do(t, r)
		t.Logf("%s: %s", step.name, time.Since(start).Round(time.Millisecond))
		if r.isBroken() {
			t.Fatalf("a node does not start any more; found so far: %v", r.check.Violations())
		}
	}
	for _, what := range slices.Sorted(maps.Keys(r.stats)) {
		t.Logf("%7d %s", r.stats[what], what)
	}
	for what := range r.stats {
		if strings.HasPrefix(what, "del given up") {
			t.Error(what)
		}
	}
	t.Logf("%7d addresses set", r.check.Sets())
	for _, v := range r.check.Violations() {
		t.Error(v)
	}
	if r.stats["kill"] == 0 || r.stats["add failed"] == 0 {
		t.Error("nothing was killed in the middle of an ADD: the test does not test it")
	}
	return r.stats
}

// control registers the nodes and runs the controller on the world.
func (r *run) control() (stop func()) {
	for _, n := range r.nodes {
		_, _ = r.world.Create("kubelet", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	}
	h := &ipamsim.Cluster{Networks: r.cfg.Networks, Cooldown: r.cfg.Cooldown, Lease: blockLease}
	h.Watch(r.world)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.RunController(ctx, &world.Client{World: r.world, Name: "danm-controller", Sleep: func(ctx context.Context, d time.Duration) error {
			sleep(ctx, d)
			return ctx.Err()
		}})
	}()
	return func() { cancel(); <-done }
}

func wants(n model.Network) []ipam.Want {
	return []ipam.Want{{IfName: "eth0", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}}
}

// calls are the ADDs and DELs that were answered so far, and those that were not.
func (r *run) calls() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats["add ok"] + r.stats["add failed"] + r.stats["del ok"] + r.stats["del failed"]
}

// storm has Pods come and go while processes are killed.
func storm(t *testing.T, r *run) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.For)
	defer cancel()
	var wg sync.WaitGroup
	var pods atomic.Int64
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 5))
			for ctx.Err() == nil {
				n, net := r.nodes[rng.IntN(len(r.nodes))], r.cfg.Networks[rng.IntN(len(r.cfg.Networks))]
				w := wants(net)
				if rng.IntN(8) == 0 { // of another node, or taken: then it is refused and the Pod goes
					a := net.IPv4.CIDR.Addr().As4()
					a[3] += byte(1 + rng.IntN(30))
					w[0].IP = model.AddressRequest{Mode: model.AddressStatic, Addr: netip.AddrFrom4(a)}
				}
				r.pod(ctx, rng, n, fmt.Sprint("uid-", pods.Add(1)), w, time.Duration(rng.IntN(30))*time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		for begun, told := time.Now(), time.Now(); ctx.Err() == nil; sleep(ctx, 100*time.Millisecond) {
			n := r.calls()
			if time.Since(told) > 10*time.Second && r.cfg.Progress != nil {
				r.cfg.Progress("%d calls in %s", n, time.Since(begun).Round(time.Second))
				told = time.Now()
			}
			if r.cfg.Calls > 0 && n >= r.cfg.Calls {
				cancel()
			}
		}
	})
	for _, n := range r.nodes {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n.index), 6))
			for ctx.Err() == nil {
				sleep(ctx, 50*time.Millisecond+time.Duration(rng.Int64N(int64(r.cfg.Lives))))
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

// quietWithin is how long blocks and borrowed addresses may take to go back when the last Pod is gone.
const quietWithin = 2 * time.Minute

// quiet waits until nothing is left of the Pods, and says what is.
func quiet(t *testing.T, r *run) {
	t.Helper()
	time.Sleep(r.cfg.Cooldown + 100*time.Millisecond)
	var b history.Books
	var err error
	for end := time.Now().Add(quietWithin); ; time.Sleep(200 * time.Millisecond) {
		b, err = r.books()
		left := history.New()
		left.Quiet(time.Now(), b)
		if err == nil && (len(left.Violations()) == 0 || !r.cfg.Claimed) || time.Now().After(end) { // a process may still be starting
			break
		}
	}
	if err != nil {
		t.Errorf("read the journals: %v", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check.Consistent(time.Now(), b)
	r.check.Quiet(time.Now(), b)
}

// places are the nodes of the Pods that fill a network: as many as each can give addresses to, or all of them unevenly spread
// where any node can give any address.
func (r *run) places(net model.Network) (out []*node) {
	allowed := ipamsim.Allowed(*net.IPv4)
	if !r.cfg.Claimed {
		home := ipamsim.Local{Slots: len(r.nodes), Cooldown: r.cfg.Cooldown}
		for _, n := range r.nodes {
			for range home.Share(n.index, net, allowed) {
				out = append(out, n)
			}
		}
		return out
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for a := net.IPv4.CIDR.Addr(); net.IPv4.CIDR.Contains(a); a = a.Next() {
		if allowed(a) {
			out = append(out, r.nodes[rng.IntN(1+rng.IntN(len(r.nodes)))])
		}
	}
	return out
}

// fill has as many Pods as there are addresses in the first network.
func fill(t *testing.T, r *run) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	net := r.cfg.Networks[0]
	places, all := r.places(net), make(chan struct{})
	var waiting atomic.Int64
	waiting.Add(int64(len(places)))
	for i, x := range places {
		wg.Go(func() {
			uid := fmt.Sprintf("full-%d", i)
			id := uid + "-sandbox"
			r.mu.Lock()
			x.sandboxes[id] = uid
			r.mu.Unlock()
			err := errors.New("the time is over")
			for ctx.Err() == nil {
				if _, err = x.call(ctx, nodeCall{Add: &ipamsim.PodSpec{Sandbox: id, UID: uid, Wants: wants(net)}}); err == nil {
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
	wg.Wait()
	r.stats["filled"] = len(places)
}
