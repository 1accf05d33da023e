package annotation

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestParseReadsWhatTheContractSays(t *testing.T) {
	dynamic := model.AddressRequest{Mode: model.AddressDynamic}
	static := func(s string) model.AddressRequest {
		return model.AddressRequest{Mode: model.AddressStatic, Addr: addr(s)}
	}
	longest := strings.Repeat("a.", 126) + "b" // 253 bytes
	rows := []struct {
		name, in string
		want     []model.InterfaceRequest
	}{
		{"longest name", `[{"network":"` + longest + `"}]`, []model.InterfaceRequest{{Kind: model.DanmNet, Network: longest}}},
		{"policy routes of one address, by length", `[{"network":"a","proutes":{"10.0.0.0/16":"10.0.0.1","10.0.0.0/8":"10.0.0.2"}}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a", Routes: []model.PodRoute{
				{To: prefix("10.0.0.0/8"), Via: addr("10.0.0.2")}, {To: prefix("10.0.0.0/16"), Via: addr("10.0.0.1")}}}}},
		{"empty array", ` [ ] `, nil},
		{"each kind", `[{"network":"a"},{"tenantNetwork":"b"},{"clusterNetwork":"c.d-e"}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a"}, {Kind: model.TenantNetwork, Network: "b"}, {Kind: model.ClusterNetwork, Network: "c.d-e"}}},
		{"one network twice", `[{"network":"a","ip":"dynamic"},{"network":"a","ip6":"dynamic"}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a", IP: dynamic}, {Kind: model.DanmNet, Network: "a", IP6: dynamic}}},
		{"static, length ignored", `[{"network":"a","ip":"10.0.0.7/24","ip6":"fd00::7"}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a", IP: static("10.0.0.7"), IP6: static("fd00::7")}}},
		{"none and empty", `[{"network":"a","ip":"none","ip6":""}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a", IP: model.AddressRequest{Mode: model.AddressNone}}}},
		{"policy routes sorted, host bits masked", `[{"network":"a","proutes6":{"::/0":"fd00::1"},"proutes":{"10.2.0.9/16":"10.0.0.1","10.1.0.0/16":"10.0.0.2"}}]`,
			[]model.InterfaceRequest{{Kind: model.DanmNet, Network: "a", Routes: []model.PodRoute{
				{To: prefix("10.1.0.0/16"), Via: addr("10.0.0.2")}, {To: prefix("10.2.0.0/16"), Via: addr("10.0.0.1")}, {To: prefix("::/0"), Via: addr("fd00::1")}}}}},
	}
	for _, r := range rows {
		for _, key := range []string{Key, LegacyKey} {
			got, problems := Parse(map[string]string{key: r.in, "x" + key: "not ours", key + "x": "not ours"})
			if len(problems) != 0 {
				t.Errorf("%s: %v", r.name, problems)
			}
			if d := cmp.Diff(r.want, got, comparers, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s: -want +got\n%s", r.name, d)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	wide := "[" + strings.Repeat(`{"network":"a"},`, MaxInterfaces) + `{"network":"a"}]`
	rows := []struct {
		name string
		in   map[string]string
		code diag.Code
		path string // of the first problem
		text string // somewhere in its summary
	}{
		{"cut off", map[string]string{Key: `[{"network":"a"`}, diag.AnnotationSyntax, Key, "at byte 15"},
		{"empty", map[string]string{Key: ``}, diag.AnnotationSyntax, Key, "at byte 0"},
		{"rubbish behind", map[string]string{Key: `[] []`}, diag.AnnotationSyntax, Key, "at byte 4"},
		{"trailing comma", map[string]string{Key: `[{"network":"a"},]`}, diag.AnnotationSyntax, Key, "at byte 18"},
		{"object", map[string]string{Key: `{"network":"a"}`}, diag.AnnotationSyntax, Key, "an object instead"},
		{"null", map[string]string{Key: `null`}, diag.AnnotationSyntax, Key, "instead of an array"},
		{"entry null", map[string]string{Key: `[null]`}, diag.AnnotationSyntax, Key + "[0]", "at byte 1"},
		{"not UTF-8", map[string]string{Key: "[{\"network\":\"\xff\"}]"}, diag.AnnotationSyntax, Key, "UTF-8"},
		{"deep", map[string]string{Key: strings.Repeat("[", 500) + strings.Repeat("]", 500)}, diag.AnnotationSyntax, Key, "deep"},
		{"no reference", map[string]string{Key: `[{"ip":"dynamic"}]`}, diag.AnnotationReference, Key + "[0]", "0 network references"},
		{"two references", map[string]string{Key: `[{"network":"a","tenantNetwork":"a"}]`}, diag.AnnotationReference, Key + "[0]", "2 network references"},
		{"empty name", map[string]string{Key: `[{"network":""}]`}, diag.AnnotationReference, Key + "[0].network", "at byte 12"},
		{"path in a name", map[string]string{Key: `[{"network":"../x"}]`}, diag.AnnotationReference, Key + "[0].network", "not the name"},
		{"name that ends in a dash", map[string]string{Key: `[{"network":"x-"}]`}, diag.AnnotationReference, Key + "[0].network", "not the name"},
		{"name in capitals", map[string]string{Key: `[{"network":"X"}]`}, diag.AnnotationReference, Key + "[0].network", "not the name"},
		{"name of 254 bytes", map[string]string{Key: `[{"network":"` + strings.Repeat("a.", 126) + `bc"}]`}, diag.AnnotationReference, Key + "[0].network", "not the name"},
		{"long key", map[string]string{Key: `[{"network":"a","` + strings.Repeat("x", 1000) + `":""}]`}, diag.AnnotationField, Key + "[0]." + strings.Repeat("x", 64) + "...", "unknown key"},
		{"object under the old key", map[string]string{LegacyKey: `{"network":"a"}`}, diag.AnnotationSyntax, LegacyKey, "an object instead"},
		{"other namespace", map[string]string{Key: `[{"network":"b/x"}]`}, diag.AnnotationReference, Key + "[0].network", "not the name"},
		{"case of a key", map[string]string{Key: `[{"network":"a","IP":"dynamic"}]`}, diag.AnnotationField, Key + "[0].IP", "at byte 16"},
		{"internal field", map[string]string{Key: `[{"network":"a","Device":"eth0"}]`}, diag.AnnotationField, Key + "[0].Device", "unknown key"},
		{"twice", map[string]string{Key: `[{"network":"a","ip":"none","ip":"dynamic"}]`}, diag.AnnotationField, Key + "[0].ip", "twice"},
		{"number", map[string]string{Key: `[{"network":"a","ip":4}]`}, diag.AnnotationSyntax, Key + "[0].ip", "instead of a string"},
		{"IPv6 as ip", map[string]string{Key: `[{"network":"a","ip":"fd00::1"}]`}, diag.AnnotationAddress, Key + "[0].ip", "family"},
		{"IPv4 as ip6", map[string]string{Key: `[{"network":"a","ip6":"10.0.0.1"}]`}, diag.AnnotationAddress, Key + "[0].ip6", "family"},
		{"mapped", map[string]string{Key: `[{"network":"a","ip6":"::ffff:10.0.0.1"}]`}, diag.AnnotationAddress, Key + "[0].ip6", "family"},
		{"zone", map[string]string{Key: `[{"network":"a","ip6":"fe80::1%eth0"}]`}, diag.AnnotationAddress, Key + "[0].ip6", "family"},
		{"bad length", map[string]string{Key: `[{"network":"a","ip":"10.0.0.1/33"}]`}, diag.AnnotationAddress, Key + "[0].ip", "at byte 21"},
		{"misspelt", map[string]string{Key: `[{"network":"a","ip":"Dynamic"}]`}, diag.AnnotationAddress, Key + "[0].ip", "neither"},
		{"routes as array", map[string]string{Key: `[{"network":"a","proutes":[]}]`}, diag.AnnotationRoute, Key + "[0].proutes", "an array"},
		{"route without length", map[string]string{Key: `[{"network":"a","proutes":{"10.0.0.1":"10.0.0.1"}}]`}, diag.AnnotationRoute, Key + "[0].proutes.10.0.0.1", "CIDR"},
		{"route of other family", map[string]string{Key: `[{"network":"a","proutes6":{"10.0.0.0/8":"fd00::1"}}]`}, diag.AnnotationRoute, Key + "[0].proutes6.10.0.0.0/8", "CIDR"},
		{"gateway of other family", map[string]string{Key: `[{"network":"a","proutes":{"10.0.0.0/8":"fd00::1"}}]`}, diag.AnnotationRoute, Key + "[0].proutes.10.0.0.0/8", "gateway"},
		{"one destination twice", map[string]string{Key: `[{"network":"a","proutes":{"10.0.0.1/8":"10.0.0.1","10.0.0.2/8":"10.0.0.2"}}]`}, diag.AnnotationRoute, Key + "[0].proutes.10.0.0.2/8", "twice"},
		{"too many", map[string]string{Key: wide}, diag.AnnotationTooBig, Key, "65 interfaces"},
		{"1 MiB and a byte", map[string]string{Key: "[" + strings.Repeat(" ", MaxBytes-1) + "]"}, diag.AnnotationTooBig, Key, "1048577 bytes"},
		{"prefixes differ", map[string]string{Key: `[{"network":"a"}]`, LegacyKey: `[{"network":"b"}]`}, diag.AnnotationTwice, LegacyKey, "differ"},
		{"both dialects", map[string]string{Key: `[]`, NPWGKey: `a`}, diag.AnnotationDialects, NPWGKey, "both"},
		{"both dialects, old key", map[string]string{LegacyKey: `[]`, NPWGKey: `a`}, diag.AnnotationDialects, NPWGKey, "both"},
		{"another default network and ours", map[string]string{Key: `[]`, DefaultNetworkKey: `a`}, diag.AnnotationDialects, DefaultNetworkKey, "both"},
	}
	for _, r := range rows {
		got, problems := Parse(r.in)
		if got != nil || len(problems) == 0 {
			t.Errorf("%s: accepted as %v", r.name, got)
			continue
		}
		if p := problems[0]; p.Code != r.code || p.Path != r.path || !strings.Contains(p.Summary, r.text) {
			t.Errorf("%s: got %s at %q: %q; want %s at %q with %q", r.name, p.Code, p.Path, p.Summary, r.code, r.path, r.text)
		}
		for _, p := range problems {
			if _, ok := diag.Explain(p.Code); !ok || len(p.String()) > 500 {
				t.Errorf("%s: unexplained or unbounded: %.200s", r.name, p)
			}
		}
	}
}

func TestParseReportsAllProblemsAtOnce(t *testing.T) {
	_, problems := ParseInterfaces("interfaces", []byte(`[{"ip":"X"},{"network":"a","foo":"","ip6":"10.0.0"}]`))
	if len(problems) != 4 {
		t.Errorf("want 4 problems, got %v", problems)
	}
}

func TestParseAgreesWhenBothPrefixesSayTheSame(t *testing.T) {
	in := `[{"network":"a"}]`
	if got, problems := Parse(map[string]string{Key: in, LegacyKey: in}); len(problems) != 0 || len(got) != 1 {
		t.Errorf("got %v, %v", got, problems)
	}
}

func TestParseTakesTheBiggest(t *testing.T) {
	in := "[" + strings.Repeat(" ", MaxBytes-2) + "]"
	if _, problems := ParseInterfaces(Key, []byte(in)); problems.HasErrors() {
		t.Errorf("1 MiB is refused: %.200v", problems)
	}
	var many []string
	for i := range MaxInterfaces {
		many = append(many, fmt.Sprintf(`{"network":"n%d"}`, i))
	}
	if got, problems := ParseInterfaces(Key, []byte("["+strings.Join(many, ",")+"]")); len(got) != MaxInterfaces {
		t.Errorf("got %d interfaces, %v", len(got), problems)
	}
}

// FuzzParse: what is accepted is valid JSON, is bounded, and means the same when written again from the result.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`[]`, `[{"network":"a"}]`, `[{"tenantNetwork":"a","ip":"10.0.0.1/24","ip6":"none"}]`,
		`[{"clusterNetwork":"a","proutes":{"0.0.0.0/0":"10.0.0.1"},"proutes6":{"::/0":"fd00::1"}}]`, `[{"network":"a","network":"b"}]`,
		`[{"network":"a","Device":"x"}]`, "[\"\u2028\"]", `[[[[[[[[[[]]]]]]]]]]`, `[{"":""}]`, ` [ { "network" : "a" } , {} ]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, problems := ParseInterfaces(Key, in)
		if problems.HasErrors() {
			if got != nil {
				t.Fatalf("errors and a result: %v %v", problems, got)
			}
			return
		}
		if !json.Valid(in) || len(got) > MaxInterfaces {
			t.Fatalf("accepted %q as %v", in, got)
		}
		again, problems := ParseInterfaces(Key, write(got))
		if problems.HasErrors() {
			t.Fatalf("%s: %v", write(got), problems)
		}
		if d := cmp.Diff(got, again, comparers, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("written again: %s", d)
		}
	})
}

// write is the inverse of ParseInterfaces, by encoding/json alone.
func write(requests []model.InterfaceRequest) []byte {
	key := map[model.APIKind]string{model.DanmNet: "network", model.TenantNetwork: "tenantNetwork", model.ClusterNetwork: "clusterNetwork"}
	mode := func(q model.AddressRequest) string {
		if q.Mode == model.AddressStatic {
			return q.Addr.String()
		}
		return string(q.Mode)
	}
	out := []map[string]any{}
	for _, q := range requests {
		v4, v6 := map[string]string{}, map[string]string{}
		for _, r := range q.Routes {
			if r.To.Addr().Is4() {
				v4[r.To.String()] = r.Via.String()
			} else {
				v6[r.To.String()] = r.Via.String()
			}
		}
		out = append(out, map[string]any{key[q.Kind]: q.Network, "ip": mode(q.IP), "ip6": mode(q.IP6), "proutes": v4, "proutes6": v6})
	}
	b, _ := json.Marshal(out)
	return b
}

// A DNS label is the name of a reservation; whether there is one is for the network to say.
func TestReservations(t *testing.T) {
	for text, want := range map[string]model.AddressRequest{
		"vip": {Mode: model.AddressReserved, Name: "vip"}, "vip-2": {Mode: model.AddressReserved, Name: "vip-2"},
		"dynamic": {Mode: model.AddressDynamic}, "10.0.0.1": {Mode: model.AddressStatic, Addr: netip.MustParseAddr("10.0.0.1")},
	} {
		got, problems := ParseInterfaces("interfaces", []byte(`[{"network":"a","ip":"`+text+`"}]`))
		if problems.Err() != nil || len(got) != 1 || got[0].IP != want {
			t.Errorf("%s: %+v %v", text, got, problems)
		}
	}
	for _, text := range []string{"Vip", "-vip", "vip-", "a_b", "1vip", strings.Repeat("a", 64), "a.b"} {
		if _, problems := ParseInterfaces("interfaces", []byte(`[{"network":"a","ip":"`+text+`"}]`)); len(problems) != 1 || problems[0].Code != diag.AnnotationAddress {
			t.Errorf("%s: %v", text, problems)
		}
	}
}
