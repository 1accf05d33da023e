//go:build linux

package matrix

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/server"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/cnihost"
)

// request is something that a Pod can ask of an interface, and what comes of it for a driver.
type request struct {
	name string
	npwg string // what follows the name in its element of the NPWG's list; %[1]d is the number in the driver's subnets
	danm string // in its place: what follows in DANM's
	late bool   // another Pod has had the network before
	// refused is the reason by which a driver has to refuse it, "" if it has to do it.
	refused func(d driver) (code uint, reason diag.Code, says string)
	// effect looks at what was done, nil = that it is there is all.
	effect func(s cnihost.Seen, nth int) bool
}

func (d driver) delegated() bool { return d.file != "" }

func (d driver) ownMAC() bool {
	return slices.Contains([]string{"macvlan-bridge", "macvlan-private", "macvlan-vepa", "bridge"}, d.name)
}

func always(code uint, reason diag.Code, says string) func(driver) (uint, diag.Code, string) {
	return func(driver) (uint, diag.Code, string) { return code, reason, says }
}

func done(driver) (uint, diag.Code, string) { return 0, "", "" }

// capability is refused by drivers, which are no plugins, and by plugins that do not declare it.
func capability(d driver) (uint, diag.Code, string) {
	if d.delegated() {
		return server.CodeRequestRefused, diag.PodSelectionRefused, "no plugin of the network declares that capability"
	}
	return server.CodeRequestRefused, diag.PodSelectionRefused, "is made without a plugin"
}

var requests = []request{
	{name: "mac", npwg: `,"mac":"02:00:00:00:00:0a"`, refused: func(d driver) (uint, diag.Code, string) {
		switch {
		case d.ownMAC():
			return 0, "", ""
		case d.delegated():
			return capability(d)
		case d.pool != "": // the pair of cables that stands for the card cannot
			return server.CodeAttachFailed, diag.PodAttachFailed, "set MAC 02:00:00:00:00:0a on virtual function 0 of ens1"
		}
		return server.CodeRequestRefused, diag.PodSelectionRefused, "have their device's address"
	}, effect: func(s cnihost.Seen, _ int) bool { return s.Link("net1").MAC == "02:00:00:00:00:0a" }},
	{name: "ips", npwg: `,"ips":["10.%[1]d.0.99","fd00:%[1]d::99"]`, refused: done, effect: func(s cnihost.Seen, nth int) bool {
		return slices.Equal(s.Link("net1").Addresses, []string{fmt.Sprintf("10.%d.0.99/24", nth), fmt.Sprintf("fd00:%d::99/64", nth)})
	}},
	{name: "ips of another network", npwg: `,"ips":["10.9.0.1"]`, refused: always(server.CodeRequestRefused, diag.PodSelectionRefused, "10.9.0.1 is in no subnet")},
	{name: "default-route", npwg: `,"default-route":["10.%[1]d.0.7"]`, refused: done, effect: func(s cnihost.Seen, nth int) bool {
		return slices.Contains(s.Routes, fmt.Sprintf("0.0.0.0/0 via 10.%d.0.7 dev net1", nth)) && !strings.Contains(fmt.Sprint(s.Routes), "0.0.0.0/0 via 10.51.0.1")
	}},
	{name: "portMappings", npwg: `,"portMappings":[{"hostPort":80,"containerPort":80}]`, refused: capability},
	{name: "bandwidth", npwg: `,"bandwidth":{"ingressRate":1,"ingressBurst":1}`, refused: capability},
	{name: "infiniband-guid", npwg: `,"infiniband-guid":"c2:11:22:33:44:55:66:77"`, refused: capability},
	{name: "ipam-claim-reference", npwg: `,"ipam-claim-reference":"x"`, refused: always(server.CodeRequestRefused, diag.AnnotationField, "claims of addresses are not kept")},
	{name: "deviceID", npwg: `,"deviceID":"0000:00:01.0"`, refused: always(server.CodeRequestRefused, diag.AnnotationField, "the kubelet's choice")},
	{name: "policy routes without a table", danm: `,"ip":"dynamic","proutes":{"10.200.0.0/16":"10.%[1]d.0.3"}`, refused: always(server.CodeRequestRefused, diag.PodPolicyTable, "policy routes")},
	{name: "twice", npwg: `},{"name":"NETWORK"`, refused: func(d driver) (uint, diag.Code, string) {
		if d.sole {
			return server.CodeRequestRefused, diag.PodDeviceBusy, "ask for it once"
		}
		return 0, "", ""
	}, effect: func(s cnihost.Seen, _ int) bool { return len(s.Link("net2").Addresses) == 2 }},
	{name: "while another Pod has it", late: true, refused: func(d driver) (uint, diag.Code, string) {
		if d.sole || d.pool != "" {
			return types.ErrTryAgainLater, diag.PodDeviceBusy, "acme/other"
		}
		return 0, "", ""
	}, effect: func(s cnihost.Seen, _ int) bool { return len(s.Link("net1").Addresses) == 2 }},
}

// requestCells is how many there are, written out as in cells: 12 requests to 13 drivers, or with -short to the four of the VM.
const (
	requestCells      = 156
	shortRequestCells = 48
)

// What a driver can do is done and seen in the kernel; what it cannot is refused with the reason, and nothing is left.
func TestKernelRequests(t *testing.T) {
	h, lacks := newHost(t)
	ran, skipped, want := 0, 0, requestCells
	for _, d := range drivers {
		if testing.Short() {
			want = shortRequestCells
			if _, rare := lacks[d.kind]; !rare {
				continue
			}
		}
		t.Run(d.name, func(t *testing.T) {
			if lacks[d.kind] {
				skipped += len(requests)
				t.Skip("kernel lacks " + d.kind)
			}
			for _, r := range requests {
				t.Run(r.name, func(t *testing.T) {
					r.ask(t, h, d)
					ran++
				})
			}
		})
	}
	t.Logf("%d cells ran, %d are of kinds that the kernel lacks", ran, skipped)
	if selected := flag.Lookup("test.run").Value.String(); !strings.Contains(selected, "/") && ran+skipped != want {
		t.Errorf("%d cells ran and %d were skipped, want %d", ran, skipped, want)
	}
}

func (r request) ask(t *testing.T, h *cnihost.Host, d driver) {
	nth := d.nth()
	l := &life{T: t, h: h, driver: d, version: "1.1.0", dialect: inNPWG}
	l.device()
	network := d.networkName(l.version)
	element := func(key, more string) string {
		if strings.Contains(more, "%[1]d") {
			more = fmt.Sprintf(more, nth)
		}
		return fmt.Sprintf(`[{%q:%q%s}]`, key, network, strings.ReplaceAll(more, "NETWORK", network))
	}
	h.Annotate("one", annotation.NPWGKey, element("name", r.npwg))
	if r.danm != "" {
		h.Annotate("one", annotation.Key, element("tenantNetwork", r.danm))
	}
	h.Annotate("other", annotation.NPWGKey, element("name", ""))
	conf := h.List(l.version, "")
	ns, rt := pod(t, h, "one")
	t.Cleanup(func() { must(t, h.World.Remove(ns)) })
	before := h.Dump(ns)
	var others *libcni.RuntimeConf
	if r.late {
		theirs, has := pod(t, h, "other")
		t.Cleanup(func() { must(t, h.World.Remove(theirs)) })
		others = has
		_, err := h.CNI.AddNetworkList(t.Context(), conf, others)
		must(t, err)
	}
	records := h.Records()
	_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
	code, reason, says := r.refused(d)
	switch {
	case code == 0 && err != nil:
		t.Error(err)
	case code == 0:
		if seen := h.See(ns); r.effect != nil && !r.effect(seen, nth) {
			t.Errorf("it is taken and not done: %+v", seen)
		}
		must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
	case err == nil:
		t.Errorf("it is taken, want: %s", says)
	default:
		if e := h.Told(err); e.Code != code || e.Details != string(reason) || !strings.Contains(e.Msg, says) {
			t.Errorf("%d %s %s, want %d %s %q", e.Code, e.Details, e.Msg, code, reason, says)
		}
		if now := h.Records(); !slices.Equal(now, records) || h.Dump(ns) != before {
			t.Errorf("a refused request leaves records %v, were %v, and in the Pod\n%s", now, records, h.Dump(ns))
		}
	}
	must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
	if others != nil {
		must(t, h.CNI.DelNetworkList(t.Context(), conf, others))
	}
	if now := h.Records(); len(now) != 0 || h.Dump(ns) != before {
		t.Errorf("DEL leaves records %v, and in the Pod\n%s", now, h.Dump(ns))
	}
}
