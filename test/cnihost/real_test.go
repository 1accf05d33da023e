//go:build linux

package cnihost

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
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	resources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/server"
	"danm.io/danm/node/podresources"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/cards"
	"danm.io/danm/test/lab"
)

// kubelet says which devices of a resource Pods of namespace acme have.
type kubelet struct {
	resources.UnimplementedPodResourcesListerServer
	devices map[string]string
}

func (k kubelet) Get(_ context.Context, r *resources.GetPodResourcesRequest) (*resources.GetPodResourcesResponse, error) {
	id, is := k.devices[r.PodName]
	if !is || r.PodNamespace != "acme" {
		return nil, status.Error(codes.NotFound, "no such Pod")
	}
	devices := []*resources.ContainerDevices{{ResourceName: pool, DeviceIds: []string{id}}}
	return &resources.GetPodResourcesResponse{PodResources: &resources.PodResources{Name: r.PodName, Namespace: r.PodNamespace,
		Containers: []*resources.ContainerResources{{Name: "main", Devices: devices}}}}, nil
}

const pool = "danm.io/fast"

// serve answers on a socket, whose path it returns.
func (k kubelet) serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubelet.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	s := grpc.NewServer()
	resources.RegisterPodResourcesListerServer(s, k)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return path
}

// cardHost is a host whose attacher works on the machine's cards, in its first namespace.
func cardHost(t *testing.T, m *cards.Machine, devices map[string]string) *Host {
	t.Helper()
	var a *attach.Attacher
	must(t, m.Host.Do(func() (err error) { a, err = attach.New("/"); return err }))
	t.Cleanup(a.Close)
	of := podresources.Kubelet{Socket: kubelet{devices: devices}.serve(t)}
	network := model.Network{Kind: model.ClusterNetwork, Name: "fast", NetworkID: "fast", Type: model.SRIOV, DevicePool: pool, VLAN: 7, QoS: 3, MTU: 1400, NAD: true, SpaceDomain: "fast",
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.7.0.0/24"), Gateway: netip.MustParseAddr("10.7.0.1")}}
	return New(t, Options{State: model.NodeState{Node: "n", Slots: 1, Networks: []model.Network{network}}, Change: func(o *server.Options) {
		o.Attacher, o.Devices = a, of.Devices
	}})
}

const asksFast = `,"interfaces":[{"clusterNetwork":"fast","ip":"dynamic"}]`

// forgetful is a runtime that knows of no attachment, so that its GC is the plugin's.
func (h *Host) forgetful() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{h.Bin}, h.T.TempDir(), h.Exec)
}

// record is what the journal says of a sandbox.
type record struct {
	Away       bool
	Interfaces []model.Attachment
}

func (h *Host) records() (out []record) {
	h.T.Helper()
	list, err := h.IPAM.List()
	must(h.T, err)
	for _, r := range list {
		var rec record
		must(h.T, json.Unmarshal(r.Data, &rec))
		out = append(out, rec)
	}
	return out
}

// away are the functions that are not back from Pods that are gone.
func (h *Host) away() (functions []string) {
	h.T.Helper()
	for _, rec := range h.records() {
		for _, at := range rec.Interfaces {
			if rec.Away {
				functions = append(functions, at.DeviceID)
			}
		}
	}
	return functions
}

// TestKernelSRIOVThroughTheShim: two Pods have functions of real cards by what a kubelet says, from ADD to DEL and to the GC of one whose
// namespace has ended.
func TestKernelSRIOVThroughTheShim(t *testing.T) {
	m := cards.New(t, 1)
	before := m.Seen()
	h := cardHost(t, m, map[string]string{"one": m.PCI(0, 0), "two": m.PCI(1, 0)})
	conf := h.List("1.1.0", asksFast)
	var spaces []*lab.NS
	var calls []*libcni.RuntimeConf
	var addresses []string
	for i, name := range []string{"one", "two"} {
		ns, err := h.World.Add(name)
		must(t, err)
		rt := h.Runtime(ns, name, name)
		r, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
		must(t, err)
		result, err := types100.GetResult(r)
		must(t, err)
		if in := result.Interfaces[0]; len(result.Interfaces) != 1 || in.PciID != m.PCI(i, 0) || in.Mtu != 1400 || h.See(ns).Link("eth0").MAC != in.Mac {
			t.Errorf("%s: %+v", name, result.Interfaces)
		}
		if says := m.Says(i, 0); !strings.Contains(says, "vlan [{7 3}]") {
			t.Errorf("%s: the card says %s", name, says)
		}
		must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
		spaces, calls, addresses = append(spaces, ns), append(calls, rt), append(addresses, result.IPs[0].Address.IP.String())
	}
	must(t, spaces[0].Ping(addresses[1], 30*time.Second))
	m.IP("link", "set", m.PF(0), "vf", "0", "vlan", "8")
	if e := h.CNI.CheckNetworkList(t.Context(), conf, calls[0]); e == nil || !strings.Contains(e.Error(), "the card has VLAN 8, priority 0 for it instead of VLAN 7, priority 3") {
		t.Errorf("CHECK: %v", e)
	}
	must(t, h.CNI.DelNetworkList(t.Context(), conf, calls[0]))
	must(t, h.World.Remove(spaces[1]))
	must(t, h.forgetful().GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "two", IfName: "eth0"}}}))
	if got := h.Records(); !slices.Equal(got, []string{"two"}) {
		t.Errorf("after the GC that spares it: %v", got)
	}
	must(t, h.forgetful().GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}))
	if got := h.Records(); len(got) != 0 {
		t.Errorf("records %v", got)
	}
	m.As(before, "after DEL and GC")
}

// TestKernelSRIOVLateThroughTheShim: a process holds the namespace of a Pod that the runtime has ended. Its addresses are free; the function
// is nobody's meanwhile, and is as before, and another Pod's, when it comes back.
func TestKernelSRIOVLateThroughTheShim(t *testing.T) {
	m := cards.New(t, 1)
	before := m.Seen()
	h := cardHost(t, m, map[string]string{"one": m.PCI(0, 0), "two": m.PCI(0, 0)})
	conf := h.List("1.1.0", asksFast)
	for _, verb := range []string{"GC", "DEL"} {
		ns, err := h.World.Add("one-" + verb)
		must(t, err)
		rt := h.Runtime(ns, "one", "one")
		_, err = h.CNI.AddNetworkList(t.Context(), conf, rt)
		must(t, err)
		m.IPIn(ns, "link", "set", "eth0", "alias", "mine", "mtu", "1300")
		held, err := os.Open(ns.Path)
		must(t, err)
		must(t, h.World.Remove(ns))
		if rt.NetNS = ""; verb == "DEL" {
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
		} else {
			must(t, h.forgetful().GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}))
		}
		if got := h.away(); !slices.Equal(got, []string{m.PCI(0, 0)}) || !strings.Contains(m.Says(0, 0), "vlan [{7 3}]") {
			t.Errorf("%s: away are %v, the card says %s", verb, got, m.Says(0, 0))
		}
		next, err := h.World.Add("two-" + verb)
		must(t, err)
		other := h.Runtime(next, "two", "two")
		if _, err := h.CNI.AddNetworkList(t.Context(), conf, other); err == nil || h.Told(err).Code != types.ErrTryAgainLater || len(h.Records()) != 1 {
			t.Errorf("%s: another Pod while it is away: %v, records %v", verb, err, h.Records())
		}
		must(t, held.Close())
		if name := m.Link(0, 0); name != "eth0" && !strings.HasPrefix(name, "dev") {
			t.Errorf("%s: it came back as %s", verb, name)
		}
		if verb == "GC" { // the agent's next round finds it; else the next Pod's ADD does
			_, err = h.Server.Mend(t.Context())
			must(t, err)
			m.As(before, "when it is back after "+verb)
		}
		_, err = h.CNI.AddNetworkList(t.Context(), conf, other)
		must(t, err)
		must(t, h.CNI.CheckNetworkList(t.Context(), conf, other))
		if rec := h.records()[0]; rec.Away {
			t.Errorf("%s: %+v is away", verb, rec)
		} else if at := rec.Interfaces[0]; at.VF.VLAN != 0 || at.Moved.Alias != "" || at.Moved.MTU != 1500 {
			t.Errorf("%s: the next Pod found it as %+v %+v", verb, at.VF, at.Moved)
		}
		must(t, h.CNI.DelNetworkList(t.Context(), conf, other))
		if got := h.Records(); len(got) != 0 {
			t.Errorf("%s: records %v", verb, got)
		}
		m.As(before, fmt.Sprintf("after %s, and the next Pod", verb))
	}
}
