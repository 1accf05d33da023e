package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
)

const oneData = `[{"tenantNetwork":"data","ip":"dynamic","ip6":"dynamic"}]`

func TestAddChecksAndDeletes(t *testing.T) {
	n := newNode(t, nil)
	in := `[{"tenantNetwork":"data","ip":"dynamic","ip6":"dynamic","proutes":{"10.50.0.0/16":"10.0.0.1"}},{"network":"l2"},{"tenantNetwork":"data","ip":"10.0.0.7/8"},{"clusterNetwork":"shared","ip":"dynamic"}]`
	r, e := n.call(request("ADD", "c1", "acme", "u1", in))
	if e != nil {
		t.Fatal(e)
	}
	var got []string
	for i, x := range r.Interfaces {
		got = append(got, fmt.Sprintf("%s mtu %d sandbox %s", x.Name, x.Mtu, x.Sandbox))
		if mac, err := net.ParseMAC(x.Mac); err != nil || mac[0]&2 == 0 {
			t.Errorf("interface %d: MAC %q", i, x.Mac)
		}
	}
	for _, x := range r.IPs {
		got = append(got, fmt.Sprintf("%d %s via %s", *x.Interface, x.Address.String(), x.Gateway))
	}
	for _, x := range r.Routes {
		got = append(got, fmt.Sprintf("route %s via %s", x.Dst.String(), x.GW))
	}
	want := []string{
		"eth0 mtu 1400 sandbox /proc/self/ns/net", "eth1 mtu 1400 sandbox /proc/self/ns/net", "data2 mtu 1400 sandbox /proc/self/ns/net", "eth3 mtu 1400 sandbox /proc/self/ns/net",
		"0 10.0.0.10/24 via 10.0.0.254", "0 fd00::10/64 via fd00::fe", "2 10.0.0.7/24 via 10.0.0.254", "3 10.3.0.1/24 via <nil>",
		"route 10.9.0.0/16 via 10.0.0.253", "route 0.0.0.0/0 via 10.0.0.254", "route ::/0 via fd00::fe", "route 10.9.0.0/16 via 10.0.0.253",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	at := n.fake.attached("c1")
	if at[0].Table != 300 || len(at[0].PolicyRoutes) != 1 || !at[0].IPv6 || at[1].IPv6 || at[1].HostLink != attach.HostLinkName("c1", "eth1") || at[2].Network != "acme/data" {
		t.Errorf("attached %+v", at)
	}
	if pods := n.server.Pods(); !slices.Equal(pods["eth0"], []string{"acme/pod-c1"}) || !slices.Equal(pods["br0"], []string{"acme/pod-c1"}) {
		t.Errorf("Pods: %v", pods)
	}
	if _, e := n.call(request("CHECK", "c1", "acme", "u1", in)); e != nil {
		t.Error(e)
	}
	again, e := n.call(request("ADD", "c1", "acme", "u1", in))
	if e != nil || again.Interfaces[0].Mac != r.Interfaces[0].Mac || again.IPs[0].Address.String() != r.IPs[0].Address.String() {
		t.Errorf("ADD again: %v %v", again, e)
	}
	n.fake.set(func(f *fakeAttacher) { f.mismatch = true })
	if _, e := n.call(request("CHECK", "c1", "acme", "u1", in)); e == nil || e.Code != CodeCheckFailed {
		t.Errorf("CHECK of a changed Pod: %v", e)
	}
	if _, e := n.call(request("ADD", "c1", "acme", "u1", in)); e == nil || e.Code != CodeAlreadyAttached {
		t.Errorf("ADD again of a changed Pod: %v", e)
	}
	for range 2 {
		if _, e := n.call(request("DEL", "c1", "acme", "u1", in)); e != nil {
			t.Error(e)
		}
	}
	if len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 || len(n.server.Pods()) != 0 {
		t.Errorf("left: %v %v %v", n.records(), n.fake.sandboxes(), n.server.Pods())
	}
	if _, e := n.call(request("CHECK", "c1", "acme", "u1", in)); e == nil || e.Code != types.ErrUnknownContainer {
		t.Errorf("CHECK of nothing: %v", e)
	}
}

func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	n := newNode(t, nil)
	if _, e := n.call(request("ADD", "holder", "acme", "uh", `[{"tenantNetwork":"data","ip":"10.0.0.5"},{"tenantNetwork":"small","ip":"dynamic"}]`)); e != nil {
		t.Fatal(e)
	}
	with := func(change func(*wire.Request)) wire.Request {
		r := request("ADD", "c", "acme", "u", oneData)
		change(&r)
		return r
	}
	conf := func(s string) wire.Request { return with(func(r *wire.Request) { r.Stdin = []byte(s) }) }
	add := func(interfaces string) wire.Request { return request("ADD", "c", "acme", "u", interfaces) }
	rows := []struct {
		name string
		req  wire.Request
		code uint
		diag diag.Code
		text string
	}{
		{"unknown network", add(`[{"tenantNetwork":"dato"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, "TenantNetwork data"},
		{"another kind", add(`[{"network":"data"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, `DanmNet "data" does not exist`},
		{"another tenant's", add(`[{"tenantNetwork":"secret"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, "does not exist"},
		{"not allowed", add(`[{"clusterNetwork":"closed"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, "does not exist"},
		{"not on this node", add(`[{"tenantNetwork":"nodevice"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, "no host link"},
		{"no namespace", request("ADD", "c", "", "u", oneData), CodeNetworkUnknown, diag.PodNetworkUnknown, "does not exist"},
		{"static address taken", add(`[{"tenantNetwork":"data","ip":"10.0.0.5"}]`), CodeAddressTaken, diag.PodAddressTaken, "pod-holder"},
		{"pool exhausted", add(`[{"tenantNetwork":"small","ip":"dynamic"}]`), CodePoolExhausted, diag.PodPoolExhausted, "eth0"},
		{"static address outside", add(`[{"tenantNetwork":"data","ip":"10.1.0.5"}]`), CodeAddressUnusable, diag.PodAddressUnusable, "10.1.0.5"},
		{"address on L2", add(`[{"network":"l2","ip":"dynamic"}]`), CodeAddressUnusable, diag.PodAddressUnusable, "eth0"},
		{"second fails, first is released", add(`[{"tenantNetwork":"data","ip":"10.0.0.6"},{"tenantNetwork":"small","ip":"dynamic"}]`), CodePoolExhausted, diag.PodPoolExhausted, "eth1"},
		{"long name", add(`[{"tenantNetwork":"data"},{"tenantNetwork":"longprefix"}]`), CodeRequestRefused, diag.PodInterfaceName, "averyverylongname1"},
		{"policy routes without table", add(`[{"tenantNetwork":"port","ip":"dynamic","proutes":{"10.0.0.0/8":"10.4.0.1"}}]`), CodeRequestRefused, diag.PodPolicyTable, "acme/port"},
		{"policy routes without address", add(`[{"tenantNetwork":"data","ip":"none","proutes":{"10.0.0.0/8":"10.0.0.1"}}]`), CodeRequestRefused, diag.PodPolicyTable, "without an address"},
		{"broken interfaces", add(`[{"tenantNetwork":"data","Device":"eth9"}]`), types.ErrInvalidNetworkConfig, diag.AnnotationField, "Device"},
		{"interfaces no array", add(`{}`), types.ErrInvalidNetworkConfig, diag.AnnotationSyntax, "array"},
		{"too many interfaces", add("[" + strings.Repeat(`{"network":"l2"},`, 64) + `{"network":"l2"}]`), types.ErrInvalidNetworkConfig, diag.AnnotationTooBig, "65"},
		{"broken conf", conf(`{`), types.ErrDecodingFailure, diag.ConfInvalid, "decode"},
		{"no version", conf(`{"name":"danm"}`), types.ErrIncompatibleCNIVersion, diag.ConfInvalid, "cniVersion"},
		{"no name", conf(`{"cniVersion":"1.0.0"}`), types.ErrInvalidNetworkConfig, diag.ConfInvalid, "name"},
		{"bad args", with(func(r *wire.Request) { r.Args = "K8S_POD_NAMESPACE" }), types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, "K8S_POD_NAMESPACE"},
		{"bad container", with(func(r *wire.Request) { r.ContainerID = "../x" }), types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, "invalid characters"},
		{"bad ifname", with(func(r *wire.Request) { r.IfName = "a/b" }), types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, "interface name"},
		{"unknown command", with(func(r *wire.Request) { r.Command = "UPDATE" }), types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, "UPDATE"},
		{"GC", with(func(r *wire.Request) { r.Command = "GC" }), types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, "not supported"},
		{"STATUS below 1.1.0", with(func(r *wire.Request) { r.Command, r.Stdin = "STATUS", []byte(`{"cniVersion":"1.0.0","name":"n"}`) }), types.ErrIncompatibleCNIVersion, diag.ConfInvalid, "1.1.0"},
		{"another ifname", func() wire.Request { r := request("ADD", "holder", "acme", "uh", oneData); r.IfName = "net9"; return r }(), CodeAlreadyAttached, diag.PodAlreadyAttached, "eth0"},
	}
	for _, r := range rows {
		_, e := n.call(r.req)
		if e == nil || e.Code != r.code || e.Details != string(r.diag) || !strings.Contains(e.Msg, r.text) {
			t.Errorf("%s: got %+v, want %d %s with %q", r.name, e, r.code, r.diag, r.text)
			continue
		}
		if strings.Contains(e.Msg, "beta") || r.name != "another tenant's" && strings.Contains(e.Msg, "secret") || r.name != "not allowed" && strings.Contains(e.Msg, "closed") {
			t.Errorf("%s: tells of another tenant: %s", r.name, e.Msg)
		}
		if got := n.records(); !slices.Equal(got, []string{"holder"}) || len(n.fake.sandboxes()) != 1 {
			t.Fatalf("%s: changed: %v, %v", r.name, got, n.fake.sandboxes())
		}
	}
	if _, e := n.callIn(request("ADD", "c", "acme", "u", oneData), ""); e == nil || e.Code != types.ErrInvalidNetNS {
		t.Errorf("ADD without a namespace: %v", e)
	}
	if _, e := n.callIn(request("ADD", "c", "acme", "u", oneData), "/proc/self/status"); e == nil || e.Code != types.ErrInvalidNetNS {
		t.Errorf("ADD with a file as namespace: %v", e)
	}
	wrong := request("DEL", "holder", "acme", "uh", "")
	wrong.IfName = "net9"
	if _, e := n.call(wrong); e != nil || len(n.records()) != 1 {
		t.Errorf("DEL under another name: %v, %v", e, n.records())
	}
}

func TestNotReadyIsTryAgain(t *testing.T) {
	n := newNode(t, nil)
	n.setReady(false)
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.AgentNotReady) {
		t.Errorf("got %v", e)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil {
		t.Errorf("DEL needs no state: %v", e)
	}
}

// A failing STATUS evicts the node's Pods: it fails before the first readiness only, also across restarts.
func TestStatusFailsOnlyBeforeTheFirstReadiness(t *testing.T) {
	n := newNode(t, nil)
	n.end() // the first life was ready at once; begin anew with a file that no life has touched
	<-n.finished
	must(t, os.Remove(n.socket()))
	n.setReady(false)
	status := request("STATUS", "", "", "", "")
	expect := func(when string, code uint) {
		t.Helper()
		_, e := n.call(status)
		if got := cniCode(e); got != code {
			t.Errorf("%s: code %d, want %d", when, got, code)
		}
	}
	n.start(n.fake)
	expect("never ready", types.ErrPluginNotAvailable)
	n.setReady(true)
	expect("ready", 0)
	n.setReady(false)
	expect("not any more", 0)
	now := time.Now()
	must(t, os.Chtimes(n.socket(), now, now)) // as showLife does
	n.end()
	<-n.finished
	n.start(n.fake)
	expect("next life", 0)
}

func cniCode(e *types.Error) uint {
	if e == nil {
		return 0
	}
	return e.Code
}

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
	entered := make(chan struct{})
	n.fake.onAttach(func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: n.socket(), Net: "unix"})
	must(t, err)
	conn.Close()
	go func() {
		defer close(done)
		f, err := os.Open("/proc/self/ns/net")
		if err != nil {
			return
		}
		defer f.Close()
		short, stop := context.WithTimeout(ctx, 300*time.Millisecond) // closes the connection when it ends
		defer stop()
		_, _ = wire.Call(short, n.socket(), time.Second, request("ADD", "c", "acme", "u", oneData), f)
	}()
	<-entered
	<-done
	cancel()
	n.fake.onAttach(nil)
	for end := time.Now().Add(5 * time.Second); len(n.records()) > 0; time.Sleep(10 * time.Millisecond) {
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
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				if random.IntN(5) == 0 {
					ctx, cancel = context.WithTimeout(context.Background(), time.Duration(random.IntN(3000))*time.Microsecond)
				}
				_, _ = wire.Call(ctx, n.socket(), time.Second, req, f)
				cancel()
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

func TestSocketIsPrivateAndReplacedOnlyWhenStale(t *testing.T) {
	n := newNode(t, nil)
	info, err := os.Stat(n.socket())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	second, err := New(Options{Socket: n.socket(), IPAM: n.ipam, Attacher: n.fake})
	must(t, err)
	if err := second.Serve(t.Context(), make(chan struct{}), n.confirmed); !errors.Is(err, ErrInUse) {
		t.Errorf("a second agent: %v", err)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil {
		t.Errorf("the first does not answer any more: %v", e)
	}
	if _, err := New(Options{Socket: "run/s", IPAM: n.ipam, Attacher: n.fake}); err == nil {
		t.Error("a relative socket is accepted")
	}
}

func TestPanicFailsOneCallAlone(t *testing.T) {
	n := newNode(t, nil)
	n.fake.onAttach(func(context.Context) error { panic("boom") })
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e == nil || e.Code != types.ErrInternal {
		t.Errorf("got %v", e)
	}
	n.fake.onAttach(nil)
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil || len(n.records()) != 0 {
		t.Errorf("after it: %v %v", e, n.records())
	}
}

func TestDefaultNetwork(t *testing.T) {
	state := testState()
	find := func(ns string) string {
		n, err := defaultNetwork(state, ns)
		if err != nil {
			return "error: " + err.Error()
		}
		return string(n.Kind) + " " + n.Key()
	}
	expect := func(ns, want string) {
		t.Helper()
		if got := find(ns); !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", ns, got, want)
		}
	}
	expect("beta", "TenantNetwork beta/default")
	expect("acme", "ClusterNetwork default")
	state.Networks = append(state.Networks, model.Network{Kind: model.DanmNet, Namespace: "beta", Name: "default"})
	expect("beta", "DanmNet beta/default")
	state.Tenants = []model.Tenant{{Name: "acme", Namespaces: []string{"acme"}, DefaultNetwork: "acme/data"}, {Name: "x", Namespaces: []string{"x"}, DefaultNetwork: "beta/secret"}}
	expect("acme", "TenantNetwork acme/data")
	expect("x", "error:")
	state.Networks[0].AllowedNamespaces = []string{"beta"}
	expect("gamma", "error:")
	if q := defaultRequest(model.Network{IPv4: &model.Subnet{}, IPv6: &model.Subnet{}}); q.IP.Mode != model.AddressDynamic || q.IP6.Mode != model.NoAddress {
		t.Errorf("dual stack default: %+v", q)
	}
	if q := defaultRequest(model.Network{IPv6: &model.Subnet{}}); q.IP6.Mode != model.AddressDynamic {
		t.Errorf("IPv6 default: %+v", q)
	}
}

func TestAddWithoutInterfacesUsesTheDefault(t *testing.T) {
	n := newNode(t, nil)
	r, e := n.call(request("ADD", "c", "acme", "u", ""))
	if e != nil || len(r.Interfaces) != 1 || r.Interfaces[0].Name != "eth0" || r.IPs[0].Address.String() != "10.2.0.1/24" {
		t.Errorf("%+v %v", r, e)
	}
}

func TestTenantFromTheConf(t *testing.T) {
	n := newNode(t, nil)
	req := request("ADD", "c", "", "", "")
	req.Args = ""
	req.Stdin = []byte(`{"cniVersion":"0.3.1","name":"danm","namespace":"acme","interfaces":` + oneData + `}`)
	if _, e := n.call(req); e != nil {
		t.Fatal(e)
	}
	r, err := n.ipam.Lookup("c")
	must(t, err)
	if r.PodUID != "c" || r.Namespace != "acme" {
		t.Errorf("record %+v", r)
	}
}

func TestDefaultRoutes(t *testing.T) {
	gw := func(s string) model.Attachment {
		return model.Attachment{Gateways: []netip.Addr{netip.MustParseAddr(s)}}
	}
	ats := []model.Attachment{{}, gw("10.0.0.1"), gw("10.1.0.1"), gw("fd00::1")}
	addDefaults(ats)
	if len(ats[1].Routes) != 1 || ats[1].Routes[0] != route("0.0.0.0/0", "10.0.0.1") || len(ats[2].Routes) != 0 || len(ats[3].Routes) != 1 {
		t.Errorf("%+v", ats)
	}
	ats = []model.Attachment{gw("10.0.0.1"), {Routes: []model.PodRoute{route("0.0.0.0/0", "10.1.0.1")}}}
	addDefaults(ats)
	if len(ats[0].Routes) != 0 {
		t.Errorf("a second default route: %+v", ats)
	}
}

func TestLegacyNames(t *testing.T) {
	n := model.Network{InterfacePrefix: "data"}
	c := call{conf: netConf{NamingScheme: "legacy"}}
	c.IfName = "eth0"
	if got := []string{interfaceName(0, n, c), interfaceName(2, n, c), interfaceName(2, model.Network{}, c)}; !slices.Equal(got, []string{"eth0", "data", "eth2"}) {
		t.Errorf("%v", got)
	}
}

func TestKeyedLock(t *testing.T) {
	var k keyedLock
	unlock, err := k.lock(t.Context(), "a")
	must(t, err)
	other, err := k.lock(t.Context(), "b")
	must(t, err)
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := k.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	unlock()
	again, err := k.lock(t.Context(), "a")
	must(t, err)
	again()
	if len(k.held) != 0 {
		t.Errorf("%d locks are kept", len(k.held))
	}
}

func FuzzConf(f *testing.F) {
	for _, s := range []string{`{}`, `{"cniVersion":"1.0.0","name":"n"}`, `{"cniVersion":"1.0.0","name":"n","interfaces":[{"network":"a"}]}`,
		`{"cniVersion":"1.1.0","name":"n","interfaces":null,"prevResult":{}}`, `[]`, `{"cniVersion":"1.0.0","name":"n","interfaces":[{}]}`} {
		f.Add([]byte(s), "K8S_POD_NAMESPACE=acme;K8S_POD_UID=u")
	}
	state := testState()
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		conf, err := parseConf(stdin)
		if err != nil {
			if e := cniError(err); e.Code == types.ErrInternal || e.Details == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		c := call{Request: wire.Request{ContainerID: "c", IfName: "eth0", Args: args}, conf: conf}
		if c.args, err = parseArgs(c.Request, conf); err != nil {
			return
		}
		p, err := choose(state, c)
		if err != nil {
			return
		}
		for _, it := range p.items {
			if !visible(it.network, c.args.namespace) || len(it.ifName) > 15 {
				t.Fatalf("namespace %q gets %s as %q", c.args.namespace, it.network.Key(), it.ifName)
			}
		}
	})
}
