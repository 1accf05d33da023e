package v1

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

type object = map[string]any

func load(t *testing.T) object {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	again, _ := Schema()
	if !bytes.Equal(text, again) {
		t.Fatal("two calls, two schemas")
	}
	var root object
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	return root
}

// TestSchemaComplete: every property is described, every object closed, every reference resolves, every pattern compiles.
func TestSchemaComplete(t *testing.T) {
	root := load(t)
	if root["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema = %v", root["$schema"])
	}
	defs := root["$defs"].(object)
	for _, kind := range []string{"Bundle", "Topology", "Network", "Tenant", "SRIOVPool"} {
		def := defs[kind].(object)
		if got := def["properties"].(object)["kind"].(object)["const"]; got != kind {
			t.Errorf("%s: kind is %v", kind, got)
		}
		if got := def["properties"].(object)["apiVersion"].(object)["const"]; got != APIVersion {
			t.Errorf("%s: apiVersion is %v", kind, got)
		}
	}
	if n := len(root["oneOf"].([]any)); n != 5 {
		t.Errorf("%d kinds, want 5", n)
	}
	for name, def := range defs {
		d := def.(object)
		if d["additionalProperties"] != false {
			t.Errorf("%s is open", name)
		}
		if d["description"] == nil || d["description"] == "" {
			t.Errorf("%s is not described", name)
		}
		for field, p := range d["properties"].(object) {
			text, _ := p.(object)["description"].(string)
			first, _, _ := strings.Cut(text, " ")
			if !strings.EqualFold(first, field) {
				t.Errorf("%s.%s: the description begins with %q, not with the field's name", name, field, first)
			}
		}
	}
	walk(root, func(o object) {
		if ref, ok := o["$ref"].(string); ok && defs[strings.TrimPrefix(ref, "#/$defs/")] == nil {
			t.Errorf("%s leads nowhere", ref)
		}
		if p, ok := o["pattern"].(string); ok {
			regexp.MustCompile(p)
		}
	})
}

func walk(v any, visit func(object)) {
	switch v := v.(type) {
	case object:
		visit(v)
		for _, e := range v {
			walk(e, visit)
		}
	case []any:
		for _, e := range v {
			walk(e, visit)
		}
	}
}

func TestSchemaBounds(t *testing.T) {
	defs := load(t)["$defs"].(object)
	field := func(def, name string) object { return defs[def].(object)["properties"].(object)[name].(object) }
	for name, most := range map[string]float64{"vlan": 4094, "vxlan": 16777215} {
		id := field("NetworkSpec", name)["oneOf"].([]any)
		if n := id[0].(object); n["type"] != "integer" || n["maximum"] != most || n["minimum"] != 1.0 || id[1].(object)["const"] != "auto" {
			t.Errorf("%s: %v", name, id)
		}
	}
	typ := field("NetworkSpec", "type")
	if got := typ["examples"].([]any); typ["enum"] != nil || !slices.Contains(got, "host-device") || len(got) != 6 {
		t.Errorf("type: %v", typ)
	}
	word := regexp.MustCompile(typ["pattern"].(string))
	file := regexp.MustCompile(field("Delegate", "file")["pattern"].(string))
	for text, want := range map[string]bool{"macvlan": true, "ib-sriov_1.0": true, "../x": false, "a/b": false, "": false, ".x": false} {
		if word.MatchString(text) != want || file.MatchString(text) != want {
			t.Errorf("plugin or file %q: %t", text, !want)
		}
	}
	for path, want := range map[[2]string][]any{
		{"NetworkSpec", "sticky"}: {"StatefulSet"}, {"NetworkSpec", "render"}: {"nad"},
		{"SRIOVPoolSpec", "driver"}: {"kernel", "vfio-pci"}, {"SRIOVPoolSpec", "linkState"}: {"auto", "enable", "disable"},
	} {
		if got := field(path[0], path[1])["enum"]; !slices.Equal(got.([]any), want) {
			t.Errorf("%v: %v", path, got)
		}
	}
	if got := field("SRIOVPoolSpec", "trust"); got["type"] != "boolean" {
		t.Errorf("trust: %v", got)
	}
	if got := field("Quotas", "addresses"); got["minimum"] != 0.0 || got["maximum"] != nil {
		t.Errorf("addresses: %v", got)
	}
	for def, want := range map[string][]any{"PFSelector": nil, "Reservation": {"name"}, "Delegate": nil, "SRIOVPoolSpec": {"pfs", "numVFs", "resourceName"}, "Quotas": nil} {
		if got, _ := defs[def].(object)["required"].([]any); !slices.Equal(got, want) {
			t.Errorf("%s requires %v", def, got)
		}
	}
	if got := defs["Subnet"].(object)["required"].([]any); len(got) != 1 || got[0] != "cidr" {
		t.Errorf("Subnet requires %v", got)
	}
	duration := regexp.MustCompile(field("BundleSpec", "confirmTimeout")["pattern"].(string))
	for text, want := range map[string]bool{"15s": true, "1m30s": true, "1.5s": true, "15": false, "": false, "PT15S": false} {
		if duration.MatchString(text) != want {
			t.Errorf("confirmTimeout %q: %t", text, !want)
		}
	}
}

func TestID(t *testing.T) {
	for text, want := range map[string]ID{"auto": {Auto: true}, "5001": {Value: 5001}, "0": {}} {
		var got ID
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		back, err := json.Marshal(got)
		if err != nil || strings.Trim(string(back), `"`) != text {
			t.Errorf("%q marshals to %s, %v", text, back, err)
		}
	}
	var v ID
	if err := v.UnmarshalText([]byte("many")); err == nil {
		t.Error("no error")
	}
}
