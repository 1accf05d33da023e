//go:build linux

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/lab"
)

// fastPods is a Deployment whose Pods each want one virtual function.
func fastPods(replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: fast, namespace: acme}
spec:
  replicas: %d
  selector: {matchLabels: {app: fast}}
  template:
    metadata: {labels: {app: fast}, annotations: {k8s.v1.cni.cncf.io/networks: fast}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: %s, resources: {limits: {%s: "1"}}}]}
`, replicas, bed.BusyboxName, fastResource)
}

// functions: a pool of the bundle becomes virtual functions, a resource that the scheduler counts, and interfaces of Pods; more Pods than
// functions wait, and a function that a Pod gives back serves the next.
func (s *suite) functions() {
	for _, n := range s.Nodes {
		s.until(fmt.Sprintf("%s offers %d functions", n.Name, fastVFs), 2*time.Minute, func() (bool, string) {
			out := s.kubectl("get", "node", n.Name, "-o", `jsonpath={.status.allocatable['danm\.io/fast']}`)
			return out == fmt.Sprint(fastVFs), "Allocatable " + out
		})
	}
	all := fastVFs * len(s.Nodes)
	s.apply(fastPods(all + 1))
	ready := s.readyOnly(all, 3*time.Minute)
	waiting := slices.DeleteFunc(s.pods("acme", "app=fast"), isReady)
	if len(waiting) != 1 || waiting[0].Spec.NodeName != "" {
		s.t.Fatalf("%d Pods wait: %v", len(waiting), waiting)
	}
	s.until("the scheduler says what is missing", time.Minute, func() (bool, string) {
		said := s.events(waiting[0])
		return strings.Contains(said, "Insufficient "+fastResource), said
	})
	s.eachItsOwn(ready)
	s.reachByFunctions(ready)

	s.published(ready)

	gone := ready[0]
	s.kubectl("delete", "pod", gone.Name, "-n", "acme", "--wait=false")
	before := names(append(ready, waiting...))
	s.until("one that waits runs on the function that was given back", 2*time.Minute, func() (bool, string) {
		for _, p := range s.pods("acme", "app=fast") { // the one from before, or the one in the place of the deleted: the scheduler chooses
			if had := slices.Contains(before, p.Name) && p.UID != waiting[0].UID; !had && isReady(p) {
				return p.Spec.NodeName == gone.Spec.NodeName, p.Name + " is on " + p.Spec.NodeName
			}
		}
		return false, "nobody new is Ready"
	})
	s.eachItsOwn(s.readyOnly(all, time.Minute))

	s.apply(fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: forgot, namespace: acme, labels: {app: forgot}, annotations: {k8s.v1.cni.cncf.io/networks: fast}}
spec: {nodeName: n1, terminationGracePeriodSeconds: 1, containers: [{name: c, image: %s}]}
`, bed.BusyboxName))
	s.until("an event with the lines that the Pod lacks", time.Minute, func() (bool, string) {
		said := s.events(s.pods("acme", "app=forgot")[0])
		return strings.Contains(said, "PodDeviceMissing") && strings.Contains(said, fastResource), said
	})
	s.kubectl("delete", "pod", "forgot", "-n", "acme", "--wait=false")
	s.kubectl("delete", "deployment", "fast", "-n", "acme", "--wait=false")
	s.allBack(2 * time.Minute)
}

// published: the functions of Pods are told as every interface is, with their devices.
func (s *suite) published(pods []corev1.Pod) {
	s.t.Helper()
	s.until("the DanmEps of Pods with functions", time.Minute, func() (bool, string) {
		text := s.kubectl("get", "danmeps", "-n", "acme", "-o", `jsonpath={range .items[*]}{.spec.Pod} {.spec.Interface.Name} ({.spec.Interface.DeviceID}){"\n"}{end}`)
		for _, p := range pods {
			if !strings.Contains(text, p.Name+" eth0 ()") || !strings.Contains(text, p.Name+" net1 ("+s.told(p, 1)[0]+")") {
				return false, p.Name + " is not among\n" + text
			}
		}
		return true, ""
	})
}

func names(pods []corev1.Pod) (out []string) {
	for _, p := range pods {
		out = append(out, p.Name)
	}
	return out
}

// readyOnly waits until so many Pods of the Deployment are Ready, whatever the others do.
func (s *suite) readyOnly(count int, within time.Duration) (ready []corev1.Pod) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d Pods with functions Ready", count), within, func() (bool, string) {
		ready = slices.DeleteFunc(s.pods("acme", "app=fast"), func(p corev1.Pod) bool { return !isReady(p) })
		return len(ready) == count, fmt.Sprint(len(ready), " are; ", s.offered())
	})
	return ready
}

// offered is what the nodes offer and have of functions, for people.
func (s *suite) offered() string {
	text := s.kubectl("get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.allocatable['danm\.io/fast']} {.spec.taints[*].key}{"\n"}{end}`)
	for _, n := range s.Nodes {
		text += fmt.Sprint("; ", n.Name, " has on its host ", s.functionsOn(n), " of ", s.listed(n))
	}
	return text
}

// eachItsOwn: every Pod has one function, none two Pods; the container's environment and the network-status name the same one, and it is
// where the Pod is and not on the host.
func (s *suite) eachItsOwn(pods []corev1.Pod) {
	s.t.Helper()
	holder := map[string]string{}
	for _, p := range pods {
		told := s.told(p, 1)
		env, err := s.exec(p, "sh", "-c", "echo $PCIDEVICE_DANM_IO_FAST")
		if err != nil || env != told[0] {
			s.t.Errorf("%s: the environment names %q (%v), network-status %q", p.Name, env, err, told)
			continue
		}
		key := p.Spec.NodeName + " " + env
		if holder[key] != "" {
			s.t.Errorf("%s and %s both have %s", p.Name, holder[key], key)
		}
		holder[key] = p.Name
		if out, err := s.exec(p, "ip", "-o", "link", "show", "dev", "net1"); err != nil || !strings.Contains(out, "mtu 1450") {
			s.t.Errorf("%s: net1 is %s %v", p.Name, out, err)
		}
	}
	for _, n := range s.Nodes {
		left := s.functionsOn(n)
		for _, vf := range s.listed(n) {
			has := holder[n.Name+" "+vf.PCI] != ""
			if _, here := left[fastName(vf)]; here == has {
				s.t.Errorf("%s: function %s on the host: %v, had by %q", n.Name, fastName(vf), here, holder[n.Name+" "+vf.PCI])
			}
		}
	}
}

// reachByFunctions: Pods reach one another through their functions, also on the other node, and nobody at an address that none has.
func (s *suite) reachByFunctions(pods []corev1.Pod) {
	s.t.Helper()
	address := func(p corev1.Pod) string {
		out, err := s.exec(p, "sh", "-c", "ip -o -4 addr show dev net1 | awk '{print $4}' | cut -d/ -f1")
		if err != nil || !strings.HasPrefix(out, "10.72.0.") {
			s.t.Errorf("%s: net1 has %q %v", p.Name, out, err)
		}
		return out
	}
	from := pods[0]
	for _, to := range pods[1:6] {
		if out, err := s.exec(from, "ping", "-c", "1", "-W", "5", "-I", "net1", address(to)); err != nil {
			s.t.Errorf("%s on %s does not reach %s on %s: %s", from.Name, from.Spec.NodeName, to.Name, to.Spec.NodeName, out)
		}
	}
	if out, err := s.exec(from, "ping", "-c", "1", "-W", "1", "-I", "net1", "10.72.0.250"); err == nil {
		s.t.Errorf("control: somebody answers for an address that nobody has: %s", out)
	}
}

// listed are a node's functions as its card has them.
func (s *suite) listed(n *bed.Node) []lab.VF {
	s.t.Helper()
	d := theCards.of(n)
	vfs, err := d.List(d.PCI)
	s.must(err)
	return vfs
}

// functionsOn are the functions' interfaces on a node's host, with their aliases.
func (s *suite) functionsOn(n *bed.Node) map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for _, l := range s.links(n) {
		if strings.HasPrefix(l.IfName, fastCard+"v") || strings.HasPrefix(l.IfName, "back") {
			out[l.IfName] = l.Alias
		}
	}
	return out
}

// allBack: no Pod is left, and each node has all its functions under their names, as nobody's.
func (s *suite) allBack(within time.Duration) {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.until("all functions back on "+n.Name, within, func() (bool, string) {
			if left := s.pods("acme", "app=fast"); len(left) > 0 {
				return false, fmt.Sprint(len(left), " Pods are left")
			}
			have := s.functionsOn(n)
			clean := len(have) == fastVFs
			for _, vf := range s.listed(n) {
				alias, here := have[fastName(vf)]
				clean = clean && here && alias == ""
			}
			return clean, fmt.Sprint(slices.Sorted(maps.Keys(have)), have)
		})
		if bad := theCards.of(n).Refused(); len(bad) > 0 || theCards.of(n).Err() != nil {
			s.t.Errorf("%s: a kernel would have refused %v; %v", n.Name, bad, theCards.of(n).Err())
		}
	}
}

// functionsUnderFire: Pods come and go by the dozen while the agents are killed; no function is lost, none is in two Pods.
func (s *suite) functionsUnderFire() {
	all, made := fastVFs*len(s.Nodes), 0
	for round := 0; made < 100; round++ {
		s.apply(fastPods(all))
		s.killAgents(round)
		s.eachItsOwn(s.readyOnly(all, 3*time.Minute))
		made += all
		s.kubectl("delete", "deployment", "fast", "-n", "acme", "--wait=false")
		if round%2 == 1 {
			s.killAgents(round)
		}
		s.allBack(3 * time.Minute)
	}
	s.t.Logf("%d Pods had functions", made)
	s.danmReady(time.Minute)
	s.accounted(time.Minute)
}

// killAgents kills the agent of each node at some moment. Its Pod is replaced, for the kubelet would wait longer each time before it
// starts a container again that ends so often.
func (s *suite) killAgents(seed int) {
	r := rand.New(rand.NewPCG(uint64(seed), 7))
	for _, n := range s.Nodes {
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		for _, pid := range s.processes(n, "/usr/local/bin/danm-node", "agent") {
			if out, err := n.Exec("kill", "-9", pid); err != nil {
				s.t.Logf("kill: %v: %s", err, out) // it ended by itself
			}
		}
		s.kubectl("delete", "pods", "-n", "danm-system", "-l", "app=danm-agent", "--field-selector", "spec.nodeName="+n.Name, "--force", "--grace-period=0", "--wait=false")
	}
}
