//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/node/guard"
)

// What the site's files (examples/edge-site) call things.
const (
	acmeLink      = "vx_acme"
	betaLink      = "vx_beta"
	telemetryLink = "vx_telemetry"
)

func (s *story) firstCommit() error {
	if _, code, err := s.danmctl("validate", s.repo.work); err != nil || code != 0 {
		return fmt.Errorf("danmctl validate: exit code %d: %w", code, err)
	}
	before, err := s.repo.closedCopy(filepath.Join(s.dir, "before"))
	if err != nil {
		return err
	}
	if err := s.showDiff(before, 1); err != nil {
		return err
	}
	began := time.Now()
	if err := s.repo.commit("first light"); err != nil {
		return err
	}
	for _, h := range s.hosts {
		for _, link := range []string{acmeLink, betaLink} {
			if err := s.mtuOf(h, link, 1450, 15*time.Second); err != nil {
				return err
			}
		}
	}
	fmt.Printf("all three hosts have %s and %s %.1f s after the commit\n", acmeLink, betaLink, time.Since(began).Seconds())
	if err := s.waitConfirmed(); err != nil {
		return err
	}
	return s.waitConf()
}

// waitConf waits until each agent has written the CNI conf.
func (s *story) waitConf() error {
	for _, h := range s.hosts {
		if err := eventually("CNI conf on "+h.name, 15*time.Second, func() bool {
			_, err := os.Stat(filepath.Join(h.confDir(), "10-danm.conflist"))
			return err == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// waitConfirmed waits until each host's guard has its plan confirmed: probes passed, and its networks are offered to Pods.
func (s *story) waitConfirmed() error {
	for _, h := range s.hosts {
		if err := eventually("plan confirmed on "+h.name, 15*time.Second, func() bool {
			st, err := guard.Client{Dir: h.stateDir()}.Status(context.Background())
			return err == nil && st.Phase == guard.Confirmed
		}); err != nil {
			return err
		}
	}
	fmt.Printf("confirmed by all three: the probes have passed for 3 s\n")
	return nil
}

func (s *story) addPod(h *host, name, namespace, network, ip string) (*pod, error) {
	ns, err := s.world.Add("pod-" + name)
	if err != nil {
		return nil, err
	}
	p := &pod{name: name, namespace: namespace, network: network, host: h, ns: ns}
	if err := p.attach(ip); err != nil {
		return nil, err
	}
	fmt.Printf("%-8s %s/%-8s %s %s\n", h.name, namespace, name, p.ip4, p.ip6)
	return p, nil
}

func (s *story) attachPods() error {
	betaNamespace := "beta"
	if s.sabotage == "isolation" {
		betaNamespace = "acme" // beta's last Pod lands in acme's network
	}
	for _, want := range []struct {
		host            int
		name, namespace string
	}{{0, "acme-a", "acme"}, {1, "acme-b", "acme"}, {1, "beta-a", "beta"}, {2, "beta-b", betaNamespace}} {
		p, err := s.addPod(s.hosts[want.host], want.name, want.namespace, "voice", "dynamic")
		if err != nil {
			return err
		}
		s.pods = append(s.pods, p)
	}
	if err := s.pingAcross(); err != nil {
		return err
	}
	return s.isolated(s.pods[0], s.pods[3])
}

// pingAcross pings between the hosts inside each tenant, by both families.
func (s *story) pingAcross() error {
	pairs := [][2]*pod{{s.pods[0], s.pods[1]}, {s.pods[2], s.pods[3]}}
	if s.sabotage == "isolation" {
		pairs = pairs[:1]
	}
	for _, pair := range pairs {
		for _, to := range []string{pair[1].ip4.String(), pair[1].ip6.String()} {
			if err := pair[0].ns.Ping(to, 10*time.Second); err != nil {
				return fmt.Errorf("ping from %s to %s: %w", pair[0].name, pair[1].name, err)
			}
			fmt.Printf("ping %s -> %s %s: answered\n", pair[0].name, pair[1].name, to)
		}
	}
	return nil
}

// isolated shows that stranger, in the other tenant, does not answer from; and that the same address does once a Pod in
// from's own network holds it, so the silence is the tenants' separation and not a broken path.
func (s *story) isolated(from, stranger *pod) error {
	for _, to := range []string{stranger.ip4.String(), stranger.ip6.String()} {
		if err := from.ns.Ping(to, 1500*time.Millisecond); err == nil {
			return fmt.Errorf("tenant isolation broken: %s answered %s", stranger.name, from.name)
		}
		fmt.Printf("ping %s -> %s %s: no answer, as it must be\n", from.name, stranger.name, to)
	}
	control, err := s.addPod(stranger.host, "control", "acme", "voice", stranger.ip4.String())
	if err != nil {
		return err
	}
	if err := from.ns.Ping(control.ip4.String(), 10*time.Second); err != nil {
		return fmt.Errorf("control: the same address on the same VNI must answer: %w", err)
	}
	fmt.Printf("ping %s -> control %s (same address, same VNI): answered\n", from.name, control.ip4)
	if err := control.detach(); err != nil {
		return err
	}
	return s.world.Remove(control.ns)
}

const telemetry = `apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: telemetry, namespace: acme}
spec:
  type: macvlan
  fabric: edge
  vxlan: 5010
  ipv4: {cidr: 10.50.0.0/24}
  ipv6: {cidr: "fd00:50::/64"}
`

func (s *story) secondCommit() error {
	if err := s.repo.write("networks/telemetry.yaml", telemetry); err != nil {
		return err
	}
	if err := s.repo.replace("tenants.yaml", `"5001-5001"`, `"5001-5001", "5010-5019"`); err != nil {
		return err
	}
	if err := s.repo.replace("networks/beta.yaml", "  vxlan: 5002\n", "  vxlan: 5002\n  mtu: 1400\n"); err != nil {
		return err
	}
	if err := s.showDiff(s.head(), 1); err != nil {
		return err
	}
	if err := s.repo.commit("telemetry; beta's MTU"); err != nil {
		return err
	}
	for _, h := range s.hosts {
		if err := s.mtuOf(h, telemetryLink, 1450, 15*time.Second); err != nil {
			return err
		}
		if err := s.mtuOf(h, betaLink, 1400, 5*time.Second); err != nil {
			return err
		}
	}
	if err := s.waitConfirmed(); err != nil {
		return err
	}
	fmt.Println("all three hosts follow; the Pods kept their links:")
	return s.pingAcrossQuietly()
}

func (s *story) pingAcrossQuietly() error {
	if err := s.pods[0].ns.Ping(s.pods[1].ip4.String(), 10*time.Second); err != nil {
		return fmt.Errorf("ping from %s to %s: %w", s.pods[0].name, s.pods[1].name, err)
	}
	fmt.Printf("ping %s -> %s: answered\n", s.pods[0].name, s.pods[1].name)
	return nil
}

func (s *story) badCommit() error {
	before, err := s.dumps()
	if err != nil {
		return err
	}
	bad := strings.ReplaceAll(strings.Replace(telemetry, "vxlan: 5010", "vxlann: 5010", 1), "10.50.0.0/24", "10.50.0.7/24")
	if s.sabotage == "refuse" {
		bad = strings.Replace(telemetry, "vxlan: 5010", "vxlan: 5011", 1) // nothing wrong with it: it will be applied
	}
	if err := s.repo.write("networks/telemetry.yaml", bad); err != nil {
		return err
	}
	out, code, err := s.danmctl("validate", ".")
	if err != nil {
		return err
	}
	fmt.Printf("$ danmctl validate .\n%s", indent(out))
	if s.sabotage == "" && (code != 1 || !strings.Contains(out, "networks/telemetry.yaml:7:")) {
		return fmt.Errorf("danmctl validate: exit code %d, want 1 with file:line", code)
	}
	if err := s.repo.commit("a slip of the hand"); err != nil {
		return err
	}
	if err := s.refusedEverywhere(); err != nil {
		return err
	}
	after, err := s.dumps()
	if err != nil {
		return err
	}
	if before != after {
		return fmt.Errorf("the bad commit changed a host:\nbefore\n%s\nafter\n%s", before, after)
	}
	fmt.Println("refused by all three, each naming the line; links, addresses and routes are as before")
	return s.repo.revert("networks/telemetry.yaml", telemetry)
}

// refusedEverywhere waits until each host's sync has named the bad line.
func (s *story) refusedEverywhere() error {
	for _, h := range s.hosts {
		if err := eventually("refusal logged on "+h.name, 10*time.Second, func() bool {
			return strings.Contains(h.log("sync"), "networks/telemetry.yaml:7:")
		}); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) dumps() (string, error) {
	var all strings.Builder
	for _, h := range s.hosts {
		d, err := h.dump()
		if err != nil {
			return "", err
		}
		all.WriteString(d + "\n\n")
	}
	return all.String(), nil
}

func (s *story) drift() error {
	h := s.hosts[1]
	if s.sabotage == "drift" {
		for _, p := range []int{h.agent.Cmd.Process.Pid, h.guard.Cmd.Process.Pid} {
			_ = syscall.Kill(p, syscall.SIGSTOP)
			defer func() { _ = syscall.Kill(p, syscall.SIGCONT) }()
		}
	}
	if err := h.ns.DeleteLink(telemetryLink); err != nil {
		return err
	}
	began := time.Now()
	if err := s.mtuOf(h, telemetryLink, 1450, 5*time.Second); err != nil {
		return err
	}
	fmt.Printf("edge-2: %s deleted by hand, back after %d ms\n", telemetryLink, time.Since(began).Milliseconds())
	return s.driftUnderPods(h)
}

// driftUnderPods deletes the link on which a Pod of the host is attached: the kernel takes the Pod's interface with it.
func (s *story) driftUnderPods(h *host) error {
	if err := h.ns.DeleteLink(acmeLink); err != nil {
		return err
	}
	began := time.Now()
	if err := eventually("CNI CHECK of acme-b after its host link was deleted", 5*time.Second, func() bool { return s.pods[1].check() == nil }); err != nil {
		return fmt.Errorf("%w: %w", err, s.pods[1].check())
	}
	fmt.Printf("edge-2: %s deleted under acme-b, whose interface is back with it after %d ms\n", acmeLink, time.Since(began).Milliseconds())
	return s.pingAcrossQuietly()
}

func (s *story) kill() error {
	h := s.hosts[0]
	kill9(h.agent)
	kill9(h.guard)
	if err := s.pingAcrossQuietly(); err != nil {
		return fmt.Errorf("with both daemons dead: %w", err)
	}
	if err := h.startGuard(); err != nil {
		return err
	}
	if err := h.startAgent(); err != nil {
		return err
	}
	if err := eventually("CNI CHECK on edge-1 after the restart", 10*time.Second, func() bool { return s.pods[0].check() == nil }); err != nil {
		return fmt.Errorf("%w: %w", err, s.pods[0].check())
	}
	late, err := s.addPod(h, "acme-c", "acme", "voice", "dynamic")
	if err != nil {
		return err
	}
	if late.ip4 == s.pods[0].ip4 {
		return fmt.Errorf("address %s handed out twice", late.ip4)
	}
	s.pods = append(s.pods, late)
	fmt.Println("edge-1: restarted; the old Pod passes CHECK, a new one got another address")
	return s.pingAcrossQuietly()
}

func (s *story) remove() error {
	for _, p := range s.pods {
		if err := p.detach(); err != nil {
			return err
		}
		if err := s.world.Remove(p.ns); err != nil {
			return err
		}
	}
	s.pods = nil
	if err := s.repo.empty(); err != nil {
		return err
	}
	if err := s.showDiff(s.head(), 1); err != nil {
		return err
	}
	if err := s.repo.commit("close the site"); err != nil {
		return err
	}
	for _, h := range s.hosts {
		var after string
		if err := eventually(h.name+" as before the first commit", 15*time.Second, func() bool {
			var err error
			after, err = h.dump()
			return err == nil && after == s.baseline[h.name]
		}); err != nil {
			return fmt.Errorf("%w:\nbefore\n%s\nafter\n%s", err, s.baseline[h.name], after)
		}
	}
	fmt.Println("links, addresses and routes of all three hosts are as before the first commit")
	return nil
}
