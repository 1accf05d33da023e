package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
)

func TestFailedAttachReleasesAddresses(t *testing.T) {
	n := newNode(t, nil)
	n.fake.onAttach(func(context.Context) error { return errInjected })
	_, e := n.call(request("ADD", "c", "acme", "u", `[{"tenantNetwork":"small","ip":"dynamic"}]`))
	if e == nil || e.Code != CodeAttachFailed || e.Details != string(diag.PodAttachFailed) || !strings.Contains(e.Msg, "injected") {
		t.Errorf("got %v", e)
	}
	if len(n.records()) != 0 || len(n.server.Pods()) != 0 {
		t.Errorf("left %v", n.records())
	}
	n.fake.onAttach(nil)
	if _, e := n.call(request("ADD", "c", "acme", "u", `[{"tenantNetwork":"small","ip":"dynamic"}]`)); e != nil {
		t.Errorf("the pool's only address is not free again: %v", e)
	}
}

// While a link may still have an address, the address is not free.
func TestAddressesStayWhileLinksMayBeThere(t *testing.T) {
	n := newNode(t, nil)
	n.fake.onAttach(func(context.Context) error { return errInjected })
	n.fake.onDetach(func() error { return errInjected })
	in := `[{"tenantNetwork":"small","ip":"dynamic"}]`
	if _, e := n.call(request("ADD", "c", "acme", "u", in)); e == nil {
		t.Error("no error")
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", in)); e == nil || !slices.Equal(n.records(), []string{"c"}) {
		t.Errorf("DEL that cannot take links down: %v, records %v", e, n.records())
	}
	n.fake.onDetach(nil)
	if _, e := n.call(request("DEL", "c", "acme", "u", in)); e != nil || len(n.records()) != 0 {
		t.Errorf("%v, %v", e, n.records())
	}
}

// A caller who goes away (the runtime's time is over, the plugin is killed) leaves nothing behind.
func TestCallerGoneUndoes(t *testing.T) {
	n := newNode(t, nil)
	var entered atomic.Bool
	n.fake.onAttach(func(ctx context.Context) error {
		entered.Store(true)
		<-ctx.Done()
		return ctx.Err()
	})
	f, err := os.Open("/proc/self/ns/net")
	must(t, err)
	defer f.Close()
	for limit := 300 * time.Millisecond; !entered.Load(); limit *= 2 { // a busy machine may not come so far in time
		_, _ = wire.Call(within(limit), n.socket(), time.Second, request("ADD", "c", "acme", "u", oneData), fdOf(f)) // closes the connection then
	}
	n.fake.onAttach(nil)
	for end := time.Now().Add(20 * time.Second); len(n.records()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left %v", n.records())
		}
	}
}

func TestShutdownUndoesWhatDoesNotEnd(t *testing.T) {
	n := newNode(t, nil)
	entered := make(chan struct{})
	n.fake.onAttach(func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() })
	answered := make(chan *types.Error, 1)
	go func() {
		_, e := n.call(request("ADD", "c", "acme", "u", oneData))
		answered <- e
	}()
	<-entered
	n.end()
	if e := <-answered; e == nil || e.Code != types.ErrTryAgainLater {
		t.Errorf("got %v", e)
	}
	if len(n.records()) != 0 {
		t.Errorf("left %v", n.records())
	}
}

// facts.md, trace 1: the DEL of an old sandbox comes after the ADD of the new one and is repeated.
func TestLateDelOfAnOldSandboxTouchesNothingNew(t *testing.T) {
	n := newNode(t, nil)
	first, e := n.call(request("ADD", "s1", "acme", "u", oneData))
	if e != nil {
		t.Fatal(e)
	}
	second, e := n.call(request("ADD", "s2", "acme", "u", oneData))
	if e != nil {
		t.Fatal(e)
	}
	if first.IPs[0].Address.String() != second.IPs[0].Address.String() {
		t.Errorf("a new sandbox of a Pod has another address: %s, %s", first.IPs[0].Address.String(), second.IPs[0].Address.String())
	}
	if detached, clashes := n.fake.log(); !slices.Equal(detached, []string{"s1 given"}) || len(clashes) > 0 {
		t.Errorf("old links: detached %v, clashes %v", detached, clashes)
	}
	for range 2 {
		if _, e := n.call(request("DEL", "s1", "acme", "u", oneData)); e != nil {
			t.Error(e)
		}
	}
	if got := n.records(); !slices.Equal(got, []string{"s2"}) || n.fake.attached("s2") == nil {
		t.Errorf("records %v, live %v", got, n.fake.sandboxes())
	}
	n.fake.onDetach(func() error { return errInjected })
	if _, e := n.call(request("ADD", "s3", "acme", "u", oneData)); e == nil || !slices.Equal(n.records(), []string{"s2"}) {
		t.Errorf("an old sandbox that cannot be taken down: %v, %v", e, n.records())
	}
}

func TestRecordsSurviveARestart(t *testing.T) {
	n := newNode(t, nil)
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	n.end()
	<-n.finished
	n.start(n.fake)
	if pods := n.server.Pods(); !slices.Equal(pods["eth0"], []string{"acme/pod-c"}) {
		t.Errorf("Pods after a restart: %v", pods)
	}
	if _, e := n.call(request("CHECK", "c", "acme", "u", oneData)); e != nil {
		t.Error(e)
	}
	gone := request("DEL", "c", "acme", "u", oneData)
	gone.Netns = ""
	if _, e := n.callIn(gone, ""); e != nil || len(n.records()) != 0 {
		t.Errorf("%v, %v", e, n.records())
	}
	if detached, _ := n.fake.log(); !slices.Equal(detached, []string{"c given"}) { // found by the recorded path
		t.Errorf("detached %v", detached)
	}
}

// A path such as /proc/1234/ns/net comes to mean another Pod's namespace; that one must not be entered.
func TestAnotherNamespaceAtTheSamePathIsNotTheRecorded(t *testing.T) {
	s := &Server{}
	if f := s.netns(nil, record{Netns: "/proc/self/ns/net", NetnsID: "1:1"}); f != nil {
		t.Error("a namespace with another identity was taken")
	}
	given, err := os.Open("/proc/self/ns/net")
	must(t, err)
	defer given.Close()
	if f := s.netns(given, record{Netns: "/nowhere", NetnsID: "1:1"}); f != nil {
		t.Error("the runtime's namespace was taken though it is another one")
	}
	id, err := attach.Identity(given)
	must(t, err)
	if f := s.netns(given, record{Netns: "/nowhere", NetnsID: id}); f != given {
		t.Error("the runtime's namespace was not taken")
	}
}

func TestUnknownRecordsStopTheStart(t *testing.T) {
	n := newNode(t, nil)
	_, err := n.ipam.Acquire(t.Context(), ipam.Intent{Sandbox: "x", PodUID: "x", Record: func([]ipam.Grant) ([]byte, error) { return []byte(`{"version":99}`), nil }})
	must(t, err)
	if _, err := New(Options{Socket: n.socket(), IPAM: n.ipam, Attacher: n.fake}); !errors.Is(err, errRecordVersion) {
		t.Errorf("got %v", err)
	}
}

// Many callers, few sandboxes and Pods, kills of callers: at no time do two sandboxes have one address, and in the end
// everything can be deleted.
func TestConcurrentCallsKeepTheInvariant(t *testing.T) {
	n := newNode(t, nil)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(w)))
			for range 25 {
				sandbox, uid := fmt.Sprintf("s%d", random.IntN(6)), ""
				uid = "u" + sandbox[1:2]
				if random.IntN(2) == 0 {
					uid = "u0"
				}
				req := request([]string{"ADD", "ADD", "DEL", "CHECK"}[random.IntN(4)], sandbox, "acme", uid, oneData)
				f, err := os.Open("/proc/self/ns/net")
				if err != nil {
					t.Error(err)
					return
				}
				limit := within(10 * time.Second)
				if random.IntN(5) == 0 {
					limit = within(time.Duration(random.IntN(3000)) * time.Microsecond)
				}
				_, _ = wire.Call(limit, n.socket(), time.Second, req, fdOf(f))
				f.Close()
			}
		})
	}
	wg.Wait()
	n.end() // no call is in progress any more
	<-n.finished
	n.start(n.fake)
	_, clashes := n.fake.log()
	live := n.fake.sandboxes()
	if len(clashes) > 0 {
		t.Errorf("addresses with two holders: %v", clashes)
	}
	records := n.records() // one may be without links: its Pod's next sandbox took them down and then gave up
	for _, s := range live {
		if !slices.Contains(records, s) {
			t.Errorf("records %v, links of %v", records, live)
		}
	}
	for i := range 6 {
		if _, e := n.call(request("DEL", fmt.Sprintf("s%d", i), "acme", "u", oneData)); e != nil {
			t.Error(e)
		}
	}
	if len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
		t.Errorf("left %v, %v", n.records(), n.fake.sandboxes())
	}
}
