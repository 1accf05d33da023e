package decode

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"
)

func one(text string) (*Documents, diag.List) {
	return Decode([]File{{Path: "x.yaml", Data: []byte(text)}})
}

const head = "apiVersion: bundle.danm.io/v1\n"

// fill sets every field of v at random: odd strings, extreme numbers, empty and full lists.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[v1.ID]() { // two ways to say auto would be one too many
			v.Set(reflect.ValueOf([]v1.ID{{Auto: true}, {Value: int64(r.Uint32())}}[r.IntN(2)]))
			return
		}
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		n := r.IntN(3)
		if n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		for range r.IntN(3) {
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			v.SetMapIndex(reflect.ValueOf(text(r)), reflect.ValueOf(text(r)))
		}
	case reflect.String:
		v.SetString(text(r))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt([]int64{0, 1, -1, 4094, 1 << 31, -1 << 62, int64(r.Uint64())}[r.IntN(7)])
	}
}

// text has the strings that YAML likes to take for something else.
func text(r *rand.Rand) string {
	return []string{"", "a", "true", "no", "1.2", "0010", "null", "~", "2020-01-01", "a: b", "- x", "#x", "é\n\"'", "<<", "*a", "&a", "!t", " pad ", "10.0.0.0/8", "fd00::1", "%", "@"}[r.IntN(22)]
}

func roundTrip[T any](t *testing.T, r *rand.Rand, kind string, pick func(*Documents) []Doc[T]) {
	t.Helper()
	var v T
	fill(r, reflect.ValueOf(&v).Elem())
	e := reflect.ValueOf(&v).Elem()
	e.FieldByName("APIVersion").SetString(v1.APIVersion)
	e.FieldByName("Kind").SetString(kind)
	encoded, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"x.yaml": encoded, "x.json": asJSON} {
		docs, problems := Decode([]File{{Path: name, Data: data}})
		// a required list that is empty is written as null, which is no list
		problems = slices.DeleteFunc(problems, func(d diag.Diagnostic) bool { return d.Code == diag.MissingField })
		if len(problems) > 0 || len(pick(docs)) != 1 {
			t.Fatalf("%s: %v\n%s", name, problems, data)
		}
		got := pick(docs)[0].Value
		if d := cmp.Diff(v, got, cmpopts.EquateEmpty(), cmp.AllowUnexported(v1.ID{})); d != "" {
			t.Fatalf("%s: decode(encode(x)) differs (-x +got):\n%s\n%s", name, d, data)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		roundTrip(t, r, v1.KindBundle, func(d *Documents) []Doc[v1.Bundle] { return d.Bundles })
		roundTrip(t, r, v1.KindTopology, func(d *Documents) []Doc[v1.Topology] { return d.Topologies })
		roundTrip(t, r, v1.KindNetwork, func(d *Documents) []Doc[v1.Network] { return d.Networks })
		roundTrip(t, r, v1.KindTenant, func(d *Documents) []Doc[v1.Tenant] { return d.Tenants })
		roundTrip(t, r, v1.KindSRIOVPool, func(d *Documents) []Doc[v1.SRIOVPool] { return d.SRIOVPools })
	}
}

func TestValues(t *testing.T) {
	const network = head + "kind: Network\nmetadata: {name: a}\nspec:\n"
	for _, tc := range []struct {
		name, spec, want string // want is "line:col Code path", "" for none
	}{
		{"string", "  type: ipvlan", ""},
		{"quoted number", `  type: "1.2"`, ""},
		{"tagged string", "  type: !!str 5", ""},
		{"block string", "  type: |-\n    a", ""},
		{"no value", "  type:\n  vlan:\n  ipv4:", ""},
		{"number for a string", "  type: 5", "5:9 WrongType spec.type"},
		{"truth value for a string", "  type: true", "5:9 WrongType spec.type"},
		{"date for a string", "  type: 2020-01-01", "5:9 WrongType spec.type"},
		{"list for a string", "  type: [a]", "5:9 WrongType spec.type"},
		{"foreign tag", "  type: !secret a", "5:9 WrongType spec.type"},
		{"string for a number", `  mtu: "1400"`, "5:8 WrongType spec.mtu"},
		{"fraction", "  mtu: 1.5", "5:8 WrongType spec.mtu"},
		{"hexadecimal", "  mtu: 0x10", "5:8 WrongType spec.mtu"},
		{"octal", "  mtu: 010", "5:8 WrongType spec.mtu"},
		{"underscore", "  mtu: 1_400", "5:8 WrongType spec.mtu"},
		{"plus", "  mtu: +5", "5:8 WrongType spec.mtu"},
		{"exponent", "  mtu: 1e3", "5:8 WrongType spec.mtu"},
		{"huge", "  mtu: 99999999999999999999", "5:8 WrongType spec.mtu"},
		{"negative", "  mtu: -5", ""},
		{"VNI", "  vxlan: 5", ""},
		{"VNI auto", "  vxlan: auto", ""},
		{"VNI octal", "  vxlan: 05", "5:10 WrongType spec.vxlan"},
		{"VNI word", "  vxlan: any", "5:10 WrongType spec.vxlan"},
		{"VLAN", "  vlan: 5", ""},
		{"VLAN auto", "  vlan: auto", ""},
		{"VLAN in capitals", "  vlan: Auto", "5:9 WrongType spec.vlan"},
		{"VLAN hexadecimal", "  vlan: 0x5", "5:9 WrongType spec.vlan"},
		{"VLAN quoted", `  vlan: "5"`, "5:9 WrongType spec.vlan"},
		{"VLAN quoted, with a zero", `  vlan: "05"`, "5:9 WrongType spec.vlan"},
		{"map for JSON text", "  delegate: {conf: {type: a}}", "5:20 WrongType spec.delegate.conf"},
		{"JSON in a block", "  delegate:\n    conf: |\n      {\"type\": \"a\"}", ""},
		{"two delegates", "  delegate: [{file: a}]", "5:13 WrongType spec.delegate"},
		{"reservation without a name", "  reserved: [{ip: a}]", "5:14 MissingField spec.reserved[0].name"},
		{"IPv6 reserved unquoted", "  reserved: [{name: a, ip6: fd00::1}]", ""},
		{"VNI list", "  vxlan: [5]", "5:10 WrongType spec.vxlan"},
		{"scalar for a list", "  sharedWith: a", "5:15 WrongType spec.sharedWith"},
		{"map for a list", "  sharedWith: {a: b}", "5:15 WrongType spec.sharedWith"},
		{"no value in a list", "  sharedWith: [a, ~]", "5:19 WrongType spec.sharedWith[1]"},
		{"list for a map", "  ipv4: [a]", "5:9 WrongType spec.ipv4"},
		{"wrong in a list", "  ipv4: {cidr: a, routes: [{to: b, vai: c}]}", "5:36 UnknownField spec.ipv4.routes[0].vai"},
		{"number as key", "  ipv4: {cidr: a, 1: b}", "5:19 UnknownField spec.ipv4.1"},
		{"list as key", "  ipv4: {cidr: a, [x]: b}", "5:19 UnknownField spec.ipv4."},
		{"merge key", "  <<: {mtu: 5}", "5:3 UnknownField spec.<<"},
		{"missing in a map", "  ipv4: {gateway: a}", "5:9 MissingField spec.ipv4.cidr"},
		{"required without value", "  ipv4: {cidr: }", "5:10 MissingField spec.ipv4.cidr"},
		{"alias", "  ipv4: &s {cidr: a}\n  ipv6: *s", ""},
		{"alias to the wrong type", "  type: &s a\n  ipv6: *s", "6:9 WrongType spec.ipv6"},
		{"case matters", "  MTU: 5", "5:3 UnknownField spec.MTU"},
		{"field twice", "  mtu: 5\n  mtu: 6", "6:3 DuplicateField spec.mtu"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			docs, problems := one(network + tc.spec + "\n")
			got := ""
			for _, p := range problems {
				got += fmt.Sprintf("%d:%d %s %s", p.Line, p.Col, p.Code, p.Path)
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if len(docs.Networks) != 1 || docs.Networks[0].Broken != (tc.want != "") {
				t.Errorf("documents: %+v", docs.Networks)
			}
		})
	}
}

func TestTables(t *testing.T) {
	const topology = head + "kind: Topology\nmetadata: {name: a}\nspec: {nodes: [{name: n, labels: "
	for labels, want := range map[string]string{
		"{a.b/c: x}":     "",
		"{a: 1}":         `4:38 WrongType spec.nodes[0].labels["a"]`,
		"{1: a}":         `4:35 WrongType spec.nodes[0].labels["1"]`,
		"{a: x, a: y}":   `4:41 DuplicateField spec.nodes[0].labels["a"]`,
		"{a: x, b: ~}":   `4:44 WrongType spec.nodes[0].labels["b"]`,
		"[a]":            `4:34 WrongType spec.nodes[0].labels`,
		`{"a\"]": 1}`:    `4:43 WrongType spec.nodes[0].labels["a\"]"]`,
		"{a: {b: x}}":    `4:38 WrongType spec.nodes[0].labels["a"]`,
		"{[a]: x}":       `4:35 WrongType spec.nodes[0].labels[""]`,
		"{<<: {a: x}}":   `4:39 WrongType spec.nodes[0].labels["<<"]`,
		"{\"<<\": \"\"}": "",
	} {
		_, problems := one(topology + labels + "}]}\n")
		got := ""
		for _, p := range problems {
			got += fmt.Sprintf("%d:%d %s %s", p.Line, p.Col, p.Code, p.Path)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", labels, got, want)
		}
	}
}

// TestAbsentOrFalse: what is not declared is not taken for false or 0, in YAML as in JSON.
func TestAbsentOrFalse(t *testing.T) {
	docs, problems := one(head + `kind: SRIOVPool
metadata: {name: a}
spec: {pfs: {vendors: ["8086"]}, numVFs: 8, resourceName: a/b, trust: false, spoofCheck: }
---
` + head + `kind: Tenant
metadata: {name: a}
spec: {namespaces: [], quotas: {networks: 0, endpoints: ~}}
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	pool, quotas := docs.SRIOVPools[0].Value.Spec, docs.Tenants[0].Value.Spec.Quotas
	if pool.Trust == nil || *pool.Trust || pool.SpoofCheck != nil {
		t.Errorf("trust %v, spoofCheck %v", pool.Trust, pool.SpoofCheck)
	}
	if quotas.Networks == nil || *quotas.Networks != 0 || quotas.Endpoints != nil || quotas.Addresses != nil {
		t.Errorf("quotas %+v", quotas)
	}
	_, problems = one(head + "kind: SRIOVPool\nmetadata: {name: a}\nspec: {pfs: {vendors: [8086], devices: [158b]}, numVFs: \"8\", resourceName: a/b, trust: 1}\n")
	var got []string
	for _, p := range problems {
		got = append(got, fmt.Sprintf("%s %s %s", p.Code, p.Path, p.Hint))
	}
	want := []string{`WrongType spec.pfs.vendors[0] write it in quotes: "8086"`, "WrongType spec.numVFs write it without quotes: 8", "WrongType spec.trust write true or false, without quotes"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestHintsLeadSomewhere: what a hint says is right as it stands.
// TestAListOfWords: the hint for one word in place of a list can be written as it stands.
func TestAListOfWords(t *testing.T) {
	for value, want := range map[string]string{"5": `["5"]`, "0-3": `["0-3"]`, `"5"`: `["5"]`} {
		_, list := one(head + "kind: SRIOVPool\nmetadata: {name: p}\nspec: {pfs: {names: [a]}, numVFs: 8, resourceName: a.b/c, vfs: " + value + "}\n")
		if len(list) != 1 || !strings.HasSuffix(list[0].Hint, want) {
			t.Errorf("%s: %v", value, list)
		}
	}
}

func TestHintsLeadSomewhere(t *testing.T) {
	for wrong, want := range map[string]string{
		"confirmTimeout: 15": "write it with its unit: 15s", "confirmTimeout: 1.5": "write it with its unit: 1.5s", "version: 1": "write it as three numbers: 1.0.0",
		"version: 1.0": "write it as three numbers: 1.0.0", "version: true": `write it in quotes: "true"`, "probes: [{name: a, timeout: 2}]": "write it with its unit: 2s",
	} {
		docs, list := Decode([]File{{Path: "b.yaml", Data: []byte("apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: b}\nspec: {" + wrong + "}\n")}})
		if len(list) != 1 || list[0].Hint != want {
			t.Errorf("%s: %v, not %q (%d bundles)", wrong, list, want, len(docs.Bundles))
		}
	}
}

// TestTruthValues: YAML takes each of these for a truth value.
func TestTruthValues(t *testing.T) {
	for text, want := range map[string]bool{"true": true, "True": true, "TRUE": true, "false": false, "False": false, "FALSE": false} {
		docs, problems := one(head + "kind: SRIOVPool\nmetadata: {name: a}\nspec: {pfs: {}, numVFs: 8, resourceName: a/b, trust: " + text + "}\n")
		if len(problems) > 0 || docs.SRIOVPools[0].Value.Spec.Trust == nil || *docs.SRIOVPools[0].Value.Spec.Trust != want {
			t.Errorf("%s: %+v, %v", text, docs.SRIOVPools, problems)
		}
	}
}

func TestAt(t *testing.T) {
	docs, problems := one(head + `kind: Topology
metadata:
  name: a
spec:
  nodes:
  - name: n
    labels: {"a.b/c": x, "q\"]": y}
  groups: &g
  - name: h
    interfaces:
    - {name: e, mtu: 5}
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	w := docs.Topologies[0].Where
	if w.File != "x.yaml" || w.Line != 1 {
		t.Errorf("document at %s:%d", w.File, w.Line)
	}
	for path, want := range map[string]string{
		"":                                    "1:1",
		"kind":                                "2:7",
		"metadata.name":                       "4:9",
		"spec":                                "5:1",
		"spec.nodes":                          "6:3",
		"spec.nodes[0]":                       "7:5",
		"spec.nodes[0].name":                  "7:11",
		`spec.nodes[0].labels["a.b/c"]`:       "8:23",
		`spec.nodes[0].labels["q\"]"]`:        "8:34",
		"spec.groups[0].interfaces[0].mtu":    "12:22",
		"spec.groups[0].interfaces[0]":        "12:7",
		"spec.groups[0].interfaces[0].absent": "12:7",
		"spec.groups[7].name":                 "9:3",
		"spec.absent.too":                     "5:1",
		"spec[0]":                             "5:1",
		"spec.nodes[x]":                       "6:3",
		"spec.nodes[-1]":                      "6:3",
	} {
		line, col := w.At(path)
		if got := fmt.Sprintf("%d:%d", line, col); got != want {
			t.Errorf("At(%s) = %s, want %s", path, got, want)
		}
	}
}

func TestAtAgrees(t *testing.T) { // every path that Decode reports is one that At finds
	text := head + "kind: Network\nmetadata: {name: a}\nspec:\n  ipv4:\n    cidr: 5\n    pools: [a, 6]\n    routes:\n    - {to: 7, via: x}\n"
	docs, problems := one(text)
	if len(problems) != 3 {
		t.Fatal(problems)
	}
	for _, p := range problems {
		if line, col := docs.Networks[0].At(p.Path); line != p.Line || col != p.Col {
			t.Errorf("%s: reported at %d:%d, At says %d:%d", p.Path, p.Line, p.Col, line, col)
		}
	}
}
