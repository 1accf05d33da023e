package server

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

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

// What was a DanmNet before the bundle is found under its old reference; a real DanmNet of that name comes first.
func TestNetworkMeansANetworkOfTheNamespace(t *testing.T) {
	n := newNode(t, nil)
	r, e := n.call(request("ADD", "c", "acme", "u", `[{"network":"data","ip":"dynamic"}]`))
	if e != nil || len(r.IPs) != 1 {
		t.Errorf("%+v %v", r, e)
	}
	networks := []model.Network{{Kind: model.TenantNetwork, Name: "x"}, {Kind: model.DanmNet, Name: "x"}, {Kind: model.ClusterNetwork, Name: "x"}}
	got := named(networks, model.InterfaceRequest{Kind: model.DanmNet, Network: "x"})
	if len(got) != 2 || got[0].Kind != model.DanmNet || got[1].Kind != model.TenantNetwork {
		t.Errorf("network: %+v", got)
	}
	if got := named(networks, model.InterfaceRequest{Kind: model.TenantNetwork, Network: "x"}); len(got) != 1 {
		t.Errorf("tenantNetwork: %+v", got)
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
	addDefaults(ats, ats)
	if len(ats[1].Routes) != 1 || ats[1].Routes[0] != route("0.0.0.0/0", "10.0.0.1") || len(ats[2].Routes) != 0 || len(ats[3].Routes) != 1 {
		t.Errorf("%+v", ats)
	}
	ats = []model.Attachment{gw("10.0.0.1"), {Routes: []model.PodRoute{route("0.0.0.0/0", "10.1.0.1")}}}
	addDefaults(ats, ats)
	if len(ats[0].Routes) != 0 {
		t.Errorf("a second default route: %+v", ats)
	}
}

func TestLegacyNames(t *testing.T) {
	n := model.Network{InterfacePrefix: "data"}
	c := call{conf: netConf{NamingScheme: "legacy"}}
	c.IfName = "eth0"
	if got := []string{interfaceName(0, model.InterfaceRequest{}, n, c), interfaceName(2, model.InterfaceRequest{}, n, c), interfaceName(2, model.InterfaceRequest{}, model.Network{}, c)}; !slices.Equal(got, []string{"eth0", "data", "eth2"}) {
		t.Errorf("%v", got)
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
		p, err := choose(state, c, conf.requests)
		if err != nil {
			return
		}
		for _, it := range p.items {
			if !it.network.UsableFrom(c.args.namespace) || len(it.ifName) > 15 {
				t.Fatalf("namespace %q gets %s as %q", c.args.namespace, it.network.Key(), it.ifName)
			}
		}
	})
}

// A gateway makes no default route beside a first interface whose plugin sets the routes, and the network's own routes stay.
func TestDefaultRoutesBesideAPlugins(t *testing.T) {
	v4 := subnet("10.0.0.0/24", "", "")
	v4.Gateway, v4.Routes = netip.MustParseAddr("10.0.0.1"), []model.PodRoute{route("10.9.0.0/16", "10.0.0.2")}
	theirs := model.Network{Name: "flannel", Type: "flannel", Delegate: &model.Delegate{File: "flannel"}}
	given := theirs
	given.IPv4 = subnet("10.1.0.0/24", "", "")
	own := model.Network{Name: "own", Type: model.MACVLAN, IPv4: v4}
	grant := ipam.Grant{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/24")}}
	for name, c := range map[string]struct {
		first, second model.Network
		want          string
	}{
		"its plugin sets routes": {theirs, own, "[] [{10.9.0.0/16 10.0.0.2}]"},
		"it is given addresses":  {given, own, "[] [{10.9.0.0/16 10.0.0.2} {0.0.0.0/0 10.0.0.1}]"},
		"it is the second":       {own, theirs, "[{10.9.0.0/16 10.0.0.2} {0.0.0.0/0 10.0.0.1}] []"},
	} {
		p := choice{items: []chosen{{network: c.first}, {network: c.second}}}
		grants := []ipam.Grant{{}, grant}
		if c.first.Name == "own" {
			grants = []ipam.Grant{grant, {}}
		}
		ats := p.attachments(grants)
		if got := fmt.Sprint(ats[0].Routes, " ", ats[1].Routes); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A reserved address goes to whom it was reserved for, by its name, and to nobody else.
func TestPermittedAddresses(t *testing.T) {
	v4, v6 := subnet("10.0.0.0/24", "", ""), subnet("fd00::/64", "", "")
	v4.Gateway, v6.Gateway, v4.Routes = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::fe"), []model.PodRoute{route("10.9.0.0/16", "10.0.0.2")}
	own := model.Network{Kind: model.TenantNetwork, Namespace: "acme", Name: "voice", IPv4: v4, IPv6: v6, Reserved: []model.Reservation{
		{Name: "vip", Namespace: "acme", IP: netip.MustParseAddr("10.0.0.9"), IP6: netip.MustParseAddr("fd00::9")},
		{Name: "open", IP: netip.MustParseAddr("10.0.0.8")},
	}}
	shared := own
	shared.Kind, shared.Namespace = model.ClusterNetwork, ""
	byName := func(s string) model.AddressRequest { return model.AddressRequest{Mode: model.AddressReserved, Name: s} }
	static := func(s string) model.AddressRequest {
		return model.AddressRequest{Mode: model.AddressStatic, Addr: netip.MustParseAddr(s)}
	}
	for _, r := range []struct {
		ip, ip6   model.AddressRequest
		namespace string
		n         model.Network
		want      string // of both, or of the error
	}{
		{byName("vip"), byName("vip"), "acme", shared, "10.0.0.9 fd00::9"},
		{byName("open"), static("fd00::1"), "other", shared, "10.0.0.8 fd00::1"},
		{byName("vip"), model.AddressRequest{}, "other", shared, `no reservation "vip"`},
		{model.AddressRequest{}, byName("open"), "acme", shared, `no reservation "open" of this family`},
		{byName("dynmaic"), model.AddressRequest{}, "acme", shared, "write dynamic"},
		{static("10.0.0.9"), model.AddressRequest{}, "acme", shared, "is reserved"},
		{model.AddressRequest{}, static("fd00::9"), "acme", shared, "is reserved"},
		{static("10.0.0.1"), model.AddressRequest{}, "acme", shared, "is the gateway"},
		{model.AddressRequest{}, static("fd00::fe"), "acme", shared, "is the gateway"},
		{static("10.0.0.1"), static("fd00::fe"), "acme", own, "10.0.0.1 fd00::fe"},
		{static("10.0.0.2"), static("fd00::2"), "acme", shared, "10.0.0.2 fd00::2"}, // a Pod that is a router
	} {
		q, err := permitted(model.InterfaceRequest{IP: r.ip, IP6: r.ip6}, r.n, r.namespace)
		if err != nil {
			if !strings.Contains(err.Error(), r.want) {
				t.Errorf("%+v: %v", r, err)
			}
			continue
		}
		if got := q.IP.Addr.String() + " " + q.IP6.Addr.String(); got != r.want || q.IP.Mode == model.AddressReserved || q.IP6.Mode == model.AddressReserved {
			t.Errorf("%+v: %s", r, got)
		}
	}
}

func TestTypesWithoutADriverAreRefused(t *testing.T) {
	state := model.NodeState{Networks: []model.Network{
		{Kind: model.ClusterNetwork, Name: "vf", Type: model.SRIOV}, {Kind: model.ClusterNetwork, Name: "pooled", Type: model.SRIOV, DevicePool: "danm.io/fast"},
		{Kind: model.ClusterNetwork, Name: "odd", Type: model.MACVLAN, Device: "eth1", DevicePool: "danm.io/fast"}, {Kind: model.ClusterNetwork, Name: "nic", Type: model.HOSTDEVICE, Device: "eth1"},
		{Kind: model.ClusterNetwork, Name: "plug", Type: model.MACVLAN, Device: "eth1", Delegate: &model.Delegate{File: "x"}}, {Kind: model.ClusterNetwork, Name: "tag", Type: model.TAGGED, VLAN: 7, Device: "eth1"}, {Kind: model.ClusterNetwork, Name: "good", Type: model.MACVLAN, Device: "eth1"},
	}}
	for _, name := range []string{"vf", "pooled", "odd", "plug", "nic", "tag", "good"} {
		_, err := findNetwork(state, "acme", model.InterfaceRequest{Kind: model.ClusterNetwork, Network: name})
		var f *Failure
		if refused := errors.As(err, &f) && f.Code == diag.PodTypeUnsupported; refused != (name == "vf" || name == "odd") || !refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
