package server

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// soleNode has networks whose devices serve one Pod at a time.
func soleNode(t *testing.T) *node {
	n := newNode(t, nil)
	n.networks(func(list []model.Network) []model.Network {
		one := func(name string, typ model.NetworkType, mode, device string, vlan uint16) model.Network {
			return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: typ, Mode: mode, Device: device, VLAN: vlan, SpaceDomain: name, IPv4: subnet("10.8.0.0/24", "", "")}
		}
		return append(list, one("card", model.HOSTDEVICE, "", "ens9", 0), one("same", model.HOSTDEVICE, "", "ens9", 0), one("pass", model.MACVLAN, model.PASSTHRU, "ens8", 0),
			one("seven", model.TAGGED, "", "ens1", 7), one("eight", model.TAGGED, "", "ens1", 8), one("seven-too", model.TAGGED, "", "ens2", 7))
	})
	return n
}

func on(networks ...string) string {
	var list []string
	for _, n := range networks {
		list = append(list, `{"clusterNetwork":"`+n+`","ip":"dynamic"}`)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func TestOnePodHasTheDevice(t *testing.T) {
	n := soleNode(t)
	for _, c := range []struct{ has, wants string }{{"card", "card"}, {"card", "same"}, {"pass", "pass"}, {"seven", "seven"}} {
		if _, e := n.call(request("ADD", "a", "acme", "u-a", on(c.has))); e != nil {
			t.Fatal(e)
		}
		for _, restarted := range []bool{false, true} {
			if restarted {
				n.restart(func(*Options) {})
			}
			_, e := n.call(request("ADD", "b", "acme", "u-b", on(c.wants)))
			if e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodDeviceBusy) || !strings.Contains(e.Msg, "acme/pod-a") || len(n.records()) != 1 {
				t.Errorf("%+v, restarted %v: %+v, records %v", c, restarted, e, n.records())
			}
		}
		if _, e := n.call(request("ADD", "free", "acme", "u-free", on("eight", "seven-too"))); e != nil {
			t.Errorf("%+v: others are refused: %v", c, e)
		}
		again := request("ADD", "a2", "acme", "u-a", on(c.has)) // the Pod's next sandbox takes it over
		again.Args = strings.Replace(again.Args, "K8S_POD_NAME=pod-a2", "K8S_POD_NAME=pod-a", 1)
		if _, e := n.call(again); e != nil {
			t.Errorf("%+v: next sandbox: %v", c, e)
		}
		for _, sandbox := range []string{"a", "a2", "free"} {
			if _, e := n.call(request("DEL", sandbox, "acme", "u", "")); e != nil {
				t.Fatal(e)
			}
		}
		if _, e := n.call(request("ADD", "b", "acme", "u-b", on(c.wants))); e != nil {
			t.Errorf("%+v: when it is free: %v", c, e)
		}
		if _, e := n.call(request("DEL", "b", "acme", "u-b", "")); e != nil {
			t.Fatal(e)
		}
	}
	for _, networks := range [][]string{{"card", "card"}, {"card", "same"}, {"seven", "seven"}, {"pass", "pass"}} {
		if _, e := n.call(request("ADD", "twice", "acme", "u-t", on(networks...))); e == nil || e.Details != string(diag.PodDeviceBusy) || e.Code != CodeRequestRefused || !strings.Contains(e.Msg, "ask for it once") {
			t.Errorf("%v in one Pod: %+v", networks, e)
		}
	}
}

// A Pod that was deleted by force lives on for a while, and the next of its name is told of the same function by the kubelet. It waits,
// as for any other Pod; and what an older release has given twice is not taken from the one that has it when the other ends.
func TestFunctionOfAPodOfTheSameName(t *testing.T) {
	for name, n := range map[string]*node{"fast": functionNode(t, map[string][]string{"danm.io/fast": {vf(1)}}), "card": soleNode(t)} {
		next := request("ADD", "new", "acme", "u-new", on(name))
		next.Args = strings.Replace(next.Args, "K8S_POD_NAME=pod-new", "K8S_POD_NAME=pod-old", 1)
		if _, e := n.call(request("ADD", "old", "acme", "u-old", on(name))); e != nil {
			t.Fatal(e)
		}
		for _, restarted := range []bool{false, true} {
			if restarted {
				devices := n.server.opts.Devices
				n.restart(func(o *Options) { o.Devices = devices })
			}
			if _, e := n.call(next); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodDeviceBusy) || len(n.records()) != 1 {
				t.Errorf("%s: given twice, restarted %v: %+v", name, restarted, e)
			}
		}
		n.server.mu.Lock()
		old := n.server.pods["old"]
		n.server.pods["older"] = old
		n.server.mu.Unlock()
		if _, e := n.call(request("DEL", "old", "acme", "u-old", "")); e != nil {
			t.Fatal(e)
		}
		if log, _ := n.fake.log(); log[len(log)-1] != "old given lost [eth0]" {
			t.Errorf("%s: %v", name, log)
		}
		n.server.forget("older")
		if _, e := n.call(next); e != nil {
			t.Errorf("%s: when it is free: %v", name, e)
		}
		if _, e := n.call(request("DEL", "new", "acme", "u-new", "")); e != nil {
			t.Fatal(e)
		}
		if log, _ := n.fake.log(); log[len(log)-1] != "new given" {
			t.Errorf("%s: %v", name, log)
		}
	}
}

// What the device was like stands in the record before it is touched; who cannot have it has no address either.
func TestHostDeviceIsRecorded(t *testing.T) {
	n := soleNode(t)
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("card", "seven"))); e != nil {
		t.Fatal(e)
	}
	at := n.fake.attached("a")
	if at[0].Moved == nil || at[0].Moved.Alias != "survey of ens9" || at[0].MAC != "" || at[0].VLAN != 0 {
		t.Errorf("%+v", at[0])
	}
	if at[1].Moved != nil || at[1].VLAN != 7 || at[1].MAC != "" || at[1].Device != "ens1" {
		t.Errorf("%+v", at[1])
	}
	old, err := n.ipam.Lookup("a")
	must(t, err)
	rec, err := decodeRecord(old.Data)
	must(t, err)
	if m := rec.Interfaces[0].Moved; m == nil || *m != *at[0].Moved {
		t.Errorf("recorded %+v", m)
	}
	if _, e := n.call(request("ADD", "p", "acme", "u-p", on("pass"))); e != nil {
		t.Fatal(e)
	}
	if pass := n.fake.attached("p"); pass[0].Mode != model.PASSTHRU || pass[0].MAC != "" { // the kernel gives it the device's
		t.Errorf("%+v", pass[0])
	}
	if _, e := n.call(request("DEL", "p", "acme", "u-p", "")); e != nil {
		t.Fatal(e)
	}
	if _, err := n.server.Mend(context.Background()); err != nil {
		t.Error(err)
	}
	n.fake.set(func(f *fakeAttacher) {
		if len(f.homeless) != 0 {
			t.Errorf("a device that a Pod has is looked for: %v", f.homeless)
		}
		f.survey = attach.ErrInUse
	})
	if _, e := n.call(request("DEL", "a", "acme", "u-a", "")); e != nil {
		t.Fatal(e)
	}
	if _, e := n.call(request("ADD", "b", "acme", "u-b", on("card"))); e == nil || e.Details != string(diag.PodDeviceInUse) || !strings.Contains(e.Msg, "network card") || len(n.records()) != 0 {
		t.Errorf("%+v, records %v", e, n.records())
	}
	if _, err := n.server.Mend(context.Background()); err != nil {
		t.Error(err)
	}
	n.fake.set(func(f *fakeAttacher) {
		if !slices.Equal(f.homeless, []string{"ens9", "ens9"}) {
			t.Errorf("looked for %v", f.homeless)
		}
	})
}

// The agent mends before anybody serves.
func TestMendBeforeServe(t *testing.T) {
	n := newNode(t, nil)
	s, err := New(Options{Socket: n.socket(), IPAM: n.ipam, Attacher: n.fake})
	must(t, err)
	if mended, err := s.Mend(t.Context()); mended != 0 || err != nil {
		t.Errorf("%d, %v", mended, err)
	}
	if err := s.forwardGC(t.Context()); err != nil {
		t.Error(err)
	}
}
