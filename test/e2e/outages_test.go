//go:build linux

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/test/cluster/bed"
)

// burst is many Pods at once, with interfaces of drivers, of a list of plugins, and of a plugin with addresses of its own.
var burst = workload{kind: "Deployment", name: "burst", namespace: "acme", replicas: 8, networks: named("wire", "chain", "own")}

// agentKilled: both agents are killed while Pods are being created, and again as soon as they are back. All Pods start.
func (s *suite) agentKilled() {
	s.apply(burst.manifest())
	const rounds = 2
	for round := range rounds {
		for _, n := range s.Nodes {
			var killed []string
			s.until(fmt.Sprintf("the agent of %s killed, %d of %d", n.Name, round+1, rounds), time.Minute, func() (bool, string) {
				if len(s.pods("acme", "app=burst")) == 0 {
					return false, "no Pod yet"
				}
				killed = s.processes(n, "/usr/local/bin/danm-node", "agent")
				return len(killed) == 1, fmt.Sprint("agents: ", killed)
			})
			if out, err := n.Exec("kill", "-9", killed[0]); err != nil {
				s.t.Fatalf("kill: %v: %s", err, out)
			}
		}
		if waiting := slices.DeleteFunc(s.pods("acme", "app=burst"), isReady); round == 0 && len(waiting) == 0 {
			s.t.Error("the agents were killed too late: every Pod was Ready")
		}
	}
	members := s.members(burst, 2*time.Minute)
	for _, n := range burst.networks {
		s.distinct(n, members)
	}
	s.reach(members)
	s.danmReady(time.Minute)
	s.kubectl("delete", "deployment", "burst", "-n", "acme", "--cascade=foreground", "--timeout=60s")
	s.accounted(time.Minute)
}

// kubeletRestarts and containerdRestarts: who is killed comes back; Pods that run notice nothing, and one that was waiting starts.
func (s *suite) kubeletRestarts() {
	s.restart("kubelet", func(n *bed.Node) { n.Kubelet.Kill() }, func(n *bed.Node) error { return n.Kubelet.Start() })
}

func (s *suite) containerdRestarts() {
	s.restart("containerd", func(n *bed.Node) { n.Containerd.Kill() }, (*bed.Node).StartContainerd)
}

func (s *suite) restart(what string, end func(*bed.Node), start func(*bed.Node) error) {
	before := s.all(time.Minute)
	n := s.Node("n1")
	end(n)
	name := "after-" + what
	s.apply(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: acme, labels: {app: %[1]s}, annotations: {k8s.v1.cni.cncf.io/networks: 'wire,chain,own'}}
spec: {nodeName: %s, terminationGracePeriodSeconds: 1, containers: [{name: c, image: %s}]}
`, name, n.Name, bed.BusyboxName))
	s.must(start(n))
	p := s.allReady("acme", "app="+name, 1, 2*time.Minute)[0]
	have, err := s.interfaces(p)
	if err != nil || len(have) != 5 || len(have["net1"]) != 2 || len(have["net2"]) != 2 || len(have["net3"]) != 2 {
		s.t.Errorf("%s has %v: %v", name, have, err)
	}
	after := s.all(time.Minute)
	same := func(a, b member) bool {
		return a.UID == b.UID && a.Status.ContainerStatuses[0].ContainerID == b.Status.ContainerStatuses[0].ContainerID && fmt.Sprint(a.on) == fmt.Sprint(b.on)
	}
	if !slices.EqualFunc(before, after, same) {
		s.t.Errorf("Pods that ran are not as they were:\n%v\n%v", seats(before), seats(after))
	}
	s.reach(after)
	s.kubectl("delete", "pod", name, "-n", "acme", "--wait=false")
	s.accounted(time.Minute)
}

func seats(all []member) string {
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintln(&b, m.Name, m.UID, m.Status.ContainerStatuses[0].ContainerID, m.on)
	}
	return b.String()
}

// calls counts what the runtime of a node has asked the agent since its start, by command and the error's code.
func (s *suite) calls(n *bed.Node) string {
	s.t.Helper()
	out, err := n.Exec("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/9970; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; grep '^danm_cni_calls_total' <&3`)
	if err != nil {
		s.t.Fatalf("metrics of %s: %v: %s", n.Name, err, out)
	}
	return out
}

// verbs: the runtime takes DANM's configuration as one of CNI 1.1.0, so it asks STATUS too; no call has failed for its form.
func (s *suite) verbs() {
	for _, n := range s.Nodes {
		s.until("STATUS asked on "+n.Name, time.Minute, func() (bool, string) {
			out := s.calls(n)
			return strings.Contains(out, `{code="0",command="STATUS"}`), out
		})
		if out := s.calls(n); strings.Contains(out, `code="6"`) || strings.Contains(out, `code="7"`) || strings.Contains(out, `code="1"`) {
			s.t.Errorf("%s: calls that the agent did not understand: %s", n.Name, out)
		}
	}
}

// nodeReboots: a node loses its power and comes back with its disk alone. The same Pods get all their interfaces
// anew (with other addresses: the runtime calls DEL for the sandboxes of before first), and nothing of before is left.
func (s *suite) nodeReboots() {
	n := s.Node("n2")
	before := s.all(time.Minute)
	boot := s.kubectl("get", "node", n.Name, "-o", "jsonpath={.status.nodeInfo.bootID}")
	s.must(n.Reboot())
	s.until(n.Name+" has booted", time.Minute, func() (bool, string) {
		now := s.kubectl("get", "node", n.Name, "-o", "jsonpath={.status.nodeInfo.bootID}")
		return now != boot, now
	})
	// Until the kubelet has spoken of a Pod, the API server shows its container of before.
	containers := map[string]bool{}
	for _, m := range before {
		containers[m.Status.ContainerStatuses[0].ContainerID] = true
	}
	s.until("its Pods have new containers", 2*time.Minute, func() (bool, string) {
		for _, w := range workloads {
			for _, p := range s.pods(w.namespace, "app="+w.name) {
				if p.Spec.NodeName == n.Name && (!isReady(p) || containers[p.Status.ContainerStatuses[0].ContainerID]) {
					return false, p.Name
				}
			}
		}
		return true, ""
	})
	s.danmReady(2 * time.Minute)
	after := s.all(time.Minute)
	for i, m := range after {
		if m.UID != before[i].UID {
			s.t.Errorf("%s is another Pod", m.Name)
		}
	}
	s.reach(after)
	s.accounted(2 * time.Minute)
	s.must(s.WaitReady(time.Minute))
}

// all are the members of all workloads.
func (s *suite) all(within time.Duration) (out []member) {
	s.t.Helper()
	for _, w := range workloads {
		out = append(out, s.members(w, within)...)
	}
	return out
}

// podsDeleted: nothing is left of Pods that are gone, nor of the walk-through's networks, which were deleted under its Pods.
func (s *suite) podsDeleted() {
	for _, namespace := range []string{"acme", "red", "blue", "default"} {
		s.kubectl("delete", "deployments,statefulsets,pods", "--all", "-n", namespace, "--wait=false")
	}
	s.until("all Pods gone", time.Minute, func() (bool, string) {
		left := s.ours()
		return len(left) == 0, fmt.Sprint(len(left), " left")
	})
	s.accounted(time.Minute)
	for _, namespace := range []string{"acme", "red", "blue", "default"} {
		s.until("no DanmEp in "+namespace, 30*time.Second, func() (bool, string) {
			left := s.endpoints(namespace)
			return left == 0, fmt.Sprint(left, " left")
		})
	}
	s.until("networks gone", 90*time.Second, func() (bool, string) {
		out := s.kubectl("get", "tenantnetworks,clusternetworks", "-n", "default", "-o", `jsonpath={range .items[?(@.metadata.deletionTimestamp)]}{.metadata.name} {.status.conditions[?(@.type=="Attached")]}{"\n"}{end}`)
		return out == "", out
	})
	for _, name := range []string{"vx_internal", "vx_internal2", "vx_external"} {
		s.onNodes(name, "none")
	}
}

// ours are the Pods that have networks of their own.
func (s *suite) ours() []corev1.Pod {
	return slices.DeleteFunc(s.pods("", ""), func(p corev1.Pod) bool { return p.Spec.HostNetwork })
}
