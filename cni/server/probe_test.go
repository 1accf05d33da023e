package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"danm.io/danm/ipam"
	"danm.io/danm/node/probe"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// outside is a network with hosts that got their addresses elsewhere.
type outside struct {
	mu      sync.Mutex
	has     map[string]bool // "network address"
	asked   []string
	results map[string]int
	err     error
	hold    chan struct{} // a probe waits until it is closed
}

func (o *outside) probe(_ context.Context, n model.Network, a netip.Addr) (bool, string, error) {
	if o.hold != nil {
		<-o.hold
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, a.String())
	return o.has[n.Key()+" "+a.String()], "02:00:00:00:00:99", o.err
}

func (o *outside) options(to *Options) {
	to.Probe = o.probe
	to.Probed = func(r string) { o.mu.Lock(); defer o.mu.Unlock(); o.results[r]++ }
}

// set changes who has what; counted is what the server told.
func (o *outside) set(err error, has ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.asked, o.has = err, nil, map[string]bool{}
	for _, h := range has {
		o.has[h] = true
	}
}

func (o *outside) counted() map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.results)
}

func probingNode(t *testing.T, has ...string) (*node, *outside) {
	t.Helper()
	o := &outside{results: map[string]int{}}
	o.set(nil, has...)
	n := newNode(t, nil)
	n.restart(o.options)
	return n, o
}

// An address that a stranger has is passed over; the Pod's other addresses stay what they were.
func TestAddressInUseIsPassedOver(t *testing.T) {
	n, o := probingNode(t, "acme/data 10.0.0.10", "acme/data 10.0.0.11", "acme/port 10.4.0.2")
	in := `[{"tenantNetwork":"data","ip":"dynamic","ip6":"dynamic"},{"tenantNetwork":"port","ip":"dynamic"},{"tenantNetwork":"data","ip":"10.0.0.77"}]`
	r, e := n.call(request("ADD", "c", "acme", "u", in))
	if e != nil || !slices.Equal(addresses(r), []string{"10.0.0.12/24", "fd00::10/64", "10.4.0.1/24", "10.0.0.77/24"}) {
		t.Fatalf("%v, %v", addresses(r), e)
	}
	if got := n.fake.attached("c"); len(got) != 3 || got[0].Addresses[0].String() != "10.0.0.12/24" {
		t.Errorf("attached %+v", got)
	}
	if rec, err := n.ipam.Lookup("c"); err != nil || len(rec.Holds) != 4 || strings.Contains(string(rec.Data), "10.0.0.10/24") {
		t.Errorf("record %+v, %v", rec, err)
	}
	conflicts := n.server.Conflicts()
	if len(conflicts) != 2 || conflicts[0].Addr.String() != "10.0.0.10" || conflicts[1].MAC != "02:00:00:00:00:99" || conflicts[1].Pod != "acme/pod-c" || conflicts[1].Network != "acme/data" {
		t.Errorf("%+v", conflicts)
	}
	if got := o.counted(); got[ProbeInUse] != 2 || got[ProbeFree] != 10 || got[ProbeFailed] != 0 {
		t.Errorf("counted %v", got)
	}
	if detached, _ := n.fake.log(); len(detached) != 0 {
		t.Errorf("links that nobody made were taken down: %v", detached)
	}
	// Control: without asking, the stranger's address is given.
	n.restart(func(*Options) {})
	if _, e := n.call(request("DEL", "c", "acme", "u", in)); e != nil {
		t.Fatal(e)
	}
	r, e = n.call(request("ADD", "c", "acme", "u", `[{"tenantNetwork":"data","ip":"10.0.0.10"}]`))
	if e != nil || addresses(r)[0] != "10.0.0.10/24" {
		t.Errorf("control: %v, %v", addresses(r), e)
	}
}

// The address that was passed over cools down like one that was freed, and is not chosen again at once, by anybody.
func TestAddressInUseCoolsDown(t *testing.T) {
	n, o := probingNode(t, "acme/data 10.0.0.10", "acme/small 10.5.0.1")
	svc, err := ipam.Open(t.TempDir(), ipam.Options{Cooldown: time.Hour})
	must(t, err)
	defer svc.Close()
	n.restart(func(to *Options) { o.options(to); to.IPAM = svc })
	for i, network := range []string{"data", "small"} {
		_, e := n.call(request("ADD", fmt.Sprintf("c%d", i), "acme", fmt.Sprintf("u%d", i), `[{"tenantNetwork":"`+network+`","ip":"dynamic"}]`))
		if (e == nil) != (network == "data") || e != nil && e.Code != CodePoolExhausted {
			t.Errorf("%s: %v", network, e)
		}
	}
	o.set(nil) // the stranger is gone, its address cools
	if _, e := n.call(request("ADD", "c2", "acme", "u2", `[{"tenantNetwork":"small","ip":"dynamic"}]`)); e == nil || e.Code != CodePoolExhausted || !strings.Contains(e.Msg, "1 cooling") {
		t.Errorf("%v", e)
	}
	if list, err := svc.List(); err != nil || len(list) != 1 {
		t.Errorf("records %v %v", list, err)
	}
}

func TestAddressesInUseFailTheADD(t *testing.T) {
	n, o := probingNode(t, "acme/data 10.0.0.77", "acme/data 10.0.0.10", "acme/data 10.0.0.11", "acme/data 10.0.0.12")
	for what, in := range map[string]string{"static": `[{"tenantNetwork":"data","ip":"10.0.0.77"},{"tenantNetwork":"port","ip":"dynamic"}]`, "three times": `[{"tenantNetwork":"data","ip":"dynamic"}]`} {
		_, e := n.call(request("ADD", "c", "acme", "u", in))
		if e == nil || e.Code != CodeAddressTaken || e.Details != string(diag.PodAddressInUse) || !strings.Contains(e.Msg, "MAC 02:00:00:00:00:99") || !strings.Contains(e.Msg, "10.0.0.") {
			t.Errorf("%s: %v", what, e)
		}
		if len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
			t.Errorf("%s: left %v %v", what, n.records(), n.fake.sandboxes())
		}
	}
	if o.counted()[ProbeInUse] != 4 {
		t.Errorf("counted %v", o.counted())
	}
	// Where nobody can be asked the address is given.
	o.set(errors.New("no such link"))
	if r, e := n.call(request("ADD", "c", "acme", "u", `[{"tenantNetwork":"data","ip":"dynamic"}]`)); e != nil || len(r.IPs) != 1 || o.counted()[ProbeFailed] != 1 {
		t.Errorf("%+v, %v, counted %v", r, e, o.counted())
	}
	for i := range 20 {
		o.set(nil, fmt.Sprintf("default 10.2.0.%d", i+10))
		_, _ = n.call(request("ADD", fmt.Sprintf("d%d", i), "acme", fmt.Sprintf("d%d", i), fmt.Sprintf(`[{"clusterNetwork":"default","ip":"10.2.0.%d"}]`, i+10)))
	}
	if got := n.server.Conflicts(); len(got) != maxConflicts || got[maxConflicts-1].Addr.String() != "10.2.0.29" {
		t.Errorf("%d conflicts are remembered: %+v", len(got), got)
	}
}

// Asking holds nobody else up: others get their addresses meanwhile.
func TestProbingDoesNotHoldTheCommitter(t *testing.T) {
	n := newNode(t, nil)
	o := &outside{results: map[string]int{}, hold: make(chan struct{})}
	n.restart(o.options)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if _, e := n.call(request("ADD", "slow", "acme", "slow", oneData)); e != nil {
			t.Error(e)
		}
	}()
	for end := time.Now().Add(20 * time.Second); len(n.records()) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the record is not durable before the probe")
		}
	}
	for range 10 {
		if _, err := n.ipam.Acquire(t.Context(), ipam.Intent{Sandbox: "x", PodUID: "x"}); err != nil {
			t.Fatal(err)
		}
		must(t, n.ipam.Release(t.Context(), "x"))
	}
	select {
	case <-answered:
		t.Error("the ADD did not wait for its probe")
	default:
	}
	close(o.hold)
	<-answered
}

// As another plugin's IPAM: that somebody still answers for the old sandbox's address is noticed by asking.
func TestAddressesForAnotherPluginAreProbed(t *testing.T) {
	n, o := probingNode(t)
	gone := asIPAM("ADD", "s1", "net1", "u", ofData)
	gone.Netns = filepath.Join(t.TempDir(), "netns") // where it is by now, nobody finds it
	first, e := n.call(gone)
	if e != nil {
		t.Fatal(e)
	}
	o.set(nil, "acme/data 10.0.0.10") // the old sandbox's
	second, e := n.call(asIPAM("ADD", "s2", "net1", "u", ofData))
	if e != nil || !slices.Equal(addresses(second), []string{"10.0.0.11/24", addresses(first)[1]}) || !slices.Equal(n.records(), []string{"s2/net1"}) {
		t.Errorf("%v, then %v, %v; records %v", addresses(first), addresses(second), e, n.records())
	}
	n.networks(func(list []model.Network) []model.Network { list[3].Device = ""; return list }) // nowhere to ask
	before := o.counted()
	if _, e := n.call(asIPAM("ADD", "s3", "net1", "u3", ofData)); e != nil || !maps.Equal(before, o.counted()) {
		t.Errorf("%v, counted %v, then %v", e, before, o.counted())
	}
}

// A real stranger on the wire answers for the first address of the pool.
func TestKernelStrangerKeepsItsAddress(t *testing.T) {
	n := newRuntimeNode(t)
	stranger, err := n.world.Add("stranger")
	must(t, err)
	must(t, n.fabric.Plug("sw", stranger, "eth0", "10.0.0.10/24"))
	must(t, stranger.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("fd00::10/64")
		if err != nil {
			return err
		}
		a.Flags = 2 // IFA_F_NODAD
		return netlink.AddrAdd(l, a)
	}))
	ask := func(ctx context.Context, network model.Network, a netip.Addr) (inUse bool, mac string, err error) {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err = n.host.Do(func() error { inUse, mac, err = probe.InUse(ctx, network.Device, a); return err })
		return inUse, mac, err
	}
	add := func(name string) []string {
		t.Helper()
		_, rt := n.pod(name)
		res, err := n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", oneData), rt)
		must(t, err)
		r, err := types100.NewResultFromResult(res)
		must(t, err)
		must(t, n.cni.DelNetworkList(t.Context(), n.conf("1.0.0", oneData), rt))
		return addresses(*r)
	}
	if got := add("control"); !slices.Equal(got, []string{"10.0.0.10/24", "fd00::10/64"}) {
		t.Errorf("control: without asking a Pod gets %v", got)
	}
	fresh, err := ipam.Open(t.TempDir(), ipam.Options{Cooldown: -1}) // that has given nothing out yet
	must(t, err)
	defer fresh.Close()
	n.restart(func(o *Options) { o.IPAM, o.Probe = fresh, ask })
	if got := add("asks"); !slices.Equal(got, []string{"10.0.0.11/24", "fd00::11/64"}) {
		t.Errorf("a Pod gets %v", got)
	}
	for _, c := range n.server.Conflicts() {
		t.Logf("%s is in use by %s", c.Addr, c.MAC)
		if c.MAC == "" {
			t.Errorf("%+v: no MAC", c)
		}
	}
	if len(n.server.Conflicts()) != 2 {
		t.Errorf("%+v", n.server.Conflicts())
	}
}
