package annotation

import (
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseIPAM(t *testing.T) {
	for in, want := range map[string]IPAM{
		`{"type":"danm","network":"a"}`: {Request: model.InterfaceRequest{Kind: model.DanmNet, Network: "a"}},
		`{"network":"acme/a","ip":"10.0.0.7/24","ip6":"none","socket":"/x"}`: {Namespace: "acme", Request: model.InterfaceRequest{Kind: model.DanmNet, Network: "a",
			IP: model.AddressRequest{Mode: model.AddressStatic, Addr: addr("10.0.0.7")}, IP6: model.AddressRequest{Mode: model.AddressNone}}},
		`{"tenantNetwork":"acme/a","ip":"vip"}`:    {Namespace: "acme", Request: model.InterfaceRequest{Kind: model.TenantNetwork, Network: "a", IP: model.AddressRequest{Mode: model.AddressReserved, Name: "vip"}}},
		`{"clusterNetwork":"a.b","ip6":"dynamic"}`: {Request: model.InterfaceRequest{Kind: model.ClusterNetwork, Network: "a.b", IP6: model.AddressRequest{Mode: model.AddressDynamic}}},
	} {
		got, problems := ParseIPAM("ipam", []byte(in))
		if d := cmp.Diff(want, got, comparers, cmpopts.EquateEmpty()); d != "" || problems.HasErrors() {
			t.Errorf("%s: %v -want +got\n%s", in, problems, d)
		}
	}
}

func TestParseIPAMRefuses(t *testing.T) {
	for in, want := range map[string]struct {
		code diag.Code
		text string
	}{
		`{"type":"danm"}`:                       {diag.AnnotationReference, "0 network references"},
		`{"network":"a","tenantNetwork":"a"}`:   {diag.AnnotationReference, "2 network references"},
		`{"clusterNetwork":"acme/a"}`:           {diag.AnnotationReference, "not the name"},
		`{"network":"acme/a/b"}`:                {diag.AnnotationReference, "not the name"},
		`{"network":"/a"}`:                      {diag.AnnotationReference, "not the name"},
		`{"network":"../a"}`:                    {diag.AnnotationReference, "not the name"},
		`{"network":7}`:                         {diag.AnnotationSyntax, "instead of a string"},
		`{"network":"a","range":"10.0.0.0/24"}`: {diag.AnnotationField, "unknown key"},
		`{"network":"a","IP":"dynamic"}`:        {diag.AnnotationField, "unknown key"},
		`{"network":"a","network":"b"}`:         {diag.AnnotationField, "twice"},
		`{"network":"a","proutes":{}}`:          {diag.AnnotationField, "unknown key"},
		`{"network":"a","ip":"fd00::1"}`:        {diag.AnnotationAddress, "family"},
		`{"network":"a","socket":1}`:            {diag.AnnotationSyntax, "instead of a string"},
		`[]`:                                    {diag.AnnotationSyntax, "instead of an object"},
		`{"network":`:                           {diag.AnnotationSyntax, "at byte"},
	} {
		_, problems := ParseIPAM("ipam", []byte(in))
		if len(problems) == 0 || problems[0].Code != want.code || !strings.Contains(problems[0].Summary, want.text) || !strings.HasPrefix(problems[0].Path, "ipam") {
			t.Errorf("%s: %v", in, problems)
		}
	}
}
