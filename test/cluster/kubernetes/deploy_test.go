//go:build linux

package kubernetes

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// deploy: the production overlay as it is; its Pods run on real kubelets with images that the nodes have.
func (s *suite) deploy() {
	if err := s.API.InstallCRDs(nil); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", "production"))
	s.until("controllers and guards Ready", 2*time.Minute, func() bool {
		return len(s.running("danm-system", "app.kubernetes.io/name=danm-controller")) == 2 && len(s.running("danm-system", "app=danm-guard")) == len(s.Nodes)
	})
	// An agent is Ready once it can attach Pods, and so not before the first plan.
	for _, n := range s.Nodes {
		s.until("the agent of "+n.Name+" waits for a plan", time.Minute, func() bool {
			out, _ := n.Exec(get("127.0.0.1", 9970, "readyz")...)
			return strings.Contains(out, "no plan is confirmed yet")
		})
		if _, err := n.Exec("test", "-x", "/opt/cni/bin/danm"); err != nil {
			s.t.Errorf("%s: the plugin is not installed: %v", n.Name, err)
		}
	}
}

func (s *suite) danmReady() bool {
	n := len(s.Nodes)
	return len(s.running("danm-system", "app.kubernetes.io/name=danm-controller")) == 2 && len(s.running("danm-system", "app=danm-guard")) == n && len(s.running("danm-system", "app=danm-agent")) == n
}

// commit is a bundle whose fabric has this MTU.
func (s *suite) commit(mtu int) {
	s.t.Helper()
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata: {name: edge, namespace: danm-system, labels: {bundle: edge}}
data:
  bundle.yaml: |
    apiVersion: bundle.danm.io/v1
    kind: Bundle
    metadata: {name: site}
    spec: {confirmTimeout: 10s, rollout: {soak: 0s, maxUnavailable: 1, onFailure: Revert}}
  topology.yaml: |
    apiVersion: bundle.danm.io/v1
    kind: Topology
    metadata: {name: site}
    spec:
      groups:
      - name: all
        selector: {role: edge}
        interfaces: [{name: eth9, mtu: %d}]
      fabrics:
      - {name: f, groups: [all], device: eth9, vniRanges: ["100-199"], vxlan: {port: 4789, multicast: 239.1.1.1}}
  voice.yaml: |
    apiVersion: bundle.danm.io/v1
    kind: Network
    metadata: {name: voice, namespace: acme}
    spec: {type: macvlan, fabric: f, vxlan: auto}
  tenant.yaml: |
    apiVersion: bundle.danm.io/v1
    kind: Tenant
    metadata: {name: acme}
    spec: {namespaces: [acme]}
`, mtu))
}

// has says whether every node's kernel has the fabric and its VXLAN with this MTU.
func (s *suite) has(mtu int) func() bool {
	return func() bool {
		for _, n := range s.Nodes {
			if n.NS.LinkMTU("eth9") != mtu || n.NS.LinkMTU("vx_voice") != mtu-50 {
				return false
			}
		}
		return true
	}
}

// rolledOut: the controller says so.
func (s *suite) rolledOut() bool {
	return s.kubectl("get", "networkbundle", "edge", "-o", `jsonpath={.status.nodes} {.status.conditions[?(@.type=="Ready")].reason}`) == "2/2 RolledOut"
}

// rollout: what DANM's Pods are for. The nodes' Pods write their own NodePlan with tokens that the kubelets got for them.
func (s *suite) rollout() {
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: acme}\n")
	s.commit(1400)
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("1400 in both kernels", 2*time.Minute, s.has(1400))
	s.until("rolled out", time.Minute, s.rolledOut)
	s.until("DANM's Pods Ready", 2*time.Minute, s.danmReady)
	s.t.Logf("\n%s", s.kubectl("get", "pods", "-n", "danm-system", "-o", "wide"))
	for _, n := range s.Nodes {
		if _, err := n.Exec("test", "-S", "/run/danm/cni.sock"); err != nil {
			s.t.Errorf("%s: no socket: %v", n.Name, err)
		}
	}
	s.commit(1350)
	s.until("1350 in both kernels", time.Minute, s.has(1350))
	s.until("rolled out", time.Minute, s.rolledOut)
	s.t.Logf("\n%s", s.kubectl("get", "networkbundles,nodeplans"))
	pods := s.running("default", "app=web")
	if a, b := on(pods, "n1"), on(pods, "n2"); len(a) != 2 || len(b) != 2 {
		s.t.Errorf("Pods: %v", pods)
	} else if out, err := s.exec(a[0], "ping", "-c", "1", "-W", "3", b[0].ip); err != nil {
		s.t.Errorf("the Pods' network broke: %s", out)
	}
}
