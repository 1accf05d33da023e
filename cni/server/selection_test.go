package server

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
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
		{"a default route by the Pod's own address", `[{"name":"data","ips":["10.0.0.254"],"default-route":[]}]`, "", nil, diag.PodSelectionRefused, "no gateway"},
		{"a default route without an address", `[{"name":"shared","namespace":"default","default-route":["fd00::1"]}]`, "", nil, diag.PodSelectionRefused, "no address of that family"},
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
		{"a gateway that only a plugin knows", `[{"name":"able","default-route":[]}]`, "", nil, diag.PodSelectionRefused, "whose gateway only its plugin own knows; name it"},
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
