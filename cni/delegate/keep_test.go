package delegate

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/spec/model"
)

// What is kept in the place of an answer is the plugins' from then on, whatever the version of theirs, and everything else that libcni
// keeps stays; DEL leaves nothing.
func TestKeep(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		n := newNode(t)
		n.plugin("first", `echo '{"cniVersion":"`+version+`","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"version":"4","address":"10.9.0.2/24","gateway":"10.9.0.1","interface":0}],"routes":[{"dst":"0.0.0.0/0","gw":"10.9.0.1"},{"dst":"10.0.0.0/8","gw":"10.9.0.3"}],"dns":{"domain":"d"}}'`)
		list, err := n.plugins.Configure(network(model.Delegate{Conf: `{"cniVersion":"` + version + `","type":"first","capabilities":{"mac":true}}`}), nil, nil)
		must(t, err)
		c := Call{Container: "c1", Netns: "/proc/self/ns/net", IfName: "net1", Args: [][2]string{{"K8S_POD_NAME", "p"}}, Capabilities: map[string]any{"mac": "02:00:00:00:00:01"}}
		r, err := n.plugins.Add(t.Context(), list, c)
		must(t, err)
		r.Routes = append(slices.Clone(r.Routes[1:]), &types.Route{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: net.ParseIP("10.9.0.9")})
		must(t, n.plugins.Keep(list, c, r))
		got, err := n.plugins.Result(list, c)
		if want := "[{Dst:10.0.0.0/8 GW:10.9.0.3} {Dst:0.0.0.0/0 GW:10.9.0.9}]"; err != nil || routesText(got.Routes) != want || got.IPs[0].Gateway.String() != "10.9.0.1" || got.DNS.Domain != "d" {
			t.Errorf("%s: %v %s %+v", version, err, routesText(got.Routes), got)
		}
		must(t, n.plugins.Check(t.Context(), list, c))
		must(t, n.plugins.Del(t.Context(), list, c))
		verbs := []string{"CHECK", "DEL"}
		if version == "0.3.1" {
			verbs = nil // these have no earlier result
		}
		for _, verb := range verbs {
			called := n.got("first." + verb)
			if text(called["prevResult"].(map[string]any)["routes"]) != `[{"dst":"10.0.0.0/8","gw":"10.9.0.3"},{"dst":"0.0.0.0/0","gw":"10.9.0.9"}]` || text(called["runtimeConfig"]) != `{"mac":"02:00:00:00:00:01"}` || called["cniVersion"] != version {
				t.Errorf("%s %s: %v", version, verb, called)
			}
		}
		if left := n.cached(); len(left) != 0 {
			t.Errorf("%s: after DEL there is %q", version, left)
		}
	}
}

func routesText(routes []*types.Route) string {
	var out []string
	for _, r := range routes {
		out = append(out, fmt.Sprintf("{Dst:%s GW:%s}", r.Dst.String(), r.GW))
	}
	return fmt.Sprint(out)
}

// cached are the files of the cache.
func (n *node) cached() (out []string) {
	must(n.t, filepath.WalkDir(n.plugins.opts.CacheDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, filepath.Base(path))
		}
		return err
	}))
	return out
}

// Where it cannot be kept, the answer is as it was; what a killed process left is in nobody's way, and DEL removes it.
func TestKeepFails(t *testing.T) {
	n := newNode(t)
	list, err := n.plugins.Configure(network(model.Delegate{Conf: `{"cniVersion":"1.0.0","type":"first"}`}), nil, nil)
	must(t, err)
	c := Call{Container: "c1", Netns: "/proc/self/ns/net", IfName: "net1"}
	r, err := n.plugins.Add(t.Context(), list, c)
	must(t, err)
	fresh := n.plugins.freshFile(n.plugins.cacheFile("netid", c))
	must(t, os.Mkdir(fresh, 0o700)) // as good as a full disk
	r.IPs = nil
	if err := n.plugins.Keep(list, c, r); err == nil {
		t.Error("nothing was wrong")
	}
	if got, err := n.plugins.Result(list, c); err != nil || len(got.IPs) != 1 {
		t.Errorf("%v %+v", err, got)
	}
	if err := n.plugins.Keep(list, Call{Container: "another", IfName: "net1"}, r); err == nil {
		t.Error("kept for an attachment that there is not")
	}
	_ = os.Remove(fresh)
	must(t, os.WriteFile(fresh, []byte(`{"cut`), 0o600))
	if got, err := n.plugins.Result(list, c); err != nil || len(got.IPs) != 1 {
		t.Errorf("beside what was left: %v %+v", err, got)
	}
	must(t, n.plugins.GC(t.Context(), list, []types.GCAttachment{{ContainerID: "c1", IfName: "net1"}}))
	must(t, n.plugins.Del(t.Context(), list, c))
	if left := n.cached(); len(left) != 0 {
		t.Errorf("after DEL there is %q", left)
	}
	// A plugin that is not there any more has left its answer.
	_, err = n.plugins.Add(t.Context(), list, c)
	must(t, err)
	must(t, os.WriteFile(fresh, nil, 0o600))
	must(t, os.Remove(filepath.Join(n.root, "opt/cni/bin/first")))
	if left := n.cached(); len(left) != 2 {
		t.Errorf("control: there is %q", left)
	}
	must(t, n.plugins.Del(t.Context(), list, c))
	if left := n.cached(); len(left) != 0 {
		t.Errorf("after DEL without the plugin there is %q", left)
	}
}

// Names may be as long as libcni's own files allow.
func TestKeepLongNames(t *testing.T) {
	n := newNode(t)
	long := network(model.Delegate{Conf: `{"cniVersion":"1.0.0","type":"first"}`})
	c := Call{Container: strings.Repeat("c", 64), Netns: "/proc/self/ns/net", IfName: "net1"}
	long.NetworkID = strings.Repeat("n", 255-len("--net1")-64)
	list, err := n.plugins.Configure(long, nil, nil)
	must(t, err)
	r, err := n.plugins.Add(t.Context(), list, c)
	must(t, err)
	must(t, n.plugins.Keep(list, c, r))
}
