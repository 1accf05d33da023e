package server

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// asIPAM is a call as a macvlan plugin would hand it on to its IPAM plugin.
func asIPAM(command, container, ifName, uid, section string) wire.Request {
	r := request(command, container, "acme", uid, "")
	r.IfName = ifName
	r.Stdin = []byte(`{"cniVersion":"1.0.0","name":"plain","type":"macvlan","master":"eth0","interfaces":"not ours","ipam":` + section + `}`)
	return r
}

const ofData = `{"type":"danm","network":"data"}`

func addresses(r types100.Result) (out []string) {
	for _, ip := range r.IPs {
		out = append(out, ip.Address.String())
	}
	return out
}

func TestAddressesForAnotherPlugin(t *testing.T) {
	n := newNode(t, nil)
	r, e := n.call(asIPAM("ADD", "c", "net1", "u", ofData))
	if e != nil {
		t.Fatal(e)
	}
	var routes []string
	for _, x := range r.Routes {
		routes = append(routes, x.Dst.String()+" via "+x.GW.String())
	}
	if !slices.Equal(addresses(r), []string{"10.0.0.10/24", "fd00::10/64"}) || !r.IPs[0].Gateway.Equal(net.ParseIP("10.0.0.254")) || !r.IPs[1].Gateway.Equal(net.ParseIP("fd00::fe")) ||
		len(r.Interfaces) != 0 || r.IPs[0].Interface != nil || !slices.Equal(routes, []string{"10.9.0.0/16 via 10.0.0.253"}) {
		t.Errorf("%+v, routes %v", r, routes)
	}
	again, e := n.call(asIPAM("ADD", "c", "net1", "u", ofData))
	if e != nil || !slices.Equal(addresses(again), addresses(r)) || len(n.records()) != 1 {
		t.Errorf("ADD again: %v %v, records %v", again, e, n.records())
	}
	for name, bad := range map[string]wire.Request{"network": asIPAM("ADD", "c", "net1", "u", `{"type":"danm","network":"port"}`),
		"conf": func() wire.Request {
			r := asIPAM("ADD", "c", "net1", "u", ofData)
			r.Stdin = []byte(strings.Replace(string(r.Stdin), "plain", "other", 1))
			return r
		}()} {
		if _, e := n.call(bad); e == nil || e.Code != CodeAlreadyAttached {
			t.Errorf("ADD of another %s: %v", name, e)
		}
	}
	if live := n.fake.sandboxes(); len(live) != 0 {
		t.Errorf("links were made: %v", live)
	}
	if pods := n.server.Pods(); !slices.Equal(pods["eth0"], []string{"acme/pod-c"}) {
		t.Errorf("Pods: %v", pods)
	}
	with := func(command, prev string) wire.Request {
		r := asIPAM(command, "c", "net1", "u", ofData)
		r.Stdin = []byte(strings.Replace(string(r.Stdin), `"ipam"`, `"prevResult":`+prev+`,"ipam"`, 1))
		return r
	}
	for prev, code := range map[string]uint{"null": 0, `{"ips":[{"address":"10.0.0.10/24"},{"address":"fd00::10/64"},{"address":"10.77.0.1/24"}]}`: 0,
		`{"ips":[{"address":"10.0.0.10/24"}]}`: CodeCheckFailed, `{"ips":[]}`: CodeCheckFailed, `{"ips":7}`: types.ErrDecodingFailure} {
		_, e := n.call(with("CHECK", prev))
		if (e == nil) != (code == 0) || e != nil && e.Code != code {
			t.Errorf("CHECK with %s: %v, want %d", prev, e, code)
		}
	}
	if _, e := n.call(asIPAM("CHECK", "c", "net2", "u", ofData)); e == nil || e.Code != types.ErrUnknownContainer {
		t.Errorf("CHECK of another interface: %v", e)
	}
	for range 2 {
		if _, e := n.call(asIPAM("DEL", "c", "net1", "u", ofData)); e != nil {
			t.Error(e)
		}
	}
	if len(n.records()) != 0 || len(n.server.Pods()) != 0 {
		t.Errorf("left %v %v", n.records(), n.server.Pods())
	}
}

// A runtime's first interface gets the default route, others do not; each version is one that CNI's own decoder reads.
func TestAddressesInEachVersion(t *testing.T) {
	n := newNode(t, nil)
	for i, version := range versions {
		for _, ifName := range []string{"eth0", "eth1"} {
			req := asIPAM("ADD", fmt.Sprintf("c%d", i), ifName, fmt.Sprintf("u%d", i), ofData)
			req.Stdin = []byte(strings.Replace(string(req.Stdin), "1.0.0", version, 1))
			f, err := os.Open("/proc/self/ns/net")
			must(t, err)
			resp, err := wire.Call(within(90*time.Second), n.socket(), time.Second, req, fdOf(f))
			must(t, err)
			f.Close()
			if resp.Error != nil {
				t.Fatal(resp.Error)
			}
			res, err := create.CreateFromBytes(resp.Result)
			if err != nil || res.Version() != version {
				t.Fatalf("%s: %v\n%s", version, err, resp.Result)
			}
			r, err := types100.NewResultFromResult(res)
			must(t, err)
			if def := strings.Contains(string(resp.Result), `"0.0.0.0/0"`) && strings.Contains(string(resp.Result), `"::/0"`); def != (ifName == "eth0") || len(r.IPs) != 2 {
				t.Errorf("%s %s:\n%s", version, ifName, resp.Result)
			}
		}
	}
}

func TestWhatAnIPAMSectionMeans(t *testing.T) {
	n := newNode(t, nil)
	first := testState().Networks[0].IPv4.CIDR.Addr().Next()
	n.networks(func(list []model.Network) []model.Network {
		return append(list, model.Network{Kind: model.ClusterNetwork, Name: "vf", Type: model.SRIOV, SpaceDomain: "vf", IPv4: subnet("10.6.0.0/24", "", ""),
			Reserved: []model.Reservation{{Name: "vip", Namespace: "acme", IP: first}}},
			model.Network{Kind: model.ClusterNetwork, Name: "plug", Type: "flannel", Device: "eth9", SpaceDomain: "plug", Delegate: &model.Delegate{File: "x"}, IPv6: subnet("fd06::/64", "", "")})
	})
	rows := []struct {
		section string
		want    string // addresses, or a part of the error
		code    uint
		diag    diag.Code
	}{
		{`{"type":"danm","network":"data","ip6":"none"}`, "10.0.0.10/24", 0, ""},
		{`{"type":"danm","tenantNetwork":"data","ip":"10.0.0.77","ip6":"none"}`, "10.0.0.77/24", 0, ""},
		{`{"type":"danm","network":"acme/data","ip":"none","ip6":"dynamic"}`, "fd00::10/64", 0, ""},
		{`{"type":"danm","network":"shared"}`, "10.3.0.1/24", 0, ""},
		{`{"type":"danm","clusterNetwork":"shared"}`, "10.3.0.2/24", 0, ""},
		{`{"type":"danm","network":"vf"}`, "10.6.0.1/24", 0, ""},
		{`{"type":"danm","network":"plug"}`, "fd06::/64", 0, ""},
		{`{"type":"danm","network":"beta/secret"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown},
		{`{"type":"danm","network":"beta/data"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown}, // acme has one of that name
		{`{"type":"danm","network":"acme/shared"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown},
		{`{"type":"danm","network":"closed"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown},
		{`{"type":"danm","tenantNetwork":"shared"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown},
		{`{"type":"danm","clusterNetwork":"data"}`, "does not exist", CodeNetworkUnknown, diag.PodNetworkUnknown},
		{`{"type":"danm","network":"l2"}`, "no address", CodeAddressUnusable, diag.PodAddressUnusable},
		{`{"type":"danm","network":"data","ip":"none","ip6":"none"}`, "no address", CodeAddressUnusable, diag.PodAddressUnusable},
		{`{"type":"danm","network":"shared","ip6":"dynamic"}`, "IPv6", CodeAddressUnusable, diag.PodAddressUnusable},
		{`{"type":"danm","network":"data","ip":"10.99.0.1"}`, "10.99.0.1", CodeAddressUnusable, diag.PodAddressUnusable},
		{`{"type":"danm","network":"vf","ip":"vop"}`, `no reservation "vop"`, CodeAddressUnusable, diag.PodAddressUnusable},
		{`{"type":"danm"}`, "0 network references", types.ErrInvalidNetworkConfig, diag.AnnotationReference},
		{`{"type":"danm","network":"data","subnet":"10.0.0.0/8"}`, "unknown key", types.ErrInvalidNetworkConfig, diag.AnnotationField},
	}
	for i, r := range rows {
		container := fmt.Sprintf("c%d", i)
		got, e := n.call(asIPAM("ADD", container, "net1", "u"+container, r.section))
		switch {
		case r.code == 0 && e != nil:
			t.Errorf("%s: %v", r.section, e)
		case r.code == 0 && r.want != "fd06::/64" && strings.Join(addresses(got), " ") != r.want:
			t.Errorf("%s: %v", r.section, addresses(got))
		case r.code != 0 && (e == nil || e.Code != r.code || e.Details != string(r.diag) || !strings.Contains(e.Msg, r.want)):
			t.Errorf("%s: %v, want %d %s %q", r.section, e, r.code, r.diag, r.want)
		}
		if _, e := n.call(asIPAM("DEL", container, "net1", "u"+container, r.section)); e != nil && r.code != types.ErrInvalidNetworkConfig {
			t.Errorf("%s: DEL: %v", r.section, e)
		}
	}
	if len(n.records()) != 0 {
		t.Errorf("left %v", n.records())
	}
}

// Without a cluster the container's ID is the Pod's UID, and the configuration says whose network it is.
func TestAddressesWithoutACluster(t *testing.T) {
	n := newNode(t, nil)
	req := asIPAM("ADD", "c", "eth0", "", `{"type":"danm","network":"acme/data"}`)
	req.Args = ""
	if _, e := n.call(req); e != nil {
		t.Fatal(e)
	}
	rec, err := n.ipam.Lookup("c/eth0")
	must(t, err)
	if rec.PodUID != "c/eth0" || len(rec.Holds) != 2 || rec.Holds[0].IfName != "eth0" {
		t.Errorf("record %+v", rec)
	}
	req.Stdin = []byte(strings.Replace(string(req.Stdin), "acme/data", "data", 1))
	req.IfName = "eth1"
	if _, e := n.call(req); e == nil || e.Code != CodeNetworkUnknown {
		t.Errorf("a tenant's network for nobody: %v", e)
	}
	req.Args = "K8S_POD_UID=u/net1"
	if _, e := n.call(req); e == nil || e.Code != types.ErrInvalidEnvironmentVariables {
		t.Errorf("a UID that names another's record: %v", e)
	}
}

// R1 and R2 for addresses alone: the new sandbox takes the address over, and a late DEL of the old one, also of danm's own
// attachment of the same container, frees nothing of it. One interface's record is not another's.
func TestSandboxesOfAddressesAlone(t *testing.T) {
	n := newNode(t, nil)
	if _, e := n.call(request("ADD", "s1", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	gone := asIPAM("ADD", "s1", "net1", "u", ofData)
	gone.Netns = filepath.Join(t.TempDir(), "netns") // where it is by now, nobody finds it
	first, e := n.call(gone)
	if e != nil {
		t.Fatal(e)
	}
	other, e := n.call(asIPAM("ADD", "s1", "net2", "u", ofData))
	if e != nil || slices.Equal(addresses(first), addresses(other)) {
		t.Errorf("two interfaces: %v %v, %v", addresses(first), addresses(other), e)
	}
	if _, e := n.call(asIPAM("ADD", "s2", "net2", "u", ofData)); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodFormerSandbox) || !strings.Contains(e.Msg, "s1") {
		t.Errorf("a link that stands keeps its address from the next sandbox: %v", e)
	}
	second, e := n.call(asIPAM("ADD", "s2", "net1", "u", ofData))
	if e != nil || !slices.Equal(addresses(first), addresses(second)) {
		t.Errorf("new sandbox: %v %v, %v", addresses(first), addresses(second), e)
	}
	if detached, _ := n.fake.log(); len(detached) != 0 {
		t.Errorf("links of others were taken down: %v", detached)
	}
	for range 2 {
		if _, e := n.call(asIPAM("DEL", "s1", "net1", "u", ofData)); e != nil {
			t.Error(e)
		}
	}
	if want := []string{"s1", "s1/net2", "s2/net1"}; !slices.Equal(n.records(), want) {
		t.Errorf("records %v, want %v", n.records(), want)
	}
	if _, e := n.call(request("DEL", "s1", "acme", "u", oneData)); e != nil {
		t.Error(e)
	}
	if want := []string{"s1/net2", "s2/net1"}; !slices.Equal(n.records(), want) {
		t.Errorf("records %v, want %v", n.records(), want)
	}
	// A restart reads them; a Pod keeps its device busy.
	n.end()
	n.start(n.fake)
	if pods := n.server.Pods(); !slices.Equal(pods["eth0"], []string{"acme/pod-s1", "acme/pod-s2"}) {
		t.Errorf("Pods: %v", pods)
	}
	if _, e := n.call(asIPAM("CHECK", "s2", "net1", "u", ofData)); e != nil {
		t.Error(e)
	}
	n.fake.set(func(f *fakeAttacher) { f.index, f.looked = map[string]int{"eth0": 7}, 0 })
	if mended, err := n.server.Mend(t.Context()); mended != 0 || err != nil {
		t.Errorf("mended %d, %v", mended, err)
	}
	if n.fake.set(func(f *fakeAttacher) {
		if f.looked != 0 {
			t.Error("links of others are mended")
		}
	}); len(n.records()) != 2 {
		t.Errorf("records %v", n.records())
	}
}

// newest is the number of the sandbox's last ADD.
func (n *node) newest(key string) uint64 {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	return n.server.lastAdd[key]
}

// An answer that nobody takes gives back what this call took, and nothing of the container's other attachments.
func TestForsakenAddresses(t *testing.T) {
	n := newNode(t, nil)
	if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	req := asIPAM("ADD", "c", "net1", "u", ofData)
	if _, e := n.call(req); e != nil {
		t.Fatal(e)
	}
	n.server.forsake(req, n.newest("c/net1")-1) // the runtime has asked again since
	if len(n.records()) != 2 {
		t.Errorf("what was answered anew is undone: %v", n.records())
	}
	n.server.forsake(req, n.newest("c/net1"))
	if !slices.Equal(n.records(), []string{"c"}) || !slices.Equal(n.fake.sandboxes(), []string{"c"}) {
		t.Errorf("records %v, links of %v", n.records(), n.fake.sandboxes())
	}
	n.server.forsake(request("ADD", "c", "acme", "u", oneData), n.newest("c"))
	if len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
		t.Errorf("records %v, links of %v", n.records(), n.fake.sandboxes())
	}
}

// An agent that is one release older takes the record for addresses without links: it touches nothing and reads on.
func TestRecordOfAddressesIsReadByTheReleaseBefore(t *testing.T) {
	n := newNode(t, nil)
	if _, e := n.call(asIPAM("ADD", "c", "net1", "u", ofData)); e != nil {
		t.Fatal(e)
	}
	rec, err := n.ipam.Lookup("c/net1")
	must(t, err)
	var old struct {
		Version    int               `json:"version"`
		Interfaces []json.RawMessage `json:"interfaces"`
	}
	if err := json.Unmarshal(rec.Data, &old); err != nil || old.Version != 1 || len(old.Interfaces) != 0 {
		t.Errorf("%v: %s", err, rec.Data)
	}
}
