//go:build linux

package plugins

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/server"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/cnihost"
)

// Each network's Pod gets what the plugins say, CHECK sees what it has lost, and nothing of it stays.
func TestClusterPluginsAsDelegates(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	ran := 0
	for _, n := range networks {
		if n.name == "broken" {
			continue
		}
		t.Run(n.name, func(t *testing.T) {
			h.in(t)
			ns, rt := h.pod(n.name)
			if n.name == "loopback" { // its plugin takes it down in the end
				_, err := h.Run(ns, "ip link set lo down")
				must(t, err)
			}
			before, conf := h.Dump(ns), h.asking(n.name, "default")
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
			for range 2 { // what the first one leaves the second one finds
				r := h.add(conf, rt)
				h.holds(r, ns, "eth0", n.cidr)
				h.holds(r, ns, "eth1", "10.80.0.0/24")
				if leases := h.leases(n.name); strings.Contains(n.conf, "host-local") != (len(leases) == 1) || len(leases) == 1 && !strings.HasSuffix(leases[0], n.name+" eth0") {
					t.Errorf("leases %q", leases)
				}
				asks := strings.Contains(n.conf, `"type":"danm"`)
				if records := h.Records(); slices.Contains(records, n.name+"/eth0") != asks || !slices.Contains(records, n.name) {
					t.Errorf("records %v", records)
				}
				if results := h.results(); len(results) != 1 {
					t.Errorf("results %v", results)
				}
				must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
				address := h.See(ns).Link("eth0").Addresses[0]
				_, err := h.Run(ns, "ip address del "+address+" dev eth0")
				must(t, err)
				err = h.CNI.CheckNetworkList(t.Context(), conf, rt)
				if n.check != (err != nil) {
					t.Errorf("CHECK without the address: %v", err)
				}
				if err != nil {
					if e := h.Told(err); e.Code != server.CodeCheckFailed || !strings.Contains(e.Msg, "eth0 on network acme/"+n.name) || !strings.Contains(e.Msg, strings.Split(address, "/")[0]) {
						t.Errorf("%+v, want one about %s", e, address)
					}
				}
				for range 2 {
					must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
					h.wantNothing("DEL", ns, before)
					if tuned, err := filepath.Glob(filepath.Join(h.files, "tuning", n.name+"_*")); err != nil || len(tuned) > 0 {
						t.Errorf("%v, tuning's files: %v", err, tuned)
					}
				}
			}
			h.add(conf, rt)
			h.End(ns)
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
			empty, _ := h.pod("empty")
			h.wantNothing("DEL when the namespace is gone", empty, h.Dump(empty))
			must(t, h.World.Remove(empty))
			ran++
		})
	}
	if ran != len(networks)-1 {
		t.Errorf("%d of %d networks ran", ran, len(networks)-1)
	}
}

// GC takes back what a container had that the runtime does not list: the reference plugins' own GC does nothing, so it is by their DEL.
func TestClusterGCOfPlugins(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	conf := h.asking("everything", "single", "asks", "given")
	lives, rtLives := h.pod("lives")
	dead, rtDead := h.pod("dead")
	before := h.Dump(dead)
	h.add(conf, rtLives)
	h.add(conf, rtDead)
	kept := h.Dump(lives)
	forgetful := libcni.NewCNIConfigWithCacheDir(h.CNI.Path, t.TempDir(), nil) // what it knows it would delete itself
	valid := []types.GCAttachment{{ContainerID: "lives", IfName: "eth0"}}
	must(t, forgetful.GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: append(valid, types.GCAttachment{ContainerID: "dead", IfName: "eth0"})}))
	if leases := append(h.leases("everything"), h.leases("single")...); len(leases) != 4 {
		t.Errorf("a GC that lists both: %q", leases)
	}
	must(t, forgetful.GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: valid}))
	for _, name := range []string{"everything", "single"} {
		if leases := h.leases(name); len(leases) != 1 || !strings.Contains(leases[0], "lives") {
			t.Errorf("leases of %s: %q", name, leases)
		}
	}
	if got := h.Records(); !slices.Equal(got, []string{"lives", "lives/eth2"}) {
		t.Errorf("records %v", got)
	}
	if h.Dump(dead) != before || h.Dump(lives) != kept {
		t.Errorf("the dead has\n%s\nthe living\n%s", h.Dump(dead), h.Dump(lives))
	}
	must(t, h.CNI.CheckNetworkList(t.Context(), conf, rtLives))
	must(t, forgetful.GCNetworkList(t.Context(), conf, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}))
	h.wantNothing("GC of all", lives, before)
}

// What a Pod asks of a plugin reaches the one that declares it, with its effect; where none does, it is refused.
func TestClusterCapabilitiesOfPlugins(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	conf := h.List("1.1.0", "")
	ns, rt := h.pod("able")
	before := h.Dump(ns)
	capabilities := map[string]string{"ips": `["10.60.0.77/24"]`, "mac": `"02:00:00:00:00:aa"`, "portMappings": `[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`,
		"bandwidth": `{"ingressRate":1000000,"ingressBurst":800000,"egressRate":2000000,"egressBurst":800000}`}
	all := ""
	for key, value := range capabilities {
		all += fmt.Sprintf(`,%q:%s`, key, value)
	}
	h.Annotate("able", "k8s.v1.cni.cncf.io/networks", `[{"name":"everything"`+all+`}]`)
	r := h.add(conf, rt)
	h.holds(r, ns, "net1", "10.60.0.0/24")
	link := h.See(ns).Link("net1")
	if !slices.Equal(link.Addresses, []string{"10.60.0.77/24"}) || link.MAC != "02:00:00:00:00:aa" {
		t.Errorf("%+v", link)
	}
	shaped := func() (out []string) {
		text, err := h.Run(h.NS, "tc qdisc show")
		must(t, err)
		for line := range strings.Lines(text) {
			if strings.Contains(line, "tbf") {
				out = append(out, line)
			}
		}
		return out
	}
	if q := shaped(); len(q) != 2 || !strings.Contains(fmt.Sprint(q), "rate 1Mbit") || !strings.Contains(fmt.Sprint(q), "rate 2Mbit") {
		t.Errorf("bandwidth: %q", q)
	}
	if rules := h.rules(); !strings.Contains(rules, "dport 8080 dnat") || !strings.Contains(rules, "10.60.0.77:80") {
		t.Errorf("ports: %s", rules)
	}
	must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
	must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
	h.wantNothing("DEL", ns, before)
	if rules := h.rules(); strings.Contains(rules, "8080") || len(shaped()) != 0 {
		t.Errorf("DEL leaves %s %q", rules, shaped())
	}
	for key, value := range capabilities {
		h.Annotate("able", "k8s.v1.cni.cncf.io/networks", fmt.Sprintf(`[{"name":"mute",%q:%s}]`, key, value))
		_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
		if err == nil {
			t.Errorf("%s is taken by plugins that do not declare it", key)
			continue
		}
		if e := h.Told(err); e.Code != server.CodeRequestRefused || e.Details != string(diag.PodSelectionRefused) || !strings.Contains(e.Msg, key) {
			t.Errorf("%s: %+v", key, e)
		}
		h.wantNothing(key, ns, before)
	}
}

// The runtime's own capabilities are the first interface's, and reach what declares them. Who declares none passes them over, as in a
// runtime's own list, and so does another interface.
func TestClusterCapabilitiesOfTheRuntime(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	for name, c := range map[string]struct {
		networks []string
		cidr     string // of the first
		mapped   bool
	}{
		"declared":              {[]string{"everything", "default"}, "10.60.0.0/24", true},
		"not declared":          {[]string{"mute", "default"}, "10.61.0.0/24", false},
		"declared, but further": {[]string{"default", "everything"}, "10.80.0.0/24", false},
	} {
		t.Run(name, func(t *testing.T) {
			h.in(t)
			ns, rt := h.pod("mapped")
			before := h.Dump(ns)
			rt.CapabilityArgs = map[string]any{"portMappings": []any{map[string]any{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}}}
			conf := h.List("1.1.0", `,"capabilities":{"portMappings":true}`+asked(c.networks...))
			h.holds(h.add(conf, rt), ns, "eth0", c.cidr)
			if rules := h.rules(); strings.Contains(rules, "dport 8081") != c.mapped {
				t.Error(rules)
			}
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
			h.wantNothing("DEL", ns, before)
			if rules := h.rules(); strings.Contains(rules, "8081") {
				t.Errorf("DEL leaves %s", rules)
			}
			must(t, h.World.Remove(ns))
		})
	}
}

// Whoever fails midway, nothing stays of anybody's.
func TestClusterPluginsThatFail(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	for name, c := range map[string]struct {
		networks []string
		code     uint
		says     string
	}{
		"the second of a list":             {[]string{"broken"}, server.CodeAttachFailed, "no_such"},
		"after others":                     {[]string{"everything", "asks", "default", "broken"}, server.CodeAttachFailed, "eth3 on network acme/broken"},
		"danm itself, after a plugin":      {[]string{"everything", "asks", "unplugged"}, types.ErrTryAgainLater, "eth9"},
		"a list whose plugin is not there": {[]string{"everything", "absent"}, server.CodeNetworkUnknown, "absent"},
	} {
		t.Run(name, func(t *testing.T) {
			h.in(t)
			ns, rt := h.pod("failing")
			before := h.Dump(ns)
			_, err := h.CNI.AddNetworkList(t.Context(), h.asking(c.networks...), rt)
			if err == nil {
				t.Fatal("it succeeds")
			}
			if e := h.Told(err); e.Code != c.code || !strings.Contains(e.Msg, c.says) {
				t.Errorf("%+v", e)
			}
			h.wantNothing("a failed ADD", ns, before)
			must(t, h.CNI.DelNetworkList(t.Context(), h.asking(c.networks...), rt)) // as a runtime does after a failure
			h.wantNothing("DEL after it", ns, before)
			must(t, h.World.Remove(ns))
		})
	}
	if _, err := os.Stat(filepath.Join(h.files, "broken", "last_reserved_ip.0")); err != nil {
		t.Errorf("the first plugin was never called: %v", err)
	}
}
