//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/test/lab"
)

// host is one machine of the site: a namespace, a state directory and three daemons.
type host struct {
	name               string
	ns                 *lab.NS
	bin, dir           string
	location, ca       string
	sync, guard, agent *lab.Proc
}

func (h *host) stateDir() string { return filepath.Join(h.dir, "state") }
func (h *host) socket() string   { return filepath.Join(h.dir, "cni.sock") }
func (h *host) confDir() string  { return filepath.Join(h.dir, "net.d") }

// start runs one daemon inside the host, its output in <dir>/<log>.log.
func (h *host) start(log, binary string, args ...string) (*lab.Proc, error) {
	out, err := os.OpenFile(filepath.Join(h.dir, log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(h.bin, binary), args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), "DANM_GIT_CA_FILE="+h.ca)
	p, err := h.ns.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", log, h.name, err)
	}
	return p, nil
}

func (h *host) startGuard() (err error) {
	h.guard, err = h.start("guard", "danm-node", "guard", "--state-dir", h.stateDir(), "--sys-root", "/")
	return err
}

func (h *host) startAgent() (err error) {
	h.agent, err = h.start("agent", "danm-node", "agent", "--node-name", h.name, "--state-dir", h.stateDir(), "--socket", h.socket(),
		"--cni-conf-dir", h.confDir(), "--cni-bin-dir", h.bin, "--sys-root", "/", "--metrics-addr", "")
	return err
}

func (h *host) startSync() (err error) {
	h.sync, err = h.start("sync", "danmctl", "sync", h.location, "--state-dir", h.stateDir(), "--node", h.name, "--interval", "1s")
	return err
}

func (h *host) stop() {
	for _, p := range []*lab.Proc{h.sync, h.agent, h.guard} {
		if p != nil {
			p.Stop(syscall.SIGTERM, 3*time.Second)
		}
	}
	h.sync, h.agent, h.guard = nil, nil, nil
}

// dump is the host's kernel and its plan, for comparing before and after.
func (h *host) dump() (string, error) {
	kernel, err := h.ns.Dump()
	if err != nil {
		return "", err
	}
	return h.name + "\n" + kernel, nil
}

// settled is a dump after the kernel has given each link that is up its own IPv6 address, which it does a moment later by
// itself: a baseline without them would blame the demo.
func (h *host) settled() (dump string, err error) {
	waited := eventually("link-local addresses on "+h.name, 10*time.Second, func() bool {
		dump, err = h.dump()
		return err != nil || hasLinkLocals(dump)
	})
	if err != nil {
		return "", err
	}
	return dump, waited
}

func hasLinkLocals(dump string) bool {
	for line := range strings.Lines(dump) {
		var name string
		if _, err := fmt.Sscanf(line, "link %s", &name); err != nil || name == "lo" || !strings.Contains(line, " up true ") {
			continue
		}
		if !strings.Contains(dump, "address "+name+" fe80:") {
			return false
		}
	}
	return true
}

// log returns what one daemon of the host has written.
func (h *host) log(name string) string {
	data, _ := os.ReadFile(filepath.Join(h.dir, name+".log"))
	return string(data)
}

// eventually polls until ok, or says what was waited for.
func eventually(what string, within time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v", what, within)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// indent puts quoted output behind a margin.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ") + "\n"
}
