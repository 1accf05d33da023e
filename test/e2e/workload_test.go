//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/test/cluster/bed"
)

// workload is a Deployment or a StatefulSet whose Pods are spread evenly over the nodes.
type workload struct {
	kind, name, namespace string
	replicas              int
	multus                bool      // asks in the NPWG's dialect, else in DANM's
	networks              []network // besides the default network, which is eth0
}

func named(names ...string) (out []network) {
	for _, name := range names {
		out = append(out, acme[slices.IndexFunc(acme, func(n network) bool { return n.name == name })])
	}
	return out
}

// workloads have 1, 3 and 8 interfaces beside eth0, in both dialects. The networks of the last are every kind.
var workloads = []workload{
	{kind: "Deployment", name: "one", namespace: "acme", replicas: 2, networks: named("wire")},
	{kind: "StatefulSet", name: "three", namespace: "acme", replicas: 2, multus: true, networks: named("voice", "data", "own")},
	{kind: "Deployment", name: "eight", namespace: "acme", replicas: 4, networks: acme},
	{kind: "StatefulSet", name: "all", namespace: "acme", replicas: 2, multus: true, networks: acme},
	{kind: "Deployment", name: "lent", namespace: "acme", replicas: 4, networks: []network{borrowing}},
}

// annotation is what the Pods ask for.
func (w workload) annotation() map[string]string {
	if w.multus {
		var names []string
		for _, n := range w.networks {
			names = append(names, n.name)
		}
		return map[string]string{"k8s.v1.cni.cncf.io/networks": strings.Join(names, ",")}
	}
	asked := []map[string]string{{"clusterNetwork": "pods"}}
	for _, n := range w.networks {
		one := map[string]string{"tenantNetwork": n.name}
		if n.namespace == "" {
			one = map[string]string{"clusterNetwork": n.name}
		}
		if n.v4.IsValid() && !n.plugin {
			one["ip"] = "dynamic"
		}
		if n.v6.IsValid() && !n.plugin {
			one["ip6"] = "dynamic"
		}
		asked = append(asked, one)
	}
	return map[string]string{"danm.io/interfaces": mustJSON(asked)}
}

// ifName is what the i-th of the networks is called in the Pod.
func (w workload) ifName(i int) string {
	if w.multus {
		return fmt.Sprintf("net%d", i+1)
	}
	return fmt.Sprintf("eth%d", i+1)
}

func (w workload) manifest() string {
	labels := map[string]string{"app": w.name}
	spec := map[string]any{
		"replicas": w.replicas, "selector": map[string]any{"matchLabels": labels},
		"template": map[string]any{"metadata": map[string]any{"labels": labels, "annotations": w.annotation()}, "spec": map[string]any{
			"terminationGracePeriodSeconds": 1,
			"topologySpreadConstraints": []any{map[string]any{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
				"labelSelector": map[string]any{"matchLabels": labels}}},
			"containers": []any{map[string]any{"name": "c", "image": bed.BusyboxName}},
		}},
	}
	if w.kind == "StatefulSet" {
		spec["serviceName"], spec["podManagementPolicy"] = w.name, "Parallel"
	}
	return mustJSON(map[string]any{"apiVersion": "apps/v1", "kind": w.kind, "metadata": map[string]any{"name": w.name, "namespace": w.namespace}, "spec": spec})
}

func mustJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return string(text)
}

// member is a Pod and where it is on each network, by the network's name.
type member struct {
	corev1.Pod
	on map[string]seat
}

// seat is an interface as the Pod's kernel has it.
type seat struct {
	ifName    string
	addresses []netip.Prefix
}

// members are a workload's Pods once they run, with what they have: every interface that was asked for, with an address of each family
// of its network, and none besides.
func (s *suite) members(w workload, within time.Duration) (out []member) {
	s.t.Helper()
	for _, p := range s.allReady(w.namespace, "app="+w.name, w.replicas, within) {
		m := member{Pod: p, on: map[string]seat{}}
		have, err := s.interfaces(p)
		if err != nil {
			s.t.Fatalf("%s: %v", p.Name, err)
		}
		for i, n := range w.networks {
			at := seat{w.ifName(i), have[w.ifName(i)]}
			for _, subnet := range []netip.Prefix{n.v4, n.v6} {
				count := 0
				for _, a := range at.addresses {
					if subnet.Contains(a.Addr()) && subnet.Bits() == a.Bits() {
						count++
					}
				}
				if subnet.IsValid() && count != 1 {
					s.t.Errorf("%s on %s: %s of network %s has %v, and not one address of %s", p.Name, p.Spec.NodeName, at.ifName, n.name, at.addresses, subnet)
				}
			}
			m.on[n.name] = at
		}
		if len(have) != len(w.networks)+2 { // lo and eth0
			s.t.Errorf("%s has %d interfaces: %v", p.Name, len(have), have)
		}
		out = append(out, m)
	}
	return out
}

// interfaces are a Pod's by name, with the addresses that are not the kernel's own choice.
func (s *suite) interfaces(p corev1.Pod) (map[string][]netip.Prefix, error) {
	out, err := s.exec(p, "sh", "-c", "ip -o link && ip -o addr")
	if err != nil {
		return nil, fmt.Errorf("ip in %s: %w: %s", p.Name, err, out)
	}
	have := map[string][]netip.Prefix{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) > 3 && (f[2] == "inet" || f[2] == "inet6") { // 2: eth0    inet 10.244.1.2/24 brd …
			a, err := netip.ParsePrefix(f[3])
			if err != nil {
				return nil, fmt.Errorf("ip in %s: %w: %s", p.Name, err, line)
			}
			if !a.Addr().IsLinkLocalUnicast() {
				have[f[1]] = append(have[f[1]], a)
			}
		} else if len(f) > 1 && strings.HasSuffix(f[1], ":") { // 2: eth0@if7: <BROADCAST,…
			name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
			have[name] = nil
		}
	}
	return have, nil
}

// probe is one echo request: by this interface to this address.
type probe struct {
	ifName string
	to     netip.Addr
}

// ping sends each probe from a Pod, all in one call, and returns those without an answer.
func (s *suite) ping(p corev1.Pod, probes []probe) (silent []probe, err error) {
	if len(probes) == 0 {
		return nil, nil
	}
	script := "try() { ping -c 1 -W 1 -I $1 $2 >/dev/null 2>&1 || echo silent $1 $2; }\n"
	for _, q := range probes {
		script += fmt.Sprintf("try %s %s\n", q.ifName, q.to)
	}
	out, err := s.exec(p, "sh", "-c", script+"echo done")
	if err != nil || !strings.HasSuffix(out, "done") {
		return nil, fmt.Errorf("ping in %s: %w: %s", p.Name, err, out)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "silent" {
			silent = append(silent, probe{f[1], netip.MustParseAddr(f[2])})
		}
	}
	return silent, nil
}
