package render_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

func TestDefinitions(t *testing.T) {
	v4 := &model.Subnet{CIDR: netip.MustParsePrefix("10.1.0.0/24")}
	v6 := &model.Subnet{CIDR: netip.MustParsePrefix("fd00::/64")}
	b := model.Bundle{
		Tenants: []model.Tenant{{Name: "t", Namespaces: []string{"acme", "beta"}}},
		Networks: []model.Network{
			{Kind: model.ClusterNetwork, Name: "all", Type: model.SRIOV, DevicePool: "danm.io/fast", NAD: true, IPv4: v4, IPv6: v6},
			{Kind: model.ClusterNetwork, Name: "some", Type: model.SRIOV, DevicePool: "danm.io/fast", NAD: true, AllowedTenants: []string{"t"}, IPv6: v6},
			{Kind: model.ClusterNetwork, Name: "unasked", Type: model.SRIOV, DevicePool: "danm.io/fast", IPv4: v4},
			{Kind: model.TenantNetwork, Namespace: "acme", Name: "own", Type: "flannel", Delegate: &model.Delegate{File: "flannel"}, NAD: true},
		},
	}
	want := map[string]model.InterfaceRequest{
		"default/all": {Kind: model.ClusterNetwork, Network: "all", IP: model.AddressRequest{Mode: model.AddressDynamic}, IP6: model.AddressRequest{Mode: model.AddressDynamic}},
		"acme/some":   {Kind: model.ClusterNetwork, Network: "some", IP6: model.AddressRequest{Mode: model.AddressDynamic}},
		"beta/some":   {Kind: model.ClusterNetwork, Network: "some", IP6: model.AddressRequest{Mode: model.AddressDynamic}},
		"acme/own":    {Kind: model.TenantNetwork, Network: "own"},
	}
	res := render.Render(b, model.Inventory{})
	if len(res.Diagnostics) > 0 {
		t.Fatal(res.Diagnostics)
	}
	for _, o := range res.Objects {
		d, ok := o.Value.(*npwgv1.NetworkAttachmentDefinition)
		if !ok {
			continue
		}
		key := o.Namespace + "/" + o.Name
		if d.Namespace != o.Namespace || d.Name != o.Name || d.APIVersion != npwgv1.APIVersion || d.Kind != npwgv1.Kind {
			t.Errorf("%s: %+v", key, d.ObjectMeta)
		}
		var conf struct {
			CNIVersion, Name, Type string
			Interfaces             json.RawMessage
		}
		if err := json.Unmarshal([]byte(d.Spec.Config), &conf); err != nil || conf.CNIVersion != "1.0.0" || conf.Name != o.Name || conf.Type != "danm" {
			t.Errorf("%s: %v %s", key, err, d.Spec.Config)
		}
		got, problems := annotation.ParseInterfaces("interfaces", conf.Interfaces) // what the plugin reads it with
		if problems.Err() != nil || len(got) != 1 || asJSON(t, got[0]) != asJSON(t, want[key]) {
			t.Errorf("%s: asks for %+v, %v", key, got, problems)
		}
		if pool := d.Annotations[npwgv1.ResourceName]; (pool == "danm.io/fast") != (o.Name != "own") {
			t.Errorf("%s: resource %q", key, pool)
		}
		delete(want, key)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if !slices.IsSortedFunc(res.Objects, func(a, b render.Object) int { // by kind first: compared as one key here
		return strings.Compare(a.Kind+"\x00"+a.Namespace+"\x00"+a.Name, b.Kind+"\x00"+b.Namespace+"\x00"+b.Name)
	}) {
		t.Error("objects are not sorted")
	}
}
