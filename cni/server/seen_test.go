package server

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/model"
)

// hears notes what Options.Changed says.
type hears struct {
	mu   sync.Mutex
	said []string
}

func (h *hears) changed(sandbox string, attached bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, sandbox+map[bool]string{true: " attached", false: " gone"}[attached])
}

func (h *hears) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.said
	h.said = nil
	return out
}

// TestSeen: whoever publishes is told when there is something to tell, never before the links are there, and what it is.
func TestSeen(t *testing.T) {
	n, h := newNode(t, nil), &hears{}
	n.restart(func(o *Options) { o.Changed = h.changed })
	n.fake.onAttach(func(context.Context) error {
		if _, has, complete, err := n.server.Seen("c"); !has || complete || err != nil || len(h.take()) != 0 {
			t.Errorf("in the middle of an ADD: %v %v %v", has, complete, err)
		}
		return nil
	})
	if _, has, _, _ := n.server.Seen("c"); has {
		t.Error("seen before it was there")
	}
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	a, has, complete, err := n.server.Seen("c")
	if !has || !complete || err != nil || a.Pod != "pod-c" || a.Namespace != "acme" || a.PodUID != "u" || a.Sandbox != "c" || len(a.Interfaces) != 1 || !a.Interfaces[0].Addresses[0].IsValid() {
		t.Errorf("%+v %v %v %v", a, has, complete, err)
	}
	if got := h.take(); !slices.Equal(got, []string{"c attached"}) {
		t.Error(got)
	}
	if got := n.server.Sandboxes("u"); !slices.Equal(got, []string{"c"}) || len(n.server.Sandboxes("other")) != 0 || len(n.server.Sandboxes("")) != 1 {
		t.Error(got)
	}
	n.fake.onAttach(func(context.Context) error { return errInjected })
	if _, e := n.call(request("ADD", "d", "acme", "v", oneData)); e == nil {
		t.Fatal("no failure")
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	if got := h.take(); !slices.Equal(got, []string{"d gone", "c gone"}) {
		t.Error(got)
	}
	if _, has, _, _ := n.server.Seen("c"); has || len(n.server.Sandboxes("")) != 0 {
		t.Error("seen after its end")
	}
}

// TestCompare: after a start nothing is told of a sandbox until it was looked at; what differs is told with what differs, and what has
// gone, or is busy, is not taken for different.
func TestCompare(t *testing.T) {
	n, h := newNode(t, nil), &hears{}
	for _, c := range []string{"a", "b", "c", "d"} {
		if _, e := n.call(request("ADD", c, "acme", "u-"+c, oneData)); e != nil {
			t.Fatal(e)
		}
	}
	n.restart(func(o *Options) { o.Changed = h.changed })
	if _, has, complete, _ := n.server.Seen("a"); !has || complete {
		t.Errorf("%v %v", has, complete)
	}
	n.fake.set(func(f *fakeAttacher) { f.differs, f.blind = "b", "c" })
	unlock, free := n.server.locks.tryLock("sandbox/d")
	if !free {
		t.Fatal("busy")
	}
	got := n.server.Compare(t.Context(), []string{"a", "b", "c", "d", "never"})
	slices.Sort(got.Again)
	if got.Same != 1 || got.Gone != 0 || !slices.Equal(got.Again, []string{"c", "d"}) || !errors.Is(got.Unseen, errInjected) || len(got.Differs) != 1 || !errors.Is(got.Differs["acme/pod-b"], attach.ErrMismatch) ||
		!strings.Contains(got.Differs["acme/pod-b"].Error(), "container b") {
		t.Errorf("%+v", got)
	}
	unlock()
	said := h.take()
	slices.Sort(said)
	if !slices.Equal(said, []string{"a attached", "b attached"}) {
		t.Error(said)
	}
	if _, has, complete, _ := n.server.Seen("b"); !has || !complete {
		t.Errorf("what differs is there all the same: %v %v", has, complete)
	}
	if _, has, complete, _ := n.server.Seen("c"); !has || complete {
		t.Errorf("nothing was seen of c: %v %v", has, complete)
	}
	n.fake.set(func(f *fakeAttacher) { f.differs, f.blind = "", "" })
	if got = n.server.Compare(t.Context(), got.Again); got.Same != 2 || len(got.Again) != 0 || got.Unseen != nil {
		t.Errorf("%+v", got)
	}
	n.server.opts.BootID = "another"
	if got = n.server.Compare(t.Context(), n.server.Sandboxes("")); got.Same != 4 { // records without a boot prove nothing
		t.Errorf("%+v", got)
	}
}

func TestCompareAfterAReboot(t *testing.T) {
	n := newNode(t, nil)
	n.restart(func(o *Options) { o.BootID = "one" })
	if _, e := n.call(request("ADD", "a", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		t.Skip("no network namespaces: " + err.Error())
	}
	if got := n.server.Compare(t.Context(), []string{"a"}); got.Same != 1 {
		t.Errorf("%+v", got)
	}
	n.restart(func(o *Options) { o.BootID = "two" })
	if got := n.server.Compare(t.Context(), []string{"a"}); got.Gone != 1 || got.Same != 0 || len(got.Differs) != 0 {
		t.Errorf("%+v", got)
	}
	if _, has, complete, _ := n.server.Seen("a"); !has || complete {
		t.Error("what was before the boot is told as if it were there")
	}
}

// TestAnsweredByAPlugin: what another plugin says counts, of the Pod's end alone.
func TestAnsweredByAPlugin(t *testing.T) {
	at := model.Attachment{IfName: "eth1", MTU: 1400, Delegate: &model.DelegateCall{}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}
	one := func(text string, of *int) *types100.IPConfig {
		p := netip.MustParsePrefix(text)
		return &types100.IPConfig{Address: ipNet(p), Interface: of}
	}
	r := &types100.Result{
		Interfaces: []*types100.Interface{{Name: "veth0", Mac: "host"}, {Name: "other", Sandbox: "/n", Mac: "other"}, {Name: "eth1", Sandbox: "/n", Mac: "pod"}},
		IPs:        []*types100.IPConfig{one("10.5.0.1/24", types100.Int(2)), one("10.5.0.2/24", types100.Int(0)), one("2001:db8::1/64", nil)},
	}
	got := answered(at, r)
	if got.mac != "pod" || got.mtu != 1400 || !slices.Equal(got.addresses, []netip.Prefix{netip.MustParsePrefix("10.5.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}) {
		t.Errorf("%+v", got)
	}
	if got = answered(at, nil); got.mac != "" || got.mtu != 1400 || got.addresses != nil {
		t.Errorf("%+v", got)
	}
	r.Interfaces[2].Mtu = 9000
	if got = answered(at, r); got.mtu != 9000 {
		t.Errorf("%+v", got)
	}
}
