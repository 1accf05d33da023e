package endpoints

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// long is as long as a container's ID: no label's value can be.
var long = strings.Repeat("0123456789abcdef", 4)

func attached() model.Attached {
	return model.Attached{
		Sandbox: long, Netns: "/run/netns/p", Namespace: "acme", Pod: "web", PodUID: "u-runtime",
		Interfaces: []model.Attachment{
			{NetworkKind: model.TenantNetwork, Network: "acme/voice", NetworkID: "vid", Type: "ipvlan", IfName: "eth0", MAC: "02:00:00:00:00:01", MTU: 1500,
				Addresses:    []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("2001:db8::5/64")},
				PolicyRoutes: []model.PodRoute{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.1")}, {To: netip.MustParsePrefix("2001:db8:9::/48"), Via: netip.MustParseAddr("2001:db8::1")}}},
			{NetworkKind: model.ClusterNetwork, Network: "oam", Type: "macvlan", IfName: "net1"},
			{NetworkKind: model.Definition, Network: "shared/lab", Type: "bridge", IfName: "net2"},
		},
	}
}

// TestObjects: the contract's shape (danm-contract 1.3), field by field, by the names that DANM's clients read.
func TestObjects(t *testing.T) {
	pod := Pod{UID: "u-api", Namespace: "acme", Name: "web", Labels: map[string]string{"app": "web", danmv1.LabelNode: "forged"}}
	all := Objects("n1", attached(), pod)
	if len(all) != 3 {
		t.Fatal(all)
	}
	text, err := json.Marshal(all[0].Spec)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"NetworkName":"voice","NetworkType":"ipvlan","EndpointID":"` + all[0].Name + `","Interface":{"Name":"eth0","Address":"10.0.0.5/24","AddressIPv6":"2001:db8::5/64","MacAddress":"02:00:00:00:00:01",` +
		`"proutes":{"10.9.0.0/16":"10.0.0.1"},"proutes6":{"2001:db8:9::/48":"2001:db8::1"},"Mtu":1500},"Host":"n1","Pod":"web","PodUID":"u-api","CID":"` + long + `","netns":"/run/netns/p","apiType":"TenantNetwork"}`
	if string(text) != want {
		t.Errorf("\n%s\n%s", text, want)
	}
	labels := all[0].Labels
	if labels["app"] != "web" || labels[danmv1.LabelNode] != "n1" || labels[danmv1.LabelPodUID] != "u-api" || len(labels[danmv1.LabelSandbox]) != 16 || labels[danmv1.LabelNetwork] != "voice" || labels[danmv1.LabelAPIType] != "TenantNetwork" {
		t.Errorf("labels %v", labels)
	}
	if o := all[0].OwnerReferences; len(o) != 1 || o[0].Kind != "Pod" || o[0].Name != "web" || string(o[0].UID) != "u-api" || o[0].BlockOwnerDeletion != nil {
		t.Errorf("owner %+v", o)
	}
	if s := all[1].Spec; s.NetworkName != "oam" || s.ApiType != "ClusterNetwork" || s.Iface.Address != "" || s.Iface.AddressIPv6 != "" {
		t.Errorf("a network without addresses: %+v", s)
	}
	if s := all[2]; s.Spec.NetworkName != "shared/lab" || s.Labels[danmv1.LabelNetwork] != "shared.lab" || s.Namespace != "acme" {
		t.Errorf("a network of another namespace: %+v", s)
	}
	names := map[string]bool{}
	for i, e := range all {
		names[e.Name] = true
		if again := Objects("n1", attached(), pod)[i]; !reflect.DeepEqual(e, again) {
			t.Errorf("not the same again: %+v", again)
		}
	}
	other := attached()
	other.Sandbox = "another"
	for _, e := range Objects("n1", other, pod) {
		names[e.Name] = true
	}
	if len(names) != 6 {
		t.Errorf("names of two sandboxes meet: %v", names)
	}
}

// TestDigest: whatever of ours changes is seen, what the API adds is not.
func TestDigest(t *testing.T) {
	base := func() danmv1.DanmEp {
		return Objects("n1", attached(), Pod{UID: "u", Namespace: "acme", Name: "web", Labels: map[string]string{"a": "b"}})[0]
	}
	if e := base(); func() bool {
		e.ResourceVersion, e.UID, e.Generation = "7", "x", 3
		return digestOf(e) != digestOf(base())
	}() {
		t.Error("what the API wrote changes the digest")
	}
	for name, change := range map[string]func(*danmv1.DanmEp){
		"a label":         func(e *danmv1.DanmEp) { e.Labels["a"] = "c" },
		"a label less":    func(e *danmv1.DanmEp) { delete(e.Labels, "a") },
		"the owner":       func(e *danmv1.DanmEp) { e.OwnerReferences = nil },
		"an address":      func(e *danmv1.DanmEp) { e.Spec.Iface.Address = "10.0.0.6/24" },
		"a policy route":  func(e *danmv1.DanmEp) { e.Spec.Iface.Proutes["10.9.0.0/16"] = "10.0.0.2" },
		"the sandbox":     func(e *danmv1.DanmEp) { e.Spec.CID = "c" },
		"the MAC address": func(e *danmv1.DanmEp) { e.Spec.Iface.MacAddress = "" },
	} {
		e := base()
		if change(&e); digestOf(e) == digestOf(base()) {
			t.Errorf("%s changes nothing", name)
		}
	}
}
