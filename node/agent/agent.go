// Package agent is the node's loop: read the state directory, diff, submit to the guard, probe, confirm, repair drift; and
// the host of the CNI server and of IPAM.
//
// It is level-triggered: events only wake it, each round reads and observes everything. It never writes a declared object
// itself (node/guard does), fetches nothing from Git or an API, and decides no diff (node/plan). It remembers one thing: the
// last state whose plan was confirmed, which is what Pods are attached by.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/probe"
	"danm.io/danm/node/sriov"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Guard is what the agent asks of the guard; guard.Client over the socket.
type Guard interface {
	Status(context.Context) (guard.Status, error)
	Submit(context.Context, guard.Submission) (guard.Outcome, error)
	Confirm(ctx context.Context, digest string) error
	Repair(context.Context, plan.Desired, []plan.ObjectID) (guard.Outcome, error)
	Judge(ctx context.Context, digest string, v guard.Verdict, probe string) error
}

// Attachments is the CNI side as the loop sees it.
type Attachments interface {
	// Serve answers the CNI binary until ctx ends; ready is closed once it listens. It asks confirmed for every ADD.
	Serve(ctx context.Context, ready chan<- struct{}, confirmed func() (model.NodeState, bool)) error
	// Pods names the attached Pods ("namespace/name") by host link.
	Pods() map[string][]string
	// Mend makes interfaces again that ended together with the host link under them, and says how many.
	Mend(ctx context.Context) (int, error)
}

// Options are the agent's surroundings. Node, StateDir, Kernel and Guard are required.
type Options struct {
	Node        string // must be the state directory's node
	StateDir    string
	Kernel      plan.Kernel // only observed and subscribed to
	Guard       Guard
	Attachments Attachments // nil = none
	Socket      string      // the CNI socket's path, for the CNI conf
	CNIConfDir  string      // "" = no CNI conf is written
	MetricsAddr string      // "" or "0" = no HTTP
	Log         *slog.Logger

	Settle    time.Duration // how long probes must pass before a plan is confirmed, 0 = 3 s
	RetryBase time.Duration // pause before an inconclusive plan is tried again, doubled each time, 0 = 5 s
	Interval  time.Duration // longest pause between two rounds, 0 = 10 s
	// Hardware lists the node's cards for its inventory, nil = none is written.
	Hardware func(context.Context) ([]model.NIC, error)
	// Offer is told after each round what the confirmed plan's pools have, nil = nobody is.
	Offer func([]devplugin.Resource)
	Sys   sriov.Sys // where their functions are looked at
	// Probe runs probes, nil = probe.Run.
	Probe func(context.Context, []model.Probe, probe.Env) []probe.Result
}

func (o *Options) defaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Settle == 0 {
		o.Settle = 3 * time.Second
	}
	if o.RetryBase == 0 {
		o.RetryBase = 5 * time.Second
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	if o.Probe == nil {
		o.Probe = probe.Run
	}
}

// ErrNode means that the state directory was rendered for another node.
var ErrNode = errors.New("the state directory belongs to another node")

// Agent is the loop. Confirmed may be called from anywhere.
type Agent struct {
	opts Options
	dir  *state.Dir
	log  *slog.Logger
	m    *metrics

	confirmed atomic.Pointer[model.NodeState]
	names     atomic.Pointer[map[string]string] // the kernel's, of devices that plans find by a match; nil before the kernel was seen
	resolved  atomic.Pointer[resolved]          // what Confirmed answered last
	functions atomic.Pointer[map[string]string] // cards by their virtual functions' PCI addresses, as of the newest observation
	serving   atomic.Bool
	problem   atomic.Pointer[string] // why the last round did not come to its end, for /readyz

	memory   memory
	baseline []model.Probe // probes that passed before the newest apply; nil when that was not ours
	failing  string        // probe that failed in its window
	executed []plan.Step   // by the newest submission
	heldKey  string        // steps and Pods of the newest submission in which everything was held
	fights   fights
	awayFor  time.Duration

	seen      atomic.Pointer[seen] // by the newest round, for whoever reports
	cards     atomic.Pointer[[]model.NIC]
	underlays atomic.Pointer[map[string]string] // addresses by device
	repaired  atomic.Int64
	holders   *holders                                         // as the kubelet says, nil = there is none
	held      func() []server.Held                             // devices by the records of attached Pods, nil = there are none
	usage     func() ([]v1alpha1.AddressUse, map[string]int32) // of addresses and networks, nil = not told

	observed         *plan.Observed // by this round, as far as nothing was changed since; nil = not
	bootID           string         // as the guard told it last
	hardwareAt       time.Time
	reportProblem    string
	inventoryProblem string
	mendProblem      string
	givenProblem     string
	offerProblem     string
	vfFiles          vfFiles
	astray           astray
	offers           []devplugin.Resource        // as told last, but for what is withheld
	withheld         map[string]string           // devices that nobody is to get now, with the reason
	told             func(context.Context) error // waits until the kubelet has heard of offers, nil = nothing waits
}

// New reads what an earlier agent confirmed. The state directory may still be empty.
func New(opts Options) (*Agent, error) {
	opts.defaults()
	a := &Agent{opts: opts, dir: state.Open(opts.StateDir), log: opts.Log, m: newMetrics(), fights: newFights(), vfFiles: vfFiles{sys: opts.Sys}}
	if st, err := a.dir.Read(); err == nil && st.Node != opts.Node {
		return nil, nodeError(opts.Node, st.Node)
	}
	if err := a.memory.load(opts.StateDir); err != nil {
		// Without it Pods wait for the first confirmation; nothing is lost.
		a.log.Warn("what was confirmed last is not readable", "reason", err)
	}
	if st := a.memory.Confirmed; st != nil && st.Node == opts.Node {
		a.confirmed.Store(st)
	}
	return a, nil
}

// seen is what a round looked at.
type seen struct {
	guard    guard.Status
	guardErr error
	wanted   *model.NodeState
}

func nodeError(want, got string) error {
	return fmt.Errorf("%w: it is %q's, this agent is %q (%s)", ErrNode, got, want, diag.NodeMismatch)
}

// Confirmed is the newest state whose plan the guard has confirmed, with the kernel's names of devices; false before there is one.
// Links of an unconfirmed plan are never in it, so they are not offered to ADD.
func (a *Agent) Confirmed() (model.NodeState, bool) {
	st, names := a.confirmed.Load(), a.names.Load()
	if st == nil {
		return model.NodeState{}, false
	}
	r := a.resolved.Load()
	if r == nil || r.of != st || r.by != names { // each ADD asks, and a state has thousands of links
		r = &resolved{of: st, by: names}
		r.state, r.known = named(*st, names)
		a.resolved.Store(r)
	}
	return r.state, r.known
}

// resolved is a confirmed state with the kernel's names of devices.
type resolved struct {
	of    *model.NodeState
	by    *map[string]string
	state model.NodeState
	known bool
}

// Run works until ctx ends. A round that fails is reported and repeated; only a broken set-up is an error.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := a.serveHTTP(ctx); err != nil {
		return err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := a.serveCNI(ctx); err != nil && ctx.Err() == nil {
			cancel(fmt.Errorf("serve CNI: %w", err))
		}
	}()
	a.loop(ctx)
	<-served
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (a *Agent) serveCNI(ctx context.Context) error {
	if a.opts.Attachments == nil {
		return nil
	}
	ready := make(chan struct{})
	go func() {
		select {
		case <-ready:
			a.serving.Store(true)
		case <-ctx.Done():
		}
	}()
	return a.opts.Attachments.Serve(ctx, ready, a.Confirmed)
}

// gathering is how long the loop lets kernel events gather: a plan of many links is one wake, and while Pods come and go
// all the time a round that took long is not followed at once by the next.
func gathering(lastRound time.Duration) time.Duration {
	return min(max(20*time.Millisecond, 4*lastRound), 250*time.Millisecond)
}

func (a *Agent) loop(ctx context.Context) {
	states := a.dir.Watch(ctx)
	var kernel <-chan struct{}
	for ctx.Err() == nil {
		if kernel == nil {
			var err error
			if kernel, err = a.opts.Kernel.Subscribe(ctx); err != nil {
				a.log.Warn("no kernel events, drift is seen by polling", "reason", err)
				kernel = nil
			}
		}
		began := time.Now()
		pause := a.round(ctx)
		took := time.Since(began)
		timer := time.NewTimer(jitter(pause))
		select {
		case <-ctx.Done():
		case <-states:
		case _, ok := <-kernel:
			if !ok {
				kernel = nil
			}
			sleep(ctx, jitter(gathering(took)))
		case <-timer.C:
		}
		timer.Stop()
	}
}

// jitter is d ± a quarter, so that nodes do not move in step.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
