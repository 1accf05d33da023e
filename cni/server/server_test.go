package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/diag"
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
	gc := func(text string) wire.Request { return wire.Request{Command: "GC", Stdin: []byte(text)} }
	rows := []struct {
		name string
		req  wire.Request
		code uint
		diag diag.Code
		text string
	}{
		{"unknown network", add(`[{"tenantNetwork":"dato"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, "TenantNetwork data"},
		{"another kind", add(`[{"clusterNetwork":"data"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, `ClusterNetwork "data" does not exist`},
		{"a cluster network as one's own", add(`[{"network":"shared"}]`), CodeNetworkUnknown, diag.PodNetworkUnknown, `DanmNet "shared" does not exist`},
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
		{"GC below 1.1.0", gc(`{"cniVersion":"1.0.0","name":"danm","cni.dev/valid-attachments":[]}`), types.ErrIncompatibleCNIVersion, diag.ConfInvalid, "GC needs cniVersion 1.1.0"},
		{"GC that does not say who lives", gc(`{"cniVersion":"1.1.0","name":"danm"}`), types.ErrInvalidNetworkConfig, diag.ConfInvalid, "without cni.dev/valid-attachments"},
		{"GC of something else", gc(`{"cniVersion":"1.1.0","name":"danm","cni.dev/valid-attachments":{"holder":"eth0"}}`), types.ErrDecodingFailure, diag.ConfInvalid, "decode cni.dev/valid-attachments"},
		{"GC with nobody's attachment", gc(`{"cniVersion":"1.1.0","name":"danm","cni.dev/valid-attachments":[{"containerID":"holder","ifname":"eth0"},{"ifname":"eth0"}]}`), types.ErrInvalidNetworkConfig, diag.ConfInvalid, "[1] names no container"},
		{"STATUS below 1.1.0", with(func(r *wire.Request) { r.Command, r.Stdin = "STATUS", []byte(`{"cniVersion":"1.0.0","name":"n"}`) }), types.ErrIncompatibleCNIVersion, diag.ConfInvalid, "1.1.0"},
		{"CHECK below 0.4.0", with(func(r *wire.Request) {
			r.Command, r.Stdin = "CHECK", []byte(`{"cniVersion":"0.3.1","name":"n"}`)
		}), types.ErrIncompatibleCNIVersion, diag.ConfInvalid, "CHECK needs cniVersion 0.4.0"},
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
