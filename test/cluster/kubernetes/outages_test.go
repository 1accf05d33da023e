//go:build linux

package kubernetes

import (
	"errors"
	"syscall"
	"time"
)

// outages: containers outlive their runtime and kubelet; a kubelet that is gone is noticed; both come back.
func (s *suite) outages() {
	n := s.Node("n1")
	p := on(s.running("default", "app=web"), "n1")[0]
	if out, err := s.exec(p, "hostname"); err != nil || out != p.name {
		s.t.Fatalf("before: %s %v", out, err)
	}
	n.Containerd.Kill()
	n.Kubelet.Kill()
	if out, err := s.Node("n2").Exec(get(p.ip, 8080)...); err != nil {
		s.t.Errorf("a Pod ended with its runtime: %s", out)
	}
	if _, err := s.exec(p, "hostname"); err == nil {
		s.t.Error("exec works without a kubelet")
	}
	if err := errors.Join(n.StartContainerd(), n.Kubelet.Start()); err != nil {
		s.t.Fatal(err)
	}
	var said string
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("exec said: %s\n%s", said, n.Kubelet.Log())
		}
	})
	s.until("exec in the same Pod", time.Minute, func() (ok bool) {
		var err error
		said, err = s.exec(p, "hostname")
		return err == nil
	})
	if said != p.name {
		s.t.Errorf("another Pod than %s: %q", p.name, said)
	}
	if err := n.Kubelet.Signal(syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	ready := func() bool {
		return s.kubectl("get", "node", "n1", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`) == "True"
	}
	s.until("n1 not Ready", time.Minute, func() bool { return !ready() })
	if err := n.Kubelet.Signal(syscall.SIGCONT); err != nil {
		s.t.Fatal(err)
	}
	s.until("n1 Ready", time.Minute, ready)
	if err := s.API.Freeze(); err != nil {
		s.t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := s.API.Thaw(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.API.Restart(s.Fork()); err != nil {
		s.t.Fatal(err)
	}
}

// reboot: a node comes back with nothing but its disk, its Pods get networks anew, and the guard puts the plan back.
func (s *suite) reboot() {
	n := s.Node("n1")
	boot := s.kubectl("get", "node", "n1", "-o", "jsonpath={.status.nodeInfo.bootID}")
	machine := s.kubectl("get", "node", "n1", "-o", "jsonpath={.status.nodeInfo.machineID}")
	if err := n.PowerOff(); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Node("n2").Exec("ping", "-c", "1", "-W", "1", n.Address()); err == nil {
		s.t.Error("a node without power answers")
	}
	if err := n.Reboot(); err != nil {
		s.t.Fatal(err)
	}
	s.until("the plan is in its kernel", 2*time.Minute, s.has(1350))
	// Until its kubelet has spoken, the API server shows what was before.
	s.until("n1 has booted", time.Minute, func() bool {
		return s.kubectl("get", "node", "n1", "-o", "jsonpath={.status.nodeInfo.bootID}") != boot
	})
	s.until("n1's Pods reach each other", 2*time.Minute, func() bool {
		pods := on(s.running("default", "app=web"), "n1")
		if len(pods) != 2 {
			return false
		}
		_, err := s.exec(pods[0], "ping", "-c", "1", "-W", "3", pods[1].ip)
		return err == nil
	})
	s.until("DANM's Pods Ready", 2*time.Minute, s.danmReady)
	if err := s.WaitReady(time.Minute); err != nil {
		s.t.Fatal(err)
	}
	if got := s.kubectl("get", "node", "n1", "-o", "jsonpath={.status.nodeInfo.machineID}"); got != machine {
		s.t.Errorf("machine ID %s, before %s", got, machine)
	}
}
