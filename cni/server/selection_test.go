package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
)

// npwgNode has networks that are rendered as definitions, definitions that were made by hand, and plugins with and without capabilities.
func npwgNode(t *testing.T) (*node, *plugins, *oracle, *reports) {
	n := newNode(t, nil)
	p := &plugins{t, t.TempDir()}
	p.install("own", `echo '{"cniVersion":"1.0.0","interfaces":[{"name":"host0"},{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'","mac":"02:00:00:00:00:09"}],"ips":[{"address":"10.244.0.5/24","gateway":"10.244.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0","gw":"10.244.0.1"}],"dns":{"nameservers":["10.96.0.10"]}}'`)
	n.networks(func(list []model.Network) []model.Network {
		for i := range list {
			list[i].NAD = list[i].Name != "default" && list[i].Name != "port"
			if list[i].Name == "data" {
				list[i].Reserved = []model.Reservation{{Name: "vip", IP: netip.MustParseAddr("10.0.0.88")}}
			}
		}
		byHand := func(namespace, name, conf string) model.Network {
			out := model.Network{Kind: model.Definition, NAD: true, Namespace: namespace, Name: name, NetworkID: name, Type: model.MACVLAN, Device: "eth0", SpaceDomain: name}
			if conf != "" {
				out.Type, out.Device, out.Delegate = "own", "", &model.Delegate{ConfList: conf}
			}
			return out
		}
		return append(list,
			byHand("acme", "hand", ""), byHand("beta", "hand", ""), byHand("default", "all", ""), byHand("kube-system", "main", ""),
			byHand("acme", "main", `{"cniVersion":"1.0.0","plugins":[{"type":"own"}]}`),
			byHand("acme", "able", `{"cniVersion":"1.0.0","plugins":[{"type":"own","args":{"cni":{"a":1,"b":1}}},{"type":"own","capabilities":{"ips":true,"mac":true,"portMappings":true,"bandwidth":false}}]}`),
			model.Network{Kind: model.TenantNetwork, NAD: true, Namespace: "acme", Name: "ipvlan", NetworkID: "i", Type: model.IPVLAN, Device: "eth0", SpaceDomain: "i"})
	})
	a, r := &oracle{}, &reports{}
	n.restart(func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{p.dir}, ConfDir: p.dir, CacheDir: filepath.Join(n.dir, "delegates")})
		o.Pod, o.Report = a.answer, r.take
	})
	return n, p, a, r
}

// reports are network-statuses as the API would get them.
type reports struct {
	mu   sync.Mutex
	got  []string // "namespace/name uid text"
	fail []error  // the next answers
	took time.Duration
}

func (r *reports) take(_ context.Context, namespace, name, uid, status string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	time.Sleep(r.took)
	if len(r.fail) > 0 {
		err := r.fail[0]
		r.fail = r.fail[1:]
		return err
	}
	r.got = append(r.got, fmt.Sprintf("%s/%s %s %s", namespace, name, uid, status))
	return nil
}

// answer is how the next are answered.
func (r *reports) answer(took time.Duration, fail ...error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took, r.fail = took, fail
}

func (r *reports) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func npwg(networks, instead string) Pod {
	p := Pod{UID: "api-uid", Annotations: map[string]string{}}
	if networks != "" {
		p.Annotations[annotation.NPWGKey] = networks
	}
	if instead != "" {
		p.Annotations[annotation.DefaultNetworkKey] = instead
	}
	return p
}

// shown is a result as "name address …".
func shown(r types100.Result) (out []string) {
	for i, l := range r.Interfaces {
		text := l.Name
		for _, ip := range r.IPs {
			if *ip.Interface == i {
				text += " " + ip.Address.String()
			}
		}
		out = append(out, text)
	}
	return out
}

func TestPodsAskInTheNPWGsDialect(t *testing.T) {
	n, _, a, _ := npwgNode(t)
	for i, c := range []struct {
		name, networks, instead string
		want                    []string
		code                    diag.Code
		says                    string
	}{
		{"a tenant's network and the cluster's", "data,default/shared", "", []string{"eth0 10.2.0.1/24", "net1 10.0.0.10/24 fd00::10/64", "net2 10.3.0.1/24"}, "", ""},
		{"one twice, with names", "data@x0,data", "", []string{"eth0 10.2.0.2/24", "x0 10.0.0.11/24 fd00::11/64", "net2 10.0.0.12/24 fd00::12/64"}, "", ""},
		{"made by hand, here and for everyone", "hand,default/all", "", []string{"eth0 10.2.0.3/24", "net1", "net2"}, "", ""},
		{"by address", `[{"name":"data","ips":["10.0.0.77/8"]}]`, "", []string{"eth0 10.2.0.4/24", "net1 10.0.0.77/24"}, "", ""},
		{"in the default network's place", "", "acme/data", []string{"eth0 10.0.0.13/24 fd00::13/64"}, "", ""},
		{"in its place, and others", "default/shared", `[{"name":"data","namespace":"acme","ips":["fd00::99"],"interface":"eth0"}]`, []string{"eth0 fd00::99/64", "net1 10.3.0.2/24"}, "", ""},
		{"the system's in its place", "", "main", []string{"eth0"}, "", ""},
		{"nothing", "[]", "", []string{"eth0 10.2.0.5/24"}, "", ""},
		{"of another tenant", "beta/secret", "", nil, diag.PodNetworkUnknown, `"beta/secret" does not exist`},
		{"made by another by hand", "beta/hand", "", nil, diag.PodNetworkUnknown, `"beta/hand"`},
		{"the system's beside it", "kube-system/main", "", nil, diag.PodNetworkUnknown, `"kube-system/main"`},
		{"what there is", "none", "", nil, diag.PodNetworkUnknown, `there are: acme/able, acme/data, acme/hand, acme/ipvlan, acme/l2, acme/longprefix, acme/main, acme/nodevice, acme/small, default/all, default/shared`},
		{"a name that the kernel completes", "data@net%d", "", nil, diag.PodInterfaceName, "net%d"},
		{"a name that the kernel completes, in JSON", `[{"name":"data","interface":"net%d"}]`, "", nil, diag.PodInterfaceName, "net%d"},
		{"another name for the default network", "", "acme/data@ovn0", nil, diag.PodInterfaceName, "ovn0"},
		{"a router's MAC on the cluster's network", `[{"name":"shared","namespace":"default","mac":"00:1b:21:00:00:01"}]`, "", nil, diag.PodSelectionRefused, "locally administered"},
		{"default routes that nobody knows", `[{"name":"hand","default-route":[]}]`, "", nil, diag.PodSelectionRefused, "no gateway"},
		{"a default route without an address", `[{"name":"shared","namespace":"default","default-route":["fd00::1"]}]`, "", nil, diag.PodSelectionRefused, "no address of that family"},
		{"a default route beside a plugin's", `[{"name":"data","default-route":[]},{"name":"main"}]`, "", nil, diag.PodSelectionRefused, "net2 are set by the plugin own"},
		{"for others alone", "beta/closed", "", nil, diag.PodNetworkUnknown, `"beta/closed"`},
		{"not rendered as a definition", "port", "", nil, diag.PodNetworkUnknown, `"acme/port"`},
		{"the cluster's in the wrong place", "shared", "", nil, diag.PodNetworkUnknown, `"acme/shared"`},
		{"an address outside", `[{"name":"data","ips":["10.1.0.1"]}]`, "", nil, diag.PodSelectionRefused, "10.1.0.1 is in no subnet"},
		{"an address that is reserved", `[{"name":"data","ips":["10.0.0.88"]}]`, "", nil, diag.PodAddressUnusable, "reserved"},
		{"two addresses", `[{"name":"data","ips":["10.0.0.78","10.0.0.79"]}]`, "", nil, diag.PodSelectionRefused, "second address"},
		{"a name twice", "data@x0,data@x0", "", nil, diag.PodInterfaceName, "x0"},
		{"the default network's name", "data@eth0", "", nil, diag.PodInterfaceName, "eth0"},
		{"a long name", "data@averyverylongname", "", nil, diag.PodInterfaceName, "15"},
		{"ports where nobody maps them", `[{"name":"data","portMappings":[{"hostPort":1,"containerPort":1}]}]`, "", nil, diag.PodSelectionRefused, "portMappings"},
		{"a MAC that the device has", `[{"name":"ipvlan","mac":"02:00:00:00:00:01"}]`, "", nil, diag.PodSelectionRefused, "have their device's address"},
		{"a capability that is not declared", `[{"name":"able","bandwidth":{"ingressRate":1}}]`, "", nil, diag.PodSelectionRefused, "bandwidth"},
		{"routes that are a plugin's", `[{"name":"able","default-route":["10.0.0.1"]}]`, "", nil, diag.PodSelectionRefused, "own sets the routes"},
		{"a slip", `[{"nam":"data"}]`, "", nil, diag.AnnotationReference, annotation.NPWGKey},
	} {
		a.set(npwg(c.networks, c.instead), nil)
		sandbox := fmt.Sprintf("c%d", i)
		r, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, ""))
		if c.code == "" {
			if got := shown(r); e != nil || !slices.Equal(got, c.want) {
				t.Errorf("%s: %v %q", c.name, e, got)
			}
			continue
		}
		if e == nil || e.Details != string(c.code) || !strings.Contains(e.Msg, c.says) || e.Code == types.ErrInternal {
			t.Errorf("%s: %+v", c.name, e)
		}
		if slices.Contains(n.records(), sandbox) {
			t.Errorf("%s: something is recorded", c.name)
		}
	}
}

// What another plugin is called with: what the Pod says, as far as the plugin declares it.
func TestSelectionsReachPlugins(t *testing.T) {
	n, p, a, _ := npwgNode(t)
	a.set(npwg(`[{"name":"able","ips":["10.9.0.5/24"],"mac":"02:00:00:00:00:AB","portMappings":[{"hostPort":80,"containerPort":8080}],"cni-args":{"b":{"c":2}}}]`, ""), nil)
	req := request("ADD", "c", "acme", "u", "")
	req.Stdin = []byte(strings.Replace(string(req.Stdin), "{", `{"runtimeConfig":{"portMappings":[{"hostPort":443}]},`, 1)) // for eth0
	if _, e := n.call(req); e != nil {
		t.Fatal(e)
	}
	last := p.conf("own.ADD") // the second plugin's, which declares
	want := `map[ips:[10.9.0.5/24] mac:02:00:00:00:00:ab portMappings:[map[containerPort:8080 hostPort:80]]]`
	if got := fmt.Sprint(last["runtimeConfig"]); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprint(last["args"]); got != "map[cni:map[b:map[c:2]]]" {
		t.Error(got)
	}
	rec, err := n.ipam.Lookup("c")
	must(t, err)
	if !strings.Contains(string(rec.Data), `"cni":{"a":1,"b":{"c":2}}`) { // the first plugin's
		t.Errorf("%s", rec.Data)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	if del := p.conf("own.DEL"); fmt.Sprint(del["args"]) != "map[cni:map[a:1 b:map[c:2]]]" { // in reverse order: the first plugin is the last
		t.Errorf("%v", del)
	}
}

// The runtime's capabilities are the first interface's; what the Pod says of it goes before.
func TestSelectionsBesideTheRuntimesCapabilities(t *testing.T) {
	list := json.RawMessage(`{"plugins":[{"type":"a","capabilities":{"mac":true,"portMappings":true}}]}`)
	runtime := map[string]any{"portMappings": 1, "bandwidth": 2, "mac": "another"}
	_, got, err := callWith(list, &model.Selection{MAC: "02:00:00:00:00:01"}, model.Network{}, runtime)
	if err != nil || fmt.Sprint(got) != "map[bandwidth:2 mac:02:00:00:00:00:01 portMappings:1]" || runtime["mac"] != "another" {
		t.Errorf("%v %v, %v", got, err, runtime)
	}
	if _, got, err := callWith(list, nil, model.Network{}, runtime); err != nil || len(got) != 3 {
		t.Errorf("%v %v", got, err)
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

// The text is what Multus 4 wrote for the same results, but for the names (measured; it indents by four and joins with commas).
func TestNetworkStatus(t *testing.T) {
	parse := func(text string) *types100.Result {
		t.Helper()
		r := &types100.Result{}
		must(t, json.Unmarshal([]byte(text), r))
		return r
	}
	at := []chosen{
		{request: model.InterfaceRequest{Kind: model.ClusterNetwork, Network: "def"}, ifName: "eth0"},
		{request: model.InterfaceRequest{Kind: model.Definition, Network: "hl-a", Selection: &model.Selection{Namespace: "default"}}, ifName: "net1"},
	}
	got, err := statusOf(at, []*types100.Result{
		parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"veth1"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],"ips":[{"address":"10.110.0.42/24","interface":2}]}`),
		parse(`{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mac":"02:00:00:00:00:02","mtu":1400,"sandbox":"/n"}],"ips":[{"address":"10.70.0.2/24"},{"address":"fd00::2/64","interface":0}],"routes":[{"dst":"0.0.0.0/0","gw":"10.70.0.1"},{"dst":"10.0.0.0/8","gw":"10.70.0.9"},{"dst":"::/0"}],"dns":{"nameservers":["10.0.0.9"],"search":["a.b"]}}`),
	}, []json.RawMessage{[]byte(`{"type":["a plugin's mistake"]}`), []byte(`{"version":"1.1.0","pci":{"rdma-device":"mlx5_1","pci-address":"0000:03:02.1"},"type":"pci","more":1}`)})
	want := `[{
    "name": "def",
    "interface": "eth0",
    "ips": [
        "10.110.0.42"
    ],
    "mac": "02:00:00:00:00:01",
    "default": true,
    "dns": {}
},{
    "name": "default/hl-a",
    "interface": "net1",
    "ips": [
        "10.70.0.2",
        "fd00::2"
    ],
    "mac": "02:00:00:00:00:02",
    "mtu": 1400,
    "dns": {
        "nameservers": [
            "10.0.0.9"
        ],
        "search": [
            "a.b"
        ]
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0",
        "pci": {
            "pci-address": "0000:03:02.1",
            "rdma-device": "mlx5_1"
        }
    },
    "gateway": [
        "10.70.0.1"
    ]
}]`
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	// A plugin that made two interfaces: the one with the gateway is the default one; the host's addresses are nobody's.
	two := parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"h"},{"name":"a","sandbox":"/n"},{"name":"b","sandbox":"/n"}],"ips":[{"address":"10.0.0.9/24","gateway":"10.0.0.1","interface":0},{"address":"10.0.0.1/24","interface":1},{"address":"10.0.1.1/24","gateway":"10.0.1.9","interface":2},{"address":"10.0.2.1/24"}]}`)
	var lines []string
	for _, s := range statuses("def", two, true) {
		lines = append(lines, fmt.Sprintf("%s%v%t", s.Interface, s.IPs, s.Default))
	}
	if want := []string{"a[10.0.0.1]false", "b[10.0.1.1 10.0.2.1]true"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	for _, r := range []*types100.Result{nil, {}, parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"h"}],"ips":[{"address":"10.0.0.9/24"}]}`)} {
		if got := statuses("def", r, false); len(got) != 0 {
			t.Errorf("nothing in the Pod: %+v", got)
		}
	}
}

// The status is there before the answer, unless the API takes longer; then the answer does not wait, and the status comes later.
func TestNetworkStatusIsReported(t *testing.T) {
	n, _, a, r := npwgNode(t)
	a.set(npwg("data,default/shared", ""), nil)
	r.answer(0, errors.New("try again"))
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	got := r.all()
	if len(got) != 1 || !strings.HasPrefix(got[0], `acme/pod-c api-uid [{`) || !strings.Contains(got[0], `"name": "acme/data",`) || !strings.Contains(got[0], `"name": "default/shared",`) || !strings.Contains(got[0], `"name": "default",`) {
		t.Fatalf("%q", got)
	}
	// Others are told nothing of: DANM's Pods, and whoever has no annotation.
	a.set(Pod{UID: "x", Annotations: map[string]string{annotation.Key: `[{"network":"data","ip":"dynamic"}]`}}, nil)
	if _, e := n.call(request("ADD", "d", "acme", "ud", "")); e != nil || len(r.all()) != 1 {
		t.Fatal(e, r.all())
	}
	a.set(npwg("data", ""), nil)
	r.answer(statusWait + 500*time.Millisecond)
	began := time.Now()
	if _, e := n.call(request("ADD", "slow", "acme", "us", "")); e != nil || time.Since(began) > statusWait+400*time.Millisecond {
		t.Fatal(e, time.Since(began))
	}
	for deadline := time.Now().Add(10 * time.Second); len(r.all()) != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q", r.all())
		}
	}
}

// What is not attached any more is not reported late, over the status of who came after it; nor is a Pod that is gone.
func TestNetworkStatusOfThePast(t *testing.T) {
	n, _, a, r := npwgNode(t)
	a.set(npwg("data", ""), nil)
	r.answer(0, ErrPodGone)
	if _, e := n.call(request("ADD", "gone", "acme", "ug", "")); e != nil {
		t.Fatal(e)
	}
	r.answer(0, slices.Repeat([]error{errors.New("away")}, 4)...) // 100 + 200 + 400 + 800 ms
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	time.Sleep(2 * time.Second)
	if got := r.all(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if _, e := n.call(request("ADD", "later", "acme", "ul", "")); e != nil || len(r.all()) != 1 { // the control
		t.Error(e, r.all())
	}
}
