//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/test/lab"
)

// story is the demo's whole state; scenes are its methods, in order.
type story struct {
	bin, dir, sabotage string
	start              time.Time
	world              *lab.World
	sw                 *lab.NS
	repo               *repository
	hosts              []*host
	pods               []*pod
	baseline           map[string]string // host name → dump before the first commit
	machine            string            // dump of the namespace everything is plugged into, before
	mounts             []string
}

const hostCount = 3

func (s *story) play(site string) error {
	scenes := []struct {
		title string
		run   func() error
	}{
		{"three hosts on a switch, a Git server over https", func() error { return s.build(site) }},
		{"(a) the first commit configures all three hosts", s.firstCommit},
		{"(b) four Pods of two tenants with the same CIDR", s.attachPods},
		{"(c) a second commit changes an MTU and adds a network", s.secondCommit},
		{"(d) a bad commit is refused, nothing changes", s.badCommit},
		{"(e) a link deleted by hand comes back", s.drift},
		{"(f) agent and guard killed with -9, Pods attached", s.kill},
		{"(g) a commit cuts edge-2 off while its agent is killed", s.cutOff},
		{"(h) everything is removed", s.remove},
	}
	for _, scene := range scenes {
		fmt.Printf("\n== %s   [%.1f s]\n", scene.title, time.Since(s.start).Seconds())
		if err := scene.run(); err != nil {
			return fmt.Errorf("%s: %w", scene.title, err)
		}
	}
	return nil
}

func (s *story) build(site string) (err error) {
	if s.mounts, err = lab.Mounts(); err != nil {
		return err
	}
	if s.world, err = lab.NewWorld(s.dir); err != nil {
		return err
	}
	if s.sw, err = s.world.Add("switch"); err != nil {
		return err
	}
	for _, name := range []string{"mgmt", "fabric"} {
		if err := s.sw.Switch(name); err != nil {
			return err
		}
	}
	gitNS, err := s.world.Add("git")
	if err != nil {
		return err
	}
	if err := s.sw.Plug("mgmt", gitNS, "eth0", "10.9.0.254/24"); err != nil {
		return err
	}
	if s.repo, err = serveRepository(gitNS, filepath.Join(s.dir, "git"), "10.9.0.254:8443", site); err != nil {
		return err
	}
	s.baseline = map[string]string{}
	for i := 1; i <= hostCount; i++ {
		if err := s.addHost(i); err != nil {
			return err
		}
	}
	fmt.Printf("edge-1, edge-2, edge-3: eth0 on the management switch, fab0 on the fabric; repository %s\n", s.repo.location)
	return nil
}

func (s *story) addHost(i int) error {
	h := &host{name: fmt.Sprintf("edge-%d", i), bin: s.bin, location: s.repo.location, ca: s.repo.caFile}
	h.dir = filepath.Join(s.dir, h.name)
	if err := os.MkdirAll(h.confDir(), 0o755); err != nil {
		return err
	}
	var err error
	if h.ns, err = s.world.Add(h.name); err != nil {
		return err
	}
	if err := s.sw.Plug("mgmt", h.ns, "eth0", fmt.Sprintf("10.9.0.%d/24", i)); err != nil {
		return err
	}
	if err := s.sw.Plug("fabric", h.ns, "fab0", ""); err != nil {
		return err
	}
	if s.baseline[h.name], err = h.settled(); err != nil {
		return err
	}
	s.hosts = append(s.hosts, h)
	for _, start := range []func() error{h.startGuard, h.startAgent, h.startSync} {
		if err := start(); err != nil {
			return err
		}
	}
	return nil
}

// danmctl runs danmctl in the management network and returns its output and exit code.
func (s *story) danmctl(args ...string) (string, int, error) {
	cmd := exec.Command(filepath.Join(s.bin, "danmctl"), args...)
	cmd.Dir = s.repo.work
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "DANM_GIT_CA_FILE="+s.repo.caFile)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := s.hosts[0].ns.Start(cmd)
	if err != nil {
		return "", 0, err
	}
	<-p.Exited
	if exit := (*exec.ExitError)(nil); p.Err != nil && !errors.As(p.Err, &exit) {
		return out.String(), 0, p.Err
	}
	return out.String(), cmd.ProcessState.ExitCode(), nil
}

// showDiff prints what the commit to come would change; wanted is danmctl's exit code.
func (s *story) showDiff(old string, wanted int) error {
	out, code, err := s.danmctl("diff", old, s.repo.work)
	if err != nil {
		return err
	}
	shown := strings.NewReplacer(s.repo.bareDir, "../site.git", s.dir+"/", "../").Replace(old)
	fmt.Printf("$ danmctl diff %s .\n%s", shown, indent(out))
	if code != wanted {
		return fmt.Errorf("danmctl diff: exit code %d, want %d", code, wanted)
	}
	return nil
}

// head is what was published last, as danmctl takes it.
func (s *story) head() string { return "git+file://" + s.repo.bareDir + "?ref=main" }

// mtuOf polls a host's link until it has the MTU (0: until it is gone).
func (s *story) mtuOf(h *host, link string, mtu int, within time.Duration) error {
	what := fmt.Sprintf("%s on %s with MTU %d", link, h.name, mtu)
	if mtu == 0 {
		what = fmt.Sprintf("%s on %s gone", link, h.name)
	}
	return eventually(what, within, func() bool { return h.ns.LinkMTU(link) == mtu })
}

// cleanUp ends processes and namespaces, and looks whether anything is left.
func (s *story) cleanUp() error {
	for _, h := range s.hosts {
		h.stop()
	}
	if s.repo != nil {
		s.repo.close()
	}
	if s.world == nil {
		return nil
	}
	if err := s.world.Close(); err != nil {
		return err
	}
	after, err := lab.Mounts()
	if err != nil {
		return err
	}
	if strings.Join(after, "\n") != strings.Join(s.mounts, "\n") {
		return fmt.Errorf("mounts left behind: before %v, after %v", s.mounts, after)
	}
	return nil
}

func (s *story) printLogs(w io.Writer) {
	for _, h := range s.hosts {
		for _, name := range []string{"sync", "agent", "guard"} {
			lines := strings.Split(strings.TrimSpace(h.log(name)), "\n")
			fmt.Fprintf(w, "--- %s %s (last lines)\n%s\n", h.name, name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	}
}

// kill9 ends a daemon as a crash would.
func kill9(p *lab.Proc) { p.Stop(syscall.SIGKILL, time.Second) }
