//go:build linux

package plugins

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/cni/server"
	"danm.io/danm/test/cnihost"
)

// The Pod's default route leaves the interface whose plugin has set it for the one that the Pod names, and plugins are content at CHECK.
func TestClusterDefaultRoutesOfPlugins(t *testing.T) {
	h := newHost(t, cnihost.Options{})
	conf := h.List("1.1.0", "")
	for i, c := range []struct{ networks, way string }{
		{`[{"name":"pool"}]`, "0.0.0.0/0 via 10.66.0.1 dev eth0"}, // control
		{`[{"name":"pool","default-route":["10.70.0.1"]}]`, "0.0.0.0/0 via 10.70.0.1 dev net1"},
		{`[{"name":"given"},{"name":"given-chained","default-route":[]}]`, "0.0.0.0/0 via 10.72.0.1 dev net2"},
		{`[{"name":"single","default-route":["10.62.0.1"]},{"name":"gateway"}]`, "0.0.0.0/0 via 10.62.0.1 dev net1"},
		{`[{"name":"everything"},{"name":"gateway","default-route":["10.66.0.9"]}]`, "0.0.0.0/0 via 10.66.0.9 dev net2"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			h.in(t)
			name := fmt.Sprint("routed", i)
			ns, rt := h.pod(name)
			before := h.Dump(ns)
			h.Annotate(name, "v1.multus-cni.io/default-network", "acme/gateway", "k8s.v1.cni.cncf.io/networks", c.networks)
			ways := func() (out []string) {
				for _, r := range h.See(ns).Routes {
					if strings.HasPrefix(r, "0.0.0.0/0 ") {
						out = append(out, r)
					}
				}
				return out
			}
			r := h.add(conf, rt)
			if got := ways(); !slices.Equal(got, []string{c.way}) {
				t.Errorf("routes %q, want %s", got, c.way)
			}
			defaults := []string{}
			for _, route := range r.Routes {
				if ones, _ := route.Dst.Mask.Size(); ones == 0 {
					defaults = append(defaults, route.GW.String())
				}
			}
			if !slices.Equal(defaults, strings.Fields(c.way)[2:3]) {
				t.Errorf("the result has default routes by %q", defaults)
			}
			must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
			if i > 0 {
				_, err := h.Run(ns, "ip route add default via 10.66.0.1 dev eth0 metric 50")
				must(t, err)
				err = h.CNI.CheckNetworkList(t.Context(), conf, rt)
				if err == nil {
					t.Error("CHECK is content with a default route that came back")
				} else if e := h.Told(err); e.Code != server.CodeCheckFailed || !strings.Contains(e.Msg, "eth0 has default routes by 10.66.0.1; wanted are those by none") {
					t.Errorf("CHECK: %+v", e)
				}
			}
			if own := strings.Fields(c.way); i > 2 { // an interface that a plugin has made
				_, err := h.Run(ns, "ip route del default dev eth0 && ip route del default dev "+own[4])
				must(t, err)
				if err := h.CNI.CheckNetworkList(t.Context(), conf, rt); err == nil || !strings.Contains(h.Told(err).Msg, own[4]+" has default routes by none; wanted are those by "+own[2]) {
					t.Errorf("CHECK without the default route: %v", err)
				}
			}
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
			h.wantNothing("DEL", ns, before)
		})
	}
	ns, rt := h.pod("astray")
	before := h.Dump(ns)
	h.Annotate("astray", "k8s.v1.cni.cncf.io/networks", `[{"name":"single","default-route":["10.1.0.1"]}]`)
	_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
	if err == nil {
		t.Fatal("a gateway that is nowhere")
	}
	if e := h.Told(err); e.Code != server.CodeAttachFailed || !strings.Contains(e.Msg, "interface net1 on network acme/single: default route by 10.1.0.1 on net1") {
		t.Errorf("%+v", e)
	}
	h.wantNothing("ADD", ns, before)
}
