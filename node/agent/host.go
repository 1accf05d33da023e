package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/node/cri"
	"danm.io/danm/node/endpoints"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/mirror"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/podresources"
	"danm.io/danm/node/probe"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Settings are the agent's command line.
type Settings struct {
	Node        string
	StateDir    string
	Socket      string
	CNIConfDir  string
	CNIBinDirs  []string // on the host
	MetricsAddr string
	API         *rest.Config // the cluster home's API server, nil = local home
	Namespace   string       // of the node's Lease
	SysRoot     string       // where the host's /proc, /sys, /run and machine-id are found
	CRISocket   string       // the container runtime's, "" = a usual one, cri.None = none
	Resources   string       // the kubelet's socket that tells of Pods' devices, "" = the usual one, podresources.None = none
	// DevicePlugins is the kubelet's directory of device plugins, as this process reaches it; "" = the usual one in the cluster home and none
	// in the local one, devplugin.None = none.
	DevicePlugins string
	Probe         bool // addresses are asked for on the network before a Pod gets them
}

// JournalDir is where IPAM's journal stands below the state directory.
const JournalDir = "ipam"

// Machine is the node as the agent looks at it; *sriov.Kernel.
type Machine interface {
	plan.Kernel
	Hardware(context.Context) ([]model.NIC, error)
}

// Main runs the agent of a node with IPAM and the CNI server in it until ctx ends. It needs no guard to start: without one,
// Pods are attached by what was confirmed last.
func Main(ctx context.Context, s Settings, kernel Machine, log *slog.Logger) (err error) {
	opts := Options{Node: s.Node, StateDir: s.StateDir, Kernel: kernel, Hardware: kernel.Hardware, Guard: guard.Client{Dir: s.StateDir}, Socket: s.Socket,
		CNIConfDir: s.CNIConfDir, MetricsAddr: s.MetricsAddr, Sys: sriov.Sys{Root: s.SysRoot}, Log: log}
	a, err := New(opts)
	if err != nil {
		return err
	}
	defer inBackground(ctx, func(ctx context.Context) { attend(ctx, a.dir, log) })()
	addresses, err := openAddresses(ctx, s, log)
	if err != nil {
		return fmt.Errorf("open the address journal: %w", err)
	}
	defer func() { err = errors.Join(err, addresses.journal.Close()) }()
	links, err := attach.New(s.SysRoot)
	if err != nil {
		return err
	}
	defer links.Close()
	var pods *mirror.Pods
	if s.API != nil {
		if pods, err = mirror.NewPods(s.API, s.Node, log); err != nil {
			return err
		}
	}
	boot, err := guard.BootID(s.SysRoot)
	if err != nil {
		log.Warn("which boot this is is not known; nothing is concluded from it", "reason", err)
	}
	options := server.Options{Socket: s.Socket, IPAM: addresses.ipam(), Attacher: links, Log: log, Observe: a.m.cniCall,
		BootID: boot, SysRoot: s.SysRoot, Reclaimed: a.m.reclaimedOne, Probed: a.m.probed, Pod: podsBy(pods), Report: reportTo(pods)}
	options.Delegates = delegate.New(delegate.Options{Root: s.SysRoot, ConfDir: s.CNIConfDir, PluginDirs: s.CNIBinDirs, CacheDir: filepath.Join(s.StateDir, "delegates")})
	if s.API != nil {
		kubelet := podresources.Kubelet{Socket: s.Resources, Root: s.SysRoot}
		options.Devices = kubelet.Devices
		if s.Resources != podresources.None {
			a.holders = newHolders(kubelet.Holders)
		}
	}
	if s.Probe {
		options.Probe = askNetwork
	}
	var published *endpoints.Publisher
	if pods != nil {
		options.Changed = func(sandbox string, attached bool) { published.Changed(sandbox, attached) }
	}
	cni, err := server.New(options)
	if err != nil {
		return err
	}
	a.opts.Attachments, a.held = cni, cni.Held
	a.usage = func() ([]v1alpha1.AddressUse, map[string]int32) { return addresses.usage(), cni.Attached() }
	addresses.measure(a.m.registry)
	sweeper := a.sweeper(cni, cri.Runtime{Socket: s.CRISocket, Root: s.SysRoot})
	background := []func(context.Context){a.holders.run, sweeper.run, func(ctx context.Context) { a.compare(ctx, cni) }}
	if p := a.devicePlugin(s); p != nil {
		background = append(background, p.Run)
	}
	ctx, fail := context.WithCancelCause(ctx)
	cancel := func() { fail(nil) }
	defer cancel()
	defer inBackground(ctx, addresses.run, func(ctx context.Context) { heed(ctx, addresses.journal.Err, fail) })()
	if s.API == nil {
		defer inBackground(ctx, background...)()
		return a.Run(ctx)
	}
	sweeper.pods = pods
	if published, err = publisher(s, pods, cni, addresses, log); err != nil {
		return err
	}
	a.m.publishes(published)
	defer inBackground(ctx, append(background, pods.Run, published.Run)...)()
	release, err := a.dir.Lock()
	if err != nil {
		return fmt.Errorf("the cluster home writes %s: %w", s.StateDir, err)
	}
	defer release()
	mirrored := make(chan error, 1)
	go func() {
		defer cancel()
		mirrored <- mirror.Run(ctx, mirror.Options{Node: s.Node, Config: s.API, Dir: a.dir, View: a.view, Retry: guard.Client{Dir: s.StateDir}.Retry,
			NoRecords: func() error { return noRecords(addresses.journal) }, Log: log})
	}()
	err = a.Run(ctx)
	cancel()
	return errors.Join(err, <-mirrored)
}

// askFor is how long one address is asked for: as long as each ADD waits for nobody's answer.
const askFor = 300 * time.Millisecond

func askNetwork(ctx context.Context, n model.Network, addr netip.Addr) (inUse bool, mac string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return probe.InUse(ctx, n.Device, addr)
}

// sweeper frees what Pods that are gone without a DEL hold.
func (a *Agent) sweeper(cni *server.Server, runtime cri.Runtime) *sweeper {
	return &sweeper{holder: cni, sandboxes: runtime.Sandboxes, reclaimed: a.m.reclaimedOne, log: a.log, now: time.Now}
}

// inBackground runs what it is given until ctx ends or the function that it returns is called, which waits for their end.
func inBackground(ctx context.Context, run ...func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	for _, f := range run {
		running.Go(func() { f(ctx) })
	}
	return func() { cancel(); running.Wait() }
}

// noRecords is nil when no Pod has anything from this node's journal.
func noRecords(addresses *ipam.Service) error {
	records, err := addresses.List()
	if err == nil && len(records) > 0 {
		return fmt.Errorf("%d Pods have records in the address journal (%s)", len(records), diag.HomeSwitch)
	}
	if n := len(addresses.Blocks()); err == nil && n > 0 {
		err = fmt.Errorf("the node has %d blocks of addresses (%s)", n, diag.HomeSwitch)
	}
	return err
}

// view is what the cluster home's mirror reports.
func (a *Agent) view(context.Context) mirror.View {
	v := mirror.View{Confirmed: a.confirmed.Load(), Repairs: a.repaired.Load()}
	if s := a.seen.Load(); s != nil {
		v.Guard, v.GuardErr, v.Wanted = s.guard, s.guardErr, s.wanted
	} else {
		v.GuardErr = errors.New("not asked yet")
	}
	if p := a.problem.Load(); p != nil {
		v.Problem = *p
	}
	if cards := a.cards.Load(); cards != nil {
		v.Hardware = *cards
	}
	if u := a.underlays.Load(); u != nil {
		v.Underlays = *u
	}
	if a.usage != nil {
		v.Addresses, v.Attached = a.usage()
	}
	return v
}

// reclaimedOne counts a record that was freed without a DEL.
func (m *metrics) reclaimedOne(reason string) { m.reclaimed.WithLabelValues(reason).Inc() }

// probed counts an address that was asked for.
func (m *metrics) probed(result string) { m.addressProbes.WithLabelValues(result).Inc() }

// cniCall counts one call of the CNI binary.
func (m *metrics) cniCall(command string, took time.Duration, code uint) {
	m.cniCalls.WithLabelValues(command, strconv.FormatUint(uint64(code), 10)).Inc()
	m.cniSeconds.WithLabelValues(command).Observe(took.Seconds())
}
