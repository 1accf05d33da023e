package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
)

// Default routes go where the Pod wants them, away from what other plugins set: of those families alone, and also by a gateway that only
// the Pod knows. What plugins and the runtime hear of afterwards is what is.
func TestDefaultRoutesBesidePlugins(t *testing.T) {
	n, p, a, status := npwgNode(t)
	for i, c := range []struct {
		networks, instead string
		rerouted          []string // without the sandbox
		routes            string   // the answer's, those to anywhere
	}{
		{`[{"name":"main"}]`, "", nil, "10.244.0.1"},
		{`[{"name":"main"},{"name":"data","default-route":["10.0.0.99"]}]`, "", []string{"net1 [0.0.0.0/0] []"}, "10.0.0.99"},
		{`[{"name":"main"},{"name":"data","default-route":["fd00::99"]}]`, "", []string{"net1 [::/0] []"}, "10.244.0.1 fd00::99"},
		{`[{"name":"main"},{"name":"data","default-route":[]}]`, "", []string{"net1 [0.0.0.0/0 ::/0] []"}, "10.0.0.254 fd00::fe"},
		{`[{"name":"main"},{"name":"data","default-route":["10.0.0.99"]},{"name":"data","default-route":["fd00::99"]}]`, "", []string{"net1 [0.0.0.0/0 ::/0] []"}, "10.0.0.99 fd00::99"},
		{`[{"name":"main","default-route":["10.244.0.9"]}]`, "", []string{"net1 [0.0.0.0/0] [10.244.0.9]"}, "10.244.0.9"},
		{`[{"name":"main","default-route":["10.244.0.9"]},{"name":"able"}]`, "acme/data", []string{"net1 [0.0.0.0/0] [10.244.0.9]", "net2 [0.0.0.0/0] []"}, "fd00::fe 10.244.0.9"},
		{`[{"name":"main","default-route":["10.244.0.9"]},{"name":"able","default-route":["fd00::9"]}]`, "", []string{"net1 [0.0.0.0/0 ::/0] [10.244.0.9]", "net2 [0.0.0.0/0 ::/0] [fd00::9]"}, "10.244.0.9 fd00::9"},
	} {
		a.set(npwg(c.networks, c.instead), nil)
		sandbox := fmt.Sprintf("c%d", i)
		before := len(n.fake.reroutes())
		r, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, ""))
		if e != nil {
			t.Errorf("%s: %v", c.networks, e)
			continue
		}
		var want, routes []string
		for _, line := range c.rerouted { // each plugin's go before the next plugin is called
			want = append(want, sandbox+" "+line[:strings.LastIndex(line, "[")]+"[]")
		}
		for _, line := range c.rerouted {
			want = append(want, sandbox+" "+line)
		}
		for _, route := range r.Routes {
			if ones, _ := route.Dst.Mask.Size(); ones == 0 {
				routes = append(routes, route.GW.String())
			}
		}
		if got := n.fake.reroutes()[before:]; !slices.Equal(got, want) || strings.Join(routes, " ") != c.routes {
			t.Errorf("%s: rerouted %q, want %q; routes by %q, want %q", c.networks, got, want, routes, c.routes)
		}
		again, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, ""))
		if e != nil || fmt.Sprint(again.Routes) != fmt.Sprint(r.Routes) {
			t.Errorf("%s: again: %v %v", c.networks, e, again.Routes)
		}
		if _, e := n.call(request("CHECK", sandbox, "acme", "u-"+sandbox, "")); e != nil {
			t.Errorf("%s: CHECK: %v", c.networks, e)
		}
	}
	// The plugin hears of what is; a network-status, too; and CHECK tells of routes that came back.
	a.set(npwg(`[{"name":"main"},{"name":"data","default-route":["10.0.0.99"]}]`, ""), nil)
	if _, e := n.call(request("ADD", "seen", "acme", "u-seen", "")); e != nil {
		t.Fatal(e)
	}
	n.end() // what is to be told of a Pod is told by then
	if all := status.all(); !strings.Contains(all[len(all)-1], `"10.0.0.99"`) || strings.Contains(all[len(all)-1], `"10.244.0.1"`) {
		t.Errorf("%s", all[len(all)-1])
	}
	n.startWith(n.fake, func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{p.dir}, CacheDir: filepath.Join(n.dir, "delegates")})
		o.Pod = a.answer
	})
	if _, e := n.call(request("CHECK", "seen", "acme", "u-seen", "")); e != nil {
		t.Fatal(e)
	}
	if previous := fmt.Sprint(p.conf("own.CHECK")["prevResult"]); strings.Contains(previous, "0.0.0.0/0") || !strings.Contains(previous, "10.244.0.5/24") {
		t.Errorf("CHECK with %s", previous)
	}
	n.fake.set(func(f *fakeAttacher) { f.stray = fmt.Errorf("it came back: %w", attach.ErrMismatch) })
	if _, e := n.call(request("CHECK", "seen", "acme", "u-seen", "")); e == nil || e.Details != string(diag.PodCheckFailed) || !strings.Contains(e.Msg+e.Details, "it came back") {
		t.Errorf("CHECK: %+v", e)
	}
	// What cannot be rerouted is no Pod's, and nothing stays.
	n.fake.set(func(f *fakeAttacher) { f.stray = errors.New("no way there") })
	a.set(npwg(`[{"name":"main","default-route":["10.0.0.99"]}]`, ""), nil)
	p.log()
	_, e := n.call(request("ADD", "failed", "acme", "u-failed", ""))
	if e == nil || e.Details != string(diag.PodAttachFailed) || !strings.Contains(e.Msg, "interface net1 on network acme/main: no way there") {
		t.Errorf("%+v", e)
	}
	if log := p.log(); !slices.Contains(log, "own DEL failed net1 /proc/self/ns/net") || slices.Contains(n.records(), "failed") {
		t.Errorf("%q, records %q", log, n.records())
	}
}

// An agent that died before the plugins had answered, or before it had kept what the routes have become, tells no runtime that all is well
// that is not.
func TestDefaultRoutesAfterADeath(t *testing.T) {
	n, _, a, _ := npwgNode(t)
	a.set(npwg(`[{"name":"data"},{"name":"main","default-route":["10.244.0.9"]}]`, "acme/able"), nil)
	add := request("ADD", "c", "acme", "u-c", "")
	first, e := n.call(add)
	if e != nil {
		t.Fatal(e)
	}
	cached := filepath.Join(n.dir, "delegates", "results", "main-c-net2")
	text, err := os.ReadFile(cached)
	must(t, err)
	asAnswered := strings.Replace(string(text), `"gw":"10.244.0.9"`, `"gw":"10.244.0.1"`, 1)
	if asAnswered == string(text) {
		t.Fatalf("not kept: %s", text)
	}
	must(t, os.WriteFile(cached, []byte(asAnswered), 0o600))
	again, e := n.call(add)
	if e != nil || fmt.Sprint(again.Routes) != fmt.Sprint(first.Routes) {
		t.Errorf("%v: routes %v, at first %v", e, again.Routes, first.Routes)
	}
	must(t, os.Remove(cached))
	if _, e := n.call(add); e == nil || e.Code != CodeAlreadyAttached || !strings.Contains(e.Msg, "interface net2 on network acme/main: its plugin has not answered") {
		t.Errorf("%+v", e)
	}
	if _, e := n.call(request("CHECK", "c", "acme", "u-c", "")); e == nil || e.Code != CodeCheckFailed {
		t.Errorf("%+v", e)
	}
	if got := n.server.Compare(t.Context(), []string{"c"}); len(got.Differs) != 1 {
		t.Errorf("%+v", got)
	}
	must(t, os.WriteFile(cached, text, 0o600))
	n.fake.set(func(f *fakeAttacher) { f.stray = errors.New("the dump was interrupted") }) // unknown is not different
	if got := n.server.Compare(t.Context(), []string{"c"}); len(got.Differs) != 0 || !slices.Equal(got.Again, []string{"c"}) || !strings.Contains(fmt.Sprint(got.Unseen), "the dump was interrupted") {
		t.Errorf("%+v", got)
	}
}

// Where a plugin's answer cannot be kept, as on a full disk, there is no Pod, and nothing of it is left.
func TestDefaultRoutesOnAFullDisk(t *testing.T) {
	n, p, a, _ := npwgNode(t)
	a.set(npwg(`[{"name":"main","default-route":["10.244.0.9"]}]`, ""), nil)
	sum := sha256.Sum256([]byte("main-c-net1")) // see delegate.Keep
	must(t, os.MkdirAll(filepath.Join(n.dir, "delegates", "fresh-"+hex.EncodeToString(sum[:16]), "x"), 0o700))
	_, e := n.call(request("ADD", "c", "acme", "u-c", ""))
	if e == nil || e.Details != string(diag.PodAttachFailed) || !strings.Contains(e.Msg, "interface net1 on network acme/main: keep what a plugin answered") {
		t.Errorf("%+v", e)
	}
	results, err := os.ReadDir(filepath.Join(n.dir, "delegates", "results"))
	if err != nil || len(results) != 0 || len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 || !slices.Contains(p.log(), "own DEL c net1 /proc/self/ns/net") {
		t.Errorf("%v: results %v, records %v, links of %v", err, results, n.records(), n.fake.sandboxes())
	}
}

// What a plugin has answered loses the default routes that its interfaces have lost, and no others; all interfaces that it made in the Pod
// are looked at.
func TestAnswersWithOtherDefaultRoutes(t *testing.T) {
	r := &types100.Result{}
	must(t, json.Unmarshal([]byte(`{"cniVersion":"1.1.0","interfaces":[{"name":"host"},{"name":"b","sandbox":"/n"},{"name":"a","sandbox":"/n"}],"ips":[],
		"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"},{"dst":"0.0.0.0/0","gw":"10.0.0.2","table":100},{"dst":"0.0.0.0/0","gw":"10.0.0.3","table":254},{"dst":"0.0.0.0/1","gw":"10.0.0.4"},{"dst":"::/0","gw":"fd00::1"}]}`), r))
	gateways := func(r *types100.Result) (out []string) {
		for _, route := range r.Routes {
			out = append(out, route.GW.String())
		}
		return out
	}
	for _, c := range []struct {
		call *model.DelegateCall
		want string
	}{
		{&model.DelegateCall{}, "[10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 fd00::1]"},
		{&model.DelegateCall{NoDefault: anywheres[:1]}, "[10.0.0.2 10.0.0.4 fd00::1]"},
		{&model.DelegateCall{NoDefault: anywheres, Gateways: []netip.Addr{netip.MustParseAddr("fd00::9")}}, "[10.0.0.2 10.0.0.4 fd00::9]"},
	} {
		once := withDefaults(r, c.call)
		if twice := withDefaults(once, c.call); fmt.Sprint(gateways(once)) != c.want || fmt.Sprint(gateways(twice)) != c.want {
			t.Errorf("%v %v, want %s", gateways(once), gateways(twice), c.want)
		}
	}
	if got := gateways(r); len(got) != 5 {
		t.Errorf("the answer itself changed: %v", got)
	}
	if got := inPod(model.Attachment{IfName: "a"}, r); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	at, each := model.Attachment{IfName: "a", Delegate: &model.DelegateCall{NoDefault: anywheres[:1]}}, []string{}
	must(t, onDefaults(at, r, []netip.Addr{netip.MustParseAddr("10.0.0.9")}, func(ifName string, families []netip.Prefix, gateways []netip.Addr) error {
		each = append(each, fmt.Sprint(ifName, families, gateways))
		return nil
	}))
	if !slices.Equal(each, []string{"a[0.0.0.0/0] [10.0.0.9]", "b[0.0.0.0/0] []"}) {
		t.Errorf("%q", each)
	}
	if got := inPod(model.Attachment{IfName: "a"}, nil); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%q", got)
	}
}

// Routes of a network that lead everywhere give way too, and those that do not stay.
func TestDefaultRoutesAreTakenFromOthers(t *testing.T) {
	shared := []model.PodRoute{route("0.0.0.0/0", "10.0.0.1"), route("10.9.0.0/16", "10.0.0.2"), route("::/0", "fd00::1")}
	ats := []model.Attachment{{Routes: shared}, {Routes: []model.PodRoute{route("0.0.0.0/0", "10.1.0.1")}}}
	takeDefaults(ats, 1, []netip.Addr{netip.MustParseAddr("10.1.0.9")})
	if d := cmp.Diff("[{10.9.0.0/16 10.0.0.2} {::/0 fd00::1}] [{0.0.0.0/0 10.1.0.9}]", fmt.Sprint(ats[0].Routes, " ", ats[1].Routes)); d != "" {
		t.Error(d)
	}
	if shared[0] != route("0.0.0.0/0", "10.0.0.1") {
		t.Errorf("the network's own list changed: %v", shared)
	}
}

func TestMACsAndDefaultRoutesOfSelections(t *testing.T) {
	n, _, a, _ := npwgNode(t)
	routes := func(sandbox string) string {
		var out []string
		for _, at := range n.fake.attached(sandbox) {
			for _, r := range at.Routes {
				if r.To.Bits() == 0 {
					out = append(out, at.IfName+" "+r.Via.String())
				}
			}
		}
		return strings.Join(out, ", ")
	}
	for i, c := range []struct{ networks, instead, want string }{
		{"data", "", ""}, // beside the default network only who says so
		{"default/shared", "acme/data", "eth0 10.0.0.254, eth0 fd00::fe"},
		{`[{"name":"data"},{"name":"shared","namespace":"default","default-route":["10.3.0.1"]}]`, "acme/data", "eth0 fd00::fe, net2 10.3.0.1"},
		{`[{"name":"data","default-route":["10.0.0.99"]}]`, "", "net1 10.0.0.99"},
		{`[{"name":"data","default-route":["10.0.0.99"]},{"name":"data","default-route":["fd00::99"]}]`, "", "net1 10.0.0.99, net2 fd00::99"},
		{`[{"name":"data"},{"name":"data","default-route":[]}]`, "", "net2 10.0.0.254, net2 fd00::fe"},
		{`[{"name":"data","default-route":[]}]`, "acme/data", "net1 10.0.0.254, net1 fd00::fe"},
	} {
		a.set(npwg(c.networks, c.instead), nil)
		sandbox := fmt.Sprintf("c%d", i)
		if _, e := n.call(request("ADD", sandbox, "acme", "u"+sandbox, "")); e != nil || routes(sandbox) != c.want {
			t.Errorf("%s: %v, %s, want %s", c.networks, e, routes(sandbox), c.want)
		}
	}
	a.set(npwg(`[{"name":"data","mac":"0A:00:00:00:00:01"}]`, ""), nil)
	r, e := n.call(request("ADD", "m", "acme", "um", ""))
	if e != nil || r.Interfaces[1].Mac != "0a:00:00:00:00:01" || r.Interfaces[0].Mac == r.Interfaces[1].Mac {
		t.Errorf("%v %+v", e, r.Interfaces)
	}
}
