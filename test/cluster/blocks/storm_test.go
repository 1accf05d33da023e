package blocks

import (
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/kill"
	"danm.io/danm/test/ipamsim/world"
)

// TestClusterStorm: agents that are processes, with the rights and the client that they have in production, are killed while
// Pods come and go, against the real API server and the real controller. DANM_IPAMSIM_STORM is how many ADDs and DELs.
func TestClusterStorm(t *testing.T) {
	calls := 2000
	if v := os.Getenv("DANM_IPAMSIM_STORM"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("DANM_IPAMSIM_STORM=%s: %v", v, err)
		}
		calls = n
	}
	s := newSite(t)
	s.start(30 * time.Second)
	cfg := kill.Config{Nodes: []string{"storm-0", "storm-1", "storm-2"}, Cooldown: time.Second, Claimed: true, API: world.Server{Client: s.c}, For: time.Hour, Lives: 5 * time.Second, Calls: calls, Progress: t.Logf}
	tokens := map[string]string{}
	for _, n := range cfg.Nodes {
		s.node(n)
		tokens[n] = s.token(n)
	}
	cfg.Server = func(node string) *kill.Server { return &kill.Server{Host: s.api.Host, Token: tokens[node]} }
	for i, cidr := range []string{"10.9.1.0/27", "10.9.2.0/24"} {
		name, vlan := "storm-"+strconv.Itoa(i), 31+i
		n := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: name}}
		n.Spec = danmv1.NetworkSpec{NetworkID: name, NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth8", Vlan: vlan, Cidr: cidr}}
		s.must(s.c.Create(t.Context(), n))
		cfg.Networks = append(cfg.Networks, model.Network{Kind: model.DanmNet, Namespace: "acme", Name: name, NetworkID: name, Type: model.MACVLAN,
			SpaceDomain: "eth8", VLAN: uint16(vlan), IPv4: &model.Subnet{CIDR: netip.MustParsePrefix(cidr)}}) //nolint:gosec // 31 and 32
	}
	t.Cleanup(func() {
		_, _ = s.api.Kubectl(nil, "delete", "-n", "acme", "danmnet", "storm-0", "storm-1", "--ignore-not-found")
		for _, n := range cfg.Nodes {
			_, _ = s.api.Kubectl(nil, "delete", "node,nodeplan", n, "--ignore-not-found")
			_, _ = s.api.Kubectl(nil, "delete", "lease", "-n", system, blocks.LeasePrefix+n, "--ignore-not-found")
		}
	})
	for _, n := range cfg.Nodes {
		s.report(n, func(st *v1alpha1.NodePlanStatus) { st.Hardware = []v1alpha1.NIC{{Name: "eth8"}} })
	}
	for _, n := range cfg.Networks {
		root := v1alpha1.IPSpace{Domain: n.SpaceDomain, ID: int64(n.VLAN), CIDR: n.IPv4.CIDR.String()}.RootName()
		s.until("the root of "+n.Name, 30*time.Second, func() bool {
			return s.c.Get(t.Context(), client.ObjectKey{Name: root}, &v1alpha1.IPBlock{}) == nil
		})
	}
	if stats := kill.Run(t, cfg); stats["filled"] != 30 || stats["add ok"] == 0 {
		t.Errorf("%v", stats)
	}
}
