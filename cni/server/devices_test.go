package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// deviceNode has networks of two plugins whose interfaces take devices of one resource, and one of another resource. kubelet says which
// devices Pods have, and info is where devices' information stands.
func deviceNode(t *testing.T, kubelet func(pod string) (map[string][]string, error), more ...func(*Options)) (n *node, p *plugins, info string) {
	n, p = delegateNode(t)
	info = filepath.Join(n.dir, "devinfo")
	add := `f=$(echo "$in" | sed -n 's/.*"CNIDeviceInfoFile":"\([^"]*\)".*/\1/p'); [ -z "$f" ] || [ ! -e "$f" ] || cp $f ` + p.dir + `/seen; echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}]}'`
	p.install("vf", add)
	n.networks(func(list []model.Network) []model.Network {
		one := func(name, pool, conf string) model.Network {
			return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: "vf", SpaceDomain: name, DevicePool: pool, NAD: true, Delegate: &model.Delegate{Conf: conf}}
		}
		return append(list, one("fast", "x.io/fast", `{"cniVersion":"1.0.0","type":"vf","capabilities":{"deviceID":true,"CNIDeviceInfoFile":true}}`),
			one("fast2", "x.io/fast", `{"cniVersion":"1.0.0","type":"vf"}`), one("slow", "x.io/slow", `{"cniVersion":"1.0.0","type":"vf"}`))
	})
	n.restart(func(o *Options) {
		o.Delegates = delegate.New(delegate.Options{PluginDirs: []string{p.dir}, ConfDir: p.dir, CacheDir: filepath.Join(n.dir, "delegates"), InfoDir: info})
		if kubelet != nil {
			o.Devices = func(_ context.Context, namespace, pod string) (map[string][]string, error) {
				if namespace != "acme" {
					return nil, fmt.Errorf("namespace %s", namespace)
				}
				return kubelet(pod)
			}
		}
		for _, change := range more {
			change(o)
		}
	})
	return n, p, info
}

// TestDevices: the n-th interface on a resource has the Pod's n-th device of it, whatever the network; plugins are told as Multus tells
// them, with what the device plugin left; and all of it goes with the interface.
func TestDevices(t *testing.T) {
	n, p, info := deviceNode(t, func(string) (map[string][]string, error) {
		return map[string][]string{"x.io/fast": {"0000:01:00.1", "0000:01:00.2"}, "x.io/slow": {"odd/../id"}}, nil
	})
	must(t, os.MkdirAll(filepath.Join(info, "dp"), 0o755))
	const known = `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:00.1"}}`
	must(t, os.WriteFile(filepath.Join(info, "dp", "x.io-fast-0000:01:00.1-device.json"), []byte(known), 0o644))
	if _, e := n.call(request("ADD", "c", "acme", "u", on("fast"))); e != nil {
		t.Fatal(e)
	}
	first := p.conf("vf.ADD")
	path := filepath.Join(info, "cni", "c_eth0-device.json")
	if first["deviceID"] != "0000:01:00.1" || first["pciBusID"] != "0000:01:00.1" || fmt.Sprint(first["runtimeConfig"]) != fmt.Sprintf("map[CNIDeviceInfoFile:%s deviceID:0000:01:00.1]", path) {
		t.Errorf("%v", first)
	}
	if seen, err := os.ReadFile(filepath.Join(p.dir, "seen")); err != nil || string(seen) != known {
		t.Errorf("the plugin found %s, %v", seen, err)
	}
	if a, _, _, err := n.server.Seen("c"); err != nil || a.Interfaces[0].DeviceID != "0000:01:00.1" {
		t.Errorf("%+v %v", a, err)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", on("fast"))); e != nil {
		t.Fatal(e)
	}
	if left, _ := filepath.Glob(filepath.Join(info, "cni", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if c := p.conf("vf.DEL"); c["deviceID"] != "0000:01:00.1" {
		t.Errorf("%v", c)
	}
	must(t, os.MkdirAll(filepath.Join(info, "dp", "x.io-slow-odd"), 0o755))
	must(t, os.WriteFile(filepath.Join(info, "dp", "id-device.json"), []byte(`{"type":"another's"}`), 0o644)) // where the odd id leads to
	if _, e := n.call(request("ADD", "d", "acme", "u", on("fast2", "slow", "fast"))); e != nil {
		t.Fatal(e)
	}
	var got []string
	a, _, _, err := n.server.Seen("d")
	must(t, err)
	for _, at := range a.Interfaces {
		got = append(got, at.Network+" "+at.DeviceID)
	}
	if fmt.Sprint(got) != "[fast2 0000:01:00.1 slow odd/../id fast 0000:01:00.2]" {
		t.Errorf("%q", got)
	}
	if c := p.conf("vf.ADD"); c["deviceID"] != "0000:01:00.2" {
		t.Errorf("%v", c)
	}
	all, err := filepath.Glob(filepath.Join(info, "cni", "*"))
	if err != nil || len(all) != 1 || filepath.Base(all[0]) != "d_eth0-device.json" { // of the odd one nothing is known
		t.Errorf("%v %v", all, err)
	}
}

// TestDevicesThatAreMissing: nothing is attached with less, and the message has what the Pod's author needs.
func TestDevicesThatAreMissing(t *testing.T) {
	var away atomic.Bool
	n, p, _ := deviceNode(t, func(pod string) (map[string][]string, error) {
		if away.Load() {
			return nil, errors.New("connection refused")
		}
		if pod == "pod-none" {
			return nil, nil
		}
		return map[string][]string{"x.io/fast": {"one"}}, nil
	})
	for _, c := range []struct {
		container string
		networks  []string
		text      string
	}{
		{"c", []string{"fast", "fast2"}, "interface eth1 on network fast2 needs a device of x.io/fast, and the Pod's containers have 1 of 2; add to one of them:\nresources:\n  requests:\n    x.io/fast: \"2\"\n  limits:\n    x.io/fast: \"2\""},
		{"none", []string{"fast"}, "have 0 of 1; add to one of them:\nresources:\n  requests:\n    x.io/fast: \"1\"\n  limits:\n    x.io/fast: \"1\""},
		{"c", []string{"slow"}, `needs a device of x.io/slow`},
	} {
		_, e := n.call(request("ADD", c.container, "acme", "u", on(c.networks...)))
		if e == nil || e.Code != CodeRequestRefused || e.Details != string(diag.PodDeviceMissing) || !strings.Contains(e.Msg, c.text) {
			t.Errorf("%v: %+v", c.networks, e)
		}
	}
	away.Store(true)
	if _, e := n.call(request("ADD", "c", "acme", "u", on("fast"))); e == nil || e.Code != types.ErrTryAgainLater || !strings.Contains(e.Msg, "connection refused") {
		t.Errorf("a kubelet that is away: %+v", e)
	}
	if _, e := n.call(request("ADD", "c", "acme", "u", on("shared"))); e != nil {
		t.Errorf("a Pod without such networks asks the kubelet nothing: %v", e)
	}
	if log := p.log(); len(log) != 0 || len(n.records()) != 1 {
		t.Errorf("%q, records %v", log, n.records())
	}
	n, _, _ = deviceNode(t, nil)
	if _, e := n.call(request("ADD", "c", "acme", "u", on("fast"))); e == nil || e.Details != string(diag.PodDeviceMissing) || !strings.Contains(e.Msg, "no kubelet") {
		t.Errorf("without a cluster: %+v", e)
	}
}

// TestDeviceInformation: what is known of a device reaches the Pod's network-status; what a plugin leaves there that is no such thing
// keeps nobody from being attached.
func TestDeviceInformation(t *testing.T) {
	status := make(chan string, 1)
	n, _, info := deviceNode(t, func(string) (map[string][]string, error) { return map[string][]string{"x.io/fast": {"d1"}}, nil }, func(o *Options) {
		o.Pod = func(context.Context, string, string, string) (Pod, error) { return npwg("default/fast", ""), nil }
		o.Report = func(_ context.Context, _, _, _, text string) error { status <- text; return nil }
	})
	must(t, os.MkdirAll(filepath.Join(info, "dp"), 0o755))
	file := filepath.Join(info, "dp", "x.io-fast-d1-device.json")
	for _, c := range []struct{ text, want string }{
		{`{"type":"memif","memif":{"role":"server","path":"/x"}}`, `"device-info":{"type":"memif","memif":{"role":"server","path":"/x"}}`},
		{`{"type":7}`, ""}, {"no JSON", ""}, {`[1]`, ""}, {`{"a":"` + strings.Repeat("x", 20<<10) + `"}`, ""},
	} {
		must(t, os.WriteFile(file, []byte(c.text), 0o644))
		if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
			t.Fatal(e)
		}
		told := <-status
		var short bytes.Buffer
		must(t, json.Compact(&short, []byte(told)))
		if s := short.String(); !strings.Contains(s, `"name":"default/fast"`) || !strings.Contains(s, c.want) || strings.Contains(s, "device-info") != (c.want != "") {
			t.Errorf("%.60s: %s", c.text, told)
		}
		if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
			t.Fatal(e)
		}
	}
	must(t, os.Remove(file))
	must(t, syscall.Mkfifo(file, 0o600)) // nobody writes
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	must(t, os.Remove(file))
	must(t, os.RemoveAll(filepath.Join(info, "cni")))
	must(t, os.WriteFile(filepath.Join(info, "cni"), nil, 0o600)) // it cannot be written
	must(t, os.WriteFile(file, []byte(`{}`), 0o644))
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e == nil || !strings.Contains(e.Msg, "information") || len(n.records()) != 0 {
		t.Errorf("%+v, records %v", e, n.records())
	}
}
