package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/cri"
	"danm.io/danm/node/mirror"
)

// TestVerdict goes through every combination of what a look can tell, against rules written down a second time: somebody is freed only
// on two witnesses.
func TestVerdict(t *testing.T) {
	n := 0
	for bits := range 1 << 7 {
		on := func(i int) bool { return bits>>i&1 == 1 }
		h := server.Holding{Foreign: on(0)}
		f := facts{netnsGone: on(1), asked: on(2), listed: on(3), rebooted: on(4), podGone: on(5)}
		if on(6) {
			f.goneFor = podGrace + time.Second
		} else {
			f.goneFor = podGrace
		}
		witnesses := 0
		for _, w := range []bool{f.netnsGone, f.asked && !f.listed, f.podGone && (f.goneFor > podGrace || !f.asked), f.rebooted && !f.asked} {
			if w {
				witnesses++
			}
		}
		against := f.asked && f.listed || !f.netnsGone && (h.Foreign || !f.asked)
		want := witnesses >= 2 && !against
		if got := verdict(h, f); (got != "") != want {
			t.Errorf("%+v foreign %v: %q, want %v", f, h.Foreign, got, want)
		}
		if want {
			n++
		}
	}
	if n < 10 || n > 60 {
		t.Errorf("control: %d of 128 are orphans", n)
	}
}

// sweptNode is a node of facts that a test changes.
type sweptNode struct {
	holdings            []server.Holding
	netnsGone, rebooted map[string]bool // by key
	busy                map[string]bool
	sandboxes           []string
	runtimeErr          error
	pods                map[string]mirror.PodInfo // by UID
	synced              bool
	getErr              error
	got                 int // calls of Get
	freed               []string
	counted             []string
	clock               time.Time
}

func (n *sweptNode) Holdings() ([]server.Holding, error)    { return slices.Clone(n.holdings), nil }
func (n *sweptNode) Rebooted(h server.Holding) bool         { return n.rebooted[h.Key] }
func (n *sweptNode) NetnsGone(h server.Holding) bool        { return n.netnsGone[h.Key] }
func (n *sweptNode) Synced() bool                           { return n.synced }
func (n *sweptNode) Known(u string) (mirror.PodInfo, bool)  { p, ok := n.pods[u]; return p, ok }
func (n *sweptNode) list(context.Context) ([]string, error) { return n.sandboxes, n.runtimeErr }

func (n *sweptNode) Reclaim(_ context.Context, h server.Holding) (bool, error) {
	if n.busy[h.Key] {
		return false, nil
	}
	n.freed = append(n.freed, h.Key)
	n.holdings = slices.DeleteFunc(n.holdings, func(o server.Holding) bool { return o.Key == h.Key })
	return true, nil
}

func (n *sweptNode) Get(_ context.Context, namespace, name string) (mirror.PodInfo, error) {
	n.got++
	if n.getErr != nil {
		return mirror.PodInfo{}, n.getErr
	}
	for _, p := range n.pods {
		if p.Namespace == namespace && p.Name == name {
			return p, nil
		}
	}
	return mirror.PodInfo{}, fmt.Errorf("%s: %w", name, mirror.ErrNoPod)
}

// newSwept has three Pods, a, b, c, all alive, and one of another plugin's interface, d.
func newSwept() (*sweptNode, *sweeper) {
	n := &sweptNode{netnsGone: map[string]bool{}, rebooted: map[string]bool{}, busy: map[string]bool{}, pods: map[string]mirror.PodInfo{}, synced: true, clock: time.Unix(1e9, 0)}
	for _, name := range []string{"a", "b", "c", "d"} {
		h := server.Holding{Key: name, Container: name, Namespace: "acme", Pod: name, PodUID: "u" + name}
		if name == "d" {
			h.Key, h.Foreign = "d/net1", true
		}
		n.holdings = append(n.holdings, h)
		n.sandboxes = append(n.sandboxes, name)
		n.pods["u"+name] = mirror.PodInfo{UID: "u" + name, Namespace: "acme", Name: name}
	}
	s := &sweeper{holder: n, sandboxes: n.list, pods: n, reclaimed: func(r string) { n.counted = append(n.counted, r) }, log: slog.New(slog.DiscardHandler), now: func() time.Time { return n.clock }}
	return n, s
}

func (n *sweptNode) expect(t *testing.T, what string, s *sweeper, after time.Duration, freed ...string) {
	t.Helper()
	n.clock = n.clock.Add(after)
	n.freed = nil
	s.sweep(context.Background())
	if !slices.Equal(n.freed, freed) {
		t.Errorf("%s: freed %v, want %v", what, n.freed, freed)
	}
}

func (n *sweptNode) endSandbox(name string) {
	n.sandboxes = slices.DeleteFunc(n.sandboxes, func(s string) bool { return s == name })
}

func TestSweepNeedsTwoLooks(t *testing.T) {
	n, s := newSwept()
	n.expect(t, "all alive", s, 0)
	n.expect(t, "all alive, an hour later", s, time.Hour)
	n.netnsGone["a"] = true
	n.expect(t, "the runtime still has it", s, time.Hour)
	n.endSandbox("a")
	n.endSandbox("b") // its namespace lives
	n.expect(t, "first look", s, time.Minute)
	n.expect(t, "too early", s, 59*time.Second)
	n.expect(t, "second look", s, time.Second, "a")
	if !slices.Equal(n.counted, []string{reasonSandbox}) || len(s.suspects) != 0 {
		t.Errorf("counted %v, suspects %v", n.counted, s.suspects)
	}
	// Evidence that goes away between two looks begins anew.
	n.netnsGone["c"] = true
	n.endSandbox("c")
	n.expect(t, "c, first look", s, time.Minute)
	n.sandboxes = append(n.sandboxes, "c")
	n.expect(t, "c is back", s, time.Minute)
	n.endSandbox("c")
	n.expect(t, "c, first look again", s, time.Minute)
	// Another record under the same key is another case.
	n.holdings[1].Boot = "new"
	old := n.holdings[1]
	n.busy["c"] = true
	n.expect(t, "c is busy", s, time.Minute)
	n.busy["c"] = false
	n.expect(t, "c is free", s, time.Second, "c")
	n.holdings = append(n.holdings, old)
	n.netnsGone["d/net1"] = true
	n.endSandbox("d")
	n.expect(t, "an interface of another plugin, first look", s, time.Minute)
	n.expect(t, "an interface of another plugin, second look", s, time.Minute, "d/net1", "c")
}

func TestSweepWithoutTheRuntime(t *testing.T) {
	for _, err := range []error{cri.ErrNone, errors.New("connection refused")} {
		n, s := newSwept()
		n.runtimeErr, n.sandboxes = err, nil
		n.expect(t, "all alive", s, 0)
		n.netnsGone["a"], n.netnsGone["b"] = true, true
		n.rebooted["b"], n.rebooted["c"] = true, true
		n.expect(t, "first look", s, time.Hour)
		n.expect(t, "only after a reboot", s, time.Hour, "b")
		delete(n.pods, "ua") // namespace and Pod are gone
		delete(n.pods, "uc") // the Pod alone, or so it seems
		n.expect(t, "the Pod is gone, first look", s, time.Hour)
		n.expect(t, "the Pod is gone, second look", s, time.Minute, "a")
		n.expect(t, "c", s, time.Hour)
		n.expect(t, "c", s, time.Hour)
	}
}

func TestSweepOfPodsThatAreGone(t *testing.T) {
	n, s := newSwept()
	n.endSandbox("a")
	n.endSandbox("d")
	delete(n.pods, "ua")
	delete(n.pods, "ub") // the runtime has it
	delete(n.pods, "ud") // its link could not be taken down
	n.expect(t, "seen first", s, 0)
	n.expect(t, "not long enough", s, podGrace)
	n.expect(t, "long enough, first look", s, time.Second)
	n.synced = false
	n.expect(t, "the API is away", s, time.Hour)
	n.synced = true
	n.expect(t, "first look again", s, time.Minute)
	n.getErr = errors.New("timeout")
	n.expect(t, "the API does not answer", s, time.Minute)
	n.getErr = nil
	n.pods["static"] = mirror.PodInfo{UID: "static", Static: "ua", Namespace: "acme", Name: "a"} // the list was behind
	n.expect(t, "the API knows it", s, time.Minute)
	n.pods["static"] = mirror.PodInfo{UID: "another", Namespace: "acme", Name: "a"}
	n.expect(t, "a Pod of the same name", s, time.Minute, "a")
	if !slices.Equal(n.counted, []string{reasonPod}) || n.got != 3 {
		t.Errorf("counted %v, asked %d times", n.counted, n.got)
	}
	// A container that no Pod was named for has none that could be gone.
	n, s = newSwept()
	n.holdings[0].PodUID = ""
	n.endSandbox("a")
	for range 5 {
		n.expect(t, "not Kubernetes'", s, time.Hour)
	}
	// Nor does a node without an API know of any.
	n, s = newSwept()
	s.pods = nil
	n.endSandbox("a")
	n.pods = nil
	for range 5 {
		n.expect(t, "no API", s, time.Hour)
	}
	if n.netnsGone["a"] = true; len(n.freed) > 0 {
		t.Error(n.freed)
	}
	n.expect(t, "no API, first look", s, time.Hour)
	n.expect(t, "no API, second look", s, time.Hour, "a")
}
