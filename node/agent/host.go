package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// Settings are the agent's command line.
type Settings struct {
	Node        string
	StateDir    string
	Socket      string
	CNIConfDir  string
	MetricsAddr string
}

// JournalDir is where IPAM's journal stands below the state directory.
const JournalDir = "ipam"

// Machine is the node as the agent looks at it; *link.Kernel.
type Machine interface {
	plan.Kernel
	Hardware(context.Context) ([]model.NIC, error)
}

// Main runs the agent of a node with IPAM and the CNI server in it until ctx ends. It needs no guard to start: without one,
// Pods are attached by what was confirmed last.
func Main(ctx context.Context, s Settings, kernel Machine, log *slog.Logger) (err error) {
	opts := Options{Node: s.Node, StateDir: s.StateDir, Kernel: kernel, Hardware: kernel.Hardware, Guard: guard.Client{Dir: s.StateDir}, Socket: s.Socket,
		CNIConfDir: s.CNIConfDir, MetricsAddr: s.MetricsAddr, Log: log}
	a, err := New(opts)
	if err != nil {
		return err
	}
	addresses, err := ipam.Open(filepath.Join(s.StateDir, JournalDir), ipam.Options{Log: log})
	if err != nil {
		return fmt.Errorf("open the address journal: %w", err)
	}
	defer func() { err = errors.Join(err, addresses.Close()) }()
	links, err := attach.New()
	if err != nil {
		return err
	}
	defer links.Close()
	cni, err := server.New(server.Options{Socket: s.Socket, IPAM: addresses, Attacher: links, Log: log, Observe: a.m.cniCall})
	if err != nil {
		return err
	}
	a.opts.Attachments = cni
	return a.Run(ctx)
}

// cniCall counts one call of the CNI binary.
func (m *metrics) cniCall(command string, took time.Duration, code uint) {
	m.cniCalls.WithLabelValues(command, strconv.FormatUint(uint64(code), 10)).Inc()
	m.cniSeconds.WithLabelValues(command).Observe(took.Seconds())
}
