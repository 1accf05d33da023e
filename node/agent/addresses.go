package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/ipam/kube"
	"danm.io/danm/node/cri"
	"danm.io/danm/node/mirror"
	"danm.io/danm/spec/api/v1alpha1"
)

// unfreezeEvery is how often a node without blocks looks whether what was there when its journal was lost is gone.
const unfreezeEvery = 10 * time.Second

// addresses is the node's IPAM: the journal, and in the cluster home the keeper of its blocks.
type addresses struct {
	journal   *ipam.Service
	keeper    *ipam.Keeper // nil in the local home
	client    *kube.Client
	wake      chan struct{}
	sandboxes func(context.Context) ([]string, error)
	log       *slog.Logger
}

func openAddresses(ctx context.Context, s Settings, log *slog.Logger) (*addresses, error) {
	a := &addresses{wake: make(chan struct{}, 1), log: log, sandboxes: living(s)}
	var err error
	options := ipam.Options{Log: log}
	if mark, merr := openHighWater(filepath.Join(filepath.Dir(s.Socket), "ipam.frames")); merr != nil {
		log.Warn("a journal that is set back while the machine is on would not be noticed", "reason", merr)
	} else {
		options.HighWater, options.Clock = mark, mark.Clock
	}
	if a.journal, err = ipam.OpenAnyway(ctx, filepath.Join(s.StateDir, JournalDir), options, a.sandboxes); err != nil {
		return nil, err
	}
	if s.API == nil {
		return a, nil
	}
	machine, err := kube.Machine(s.SysRoot, s.StateDir)
	if err == nil {
		a.client, err = kube.New(s.API, s.Node, s.Namespace, machine)
	}
	if err != nil {
		return nil, errors.Join(err, a.journal.Close())
	}
	a.keeper = ipam.NewKeeper(ipam.KeeperOptions{Service: a.journal, API: a.client, Node: s.Node, Machine: machine, Sandboxes: a.sandboxes, Wake: a.wake, Boottime: boottime, Log: log})
	return a, nil
}

// living is what may have addresses on this machine: the runtime's sandboxes, but for those in the host's own namespace, and named
// network namespaces, since a runtime may not list a sandbox yet that it is setting up. Where there is no runtime to ask, it is
// whatever namespace processes are in: nerdctl names none.
func living(s Settings) func(context.Context) ([]string, error) {
	runtime := cri.Runtime{Socket: s.CRISocket, Root: s.SysRoot}
	return func(ctx context.Context) ([]string, error) {
		named, err := namespaces(s.SysRoot)
		if err != nil {
			return nil, err
		}
		ids, err := runtime.Separate(ctx)
		if errors.Is(err, cri.ErrNone) {
			ids, err = unnamed(s.SysRoot)
		}
		if err != nil {
			return nil, err
		}
		return append(named, ids...), nil
	}
}

// unnamed are the network namespaces below root's /proc, but for the host's own, that have links beside the loopback device: those
// of services that were cut off from the network have none.
func unnamed(root string) ([]string, error) {
	proc := filepath.Join("/", root, "proc")
	own, err := os.Readlink(filepath.Join(proc, "1/ns/net"))
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	seen := map[string]bool{own: true}
	var out []string
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		name, err := os.Readlink(filepath.Join(proc, e.Name(), "ns/net"))
		if err != nil || seen[name] {
			continue // the process has ended, or is another's
		}
		seen[name] = true
		if links, err := os.ReadFile(filepath.Join(proc, e.Name(), "net/dev")); err != nil || strings.Count(string(links), ":") > 1 {
			out = append(out, name)
		}
	}
	return out, nil
}

func (a *addresses) ipam() server.IPAM {
	if a.keeper == nil {
		return a.journal
	}
	return a.keeper
}

func (a *addresses) usage() []v1alpha1.AddressUse {
	if a.keeper == nil {
		return nil
	}
	return a.keeper.Usage()
}

// run keeps blocks, or in the local home ends the loss of a journal, until ctx ends.
func (a *addresses) run(ctx context.Context) {
	if a.keeper != nil {
		go a.client.Watch(ctx, a.wake, a.keeper.Doubt)
		a.keeper.Run(ctx)
		return
	}
	tick := time.NewTicker(unfreezeEvery)
	defer tick.Stop()
	for {
		if err := a.journal.Unfreeze(ctx, a.sandboxes); err != nil && ctx.Err() == nil {
			a.log.Warn("addresses stay frozen", "reason", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heed ends the agent when its journal takes nothing more: disk and memory may differ, and whoever started the agent starts it again.
func heed(ctx context.Context, broken func() error, fail context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := broken(); err != nil {
			fail(fmt.Errorf("address journal: %w", err))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// boottime runs on while the machine sleeps (clock_gettime(2)).
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // a clock that every kernel since 2.6.39 has
	}
	return time.Duration(ts.Nano())
}

// namespaces are the named network namespaces of the machine, which runtimes make one of for each sandbox.
func namespaces(root string) ([]string, error) {
	var out []string
	for _, dir := range []string{"run/netns", "var/run/netns"} {
		entries, err := os.ReadDir(filepath.Join(root, dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list network namespaces: %w", err)
		}
		for _, e := range entries {
			out = append(out, "netns/"+e.Name())
		}
	}
	return out, nil
}

// measure registers what is counted of addresses.
func (a *addresses) measure(r *prometheus.Registry) {
	if a.keeper == nil {
		return
	}
	for name, of := range map[string]struct {
		help string
		get  func(ipam.KeeperStats) uint64
	}{
		"danm_ipam_claims_total":            {"Blocks of addresses claimed.", func(s ipam.KeeperStats) uint64 { return s.Claims }},
		"danm_ipam_claim_conflicts_total":   {"Claims that another node was faster with.", func(s ipam.KeeperStats) uint64 { return s.Conflicts }},
		"danm_ipam_asked_total":             {"Addresses asked of other nodes.", func(s ipam.KeeperStats) uint64 { return s.Asked }},
		"danm_ipam_refused_total":           {"Addresses asked of other nodes and not had.", func(s ipam.KeeperStats) uint64 { return s.Refused }},
		"danm_ipam_ceded_total":             {"Addresses ceded to other nodes.", func(s ipam.KeeperStats) uint64 { return s.Ceded }},
		"danm_ipam_blocks_given_back_total": {"Blocks of addresses given back.", func(s ipam.KeeperStats) uint64 { return s.GivenBack }},
		"danm_ipam_lease_renewals_total":    {"Signs of life written for the node's blocks.", func(s ipam.KeeperStats) uint64 { return s.Renewals }},
		"danm_ipam_round_errors_total":      {"Rounds over the node's blocks in which the API server did not do its part.", func(s ipam.KeeperStats) uint64 { return s.Errors }},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: of.help}, func() float64 { return float64(of.get(a.keeper.Stats())) }))
	}
	blocks := prometheus.NewDesc("danm_ipam_blocks", "Blocks of addresses in the node's journal by state.", []string{"state"}, nil)
	addresses := prometheus.NewDesc("danm_ipam_addresses", "Addresses of the node's blocks: held, cooling, frozen, free.", []string{"use"}, nil)
	waits := prometheus.NewDesc("danm_ipam_waiting", "1 if the node claims no blocks: reason suspect (the API server went back in time) or lost (its journal was).", []string{"reason"}, nil)
	r.MustRegister(gauges{[]*prometheus.Desc{blocks, addresses, waits}, func(ch chan<- prometheus.Metric) {
		count := map[ipam.BlockState]int{}
		for _, b := range a.journal.Blocks() {
			count[b.State]++
		}
		for _, st := range []ipam.BlockState{ipam.Claiming, ipam.Asked, ipam.Owned, ipam.Frozen, ipam.Releasing, ipam.Parking} {
			ch <- prometheus.MustNewConstMetric(blocks, prometheus.GaugeValue, float64(count[st]), st.String())
		}
		sum := map[string]int64{}
		for _, u := range a.keeper.Usage() {
			sum["held"] += u.Held
			sum["cooling"] += u.Cooling
			sum["frozen"] += u.Frozen
			sum["free"] += u.Free
		}
		for _, use := range []string{"held", "cooling", "frozen", "free"} {
			ch <- prometheus.MustNewConstMetric(addresses, prometheus.GaugeValue, float64(sum[use]), use)
		}
		m := a.journal.Meta()
		ch <- prometheus.MustNewConstMetric(waits, prometheus.GaugeValue, boolean(m.Suspect != ""), "suspect")
		ch <- prometheus.MustNewConstMetric(waits, prometheus.GaugeValue, boolean(m.LostSince != 0), "lost")
	}})
}

// gauges are read when they are asked for.
type gauges struct {
	descs   []*prometheus.Desc
	collect func(chan<- prometheus.Metric)
}

// Describe is prometheus.Collector's.
func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range g.descs {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (g gauges) Collect(ch chan<- prometheus.Metric) { g.collect(ch) }

// podsBy finds what a Pod asks for: in the mirror, or by asking once. nil where there are no Pods to ask about.
func podsBy(pods *mirror.Pods) func(ctx context.Context, namespace, name, uid string) (server.Pod, error) {
	if pods == nil {
		return nil
	}
	return podFrom(pods)
}

// reportTo writes network-statuses; nil where there are no Pods to write them to.
func reportTo(pods *mirror.Pods) func(ctx context.Context, namespace, name, uid, status string) error {
	if pods == nil {
		return nil
	}
	return func(ctx context.Context, namespace, name, uid, status string) error {
		err := pods.SetNetworkStatus(ctx, namespace, name, uid, status)
		if errors.Is(err, mirror.ErrNoPod) {
			return fmt.Errorf("%w: %w", server.ErrPodGone, err)
		}
		return err
	}
}

// podSource is mirror.Pods.
type podSource interface {
	Known(uid string) (mirror.PodInfo, bool)
	Get(ctx context.Context, namespace, name string) (mirror.PodInfo, error)
}

// podFrom believes the API of a Pod only if it is the one that the runtime means: its UID, or that of the static Pod that the object
// mirrors, is the runtime's. A runtime that names no UID means whoever has the name.
func podFrom(pods podSource) func(ctx context.Context, namespace, name, uid string) (server.Pod, error) {
	return func(ctx context.Context, namespace, name, uid string) (server.Pod, error) {
		info, known := mirror.PodInfo{}, false
		if uid != "" {
			info, known = pods.Known(uid)
		}
		if known && (info.Namespace != namespace || info.Name != name) {
			return server.Pod{}, fmt.Errorf("the API has %s/%s under its UID %s: %w", info.Namespace, info.Name, uid, mirror.ErrNoPod)
		}
		if !known {
			var err error
			if info, err = pods.Get(ctx, namespace, name); err != nil {
				return server.Pod{}, err
			}
			if uid != "" && info.UID != uid && info.Static != uid {
				return server.Pod{}, fmt.Errorf("the API has another Pod of this name (UID %s): %w", info.UID, mirror.ErrNoPod)
			}
		}
		return server.Pod{UID: info.UID, Annotations: info.Annotations, Sticky: stickyOf(info)}, nil
	}
}

// stickyOf is the Pod's place in its StatefulSet: its name, which one Pod at a time has, is the set's and the ordinal. Who says
// to be a set's under another name is not believed, and labels say nothing.
func stickyOf(p mirror.PodInfo) ipam.Sticky {
	if p.StatefulSetUID == "" {
		return ipam.Sticky{}
	}
	text, its := strings.CutPrefix(p.Name, p.StatefulSet+"-")
	n, err := strconv.ParseInt(text, 10, 32)
	if !its || err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return ipam.Sticky{}
	}
	return ipam.Sticky{Namespace: p.Namespace, StatefulSet: p.StatefulSet, UID: p.StatefulSetUID, Ordinal: int32(n)}
}
