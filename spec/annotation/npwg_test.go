package annotation

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What Multus's own documentation and the NPWG's text give as examples, and what their readers make of them.
func TestSelections(t *testing.T) {
	one := func(name string, s model.Selection) model.InterfaceRequest {
		return model.InterfaceRequest{Kind: model.Definition, Network: name, Selection: &s}
	}
	for _, c := range []struct {
		name, networks, instead string
		want                    []model.InterfaceRequest
	}{
		{"nothing", "", "", nil},
		{"an empty list", "[]", "", nil},
		{"names", "a, other/b ,c@eth7,other/d@eth8", "", []model.InterfaceRequest{
			one("a", model.Selection{}), one("b", model.Selection{Namespace: "other"}), one("c", model.Selection{IfName: "eth7"}), one("d", model.Selection{Namespace: "other", IfName: "eth8"}),
		}},
		{"one twice", "a,a", "", []model.InterfaceRequest{one("a", model.Selection{}), one("a", model.Selection{})}},
		{"all keys", `[{"name":"a","namespace":"other","interface":"x0","ips":["10.0.0.5/24","fd00::5"],"mac":"02-00-00-00-00-AB","default-route":["10.0.0.1","fd00::1"],
			"cni-args":{"k":{"deep":[1]}},"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}],"bandwidth":{"ingressRate":5},"infiniband-guid":"c2:11","unheard-of":1}]`, "",
			[]model.InterfaceRequest{one("a", model.Selection{
				Namespace: "other", IfName: "x0", Addresses: []string{"10.0.0.5/24", "fd00::5"}, MAC: "02:00:00:00:00:ab", DefaultRoute: true, Gateways: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")},
				Args: map[string]json.RawMessage{"k": json.RawMessage(`{"deep":[1]}`)},
				Capabilities: map[string]any{"infinibandGUID": "c2:11", "bandwidth": &bandwidth{IngressRate: 5},
					"portMappings": []portMapping{{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}}},
			})}},
		{"the interface's old key", `[{"name":"a","interfaceRequest":"x0"},{"name":"a","interfaceRequest":"x0","interface":"x1"}]`, "",
			[]model.InterfaceRequest{one("a", model.Selection{IfName: "x0"}), one("a", model.Selection{IfName: "x1"})}},
		{"a default route by the network's gateway", `[{"name":"a","default-route":[]}]`, "", []model.InterfaceRequest{one("a", model.Selection{DefaultRoute: true})}},
		{"default routes of two families", `[{"name":"a","default-route":["10.0.0.1"]},{"name":"b","default-route":["fd00::1"]}]`, "", []model.InterfaceRequest{
			one("a", model.Selection{DefaultRoute: true, Gateways: []netip.Addr{addr("10.0.0.1")}}), one("b", model.Selection{DefaultRoute: true, Gateways: []netip.Addr{addr("fd00::1")}}),
		}},
		{"another default network", "b", "kube-system/a", []model.InterfaceRequest{one("a", model.Selection{Namespace: "kube-system", Default: true}), one("b", model.Selection{})}},
		{"another default network alone, as an object", "", `{"name":"a"}`, []model.InterfaceRequest{one("a", model.Selection{Default: true})}},
	} {
		in := map[string]string{NPWGKey: c.networks, DefaultNetworkKey: c.instead}
		got, problems := Parse(in)
		if len(problems) != 0 {
			t.Errorf("%s: %v", c.name, problems)
		}
		if d := cmp.Diff(c.want, got, comparers, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

// The capabilities are what plugins know them by (CNI conventions, "Well-known Capabilities").
func TestSelectionsCapabilitiesOnTheWire(t *testing.T) {
	got, problems := Parse(map[string]string{NPWGKey: `[{"name":"a","portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"udp","hostIP":"10.0.0.9"}],"bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4}}]`})
	if problems.Err() != nil {
		t.Fatal(problems)
	}
	text, err := json.Marshal(got[0].Selection.Capabilities)
	want := `{"bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4},"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"udp","hostIP":"10.0.0.9"}]}`
	if err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

func TestSelectionsRefused(t *testing.T) {
	for _, c := range []struct {
		name, networks, instead string
		code                    diag.Code
		path, text              string
	}{
		{"no name", " ", "", diag.AnnotationReference, NPWGKey + "[0]", "not the name"},
		{"an element missing", "a,,b", "", diag.AnnotationReference, NPWGKey + "[1]", "not the name"},
		{"a path", "../a", "", diag.AnnotationReference, NPWGKey + "[0]", "not the name"},
		{"two slashes", "a/b/c", "", diag.AnnotationReference, NPWGKey + "[0]", "not the name"},
		{"no namespace", "/a", "", diag.AnnotationSyntax, NPWGKey + "[0]", "it is not"},
		{"no interface", "a@", "", diag.AnnotationSyntax, NPWGKey + "[0]", "it is not"},
		{"two interfaces", "a@b@c", "", diag.AnnotationSyntax, NPWGKey + "[0]", "it is not"},
		{"capitals", "A", "", diag.AnnotationReference, NPWGKey + "[0]", "not the name"},
		{"cut off", `[{"name":"a"}`, "", diag.AnnotationSyntax, NPWGKey, "at byte 13"},
		{"not a list", `{"name":"a"},`, "", diag.AnnotationSyntax, NPWGKey, "at byte"},
		{"a number for a name", `[{"name":1}]`, "", diag.AnnotationSyntax, NPWGKey, "number"},
		{"null", `[null]`, "", diag.AnnotationSyntax, NPWGKey + "[0]", "it is not"},
		{"namespace with a slash", `[{"name":"a","namespace":"b/c"}]`, "", diag.AnnotationReference, NPWGKey + "[0]", "not the name"},
		{"ip", `[{"name":"a","ips":["10.0.0"]}]`, "", diag.AnnotationAddress, NPWGKey + "[0].ips", "not an address"},
		{"length", `[{"name":"a","ips":["10.0.0.1/33"]}]`, "", diag.AnnotationAddress, NPWGKey + "[0].ips", "not an address"},
		{"zone", `[{"name":"a","ips":["fe80::1%eth0"]}]`, "", diag.AnnotationAddress, NPWGKey + "[0].ips", "not an address"},
		{"everywhere", `[{"name":"a","ips":["0.0.0.0"]}]`, "", diag.AnnotationAddress, NPWGKey + "[0].ips", "not an address"},
		{"mac", `[{"name":"a","mac":"02:00"}]`, "", diag.AnnotationField, NPWGKey + "[0].mac", "Ethernet"},
		{"no mac at all", `[{"name":"a","mac":"00:00:00:00:00:00"}]`, "", diag.AnnotationField, NPWGKey + "[0].mac", "Ethernet"},
		{"multicast mac", `[{"name":"a","mac":"01:00:5e:00:00:01"}]`, "", diag.AnnotationField, NPWGKey + "[0].mac", "Ethernet"},
		{"infiniband mac", `[{"name":"a","mac":"02:00:5e:10:00:00:00:01"}]`, "", diag.AnnotationField, NPWGKey + "[0].mac", "Ethernet"},
		{"gateway", `[{"name":"a","default-route":["gw"]}]`, "", diag.AnnotationRoute, NPWGKey + "[0].default-route", "gateway"},
		{"two gateways", `[{"name":"a","default-route":["10.0.0.1","10.0.0.2"]}]`, "", diag.AnnotationRoute, NPWGKey + "[0].default-route", "second"},
		{"two with routes", `[{"name":"a","default-route":[]},{"name":"b","default-route":["10.0.0.1"]}]`, "", diag.AnnotationRoute, NPWGKey, "2 elements"},
		{"one for both families, one for one", `[{"name":"a","default-route":["fd00::1"]},{"name":"b","default-route":[]}]`, "", diag.AnnotationRoute, NPWGKey, "2 elements"},
		{"a claim", `[{"name":"a","ipam-claim-reference":"c"}]`, "", diag.AnnotationField, NPWGKey + "[0].ipam-claim-reference", "claims"},
		{"a device", `[{"name":"a","deviceID":"0000:03:02.0"}]`, "", diag.AnnotationField, NPWGKey + "[0].deviceID", "kubelet"},
		{"two default networks", "", "a,b", diag.AnnotationReference, DefaultNetworkKey, "2 networks"},
		{"too many", strings.Repeat("a,", MaxInterfaces) + "a", "", diag.AnnotationTooBig, NPWGKey, "65 interfaces"},
		{"too big", "[" + strings.Repeat(" ", MaxBytes) + "]", "", diag.AnnotationTooBig, NPWGKey, "bytes"},
		{"not UTF-8", "[\"\xff\"]", "", diag.AnnotationSyntax, NPWGKey, "UTF-8"},
	} {
		got, problems := Parse(map[string]string{NPWGKey: c.networks, DefaultNetworkKey: c.instead})
		if got != nil || len(problems) == 0 {
			t.Errorf("%s: accepted as %v", c.name, got)
			continue
		}
		if p := problems[0]; p.Code != c.code || p.Path != c.path || !strings.Contains(p.Summary, c.text) || len(p.String()) > 500 {
			t.Errorf("%s: got %s at %q: %q; want %s at %q with %q", c.name, p.Code, p.Path, p.Summary, c.code, c.path, c.text)
		}
	}
}

// FuzzSelections: what is accepted is bounded, names objects only, and stays itself when it is kept as JSON.
func FuzzSelections(f *testing.F) {
	for _, s := range []string{"a", "a/b@c", `[{"name":"a","ips":["10.0.0.1"],"default-route":[]}]`, `{"name":"a","cni-args":{"x":1}}`, `[null]`, "a,b,,", "0@\xff", `[{"name":"a","mac":"02:00:00:00:00:01"}]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, problems := Parse(map[string]string{NPWGKey: in})
		if problems.HasErrors() {
			if got != nil {
				t.Fatalf("errors and a result: %v %v", problems, got)
			}
			return
		}
		if len(got) > MaxInterfaces {
			t.Fatalf("%d interfaces", len(got))
		}
		for _, q := range got {
			if s := q.Selection; !isName(q.Network) || s.Namespace != "" && !isName(s.Namespace) || len(s.Gateways) > 2 {
				t.Fatalf("%+v", q)
			}
		}
		kept, err := json.Marshal(got)
		var again []model.InterfaceRequest
		if err != nil || json.Unmarshal(kept, &again) != nil {
			t.Fatalf("%q: %v", kept, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(kept) {
			t.Fatalf("%s became %s, %v", kept, twice, err)
		}
	})
}
