//go:build linux

package cnihost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"danm.io/danm/test/lab"
)

// Seen is what a namespace has.
type Seen struct {
	Links  []Link
	Routes []string // "10.9.0.0/16 via 10.0.0.2 dev eth0", without what the kernel made of addresses
}

// Link is one link of a namespace.
type Link struct {
	Name, MAC, Kind, Mode string
	VLAN, MTU             int
	Up                    bool
	Addresses             []string // with length, those of global scope, IPv4 first
}

// Link is the one of that name, or the zero value.
func (s Seen) Link(name string) Link {
	for _, l := range s.Links {
		if l.Name == name {
			return l
		}
	}
	return Link{}
}

// See looks into a namespace.
func (h *Host) See(ns *lab.NS) (s Seen) {
	h.T.Helper()
	must(h.T, ns.Do(func() (err error) { s, err = look(); return err }))
	return s
}

// Run runs a line of sh in a namespace.
func (h *Host) Run(ns *lab.NS, line string) (string, error) {
	var out, errs bytes.Buffer
	err := ns.Do(func() error {
		cmd := exec.Command("sh", "-c", line)
		cmd.Stdout, cmd.Stderr = &out, &errs
		return cmd.Run()
	})
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", line, err, errs.String())
	}
	return out.String(), err
}

// Dump is lab's, of a namespace that is there, without what the kernel adds by itself when a cable's other end comes up: link-local
// addresses and their routes.
func (h *Host) Dump(ns *lab.NS) string {
	h.T.Helper()
	text, err := ns.Dump()
	must(h.T, err)
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return strings.Contains(line, " fe80:") })
	return strings.Join(lines, "\n")
}

// Lacks says whether the kernel has no links of a kind, vlan or ipvlan.
func (h *Host) Lacks(kind string) bool {
	h.T.Helper()
	options := map[string]string{"vlan": "link sw name probe type vlan id 9", "ipvlan": "link sw name probe type ipvlan"}[kind]
	_, err := h.Run(h.Fabric, "ip link add "+options)
	if err == nil {
		_, err = h.Run(h.Fabric, "ip link del probe")
		must(h.T, err)
		return false
	}
	if text := err.Error(); !strings.Contains(text, "Unknown device type") && !strings.Contains(text, "not supported") {
		h.T.Fatal(err)
	}
	return true
}

func (h *Host) has(name string) (is bool) {
	must(h.T, h.NS.Do(func() error {
		_, err := netlink.LinkByName(name)
		is = err == nil
		return nil
	}))
	return is
}

func addPair(name, peer string, peerNS int) error {
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(peerNS)})
}

// Recorder runs plugins and keeps what the last one printed.
type Recorder struct {
	run invoke.RawExec
	version.PluginDecoder
	mu   sync.Mutex
	last []byte
}

// ExecPlugin runs a plugin.
func (r *Recorder) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	out, err := r.run.ExecPlugin(ctx, path, stdin, environ)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = slices.Clone(out)
	return out, err
}

// FindInPath finds a plugin.
func (r *Recorder) FindInPath(plugin string, paths []string) (string, error) {
	return r.run.FindInPath(plugin, paths)
}

// Last is what the last plugin printed.
func (r *Recorder) Last() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// Direct calls the shim as it is, for what libcni does not let through. more is further keys of the configuration, as ,"key":value.
// The error is nil or what the plugin printed.
func (h *Host) Direct(ctx context.Context, command, version, more string, rt *libcni.RuntimeConf) ([]byte, *types.Error) {
	h.T.Helper()
	args := &invoke.Args{Command: command, Path: h.Bin}
	if rt != nil {
		args.ContainerID, args.NetNS, args.IfName, args.PluginArgs = rt.ContainerID, rt.NetNS, rt.IfName, rt.Args
	}
	conf := fmt.Sprintf(`{"cniVersion":%q,"name":"danm","type":"danm","socket":%q%s}`, version, h.Socket(), more)
	out, err := h.Exec.ExecPlugin(ctx, h.Bin+"/danm", []byte(conf), args.AsEnv())
	if err == nil {
		return out, nil
	}
	return nil, h.Told(err)
}

// Told is what a plugin printed as its error.
func (h *Host) Told(err error) *types.Error {
	h.T.Helper()
	e := (*types.Error)(nil)
	if !errors.As(err, &e) {
		h.T.Fatalf("no error of a plugin: %v", err)
	}
	return e
}
