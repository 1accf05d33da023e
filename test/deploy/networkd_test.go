package deploy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

const networkd = "/lib/systemd/systemd-networkd"

// theirs is how the site configures its card, and a catch-all as distributions ship it.
var theirs = map[string]string{
	"network/50-site.network": "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nLinkLocalAddressing=no\nKeepConfiguration=yes\n",
	"network/90-all.network":  "[Match]\nName=*\n\n[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n",
}

// site is a machine on which systemd-networkd owns eth0.
type site struct {
	t   *testing.T
	ns  *lab.NS
	k   *link.Kernel
	etc string
}

func newSite(t *testing.T, dropIns bool) *site {
	t.Helper()
	world, err := lab.NewWorld(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, world.Close()) })
	sw, err := world.Add("switch")
	must(t, err)
	must(t, sw.Switch("sw"))
	s := &site{t: t, etc: t.TempDir()}
	s.ns, err = world.Add("host")
	must(t, err)
	must(t, sw.Plug("sw", s.ns, "eth0", ""))
	must(t, s.ns.Do(func() (err error) { s.k, err = link.New("/"); return err }))
	t.Cleanup(s.k.Close)
	for name, text := range theirs {
		path := filepath.Join(s.etc, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
	if dropIns {
		must(t, os.CopyFS(s.etc, os.DirFS(filepath.Join(root, "deploy/coexist/systemd-networkd"))))
	}
	return s
}

// script gives systemd-networkd a /run and an /etc/systemd of its own, and a read-only /sys, by which it knows that there is no udev.
const script = `set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chmod -R a+rwX /run/systemd
chmod a+rx "$1" "$1"/*
mount --bind "$1" /etc/systemd
mount --bind /sys /sys
mount -o remount,bind,ro /sys
exec env -u NOTIFY_SOCKET SYSTEMD_LOG_LEVEL=info ` + networkd

// networkd runs it until it has configured eth0, and returns how to end it.
func (s *site) networkd() (stop func()) {
	s.t.Helper()
	cmd := exec.Command("sh", "-c", script, "sh", s.etc)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	log := filepath.Join(s.t.TempDir(), "networkd.log")
	f, err := os.Create(log)
	must(s.t, err)
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	p, err := s.ns.Start(cmd)
	must(s.t, err)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if strings.Contains(s.dump(), "address 192.0.2.10/24") && strings.Contains(s.dump(), "route 0.0.0.0/0") {
			time.Sleep(2 * time.Second) // it goes on to what it finds foreign
			return func() { p.Stop(syscall.SIGTERM, 5*time.Second) }
		}
	}
	p.Stop(syscall.SIGKILL, time.Second)
	text, _ := os.ReadFile(log)
	s.t.Fatalf("systemd-networkd does not configure eth0:\n%s\n%s", text, s.dump())
	return nil
}

func (s *site) dump() string {
	s.t.Helper()
	o, err := s.k.Observe(context.Background())
	must(s.t, err)
	return o.Dump()
}

func besidePlan() model.NodePlan {
	addr := netip.MustParsePrefix
	return model.NodePlan{
		Links: []model.Link{
			{Name: "br_acme", Kind: model.Bridge, MTU: 1450, Up: true, Addresses: []netip.Prefix{addr("10.1.0.1/24")}},
			{Name: "eth0", Kind: model.Physical, Addresses: []netip.Prefix{addr("10.7.0.10/24")}},
			{Name: "vx_acme", Kind: model.VXLAN, Parent: "eth0", MTU: 1450, Up: true, Master: "br_acme", VXLAN: &model.VXLANOptions{VNI: 7, Port: 4789, Local: netip.MustParseAddr("10.7.0.10")}},
		},
		Routes: []model.Route{{To: addr("10.8.0.0/16"), Via: netip.MustParseAddr("192.0.2.2"), Dev: "eth0"}, {To: addr("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.2"), Dev: "br_acme", Table: 100}},
		Rules:  []model.Rule{{Priority: 500, Family: 4, From: addr("10.1.0.0/24"), Table: 100}},
	}
}

// beside applies the plan on a machine of systemd-networkd's and says what of it that takes away when it starts again, where that is to
// be waited for.
func (s *site) beside(wait time.Duration) (missing []plan.Step, dump string) {
	s.t.Helper()
	s.networkd()()
	stop := s.networkd()
	p := besidePlan()
	dir := s.t.TempDir()
	g, err := guard.Open(s.t.Context(), guard.Options{Dir: dir, Kernel: s.k, BootID: "b"})
	must(s.t, err)
	out, err := g.Submit(s.t.Context(), guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), Revision: "r"})
	must(s.t, err)
	if len(out.Blocked) > 0 || len(out.Steps) < 5 {
		s.t.Fatalf("%+v", out)
	}
	must(s.t, g.Confirm(s.t.Context(), p.Digest()))
	time.Sleep(2 * time.Second)
	stop()
	stop = s.networkd()
	defer stop()
	for end := time.Now().Add(wait); ; time.Sleep(100 * time.Millisecond) {
		o, err := s.k.Observe(s.t.Context())
		must(s.t, err)
		missing = plan.Diff(plan.Desired{Plan: p}, withLedger(o, p)).Steps
		if len(missing) > 0 || time.Now().After(end) {
			return missing, s.dump()
		}
	}
}

// withLedger says that all of the plan is ours, as the guard's ledger does.
func withLedger(o plan.Observed, p model.NodePlan) plan.Observed {
	bare := o
	bare.Owned = nil
	o.Owned = plan.Diff(plan.Desired{Plan: p}, bare).Claims
	return o
}

// TestKernelBesideNetworkd: with the files of deploy/coexist systemd-networkd starts again beside a confirmed plan and takes
// nothing of it away; without them it does.
func TestKernelBesideNetworkd(t *testing.T) {
	if noNamespaces != nil {
		t.Skip("no namespaces: ", noNamespaces)
	}
	if _, err := os.Stat(networkd); err != nil {
		t.Skip("no systemd-networkd")
	}
	if os.Geteuid() != 0 {
		t.Skip("systemd-networkd needs root")
	}
	t.Run("with our files", func(t *testing.T) {
		t.Parallel()
		if missing, dump := newSite(t, true).beside(0); len(missing) > 0 {
			t.Errorf("missing: %v\n%s", missing, dump)
		}
	})
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		missing, _ := newSite(t, false).beside(30 * time.Second)
		if len(missing) == 0 {
			t.Error("without our files nothing is taken away either: they prove nothing")
		}
		fmt.Printf("without our files systemd-networkd takes away: %v\n", missing)
	})
}
