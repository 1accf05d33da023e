package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

// noKernel says why there are no namespaces to test in.
var noKernel error

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func subnet(cidr, first, last string) *model.Subnet {
	s := &model.Subnet{CIDR: netip.MustParsePrefix(cidr)}
	if first != "" {
		s.Pools = []model.AddrRange{{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}}
	}
	return s
}

func route(to, via string) model.PodRoute {
	return model.PodRoute{To: netip.MustParsePrefix(to), Via: netip.MustParseAddr(via)}
}

// testState is a node with networks of two tenants.
func testState() model.NodeState {
	dual := subnet("10.0.0.0/24", "10.0.0.10", "10.0.0.200")
	dual.Gateway, dual.Routes = netip.MustParseAddr("10.0.0.254"), []model.PodRoute{route("10.9.0.0/16", "10.0.0.253")}
	dual6 := subnet("fd00::/64", "fd00::10", "fd00::200")
	dual6.Gateway = netip.MustParseAddr("fd00::fe")
	net := func(kind model.APIKind, ns, name string, typ model.NetworkType, v4, v6 *model.Subnet) model.Network {
		dev := "eth0"
		if typ == model.BRIDGE {
			dev = "br0"
		}
		return model.Network{Kind: kind, Namespace: ns, Name: name, NetworkID: name, Type: typ, Device: dev, SpaceDomain: ns + name, IPv4: v4, IPv6: v6, MTU: 1400}
	}
	state := model.NodeState{Node: "n", Slots: 1, Networks: []model.Network{
		net(model.ClusterNetwork, "", "default", model.MACVLAN, subnet("10.2.0.0/24", "", ""), nil),
		net(model.ClusterNetwork, "", "shared", model.MACVLAN, subnet("10.3.0.0/24", "", ""), nil),
		net(model.ClusterNetwork, "", "closed", model.MACVLAN, nil, nil),
		net(model.TenantNetwork, "acme", "data", model.MACVLAN, dual, dual6),
		net(model.TenantNetwork, "acme", "port", model.BRIDGE, subnet("10.4.0.0/24", "", ""), nil),
		net(model.TenantNetwork, "acme", "small", model.MACVLAN, subnet("10.5.0.0/24", "10.5.0.1", "10.5.0.1"), nil),
		net(model.DanmNet, "acme", "l2", model.BRIDGE, nil, nil),
		net(model.TenantNetwork, "acme", "nodevice", model.MACVLAN, nil, nil),
		net(model.TenantNetwork, "acme", "longprefix", model.MACVLAN, nil, nil),
		net(model.TenantNetwork, "beta", "secret", model.MACVLAN, subnet("10.0.0.0/24", "", ""), nil),
		net(model.TenantNetwork, "beta", "default", model.MACVLAN, nil, subnet("fd02::/64", "", "")),
	}}
	for i := range state.Networks {
		switch n := &state.Networks[i]; n.Name {
		case "closed":
			n.AllowedNamespaces = []string{"beta"}
		case "nodevice":
			n.Device = ""
		case "longprefix":
			n.InterfacePrefix = "averyverylongname"
		case "data":
			n.InterfacePrefix, n.Table = "data", 300
		}
	}
	return state
}

// node is a running server on a fake or real attacher, with a real IPAM.
type node struct {
	t        *testing.T
	dir      string
	ipam     *ipam.Service
	fake     *fakeAttacher
	server   *Server
	state    model.NodeState
	isReady  bool
	mu       sync.Mutex
	stop     context.CancelFunc
	finished chan error
	attacher Attacher
}

// restart ends the server and starts another one with changed options.
func (n *node) restart(change func(*Options)) {
	n.t.Helper()
	n.end()
	n.startWith(n.attacher, change)
}

// networks changes what the node's confirmed state has.
func (n *node) networks(change func([]model.Network) []model.Network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state.Networks = change(slices.Clone(n.state.Networks))
}

func (n *node) confirmed() (model.NodeState, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state, n.isReady
}

func (n *node) setReady(ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isReady = ok
}

func (n *node) socket() string { return filepath.Join(n.dir, "cni.sock") }

func newNode(t *testing.T, attacher Attacher) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), fake: &fakeAttacher{}, state: testState(), isReady: true}
	if attacher == nil {
		attacher = n.fake
	}
	var err error
	n.ipam, err = ipam.Open(filepath.Join(n.dir, "ipam"), ipam.Options{Cooldown: -1})
	must(t, err)
	t.Cleanup(func() { must(t, n.ipam.Close()) })
	n.start(attacher)
	return n
}

func (n *node) start(attacher Attacher) {
	n.t.Helper()
	n.startWith(attacher, func(*Options) {})
}

func (n *node) startWith(attacher Attacher, change func(*Options)) {
	n.t.Helper()
	n.attacher = attacher
	o := Options{Socket: n.socket(), IPAM: n.ipam, Attacher: attacher, Timeout: time.Minute, Grace: 100 * time.Millisecond}
	change(&o)
	var err error
	n.server, err = New(o)
	must(n.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.finished = cancel, make(chan error, 1)
	ready := make(chan struct{})
	go func() { n.finished <- n.server.Serve(ctx, ready, n.confirmed) }()
	select {
	case <-ready:
	case err := <-n.finished:
		n.finished <- nil // for the end of the one before
		n.t.Fatal(err)
	}
	n.t.Cleanup(n.end)
}

func (n *node) end() {
	n.stop()
	if err := <-n.finished; err != nil {
		n.t.Error(err)
	}
	n.finished <- nil
}

// request is a call as the shim would make it; interfaces is the conf's key, "" for none.
func request(command, container, namespace, uid, interfaces string) wire.Request {
	conf := map[string]any{"cniVersion": "1.1.0", "name": "danm", "type": "danm", "kubeconfig": "/x", "extra_comment": "tolerated"}
	if interfaces != "" {
		conf["interfaces"] = json.RawMessage(interfaces)
	}
	b, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return wire.Request{Command: command, ContainerID: container, Netns: "/proc/self/ns/net", IfName: "eth0", Stdin: b,
		Args: fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=pod-%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", namespace, container, container, uid)}
}

// call makes a call through the socket with this process's namespace.
func (n *node) call(req wire.Request) (types100.Result, *types.Error) {
	n.t.Helper()
	return n.callIn(req, "/proc/self/ns/net")
}

func (n *node) callIn(req wire.Request, netns string) (r types100.Result, e *types.Error) {
	n.t.Helper()
	var f *os.File
	if netns != "" {
		var err error
		f, err = os.Open(netns)
		must(n.t, err)
		defer f.Close()
	}
	resp, err := wire.Call(within(90*time.Second), n.socket(), time.Second, req, fdOf(f))
	if err != nil {
		n.t.Errorf("%s: %v", req.Command, err)
		return r, types.NewError(0, err.Error(), "")
	}
	if len(resp.Result) > 0 && resp.Error == nil && req.Command == "ADD" {
		if err := json.Unmarshal(resp.Result, &r); err != nil {
			n.t.Error(err)
		}
	}
	return r, resp.Error
}

func (n *node) records() (out []string) {
	n.t.Helper()
	list, err := n.ipam.List()
	must(n.t, err)
	for _, r := range list {
		out = append(out, r.Sandbox)
	}
	slices.Sort(out)
	return out
}

var errInjected = errors.New("injected")

func within(d time.Duration) time.Time { return time.Now().Add(d) }

// fdOf is -1 for nil.
func fdOf(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}
