//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// networks: Pods with 1, 3 and 8 networks beside the default one reach each other on every one of them.
func (s *suite) networks() {
	for _, w := range workloads {
		s.apply(w.manifest())
	}
	all := s.all(2 * time.Minute)
	for _, n := range append(slices.Clone(acme), borrowing) {
		s.distinct(n, all)
	}
	s.reach(all)
	s.absent(all)
}

// reach: Pods reach each other on every network that they share.
func (s *suite) reach(all []member) {
	s.t.Helper()
	begin, sent := time.Now(), 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4) // each is a kubectl, and the machine is small
	for _, m := range all {
		probes := probesOf(m, all)
		sent += len(probes)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			silent, err := s.patiently(m, probes)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || len(silent) > 0 {
				s.t.Errorf("%s on %s does not reach %v: %v", m.Name, m.Spec.NodeName, silent, err)
			}
		})
	}
	wg.Wait()
	if sent == 0 {
		s.t.Error("nothing was tried")
	}
	s.t.Logf("%d Pods answered %d of each other's echo requests in %v", len(all), sent, time.Since(begin).Round(100*time.Millisecond))
	if s.t.Failed() {
		s.t.Log(s.diagnostics())
	}
}

// patiently gives neighbours and multicast groups a moment to be found.
func (s *suite) patiently(m member, probes []probe) (silent []probe, err error) {
	silent = probes
	for deadline := time.Now().Add(20 * time.Second); len(silent) > 0 && err == nil && time.Now().Before(deadline); {
		silent, err = s.ping(m.Pod, silent)
	}
	return silent, err
}

// probesOf are echo requests to every other Pod on every network that both have, where the network reaches it.
func probesOf(m member, all []member) (out []probe) {
	for _, n := range append(slices.Clone(acme), borrowing) {
		from, has := m.on[n.name]
		for _, other := range all {
			to, both := other.on[n.name]
			if !has || !both || other.UID == m.UID || n.node && other.Spec.NodeName != m.Spec.NodeName {
				continue
			}
			for _, a := range to.addresses {
				out = append(out, probe{from.ifName, a.Addr()})
			}
		}
	}
	return out
}

// distinct: two Pods that reach each other on a network have no address in common; where the cluster gives the addresses, no two have.
func (s *suite) distinct(n network, all []member) {
	s.t.Helper()
	holders := map[string]string{}
	count, nodes := 0, map[string]bool{}
	for _, m := range all {
		where := ""
		if n.name == "own" {
			where = m.Spec.NodeName + " "
		}
		for _, a := range m.on[n.name].addresses {
			if other, taken := holders[where+a.String()]; taken {
				s.t.Errorf("network %s: %s and %s both have %s", n.name, other, m.Name, a)
			}
			holders[where+a.String()] = m.Name
			count++
			nodes[m.Spec.NodeName] = true
		}
	}
	if count < 2 || len(nodes) != len(s.Nodes) {
		s.t.Errorf("network %s: %d addresses on %d nodes are no test of it", n.name, count, len(nodes))
	}
}

// absent is the control of every ping that was answered: on each network there is silence where nobody is, and on a network of each node
// also where only the other node has somebody.
func (s *suite) absent(all []member) {
	s.t.Helper()
	m := all[slices.IndexFunc(all, func(m member) bool { return len(m.on) == len(acme) })]
	var probes []probe
	for _, n := range acme {
		for _, subnet := range []netip.Prefix{n.v4, n.v6} {
			if subnet.IsValid() {
				probes = append(probes, probe{m.on[n.name].ifName, nobody(subnet, all)})
			}
		}
		if !n.node || n.plugin {
			continue
		}
		for _, other := range all {
			if at, has := other.on[n.name]; has && other.Spec.NodeName != m.Spec.NodeName {
				probes = append(probes, probe{m.on[n.name].ifName, at.addresses[0].Addr()})
			}
		}
	}
	silent, err := s.ping(m.Pod, probes)
	if err != nil || len(silent) != len(probes) {
		s.t.Errorf("%s asked %v, and only %v were silent: %v", m.Name, probes, silent, err)
	}
}

// nobody is an address of a subnet that none of the Pods has.
func nobody(subnet netip.Prefix, all []member) netip.Addr {
	taken := ""
	for _, m := range all {
		taken += fmt.Sprint(m.on)
	}
	b := subnet.Addr().AsSlice()
	for last := byte(251); ; last-- {
		b[len(b)-1] = last
		if a, _ := netip.AddrFromSlice(b); !strings.Contains(taken, a.String()+"/") {
			return a
		}
	}
}

// tenants: two with the same addresses on VNIs of their own do not reach each other. Each Pod says who it is; a.10 asks who .20 and .30
// are, and the answers are those of its own tenant or none.
func (s *suite) tenants() {
	const template = `apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: tenants}, annotations: {danm.io/interfaces: '[{"clusterNetwork": "pods"}, {"tenantNetwork": "data", "ip": "10.77.0.%[3]d", "ip6": "fd00:77::%[3]d"}]'}}
spec:
  nodeName: %[4]s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: %[5]s, command: [sh, -c, "mkdir /www && echo %[2]s %[1]s >/www/index.html && exec httpd -f -p 8080 -h /www"]}
`
	for _, p := range []struct {
		tenant, name string
		last         int
		node         string
	}{{"red", "asker", 10, "n1"}, {"blue", "asker", 10, "n1"}, {"red", "twenty", 20, "n2"}, {"blue", "thirty", 30, "n2"}} {
		s.apply(fmt.Sprintf(template, p.name, p.tenant, p.last, p.node, bed.BusyboxName))
	}
	addresses := map[string]string{}
	for _, tenant := range []string{"red", "blue"} {
		for _, p := range s.allReady(tenant, "app=tenants", 2, 2*time.Minute) {
			have, err := s.interfaces(p)
			s.must(err)
			addresses[tenant+"/"+p.Name] = fmt.Sprint(have["eth1"])
		}
	}
	if want := "[10.77.0.10/24 fd00:77::10/64]"; addresses["red/asker"] != want || addresses["blue/asker"] != want {
		s.t.Errorf("the two who ask have the same addresses? %v", addresses)
	}
	ids := map[string]string{}
	for _, tenant := range []string{"red", "blue"} {
		ids[tenant] = s.vxlan("vx_" + tenant)
		if !strings.HasSuffix(ids[tenant], " fab0") {
			s.t.Errorf("the VXLAN of %s is %s", tenant, ids[tenant])
		}
	}
	if ids["red"] == ids["blue"] {
		s.t.Errorf("the VNIs are %v", ids)
	}
	for _, c := range []struct {
		tenant string
		last   int
		answer string // "" is silence
	}{
		{"red", 20, "red twenty"}, {"red", 30, ""}, {"red", 10, "red asker"},
		{"blue", 30, "blue thirty"}, {"blue", 20, ""}, {"blue", 10, "blue asker"},
	} {
		for _, ip := range []string{fmt.Sprintf("10.77.0.%d", c.last), fmt.Sprintf("fd00:77::%d", c.last)} {
			s.t.Run(fmt.Sprintf("%s asks %s", c.tenant, ip), func(t *testing.T) { s.in(t).asks(c.tenant, ip, c.answer) })
		}
	}
}

// asks fetches a page from a tenant's asker, with patience for an answer and without for silence, whose control are the answers.
func (s *suite) asks(tenant, ip, want string) {
	p := s.pods(tenant, "app=tenants")[0]
	var said string
	ask := func() (bool, string) {
		out, _ := s.exec(p, get(ip, 8080, "")...)
		lines := strings.Split(out, "\n")
		said = strings.TrimSpace(lines[len(lines)-1])
		return strings.HasPrefix(said, "red ") || strings.HasPrefix(said, "blue "), said
	}
	if want == "" {
		if answered, _ := ask(); answered {
			s.t.Errorf("%s says %q", ip, said)
		}
		return
	}
	s.until("an answer of "+ip, 20*time.Second, ask)
	if said != want {
		s.t.Errorf("%s says %q, not %q", ip, said, want)
	}
}
