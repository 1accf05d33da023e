//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/test/cluster/bed"
)

// tinyPod asks for an address of the network that has one, on a node.
func tinyPod(name, node string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: acme, labels: {app: %[1]s}, annotations: {danm.io/interfaces: '[{"clusterNetwork": "pods"}, {"tenantNetwork": "tiny", "ip": "dynamic"}]'}}
spec: {nodeName: %s, terminationGracePeriodSeconds: 1, containers: [{name: c, image: %s}]}
`, name, node, bed.BusyboxName)
}

// exhausted: a pool without a free address is the network's trouble and not the node's. The Pod waits and its events say why; it starts
// when another Pod, on another node, has given its address back and that has cooled down.
func (s *suite) exhausted() {
	s.apply(tinyPod("holder", "n1"))
	holder := s.allReady("acme", "app=holder", 1, 2*time.Minute)[0]
	s.apply(tinyPod("waiter", "n2"))
	var said string
	s.until("an event with the reason", time.Minute, func() (bool, string) {
		said = s.events(s.pods("acme", "app=waiter")[0])
		return strings.Contains(said, "no address left"), said
	})
	s.t.Log(said)
	for _, part := range []string{"PodPoolExhausted", "acme/tiny", "10.70.0.10"} {
		if !strings.Contains(said, part) {
			s.t.Errorf("the Pod's events do not say %s: %s", part, said)
		}
	}
	waiter := s.pods("acme", "app=waiter")[0]
	if why := waitingFor(waiter); waiter.Status.Phase != corev1.PodPending || why != "ContainerCreating" {
		s.t.Errorf("the Pod that waits is %s, %s", waiter.Status.Phase, why)
	}
	// The node goes on: Pods of other networks start there.
	s.apply(strings.ReplaceAll(tinyPod("bystander", "n2"), `"tiny", "ip"`, `"wire", "ip6": "dynamic", "ip"`))
	s.allReady("acme", "app=bystander", 1, time.Minute)
	for _, n := range s.Nodes {
		if out := s.kubectl("get", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); out != "True" {
			s.t.Errorf("Ready of %s is %s while a pool is exhausted", n.Name, out)
		}
	}
	if out, err := s.exec(holder, "ip", "-o", "addr", "show", "dev", "eth1"); err != nil || !strings.Contains(out, "10.70.0.10/24") {
		s.t.Errorf("the holder has %s %v", out, err)
	}
	s.kubectl("delete", "pod", "holder", "-n", "acme", "--wait=false")
	freed := time.Now()
	started := s.allReady("acme", "app=waiter", 1, 3*time.Minute)[0]
	if out, err := s.exec(started, "ip", "-o", "addr", "show", "dev", "eth1"); err != nil || !strings.Contains(out, "10.70.0.10/24") {
		s.t.Errorf("the Pod that waited has %s %v", out, err)
	}
	if started.UID != waiter.UID {
		s.t.Error("it is another Pod that started")
	}
	if cooled := time.Since(freed); cooled < cooldown {
		s.t.Errorf("the address was given out %v after it was freed", cooled)
	}
	s.kubectl("delete", "pods", "waiter", "bystander", "-n", "acme", "--wait=false")
}

// cooldown is how long a freed address is not given out (docs/ipam.md, R3).
const cooldown = 30 * time.Second

// events of a Pod that warn, in one text. That the bed has no DNS is none of the test's business.
func (s *suite) events(p corev1.Pod) string {
	s.t.Helper()
	list, err := s.client.CoreV1().Events(p.Namespace).List(s.t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	s.must(err)
	var b strings.Builder
	for _, e := range list.Items {
		if e.Type != corev1.EventTypeNormal && e.Reason != "MissingClusterDNS" {
			fmt.Fprintf(&b, "%s: %s\n", e.Reason, e.Message)
		}
	}
	return b.String()
}

// waitingFor is the reason of a Pod's first container that has not started.
func waitingFor(p corev1.Pod) string {
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Waiting != nil {
			return c.State.Waiting.Reason
		}
	}
	return ""
}
