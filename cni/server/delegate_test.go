package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// plugins are programs that write down how they are called and answer as CNI plugins.
type plugins struct {
	t   *testing.T
	dir string
}

func (p *plugins) install(name, add string) {
	p.t.Helper()
	script := `#!/bin/sh
in=$(cat)
echo "` + name + ` $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME ${CNI_NETNS:-none}" >> ` + p.dir + `/log
echo "$in" > ` + p.dir + `/` + name + `.$CNI_COMMAND
case $CNI_COMMAND in
ADD) ` + add + ` ;;
CHECK) [ ! -e ` + p.dir + `/broken ] || { echo '{"code":7,"msg":"it is broken"}'; exit 1; } ;;
DEL) [ ! -e ` + p.dir + `/stuck ] || { echo '{"code":11,"msg":"busy"}'; exit 1; } ;;
esac
`
	must(p.t, os.WriteFile(filepath.Join(p.dir, name), []byte(script), 0o755))
}

func (p *plugins) log() []string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	_ = os.Remove(filepath.Join(p.dir, "log"))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func (p *plugins) conf(name string) (out map[string]any) {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	must(p.t, err)
	must(p.t, json.Unmarshal(text, &out))
	return out
}

// delegateNode has networks of other plugins: one with addresses of its own, one that is given them, one on a host link.
func delegateNode(t *testing.T) (*node, *plugins) {
	n := newNode(t, nil)
	p := &plugins{t, t.TempDir()}
	p.install("own", `echo '{"cniVersion":"1.1.0","interfaces":[{"name":"host0"},{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'","mac":"02:00:00:00:00:09"}],"ips":[{"address":"10.244.0.5/24","gateway":"10.244.0.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.96.0.10"]}}'`)
	p.install("given", `a=$(echo "$in" | sed -n 's/.*"ipcidr":"\([^"]*\)".*/\1/p'); echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"'$a'"}]}'`)
	n.networks(func(list []model.Network) []model.Network {
		one := func(name, plugin, conf, device string, v4 *model.Subnet) model.Network {
			return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name + "-id", Type: model.NetworkType(plugin), Device: device, SpaceDomain: name, IPv4: v4, Delegate: &model.Delegate{Conf: conf}}
		}
		v4 := subnet("10.7.0.0/24", "", "")
		v4.Routes = []model.PodRoute{route("10.99.0.0/16", "10.7.0.254")}
		return append(list, one("flannel", "own", `{"cniVersion":"1.1.0","type":"own","capabilities":{"portMappings":true}}`, "", nil),
			one("pool", "given", `{"cniVersion":"1.1.0","type":"given","ipam":{"type":"dhcp"}}`, "vlan.7", v4), one("absent", "nowhere", `{"type":"nowhere"}`, "", nil))
	})
	n.restart(func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{p.dir}, ConfDir: p.dir, CacheDir: filepath.Join(n.dir, "delegates")})
	})
	return n, p
}

// A Pod with interfaces of others and of ours: theirs first, in order, and each with what the network says.
func TestDelegatesAndOwnInterfaces(t *testing.T) {
	n, p := delegateNode(t)
	req := request("ADD", "c", "acme", "u", on("flannel", "shared", "pool"))
	req.Stdin = []byte(strings.Replace(string(req.Stdin), "{", `{"runtimeConfig":{"portMappings":[{"hostPort":80}],"bandwidth":{}},`, 1))
	r, e := n.call(req)
	if e != nil {
		t.Fatal(e)
	}
	var got []string
	for i, in := range r.Interfaces {
		line := in.Name + " " + in.Sandbox
		for _, ip := range r.IPs {
			if ip.Interface != nil && *ip.Interface == i {
				line += " " + ip.Address.String()
			}
		}
		got = append(got, line)
	}
	want := []string{"host0 ", "eth0 /proc/self/ns/net 10.244.0.5/24", "eth1 /proc/self/ns/net 10.3.0.1/24", "eth2 /proc/self/ns/net 10.7.0.1/24"}
	if !slices.Equal(got, want) || r.IPs[0].Address.String() != "10.244.0.5/24" || !slices.Equal(r.DNS.Nameservers, []string{"10.96.0.10"}) {
		t.Errorf("%q, %+v", got, r.DNS)
	}
	if log := p.log(); !slices.Equal(log, []string{"own ADD c eth0 /proc/self/ns/net", "given ADD c eth2 /proc/self/ns/net"}) {
		t.Errorf("%q", log)
	}
	if c := p.conf("own.ADD"); c["name"] != "flannel-id" || c["ipam"] != nil || fmt.Sprint(c["runtimeConfig"]) != "map[portMappings:[map[hostPort:80]]]" {
		t.Errorf("%v", c)
	}
	if c := p.conf("given.ADD"); c["master"] != "vlan.7" || fmt.Sprint(c["ipam"]) != "map[ips:[map[ipcidr:10.7.0.1/24 version:4]] routes:[map[dst:10.99.0.0/16 gw:10.7.0.254]] type:fakeipam]" || c["runtimeConfig"] != nil {
		t.Errorf("%v", c)
	}
	if own := n.fake.attached("c"); len(own) != 1 || own[0].IfName != "eth1" {
		t.Errorf("%+v", own)
	}
	further := request("ADD", "further", "acme", "u-further", on("shared", "flannel"))
	further.Stdin = []byte(strings.Replace(string(further.Stdin), "{", `{"runtimeConfig":{"portMappings":[{"hostPort":80}]},`, 1))
	if _, e := n.call(further); e != nil || p.conf("own.ADD")["runtimeConfig"] != nil {
		t.Errorf("%v: the runtime's capabilities reach another interface than the first: %v", e, p.conf("own.ADD"))
	}
	if _, e := n.call(request("DEL", "further", "acme", "u-further", "")); e != nil {
		t.Error(e)
	}
	p.log()
	// The same ADD again has the same answer, also after a restart; CHECK goes to everybody.
	n.end()
	n.startWith(n.fake, func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{p.dir}, CacheDir: filepath.Join(n.dir, "delegates")})
	})
	again, e := n.call(req)
	if e != nil || len(again.IPs) != 3 || len(again.Interfaces) != 4 {
		t.Errorf("%v %+v", e, again)
	}
	if _, e := n.call(request("CHECK", "c", "acme", "u", "")); e != nil {
		t.Error(e)
	}
	if log := p.log(); len(log) != 4 || !strings.HasPrefix(log[2], "own CHECK") || !strings.HasPrefix(log[3], "given CHECK") {
		t.Errorf("%q", log)
	}
	must(t, os.WriteFile(filepath.Join(p.dir, "broken"), nil, 0o600))
	if _, e := n.call(request("CHECK", "c", "acme", "u", "")); e == nil || e.Code != CodeCheckFailed || !strings.Contains(e.Msg, "it is broken") || !strings.Contains(e.Msg, "eth0") {
		t.Errorf("%v", e)
	}
	// DEL takes down in the reverse order, and again when it failed.
	must(t, os.WriteFile(filepath.Join(p.dir, "stuck"), nil, 0o600))
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e == nil || e.Code != types.ErrTryAgainLater || !strings.Contains(e.Msg, "busy") {
		t.Errorf("%v", e)
	}
	if !slices.Equal(n.records(), []string{"c"}) {
		t.Errorf("addresses are free while a plugin is not done: %v", n.records())
	}
	must(t, os.Remove(filepath.Join(p.dir, "stuck")))
	p.log()
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
		t.Error(e)
	}
	if log := p.log(); !slices.Equal(log, []string{"given DEL c eth2 /proc/self/ns/net", "own DEL c eth0 /proc/self/ns/net"}) || len(n.records()) != 0 {
		t.Errorf("%q, records %v", log, n.records())
	}
}

// Whatever fails, nothing is left, and the reason is told.
func TestDelegatesAllOrNothing(t *testing.T) {
	n, p := delegateNode(t)
	// A plugin fails.
	p.install("given", `echo '{"code":123,"msg":"no more ports"}'; exit 1`)
	_, e := n.call(request("ADD", "a", "acme", "u-a", on("flannel", "shared", "pool")))
	if e == nil || e.Code != CodeAttachFailed || e.Details != string(diag.PodDelegateFailed) || !strings.Contains(e.Msg, "no more ports") || !strings.Contains(e.Msg, "pool") {
		t.Errorf("%+v", e)
	}
	dels := func() (out []string) {
		for _, line := range p.log() {
			if strings.Contains(line, " DEL ") {
				out = append(out, line)
			}
		}
		return out
	}
	if d := dels(); !slices.Contains(d, "own DEL a eth0 /proc/self/ns/net") || !slices.Contains(d, "given DEL a eth2 /proc/self/ns/net") || len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
		t.Errorf("%q, records %v, links of %v", d, n.records(), n.fake.sandboxes())
	}
	// Ours fails after theirs.
	n.fake.onAttach(func(context.Context) error { return errInjected })
	if _, e := n.call(request("ADD", "b", "acme", "u-b", on("flannel", "shared"))); e == nil || !strings.Contains(e.Msg, "injected") {
		t.Errorf("%v", e)
	}
	if d := dels(); !slices.Equal(d, []string{"own DEL b eth0 /proc/self/ns/net"}) || len(n.records()) != 0 {
		t.Errorf("%q, records %v", d, n.records())
	}
	n.fake.onAttach(nil)
	// A plugin that is not there, and policy routes that nobody would set.
	for networks, code := range map[string]diag.Code{on("absent"): diag.PodDelegateMissing,
		`[{"clusterNetwork":"pool","ip":"dynamic","proutes":{"10.50.0.0/16":"10.7.0.254"}}]`: diag.PodPolicyTable} {
		if _, e := n.call(request("ADD", "d", "acme", "u-d", networks)); e == nil || e.Details != string(code) || len(n.records()) != 0 {
			t.Errorf("%s: %+v, records %v", networks, e, n.records())
		}
	}
	p.log()
	// A namespace that is gone, and a plugin that is not installed any more.
	p.install("given", `echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"x"}]}'`)
	req := request("ADD", "e", "acme", "u-e", on("pool", "flannel"))
	req.Netns = filepath.Join(t.TempDir(), "netns") // nobody finds it later
	if _, e := n.call(req); e != nil {
		t.Fatal(e)
	}
	must(t, os.Remove(filepath.Join(p.dir, "given")))
	p.log()
	del := request("DEL", "e", "acme", "u-e", "")
	if _, e := n.callIn(del, ""); e != nil {
		t.Error(e)
	}
	if log := p.log(); !slices.Equal(log, []string{"own DEL e eth1 none"}) || len(n.records()) != 0 {
		t.Errorf("%q, records %v", log, n.records())
	}
}

// GC reaches the plugins of each network, with those of their attachments that are still there.
func TestGCReachesDelegates(t *testing.T) {
	n, p := delegateNode(t)
	for _, c := range []string{"a", "b"} {
		if _, e := n.call(request("ADD", c, "acme", "u-"+c, on("flannel", "pool"))); e != nil {
			t.Fatal(e)
		}
	}
	p.log()
	gc := wire.Request{Command: "GC", Stdin: []byte(`{"cniVersion":"1.1.0","name":"danm","type":"danm","cni.dev/valid-attachments":[{"containerID":"b","ifname":"eth0"}]}`)}
	if _, e := n.call(gc); e != nil {
		t.Fatal(e)
	}
	if !slices.Equal(n.records(), []string{"b"}) {
		t.Errorf("%v", n.records())
	}
	if got := fmt.Sprint(p.conf("own.GC")["cni.dev/valid-attachments"]); got != "[map[containerID:b ifname:eth0]]" {
		t.Error(got)
	}
	if got := fmt.Sprint(p.conf("given.GC")["cni.dev/valid-attachments"]); got != "[map[containerID:b ifname:eth1]]" {
		t.Error(got)
	}
	// The fake kernel has no links of theirs, so there is nothing to mend.
	n.fake.set(func(f *fakeAttacher) { f.index, f.looked = map[string]int{"vlan.7": 9}, 0 })
	if mended, err := n.server.Mend(t.Context()); mended != 0 || err != nil {
		t.Errorf("%d, %v", mended, err)
	}
}

// An agent that calls no plugins says so, and takes nothing.
func TestWithoutDelegates(t *testing.T) {
	n, _ := delegateNode(t)
	n.restart(func(*Options) {})
	if _, e := n.call(request("ADD", "a", "acme", "u", on("flannel"))); e == nil || e.Details != string(diag.PodTypeUnsupported) || len(n.records()) != 0 {
		t.Errorf("%+v, records %v", e, n.records())
	}
}

// Answers of others may say anything about interfaces.
func TestMergeOfOddResults(t *testing.T) {
	at := model.Attachment{Delegate: &model.DelegateCall{}}
	own := model.Attachment{IfName: "eth1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}
	each, err := results("1.0.0", "/n", []model.Attachment{at, own}, []made{{}, {link: attach.Link{MAC: "m", MTU: 1}}})
	must(t, err)
	out, err := result("1.0.0", each)
	if err != nil || strings.Contains(string(out), `"interface": 1`) || !strings.Contains(string(out), `"interface": 0`) {
		t.Errorf("%v %s", err, out)
	}
}

// What came with version 1.1.0 is not in an answer of an older one, whatever a plugin has said.
func TestResultsOfOlderVersions(t *testing.T) {
	theirs := &types100.Result{CNIVersion: "1.1.0", Interfaces: []*types100.Interface{{Name: "eth0", Mac: "02:00:00:00:00:01", Mtu: 1400, Sandbox: "/n", SocketPath: "/s", PciID: "0000:00:01.0"}},
		Routes: []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: net.IPv4(10, 0, 0, 1), MTU: 1300, AdvMSS: 1200, Priority: 7, Table: types100.Int(9), Scope: types100.Int(0)}}}
	for version, newer := range map[string]bool{"0.3.1": false, "0.4.0": false, "1.0.0": false, "1.1.0": true} {
		out, err := result(version, []*types100.Result{theirs})
		must(t, err)
		for _, key := range []string{"mtu", "socketPath", "pciID", "advmss", "priority", "table", "scope"} {
			if has := strings.Contains(string(out), `"`+key+`"`); has != newer {
				t.Errorf("version %s, %s: %v", version, key, has)
			}
		}
		for _, key := range []string{"name", "mac", "sandbox", "dst", "gw"} {
			if !strings.Contains(string(out), `"`+key+`"`) {
				t.Errorf("version %s lacks %s", version, key)
			}
		}
	}
	if theirs.Interfaces[0].Mtu != 1400 || theirs.Routes[0].Priority != 7 {
		t.Error("the network-status would not have it either")
	}
}

// A real plugin asks the real fakeipam, and one whose own IPAM is danm asks this very agent in the middle of its ADD.
func TestDelegatesAskForAddresses(t *testing.T) {
	bin := programs(t)
	dir := t.TempDir()
	for name, program := range map[string]string{"delegate": "delegate", "danm": "danm", "fakeipam": "danm"} {
		must(t, os.Symlink(filepath.Join(bin, program), filepath.Join(dir, name)))
	}
	n := newNode(t, nil)
	n.networks(func(list []model.Network) []model.Network {
		one := func(name, conf string, v4 *model.Subnet) model.Network {
			return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: "delegate", SpaceDomain: name, IPv4: v4, Delegate: &model.Delegate{Conf: conf}}
		}
		v4 := subnet("10.7.0.0/24", "", "")
		v4.Routes = []model.PodRoute{route("10.99.0.0/16", "10.7.0.254")}
		return append(list, one("given", `{"cniVersion":"1.1.0","type":"delegate"}`, v4),
			one("asks", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"delegate","ipam":{"type":"danm","network":"shared","socket":%q}}`, n.socket()), nil))
	})
	n.restart(func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{dir}, CacheDir: filepath.Join(n.dir, "delegates")})
	})
	r, e := n.call(request("ADD", "c", "acme", "u", on("given", "asks")))
	if e != nil {
		t.Fatal(e)
	}
	var got []string
	for _, ip := range r.IPs {
		got = append(got, fmt.Sprintf("%s %s", r.Interfaces[*ip.Interface].Name, ip.Address.String()))
	}
	if !slices.Equal(got, []string{"eth0 10.7.0.1/24", "eth1 10.3.0.1/24"}) || len(r.Routes) != 1 || r.Routes[0].Dst.String() != "10.99.0.0/16" {
		t.Errorf("%q %v", got, r.Routes)
	}
	if want := []string{"c", "c/eth1"}; !slices.Equal(n.records(), want) {
		t.Errorf("records %v", n.records())
	}
	for _, verb := range []string{"CHECK", "DEL"} {
		if _, e := n.call(request(verb, "c", "acme", "u", "")); e != nil {
			t.Errorf("%s: %v", verb, e)
		}
	}
	if len(n.records()) != 0 {
		t.Errorf("left: %v", n.records())
	}
}
