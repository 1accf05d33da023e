package hostlinks

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
)

// TestNoWayAroundAReservation: what a tenant writes after its number was held leads onto no other device, nor does a network
// that needs no number.
func TestNoWayAroundAReservation(t *testing.T) {
	fabric, delegate := &danmv1.NetworkExtension{Fabric: "f"}, &danmv1.NetworkExtension{Delegate: &danmv1.Delegate{Conf: `{"type":"flannel","master":"eth9"}`}}
	for _, e := range []*danmv1.NetworkExtension{fabric, delegate, {Fabric: "f", Delegate: delegate.Delegate}, {Native: true}, {VLANQoS: 7}, {Sysctls: map[string]string{"net.ipv4.conf.IFNAME.proxy_arp": "1"}}, nil} {
		for _, kind := range []string{"", "macvlan", "bridge", "sriov", "host-device", "Host-Device", "vlan", "flannel"} {
			for _, o := range []danmv1.NetworkOptions{{}, {Device: "eth0"}, {Device: "eth0", Vlan: 150}} {
				if e == nil && (!strings.EqualFold(kind, "host-device") || o.Device == "") { // a whole device is refused without any
					continue
				}
				n := made(danmv1.KindTenantNetwork, "acme", "n", danmv1.NetworkSpec{NetworkID: "a", NetworkType: kind, Options: o, Extension: e})
				n.Value.(*danmv1.TenantNetwork).Status.Conditions = []metav1.Condition{{Type: "Assigned", Status: "True", Reason: "Assigned"}}
				in := site(t, n)
				in.Configs = []danmv1.TenantConfig{{Status: danmv1.TenantStatus{Reserved: []danmv1.ReservedNumber{{Network: "acme/n", UID: "uid-1", Device: "eth0", VniType: "vlan", ID: 150}}}}}
				d := decide(t, in)
				if v := d.Verdicts[n.Key()]; v.Code != diag.DeviceNotAllowed || d.Layers["n1"] != nil {
					t.Errorf("type %q, options %+v, extension %+v: %+v", kind, o, e, v)
				}
			}
		}
	}
}

// TestManyOnOneWire: networks that stand on one device cost little more than as many on devices of their own, in memory while
// they are judged and in the API afterwards.
func TestManyOnOneWire(t *testing.T) {
	const count = 400
	var objects []Object
	for i := range count {
		objects = append(objects, made(danmv1.KindDanmNet, "acme", fmt.Sprint("n", i), options(fmt.Sprint("n", i), "eth7", 0, 0)))
	}
	in := site(t, objects...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d := decide(t, in)
	runtime.ReadMemStats(&after)
	if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 200 { // each pair's list copied: 1,000 and more
		t.Errorf("%d MiB were allocated for %d networks", mib, count)
	}
	for _, s := range d.Segments {
		for _, n := range s.Networks {
			if len(n.SharedWith) > 0 {
				t.Fatalf("network %s names %d others in the layer", n.Key(), len(n.SharedWith))
			}
		}
	}
	if v := d.Verdicts["DanmNet acme/n0"]; v.Code != "" || v.Nodes != 3 {
		t.Errorf("%+v", v)
	}
}

// TestAFloodOfBadOnes: however many bad networks a namespace has, the questions about them are bounded, the networks of others
// are judged, and what was good stays.
func TestAFloodOfBadOnes(t *testing.T) {
	const count = 3000
	var objects []*Object
	for i := range count {
		objects = append(objects, &Object{Kind: danmv1.KindDanmNet, Namespace: "evil", Name: fmt.Sprint("n", i)})
	}
	other := &Object{Kind: danmv1.KindDanmNet, Namespace: "acme", Name: "fine"}
	settled := &Object{Kind: danmv1.KindDanmNet, Namespace: "evil", Name: "fine", Settled: true}
	asked := 0
	good, bad := accept(append(objects, other, settled), func(set []*Object) diag.List {
		asked++
		for _, o := range set {
			if o.Name != "fine" {
				return diag.List{{Severity: diag.Error, Code: diag.InvalidCIDR}}
			}
		}
		return nil
	})
	if len(good) != 2 || len(bad) != count || bad[objects[0]].Code != diag.InvalidCIDR || !strings.Contains(bad[objects[count-1]].Message, "not looked at") {
		t.Errorf("good %d, bad %d, the first %+v, the last %+v", len(good), len(bad), bad[objects[0]], bad[objects[count-1]])
	}
	if asked > 200 {
		t.Errorf("%d questions", asked)
	}
}

// TestAHugeObjectIsItsOwnProblem: what no segment can hold is refused, and costs nobody else the layer.
func TestAHugeObjectIsItsOwnProblem(t *testing.T) {
	routes := options("r", "eth7", 300, 0)
	routes.Options.Cidr, routes.Options.Routes = "10.0.0.0/8", map[string]string{}
	for i := range 20000 {
		routes.Options.Routes[fmt.Sprintf("20.%d.%d.0/24", i/256, i%256)] = "10.0.0.1"
	}
	namespaces := options("c", "eth7", 301, 0)
	for i := range 4000 {
		namespaces.AllowedTenants = append(namespaces.AllowedTenants, fmt.Sprint(strings.Repeat("n", 200), i))
	}
	huge := []Object{made(danmv1.KindDanmNet, "evil", "routes", routes), made(danmv1.KindClusterNetwork, "", "namespaces", namespaces)}
	good := made(danmv1.KindDanmNet, "acme", "good", options("g", "eth7", 302, 0))
	in := site(t, append(huge, good)...)
	d := decide(t, in)
	for _, o := range huge {
		if v := d.Verdicts[o.Key()]; v.Code != diag.NetworkRefused || !strings.Contains(v.Message, "bytes") {
			t.Errorf("%s: %+v", o.Key(), v)
		}
	}
	if v := d.Verdicts[good.Key()]; v.Code != "" || v.Nodes != 3 || linkOf(state(t, in, d, "n1"), "g.302") == nil {
		t.Errorf("the others': %+v", v)
	}
}

// TestANodeThatLiesAboutItsCards: a node that reports a card by the name of a network's link, and somebody who asks for that
// card, do not take the network from all nodes.
func TestANodeThatLiesAboutItsCards(t *testing.T) {
	vlan, vxlan := made(danmv1.KindDanmNet, "acme", "v", options("v", "eth7", 300, 0)), made(danmv1.KindDanmNet, "acme", "x", options("x", "eth9", 0, 5900))
	vlan.Settled, vxlan.Settled = true, true
	in := site(t, vlan, vxlan, made(danmv1.KindDanmNet, "evil", "a", options("a", "v.300", 0, 0)), made(danmv1.KindDanmNet, "evil", "b", options("b", "vx_x", 0, 0)))
	in.Plans[1].Status.Hardware = append(in.Plans[1].Status.Hardware, v1alpha1.NIC{Name: "v.300"}, v1alpha1.NIC{Name: "vx_x"})
	d := decide(t, in)
	for key, want := range map[string]Verdict{vlan.Key(): {Nodes: 3}, vxlan.Key(): {Nodes: 2}} {
		if d.Verdicts[key] != want {
			t.Errorf("%s: %+v", key, d.Verdicts[key])
		}
	}
	for _, key := range []string{"DanmNet evil/a", "DanmNet evil/b"} {
		if d.Verdicts[key].Code != diag.NoNode {
			t.Errorf("%s: %+v", key, d.Verdicts[key])
		}
	}
}
