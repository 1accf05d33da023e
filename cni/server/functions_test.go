package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// functionNode has SR-IOV networks of two pools. devices are what a kubelet says of every Pod.
func functionNode(t *testing.T, devices map[string][]string, more ...func(*Options)) *node {
	n := newNode(t, nil)
	n.networks(func(list []model.Network) []model.Network {
		one := func(name, pool string, vlan uint16, qos uint8) model.Network {
			return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.SRIOV, DevicePool: pool, VLAN: vlan, QoS: qos, MTU: 9000, NAD: true, SpaceDomain: name, IPv4: subnet("10.8.0.0/24", "", "")}
		}
		return append(list, one("fast", "danm.io/fast", 7, 3), one("fast2", "danm.io/fast", 0, 0), one("slow", "danm.io/slow", 8, 0))
	})
	n.restart(func(o *Options) {
		if devices != nil {
			o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
		}
		for _, change := range more {
			change(o)
		}
	})
	return n
}

// claims and away count what the server keeps of devices that are about to be given, and of those that are not back.
func (n *node) claims() int {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	return len(n.server.claims)
}

func (n *node) away() int {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	return len(n.server.away)
}

func vf(number int) string { return fmt.Sprintf("0000:01:02.%d", number) }

// SurveyFunction and FunctionIndex: functions whose number after the dot is odd are a program's, and one is in the host as long as no
// sandbox has it.
func (f *fakeAttacher) SurveyFunction(pci string) (attach.Function, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := attach.Function{VF: model.Function{PF: "ens1", PFPCI: "0000:01:00.0", Number: int(pci[len(pci)-1] - '0'), VLAN: 9}, MAC: "06:00:00:00:00:0" + pci[len(pci)-1:]}
	if out.VF.Number%2 == 1 {
		out.VF.Driver = "vfio-pci"
		return out, f.survey
	}
	for _, theirs := range f.live {
		for _, at := range theirs {
			if at.DeviceID == pci {
				return out, attach.ErrHostLink
			}
		}
	}
	out.Device, out.Moved = "ens1v"+pci[len(pci)-1:], &model.Moved{Kind: "device", MTU: 1500, MAC: out.MAC}
	return out, f.survey
}

func (f *fakeAttacher) FunctionIndex(pci string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index["function "+pci], nil
}

// Differing: the card is right again once the function's sandbox was mended, unless it is one of a fight.
func (f *fakeAttacher) Differing(attached []model.Attachment) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = len(attached)
	return slices.Clone(f.unlike), nil
}

// TestFunctions: the n-th interface of a pool has the n-th function, the record says all that its end needs, and those who would change
// a function find the Pod by it.
func TestFunctions(t *testing.T) {
	devices := map[string][]string{"danm.io/fast": {vf(0), vf(1)}, "danm.io/slow": {vf(2)}}
	n := functionNode(t, devices)
	r, e := n.call(request("ADD", "a", "acme", "u-a", on("fast", "slow", "fast2")))
	if e != nil {
		t.Fatal(e)
	}
	old, err := n.ipam.Lookup("a")
	must(t, err)
	rec, err := decodeRecord(old.Data)
	must(t, err)
	for i, want := range []struct {
		number int
		device string
		vlan   uint16
		qos    uint8
	}{{0, "ens1v0", 7, 3}, {2, "ens1v2", 8, 0}, {1, "", 0, 0}} {
		at, driver := rec.Interfaces[i], ""
		if want.number == 1 {
			driver = "vfio-pci"
		}
		mac := fmt.Sprintf("06:00:00:00:00:0%d", want.number)
		if at.Type != model.SRIOV || at.DeviceID != vf(want.number) || at.Device != want.device || at.VLAN != want.vlan || at.QoS != want.qos || at.MAC != mac || at.MTU != 9000 ||
			(at.Moved == nil) != (driver != "") || at.Moved != nil && at.Moved.MAC != mac || at.VF == nil || *at.VF != (model.Function{PF: "ens1", PFPCI: "0000:01:00.0", Number: want.number, Driver: driver, VLAN: 9}) {
			t.Errorf("%d: recorded %+v, %+v", i, at, at.VF)
		}
		if in := r.Interfaces[i]; in.PciID != vf(want.number) || in.Mac != mac {
			t.Errorf("%d: answered %+v", i, in)
		}
	}
	if got := n.fake.attached("a"); len(got) != 3 || got[0].DeviceID != rec.Interfaces[0].DeviceID || got[0].VF == nil {
		t.Errorf("made %+v", got)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			n.restart(func(o *Options) {
				o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
			})
		}
		pods := n.server.Pods()
		for _, key := range []string{"sriov/ens1", "vf/" + vf(0), "vf/" + vf(1), "vf/" + vf(2), "ens1v0", "ens1v2"} {
			if !slices.Equal(pods[key], []string{"acme/pod-a"}) {
				t.Errorf("restarted %v: %s: %v of %v", restarted, key, pods[key], pods)
			}
		}
		if len(pods) != 6 {
			t.Errorf("%v", pods)
		}
		if held := fmt.Sprint(n.server.Held()); held != "[{0000:01:02.0 danm.io/fast acme/pod-a} {0000:01:02.1 danm.io/fast acme/pod-a} {0000:01:02.2 danm.io/slow acme/pod-a}]" {
			t.Errorf("restarted %v: %s", restarted, held)
		}
		_, e := n.call(request("ADD", "b", "acme", "u-b", on("slow")))
		if e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodDeviceBusy) || !strings.Contains(e.Msg, "acme/pod-a has virtual function "+vf(2)) || len(n.records()) != 1 {
			t.Errorf("restarted %v: a function of another Pod: %+v, %v", restarted, e, n.records())
		}
	}
	again := request("ADD", "a2", "acme", "u-a", on("fast", "slow", "fast2")) // the Pod's next sandbox has the same ones
	again.Args = strings.Replace(again.Args, "K8S_POD_NAME=pod-a2", "K8S_POD_NAME=pod-a", 1)
	if _, e := n.call(again); e != nil {
		t.Fatal(e)
	}
	if got := n.fake.attached("a2"); got[1].DeviceID != vf(2) {
		t.Errorf("%+v", got)
	}
	if held := n.server.Held(); len(held) != 3 {
		t.Errorf("of two sandboxes of one Pod: %v", held)
	}
	for _, sandbox := range []string{"a", "a2"} {
		if _, e := n.call(request("DEL", sandbox, "acme", "u-a", "")); e != nil {
			t.Fatal(e)
		}
	}
	if pods := n.server.Pods(); len(pods) != 0 {
		t.Errorf("%v", pods)
	}
	if _, e := n.call(request("ADD", "b", "acme", "u-b", on("slow"))); e != nil {
		t.Errorf("when it is free: %v", e)
	}
}

// TestFunctionsThatAreMissing: nothing is attached with less, and the message has the lines that the Pod needs.
func TestFunctionsThatAreMissing(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}, "danm.io/slow": {"GPU-7"}})
	for _, c := range []struct {
		networks []string
		code     diag.Code
		text     string
	}{
		{[]string{"fast", "shared", "fast2"}, diag.PodDeviceMissing, "interface eth2 on network fast2 needs a device of danm.io/fast, and the Pod's containers have 1 of 2; add to one of them:\nresources:\n  requests:\n    danm.io/fast: \"2\"\n  limits:\n    danm.io/fast: \"2\""},
		{[]string{"slow"}, diag.PodDeviceMissing, `the device "GPU-7" of danm.io/slow is no virtual function`},
	} {
		if _, e := n.call(request("ADD", "a", "acme", "u-a", on(c.networks...))); e == nil || e.Code != CodeRequestRefused || e.Details != string(c.code) || !strings.Contains(e.Msg, c.text) {
			t.Errorf("%v: %+v", c.networks, e)
		}
	}
	n.fake.set(func(f *fakeAttacher) { f.survey = attach.ErrHostLink })
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodHostLinkMissing) || !strings.Contains(e.Msg, "network fast") {
		t.Errorf("a function that is not there: %+v", e)
	}
	n.fake.set(func(f *fakeAttacher) { f.survey = attach.ErrInUse })
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e == nil || e.Details != string(diag.PodDeviceInUse) {
		t.Errorf("a function that the host uses: %+v", e)
	}
	if len(n.records()) != 0 || len(n.server.Pods()) != 0 || n.claims() != 0 {
		t.Errorf("left: %v, %v, %d claims", n.records(), n.server.Pods(), n.claims())
	}
	n.fake.set(func(f *fakeAttacher) { f.survey = nil })
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e != nil {
		t.Error(e)
	}
	n = functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}, "danm.io/slow": {vf(0)}})
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast", "slow"))); e == nil || e.Code != CodeRequestRefused || e.Details != string(diag.PodDeviceBusy) || !strings.Contains(e.Msg, vf(0)) {
		t.Errorf("one function of two pools: %+v", e)
	}
	n = functionNode(t, nil)
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e == nil || e.Code != CodeRequestRefused || e.Details != string(diag.PodDeviceMissing) || !strings.Contains(e.Msg, "no kubelet here") {
		t.Errorf("without a cluster: %+v", e)
	}
}

// Two Pods that are told of one function at the same time: one has it, whoever has come how far.
func TestFunctionOfTwoADDs(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}})
	unlock, _ := n.server.locks.tryLock("pod/u-a") // the first waits there, before it has a record
	done := make(chan *types.Error)
	go func() {
		_, e := n.call(request("ADD", "a", "acme", "u-a", on("fast")))
		done <- e
	}()
	for n.claims() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, e := n.call(request("ADD", "b", "acme", "u-b", on("fast"))); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodDeviceBusy) || !strings.Contains(e.Msg, "acme/pod-a") {
		t.Errorf("%+v", e)
	}
	unlock()
	if e := <-done; e != nil {
		t.Fatal(e)
	}
	if left := n.claims(); left != 0 {
		t.Errorf("%d claims", left)
	}
	// Two ADDs of one Pod both take it; it is nobody else's until both have ended.
	p := choice{items: []chosen{{network: model.Network{Type: model.SRIOV, DevicePool: "x"}, device: vf(6)}}}
	podC, podD := podArgs{namespace: "acme", pod: "pod-c", uid: "u-c"}, podArgs{namespace: "acme", pod: "pod-c", uid: "u-d"} // of one name
	one, err := n.server.claim(p, podC)
	must(t, err)
	two, err := n.server.claim(p, podC)
	must(t, err)
	one()
	if _, err := n.server.claim(p, podD); err == nil || !strings.Contains(err.Error(), "acme/pod-c") {
		t.Errorf("%v", err)
	}
	two()
	three, err := n.server.claim(p, podD)
	must(t, err)
	three()
}

// In the NPWG's dialect a Pod chooses the MAC, and finds the function in its network-status.
func TestFunctionsOfSelections(t *testing.T) {
	status := make(chan string, 1)
	var asks atomic.Value
	asks.Store(`[{"name":"fast","namespace":"default","mac":"0A:00:00:00:00:01"},{"name":"fast2","namespace":"default"}]`)
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0), vf(2)}}, func(o *Options) {
		o.Pod = func(context.Context, string, string, string) (Pod, error) { return npwg(asks.Load().(string), ""), nil }
		o.Report = func(_ context.Context, _, _, _, text string) error { status <- text; return nil }
	})
	if _, e := n.call(request("ADD", "a", "acme", "u-a", "")); e != nil {
		t.Fatal(e)
	}
	at := n.fake.attached("a")
	if at[1].MAC != "0a:00:00:00:00:01" || at[2].MAC != "06:00:00:00:00:02" || at[1].Moved.MAC != "06:00:00:00:00:00" {
		t.Errorf("%+v", at)
	}
	told := <-status
	var short bytes.Buffer
	must(t, json.Compact(&short, []byte(told)))
	for _, want := range []string{`"name":"default/fast","interface":"net1","ips":["10.8.0.1"],"mac":"0a:00:00:00:00:01","mtu":9000,"dns":{},"device-info":{"type":"pci","version":"1.1.0","pci":{"pci-address":"` + vf(0) + `","rdma-device":"mlx5_0","pf-pci-address":"0000:01:00.0"}}`,
		`"pci-address":"` + vf(2) + `","rdma-device":"mlx5_2"`} {
		if !strings.Contains(short.String(), want) {
			t.Errorf("%s\nis not in %s", want, short.String())
		}
	}
	if strings.Count(told, "device-info") != 2 {
		t.Error(told)
	}
	for _, bad := range []string{"00:1b:21:00:00:01", "03:00:00:00:00:01"} {
		asks.Store(`[{"name":"fast","namespace":"default","mac":"` + bad + `"}]`)
		if _, e := n.call(request("ADD", "b", "acme", "u-b", "")); e == nil || len(n.records()) != 1 {
			t.Errorf("%s: %+v", bad, e)
		}
	}
}

// A runtime of an older version is not told what its version does not know.
func TestFunctionInOldResults(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}})
	old := request("ADD", "a", "acme", "u-a", on("fast"))
	old.Stdin = bytes.Replace(old.Stdin, []byte(`"1.1.0"`), []byte(`"1.0.0"`), 1)
	r, e := n.call(old)
	if e != nil || r.Interfaces[0].PciID != "" || r.Interfaces[0].Mac != "06:00:00:00:00:00" {
		t.Errorf("%+v %v", r.Interfaces[0], e)
	}
}

// TestFunctionsAreMended: a function that is in the host again while its Pod lives is looked at, and one that the Pod has is not.
func TestFunctionsAreMended(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}})
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast", "shared"))); e != nil {
		t.Fatal(e)
	}
	mend := func(index, want, looked int) {
		t.Helper()
		n.fake.set(func(f *fakeAttacher) {
			f.index, f.lost, f.looked = map[string]int{"function " + vf(0): index}, map[string]bool{"a/eth0": index > 0}, 0
		})
		got, err := n.server.Mend(context.Background())
		n.fake.set(func(f *fakeAttacher) {
			if err != nil || got != want || f.looked != looked {
				t.Errorf("index %d: mended %d of %d, looked %d times of %d, %v", index, got, want, f.looked, looked, err)
			}
		})
	}
	mend(0, 0, 0)
	mend(41, 1, 1)
	mend(41, 0, 0)
	mend(42, 1, 1)
	n.fake.set(func(f *fakeAttacher) { f.index = map[string]int{"sriov/ens1": 5, "ens1": 5}; f.looked = 0 })
	if _, err := n.server.Mend(context.Background()); err != nil || n.fake.looked != 0 {
		t.Errorf("looked %d times, %v", n.fake.looked, err)
	}
}

// After another start of the machine functions are as the card makes them; drivers are told so.
func TestFunctionsOfAnotherBoot(t *testing.T) {
	devices := map[string][]string{"danm.io/fast": {vf(0)}}
	with := func(boot string) func(*Options) {
		return func(o *Options) {
			o.BootID = boot
			o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
		}
	}
	n := functionNode(t, devices, with("one"))
	for _, c := range []struct{ boot, want string }{{"one", "a given"}, {"two", "a rebooted"}, {"", "a given"}} {
		n.restart(with("one"))
		if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e != nil {
			t.Fatal(e)
		}
		n.restart(with(c.boot))
		if _, e := n.call(request("DEL", "a", "acme", "u-a", "")); e != nil {
			t.Fatal(e)
		}
		if log, _ := n.fake.log(); log[len(log)-1] != c.want {
			t.Errorf("boot %q: %v", c.boot, log)
		}
	}
}

// What another plugin's network is called says nothing of what it takes.
func TestPluginsNamedAsDrivers(t *testing.T) {
	n, p := delegateNode(t)
	for _, typ := range []string{"host-device", "sriov", "vlan"} {
		p.install(typ, `echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}]}'`)
	}
	n.networks(func(list []model.Network) []model.Network {
		for _, typ := range []string{"host-device", "sriov", "vlan"} {
			list = append(list, model.Network{Kind: model.ClusterNetwork, Name: typ, NetworkID: typ, Type: model.NetworkType(typ), SpaceDomain: typ, Delegate: &model.Delegate{Conf: `{"cniVersion":"1.0.0","type":"` + typ + `"}`}})
		}
		return list
	})
	n.fake.set(func(f *fakeAttacher) { f.survey = errors.New("looked at") })
	for _, sandbox := range []string{"a", "b"} {
		if _, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, on("host-device", "sriov", "vlan"))); e != nil {
			t.Errorf("%s: %v", sandbox, e)
		}
	}
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	for sandbox, pod := range n.server.pods {
		if len(pod.sole) != 0 || len(pod.devices) != 0 {
			t.Errorf("%s: %v, %v", sandbox, pod.sole, pod.devices)
		}
	}
}
