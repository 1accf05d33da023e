package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/test/lab"
)

// runtimeNode is a host in namespaces with the real attacher, IPAM and server, called by libcni through the built shim.
type runtimeNode struct {
	*node
	host   *lab.NS
	fabric *lab.NS // with the switch "sw" that the host's eth0 is plugged into
	world  *lab.World
	cni    *libcni.CNIConfig
}

// shim is the directory of a fresh CNI binary, or DANM_BIN where there is no compiler (test/vm).
func shim(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("DANM_BIN"); bin != "" {
		return bin
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "danm"), "danm.io/danm/cni/cmd/danm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shim: %v\n%s", err, out)
	}
	return bin
}

func newRuntimeNode(t *testing.T) *runtimeNode {
	t.Helper()
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	bin := shim(t)
	world, err := lab.NewWorld(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, world.Close()) })
	fabric, err := world.Add("switch")
	must(t, err)
	must(t, fabric.Switch("sw"))
	host, err := world.Add("host")
	must(t, err)
	must(t, fabric.Plug("sw", host, "eth0", ""))
	must(t, host.Switch("br0"))
	var attacher *attach.Attacher
	must(t, host.Do(func() (err error) { attacher, err = attach.New(""); return err }))
	t.Cleanup(attacher.Close)
	return &runtimeNode{node: newNode(t, attacher), host: host, fabric: fabric, world: world, cni: libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil)}
}

func (n *runtimeNode) conf(version, interfaces string) *libcni.NetworkConfigList {
	n.t.Helper()
	list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(
		`{"cniVersion":%q,"name":"danm","plugins":[{"type":"danm","socket":%q,"interfaces":%s}]}`, version, n.socket(), interfaces)))
	must(n.t, err)
	return list
}

func (n *runtimeNode) pod(name string) (*lab.NS, *libcni.RuntimeConf) {
	n.t.Helper()
	ns, err := n.world.Add(name)
	must(n.t, err)
	return ns, &libcni.RuntimeConf{ContainerID: name, NetNS: ns.Path, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "acme"}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", "uid-" + name}}}
}

func TestKernelLibcni(t *testing.T) {
	n := newRuntimeNode(t)
	hostBefore, err := n.host.Dump()
	must(t, err)
	interfaces := `[{"tenantNetwork":"data","ip":"dynamic","ip6":"dynamic"},{"tenantNetwork":"port","ip":"dynamic"},{"tenantNetwork":"data","ip":"dynamic"}]`
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			conf := n.conf(version, interfaces)
			suffix := strings.ReplaceAll(version, ".", "")
			a, rtA := n.pod("a" + suffix)
			before, err := a.Dump()
			must(t, err)
			res, err := n.cni.AddNetworkList(t.Context(), conf, rtA)
			must(t, err)
			if res.Version() != version {
				t.Errorf("result of version %s", res.Version())
			}
			_, rtB := n.pod("b" + suffix)
			resB, err := n.cni.AddNetworkList(t.Context(), conf, rtB)
			must(t, err)
			r, err := types100.NewResultFromResult(resB)
			must(t, err)
			if len(r.Interfaces) != 3 || len(r.IPs) != 4 || r.Interfaces[0].Name != "eth0" || r.Interfaces[1].Name != "eth1" || r.Interfaces[2].Name != "data2" ||
				r.Interfaces[0].Sandbox != rtB.NetNS || (version == "1.1.0") != (r.Interfaces[0].Mtu == 1400) {
				t.Errorf("result %+v", r)
			}
			for _, ip := range r.IPs { // what the result says is true: the other Pod reaches it
				if err := a.Ping(ip.Address.IP.String(), 30*time.Second); err != nil {
					t.Error(err)
				}
			}
			if version != "0.3.1" { // libcni refuses CHECK below 0.4.0
				must(t, n.cni.CheckNetworkList(t.Context(), conf, rtA))
			}
			again, err := n.cni.AddNetworkList(t.Context(), conf, rtA)
			must(t, err)
			one, err := json.Marshal(res)
			must(t, err)
			if two, err := json.Marshal(again); err != nil || string(two) != string(one) {
				t.Errorf("ADD again: %s, first %s", two, one)
			}
			for range 2 {
				must(t, n.cni.DelNetworkList(t.Context(), conf, rtA))
				must(t, n.cni.DelNetworkList(t.Context(), conf, rtB))
			}
			after, err := a.Dump()
			must(t, err)
			if after != before {
				t.Errorf("DEL left in the Pod:\n%s", after)
			}
		})
	}
	hostAfter, err := n.host.Dump()
	must(t, err)
	if links := func(d string) int { return strings.Count(d, "\nlink ") }; links(hostAfter) != links(hostBefore) || len(n.records()) != 0 {
		t.Errorf("left in the host:\n%s\nrecords %v", hostAfter, n.records())
	}
	must(t, n.cni.GetStatusNetworkList(t.Context(), n.conf("1.1.0", "[]")))
	info, err := n.cni.GetVersionInfo(t.Context(), "danm")
	if err != nil || strings.Join(info.SupportedVersions(), " ") != "0.3.1 0.4.0 1.0.0 1.1.0" {
		t.Errorf("VERSION: %v %v", info, err)
	}
}

// A runtime's GC, by the CNI project's library: what its cache does not know any more goes, links and addresses, and nothing else.
func TestKernelRuntimeGC(t *testing.T) {
	n := newRuntimeNode(t)
	conf := n.conf("1.1.0", oneData)
	rts := map[string]*libcni.RuntimeConf{}
	for _, name := range []string{"a", "b", "c"} {
		_, rts[name] = n.pod(name)
		_, err := n.cni.AddNetworkList(t.Context(), conf, rts[name])
		must(t, err)
	}
	valid := func(names ...string) *libcni.GCArgs {
		args := &libcni.GCArgs{}
		for _, name := range names {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: rts[name].ContainerID, IfName: rts[name].IfName})
		}
		return args
	}
	forgetful := libcni.NewCNIConfigWithCacheDir(n.cni.Path, t.TempDir(), nil) // a DEL of its own would hide what GC does
	must(t, forgetful.GCNetworkList(t.Context(), conf, valid("a", "b")))
	if got := n.records(); len(got) != 2 || slices.Contains(got, rts["c"].ContainerID) {
		t.Errorf("records %v", got)
	}
	for name, there := range map[string]bool{"a": true, "b": true, "c": false} {
		if err := n.cni.CheckNetworkList(t.Context(), conf, rts[name]); (err == nil) != there {
			t.Errorf("CHECK of %s: %v", name, err)
		}
	}
	must(t, forgetful.GCNetworkList(t.Context(), conf, valid()))
	if got := n.records(); len(got) != 0 {
		t.Errorf("records %v", got)
	}
}

func TestKernelErrorsReachTheRuntime(t *testing.T) {
	n := newRuntimeNode(t)
	ns, rt := n.pod("a")
	before, err := ns.Dump()
	must(t, err)
	must(t, n.host.DeleteLink("br0"))
	_, err = n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", `[{"tenantNetwork":"data","ip":"dynamic"},{"tenantNetwork":"port","ip":"dynamic"}]`), rt)
	e := (*types.Error)(nil)
	if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || e.Details != "PodHostLinkMissing" || !strings.Contains(e.Msg, "br0") {
		t.Errorf("got %v", err)
	}
	if after, err := ns.Dump(); err != nil || after != before || len(n.records()) != 0 {
		t.Errorf("left %v, %v:\n%s", n.records(), err, after)
	}
	rt.NetNS = n.host.Path // hostNetwork by mistake
	if _, err = n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", oneData), rt); !errors.As(err, &e) || e.Code != types.ErrInvalidNetNS || len(n.records()) != 0 {
		t.Errorf("host's namespace: %v, records %v", err, n.records())
	}
}

// A new sandbox of a Pod takes the old one's links down in the old namespace, found by its recorded path; and DEL
// succeeds when that namespace is gone.
func TestKernelNewSandboxEvictsTheOld(t *testing.T) {
	n := newRuntimeNode(t)
	old, rtOld := n.pod("old")
	before, err := old.Dump()
	must(t, err)
	_, rtNew := n.pod("new")
	rtNew.Args = rtOld.Args // the same Pod
	conf := n.conf("1.0.0", `[{"tenantNetwork":"data","ip":"dynamic"},{"tenantNetwork":"port","ip":"dynamic"}]`)
	first, err := n.cni.AddNetworkList(t.Context(), conf, rtOld)
	must(t, err)
	second, err := n.cni.AddNetworkList(t.Context(), conf, rtNew)
	must(t, err)
	a, _ := types100.NewResultFromResult(first)
	b, _ := types100.NewResultFromResult(second)
	if a.IPs[0].Address.String() != b.IPs[0].Address.String() {
		t.Errorf("%v, then %v", a.IPs[0].Address, b.IPs[0].Address)
	}
	if after, err := old.Dump(); err != nil || after != before {
		t.Errorf("old sandbox keeps (%v):\n%s", err, after)
	}
	must(t, n.cni.DelNetworkList(t.Context(), conf, rtOld))
	must(t, n.cni.CheckNetworkList(t.Context(), conf, rtNew))
	rtNew.NetNS = ""
	must(t, n.cni.DelNetworkList(t.Context(), conf, rtNew))
	if len(n.records()) != 0 {
		t.Errorf("records %v", n.records())
	}
}

// Many Pods at once, through the socket: all succeed, no address twice, everything goes.
func TestKernelManyPodsAtOnce(t *testing.T) {
	n := newRuntimeNode(t)
	const pods = 24
	in := `[{"tenantNetwork":"data","ip":"dynamic","ip6":"dynamic"},{"tenantNetwork":"port","ip":"dynamic"}]`
	reqs := make([]wire.Request, pods)
	for i := range reqs {
		ns, rt := n.pod(fmt.Sprintf("p%d", i))
		reqs[i] = request("ADD", rt.ContainerID, "acme", "u"+rt.ContainerID, in)
		reqs[i].Netns = ns.Path
	}
	var mu sync.Mutex
	seen := map[string]string{}
	each := func(command string) {
		var wg sync.WaitGroup
		for _, req := range reqs {
			wg.Go(func() {
				req.Command = command
				f, err := os.Open(req.Netns)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				resp, err := wire.Call(within(90*time.Second), n.socket(), time.Second, req, fdOf(f))
				if err != nil || resp.Error != nil {
					t.Errorf("%s %s: %v %v", command, req.ContainerID, err, resp.Error)
					return
				}
				var r types100.Result
				if command != "ADD" || json.Unmarshal(resp.Result, &r) != nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				for _, ip := range r.IPs {
					if other, twice := seen[ip.Address.IP.String()]; twice {
						t.Errorf("%s and %s both have %s", other, req.ContainerID, ip.Address.IP)
					}
					seen[ip.Address.IP.String()] = req.ContainerID
				}
			})
		}
		wg.Wait()
	}
	each("ADD")
	if len(seen) != 3*pods {
		t.Errorf("%d addresses for %d Pods", len(seen), pods)
	}
	each("CHECK")
	each("DEL")
	if len(n.records()) != 0 {
		t.Errorf("records %v", n.records())
	}
	must(t, n.host.Do(func() error {
		links, err := net.Interfaces()
		for _, l := range links {
			if strings.HasPrefix(l.Name, "dn") {
				t.Errorf("host end %s is left", l.Name)
			}
		}
		return err
	}))
}
