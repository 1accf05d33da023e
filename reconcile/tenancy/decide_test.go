package tenancy

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/tenancy"
)

// wish changes a network before it is made.
type wish = func(*danmv1.TenantNetwork)

func device(name string) wish { return func(n *danmv1.TenantNetwork) { n.Spec.Options.Device = name } }
func pool(name string) wish {
	return func(n *danmv1.TenantNetwork) { n.Spec.Options.DevicePool, n.Spec.NetworkType = name, "sriov" }
}
func vlan(id int) wish      { return func(n *danmv1.TenantNetwork) { n.Spec.Options.Vlan = id } }
func vxlan(id int) wish     { return func(n *danmv1.TenantNetwork) { n.Spec.Options.Vxlan = id } }
func kind(name string) wish { return func(n *danmv1.TenantNetwork) { n.Spec.NetworkType = name } }

func limited(c danmv1.TenantConfig, networks int) danmv1.TenantConfig {
	c.Extension.Quotas = &danmv1.Quotas{Networks: &networks}
	return c
}

// told is what the only network under a key was told, and what it has: "True Assigned ens4 vlan 100".
func (w *world) told(key string) string {
	n := w.networks[key]
	c := conditionOf(n)
	if c == nil {
		return "nothing"
	}
	o := n.Spec.Options
	out := fmt.Sprintf("%s %s %s", c.Status, c.Reason, o.Device+o.DevicePool)
	if o.Vlan != 0 {
		out += fmt.Sprintf(" vlan %d", o.Vlan)
	}
	if o.Vxlan != 0 {
		out += fmt.Sprintf(" vxlan %d", o.Vxlan)
	}
	return out
}

func TestWhatANetworkGets(t *testing.T) {
	const ens4, ens5 = "ens4", "ens5"
	vlans := profileOf(ens4, "vlan", "100-199")
	acme := func(p ...danmv1.IfaceProfile) []danmv1.TenantConfig {
		return []danmv1.TenantConfig{config("a", "acme", p...)}
	}
	imported := profileOf(ens4, "vlan", "100-110")
	imported.Alloc = bits(100, 101, 103)
	broken := profileOf(ens4, "vlan", "100-110")
	broken.Alloc = "%%%"
	for _, r := range []struct {
		name    string
		configs []danmv1.TenantConfig
		before  func(*world)
		wishes  []wish
		want    string
		says    string
	}{
		{"lowest of the range", acme(vlans), nil, nil, "True Assigned ens4 vlan 100", "vlan 100 on ens4"},
		{"pieces of a range, unsorted", acme(profileOf(ens4, "vlan", "300-310,7,200")), nil, nil, "True Assigned ens4 vlan 7", ""},
		{"VNI", acme(profileOf(ens4, "vxlan", "5000-5010")), nil, nil, "True Assigned ens4 vxlan 5000", ""},
		{"VNI beyond DANM's", acme(profileOf(ens4, "vxlan", "16777215")), nil, nil, "True Assigned ens4 vxlan 16777215", ""},
		{"device without numbers", acme(danmv1.IfaceProfile{Name: ens4}), nil, nil, "True Assigned ens4", "device ens4"},
		{"the device named", acme(vlans, profileOf(ens5, "vlan", "5-6")), nil, []wish{device(ens5)}, "True Assigned ens5 vlan 5", ""},
		{"a device of nobody", acme(vlans), nil, []wish{device("ens9")}, "False DeviceNotAllowed ens9", "allowed: ens4"},
		{"a device by another case", acme(vlans), nil, []wish{device("ENS4")}, "False DeviceNotAllowed ENS4", "allowed: ens4"},
		{"a pool as a device", acme(profileOf("a.b/c", "vlan", "5-6")), nil, []wish{device("a.b/c")}, "False DeviceNotAllowed a.b/c", "allowed: none"},
		{"a device as a pool", acme(vlans), nil, []wish{pool(ens4)}, "False DeviceNotAllowed ens4", "allowed: none"},
		{"pool", acme(vlans, profileOf("a.b/c", "vlan", "5-6")), nil, []wish{pool("a.b/c")}, "True Assigned a.b/c vlan 5", ""},
		{"sriov without a pool", acme(vlans, profileOf("a.b/c", "", "")), nil, []wish{kind("sriov")}, "False DeviceNotAllowed ", "allowed: a.b/c"},
		{"a pool is never chosen", acme(profileOf("a.b/c", "vlan", "5-6")), nil, nil, "False NoProfile ", ""},
		{"no config", []danmv1.TenantConfig{config("a", "globex", vlans)}, nil, nil, "False NoProfile ", "namespace acme"},
		{"config without devices", acme(), nil, nil, "False NoProfile ", ""},
		{"static", acme(vlans), nil, []wish{kind("flannel")}, "True Assigned ", "takes no device"},
		{"static with a device of nobody", acme(vlans), nil, []wish{kind("flannel"), device("ens9")}, "False DeviceNotAllowed ens9", ""},
		{"macvlan in any case", acme(vlans), nil, []wish{kind("MacVlan")}, "True Assigned ens4 vlan 100", ""},
		{"bridge", acme(vlans), nil, []wish{kind("bridge")}, "True Assigned ens4 vlan 100", ""},
		{"a delegate called bridge", acme(vlans), nil, []wish{kind("bridge"), func(n *danmv1.TenantNetwork) {
			n.Spec.Extension = &danmv1.NetworkExtension{Delegate: &danmv1.Delegate{File: "x"}}
		}}, "True Assigned ", "takes no device"},
		{"a fabric by name", acme(vlans), nil, []wish{func(n *danmv1.TenantNetwork) { n.Spec.Extension = &danmv1.NetworkExtension{Fabric: "f"} }}, "False DeviceNotAllowed ", "fabric"},

		{"brings a number", acme(vlans), nil, []wish{device(ens4), vlan(150)}, "True Assigned ens4 vlan 150", ""},
		{"brings a number, no device", acme(profileOf(ens5, "vlan", "5-6"), vlans), nil, []wish{vlan(150)}, "True Assigned ens4 vlan 150", ""},
		{"brings one outside", acme(vlans), nil, []wish{device(ens4), vlan(200)}, "False NumberNotAllowed ens4 vlan 200", "vlan 100-199 on ens4"},
		{"brings one of another kind", acme(vlans), nil, []wish{device(ens4), vxlan(150)}, "False NumberNotAllowed ens4 vxlan 150", ""},
		{"brings one to a device without numbers", acme(danmv1.IfaceProfile{Name: ens4}), nil, []wish{device(ens4), vlan(150)}, "False NumberNotAllowed ens4 vlan 150", ""},
		{"brings another's", acme(vlans), func(w *world) { w.create("acme/first"); _ = w.settle() }, []wish{device(ens4), vlan(100)}, "False NumberTaken ens4 vlan 100", "acme/first"},
		{"brings one in the bitmap", acme(imported), nil, []wish{device(ens4), vlan(101)}, "True Assigned ens4 vlan 101", ""},
		{"others leave the bitmap alone", acme(imported), nil, nil, "True Assigned ens4 vlan 102", ""},
		{"bitmap that cannot be read", acme(broken), nil, nil, "False NoProfile ", ""},

		{"a cluster network's VLAN", acme(vlans), func(w *world) { w.fixed(ens4, 100, 0) }, nil, "True Assigned ens4 vlan 101", ""},
		{"a cluster network's VLAN elsewhere", acme(vlans), func(w *world) { w.fixed(ens5, 100, 0) }, nil, "True Assigned ens4 vlan 100", ""},
		{"a cluster network's VNI elsewhere", acme(profileOf(ens4, "vxlan", "100-199")), func(w *world) { w.fixed(ens5, 0, 100) }, nil, "True Assigned ens4 vxlan 101", ""},
		{"a bundle's number on an unknown device", acme(vlans), func(w *world) {
			w.bundle.Status.Assignments = []v1alpha1.Assignment{{Network: "acme/voice", ID: 100}}
		}, nil, "True Assigned ens4 vlan 101", ""},
		{"a bundle's number on a known device", acme(vlans), func(w *world) {
			w.bundle.Status.Assignments = []v1alpha1.Assignment{{Network: "data", ID: 100}}
			w.fixed(ens5, 100, 0)
			w.cluster[0].Name = "data"
		}, nil, "True Assigned ens4 vlan 100", ""},
		{"a bundle's network", acme(vlans), func(w *world) { w.bundled("acme/voice", 100) }, nil, "True Assigned ens4 vlan 101", ""},
		{"says it is a bundle's", acme(vlans), nil, []wish{device("ens9"), func(n *danmv1.TenantNetwork) { n.Labels = map[string]string{v1alpha1.LabelBundle: "edge"} }}, "False DeviceNotAllowed ens9", ""},
		{"nothing left", acme(profileOf(ens4, "vlan", "100")), func(w *world) { w.create("acme/first") }, nil, "False RangeExhausted ", "vlan 100 on ens4"},
		{"the other device when one is used up", acme(profileOf(ens4, "vlan", "100"), profileOf(ens5, "vlan", "7-8")), func(w *world) {
			for i := range 2 {
				w.create(fmt.Sprintf("acme/first%d", i))
			}
		}, nil, "True Assigned ens5 vlan 8", ""},
		{"fewest first, then as written", acme(profileOf(ens5, "vlan", "7-9"), vlans), func(w *world) { w.create("acme/a", device(ens5)); w.create("acme/b", device(ens4)) }, nil, "True Assigned ens5 vlan 8", ""},
		{"the device with fewer", acme(profileOf(ens5, "vlan", "7-9"), vlans), func(w *world) { w.create("acme/a", device(ens5)) }, nil, "True Assigned ens4 vlan 100", ""},
		{"overlapping range of another tenant", []danmv1.TenantConfig{config("a", "acme", vlans), config("b", "globex", profileOf(ens4, "vlan", "50-150"))}, func(w *world) {
			w.create("globex/x", vlan(100))
		}, nil, "True Assigned ens4 vlan 101", ""},
		{"beyond the quota", []danmv1.TenantConfig{limited(config("a", "acme", vlans), 1)}, func(w *world) { w.create("acme/first") }, nil, "False QuotaExceeded ", "TenantConfig a"},
		{"bundles count, too", []danmv1.TenantConfig{limited(config("a", "acme", vlans), 1)}, func(w *world) { w.bundled("acme/voice", 7) }, nil, "False QuotaExceeded ", ""},
		{"within the quota", []danmv1.TenantConfig{limited(config("a", "acme", vlans), 2)}, func(w *world) { w.create("acme/first") }, nil, "True Assigned ens4 vlan 101", ""},
	} {
		t.Run(r.name, func(t *testing.T) {
			w := newWorld(r.configs...)
			if r.before != nil {
				r.before(w)
			}
			w.create("acme/x", r.wishes...)
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if got := w.told("acme/x"); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
			if m := conditionOf(w.networks["acme/x"]).Message; !strings.Contains(m, r.says) {
				t.Errorf("%q does not say %q", m, r.says)
			}
		})
	}
}

func (w *world) fixed(device string, vlan, vxlan int) {
	w.cluster = append(w.cluster, danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", len(w.cluster))},
		Spec: danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Device: device, Vlan: vlan, Vxlan: vxlan}}})
}

// bundled makes a network as sync does.
func (w *world) bundled(key string, id int) {
	namespace, name, _ := strings.Cut(key, "/")
	w.bundle.Status.Inventory = append(w.bundle.Status.Inventory, v1alpha1.ObjectReference{Kind: "TenantNetwork", Namespace: namespace, Name: name})
	w.create(key, device("ens4"), vlan(id), func(n *danmv1.TenantNetwork) { n.Labels = map[string]string{v1alpha1.LabelBundle: "edge"} })
}

// TestLater: what happens to networks that have a number.
func TestLater(t *testing.T) {
	start := func(t *testing.T) *world {
		t.Helper()
		w := newWorld(limited(config("a", "acme", profileOf("ens4", "vlan", "100-102")), 2))
		w.create("acme/x")
		w.rest(t)
		return w
	}
	t.Run("a changed number is refused and what is reserved stays", func(t *testing.T) {
		w := start(t)
		for _, change := range []wish{vlan(101), device("ens5"), func(n *danmv1.TenantNetwork) { n.Spec.Options.Device, n.Spec.Options.DevicePool = "", "a/b" }} {
			n := w.networks["acme/x"]
			was := n.Spec.Options
			change(n)
			w.touch(n)
			w.rest(t)
			if c := conditionOf(n); c.Reason != "AssignmentChanged" || w.configs["a"].Status.Reserved[0].ID != 100 || w.configs["a"].Status.Reserved[0].Device != "ens4" {
				t.Errorf("%+v %+v", c, w.configs["a"].Status.Reserved)
			}
			n.Spec.Options = was
			w.touch(n)
			w.rest(t)
			if got := w.told("acme/x"); got != "True Assigned ens4 vlan 100" {
				t.Errorf("written back: %s", got)
			}
		}
	})
	t.Run("what was taken out is written again", func(t *testing.T) {
		w := start(t)
		w.networks["acme/x"].Spec.Options = danmv1.NetworkOptions{}
		w.touch(w.networks["acme/x"])
		w.rest(t)
		if got := w.told("acme/x"); got != "True Assigned ens4 vlan 100" {
			t.Error(got)
		}
	})
	t.Run("made anew it waits for the links of the old one, and gets a number of its own", func(t *testing.T) {
		w := start(t)
		w.relink()
		delete(w.networks, "acme/x")
		w.create("acme/x")
		w.create("acme/y")
		w.rest(t)
		if got := w.told("acme/x") + ", " + w.told("acme/y"); got != "Unknown NumberTaken , True Assigned ens4 vlan 101" {
			t.Error(got)
		}
		w.relink()
		w.rest(t)
		if r := w.configs["a"].Status.Reserved; w.told("acme/x") != "True Assigned ens4 vlan 100" || len(r) != 2 || r[0].UID != string(w.networks["acme/x"].UID) {
			t.Error(w.told("acme/x"), r)
		}
	})
	t.Run("held against a network that came later", func(t *testing.T) {
		w := start(t)
		w.fixed("ens4", 100, 0)
		w.rest(t)
		if c := conditionOf(w.networks["acme/x"]); c.Status != "True" || !strings.Contains(c.Message, "also written in ClusterNetwork c0") {
			t.Error(c)
		}
	})
	t.Run("kept when the range moves, the quota falls, or the TenantConfig is made anew", func(t *testing.T) {
		w := start(t)
		w.create("acme/y")
		w.rest(t)
		c := w.configs["a"]
		c.HostDevices[0].VniRange = "200-201"
		*c.Extension.Quotas.Networks = 1
		w.rest(t)
		if got := w.told("acme/x") + ", " + w.told("acme/y"); got != "True Assigned ens4 vlan 100, True Assigned ens4 vlan 101" {
			t.Error(got)
		}
		c.HostDevices[0].VniRange, c.Status = "100-102", danmv1.TenantStatus{}
		*c.Extension.Quotas.Networks = 2
		w.touch(c)
		// What was said of the lost reservation must not pass for a look at the new one.
		if in, _ := (actor{direct{world: w}}).read(t.Context()); len(Decide(in).Marks) != 2 || len(Decide(in).Reserved) != 0 {
			t.Errorf("%+v", Decide(in))
		}
		w.rest(t)
		if got := w.told("acme/x") + ", " + w.told("acme/y"); got != "True Assigned ens4 vlan 100, True Assigned ens4 vlan 101" || len(c.Status.Reserved) != 2 {
			t.Error(got, c.Status.Reserved)
		}
	})
	t.Run("nothing is freed while nobody knows the links", func(t *testing.T) {
		w := start(t)
		delete(w.networks, "acme/x")
		in, _ := actor{direct{world: w}}.read(t.Context())
		if d := Decide(in); !d.Orphans || d.Steps() {
			t.Errorf("%+v", d)
		}
		in.Links = map[tenancy.Number]bool{}
		if d := Decide(in); len(d.Reserved["a"]) != 0 || d.Reserved["a"] == nil {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a full TenantConfig", func(t *testing.T) {
		w := newWorld(config("a", "acme", profileOf("ens4", "vxlan", "1-100000")))
		for i := range MaxReserved {
			n := w.create(fmt.Sprintf("acme/n%d", i), device("ens4"), vxlan(i+1))
			Verdict{Network: n, Status: "True", Reason: "Assigned"}.set(&n.Status.Conditions)
			w.configs["a"].Status.Reserved = append(w.configs["a"].Status.Reserved, danmv1.ReservedNumber{Network: fmt.Sprintf("acme/n%d", i), UID: string(n.UID), Device: "ens4", VniType: "vxlan", ID: int64(i + 1)})
		}
		w.create("acme/x")
		in, _ := actor{direct{world: w}}.read(t.Context())
		d := Decide(in)
		if d.Steps() {
			t.Errorf("it takes more than it holds: %d %d %d %d", len(d.Marks), len(d.Holds), len(d.Writes), len(d.Reserved["a"]))
		}
		for _, v := range d.Verdicts {
			if v.Network.Name == "x" && (v.Reason != "RangeExhausted" || !strings.Contains(v.Message, "16384")) {
				t.Errorf("%+v", v)
			}
		}
	})
}

func (w *world) rest(t *testing.T) {
	t.Helper()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
}

func TestConfigs(t *testing.T) {
	def := func(name string) danmv1.TenantConfig {
		c := config("a", "acme", profileOf("ens4", "vlan", "100-102"))
		c.Extension.DefaultNetwork = name
		return c
	}
	for _, r := range []struct {
		name   string
		config danmv1.TenantConfig
		ready  string
	}{
		{"plain", def(""), "TenantServed"},
		{"default of the tenant", def("acme/x"), "TenantServed"},
		{"default that is not there", def("acme/y"), "DefaultMissing"},
		{"default of another tenant", def("globex/x"), "DefaultNotAllowed"},
		{"default of the cluster", def("c0"), "TenantServed"},
		{"default for others", def("c1"), "DefaultNotAllowed"},
		{"default that one Pod can have", def("c2"), "DefaultUnfit"},
		{"range", config("a", "acme", profileOf("ens4", "vlan", "5-4095")), "RangeInvalid"},
		{"range from high to low", config("a", "acme", profileOf("ens4", "vlan", "5-4")), "RangeInvalid"},
	} {
		w := newWorld(r.config, config("b", "globex", profileOf("ens4", "vlan", "102-103"), profileOf("ens4", "vxlan", "100-103")))
		w.create("acme/x")
		w.create("globex/x")
		w.fixed("ens9", 1, 0)
		w.fixed("ens9", 2, 0)
		w.fixed("ens9", 3, 0)
		w.cluster[1].Spec.AllowedTenants = []string{"globex"}
		w.cluster[2].Spec.NetworkType = "sriov"
		w.rest(t)
		var got, overlap string
		for _, c := range w.configs["a"].Status.Conditions {
			switch c.Type {
			case "Ready":
				got = c.Reason
			case "Overlapping":
				overlap = c.Message
			}
		}
		if got != r.ready {
			t.Errorf("%s: %s, want %s", r.name, got, r.ready)
		}
		if want := "numbers in common with b (vlan from 102 on ens4)"; r.ready != "RangeInvalid" && overlap != want {
			t.Errorf("%s: %q, want %q", r.name, overlap, want)
		}
	}
}
