package ipamsim

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/world"
)

// Processes is the cluster home for nodes that are processes of their own, in the time of day: a Keeper on the API that Env has.
type Processes struct {
	Cooldown, Lease, Idle time.Duration
	Store                 world.Store     // where the node tells what it uses
	Wake                  <-chan struct{} // that somebody may ask for an address; nil: the Keeper's rounds alone
}

// Faults: what is done to processes is SIGKILL.
func (Processes) Faults() Faults { return Faults{} }

// Share: any node can give any address that is left.
func (Processes) Share(int, model.Network, func(netip.Addr) bool) int { return -1 }

// Settle is some rounds, and as long as blocks that nobody uses are kept.
func (h Processes) Settle() time.Duration { return h.Cooldown + 8*h.Idle + time.Minute }

// Start opens the journal, and lets a Keeper run.
func (h Processes) Start(ctx context.Context, e Env) (Stack, error) {
	if e.API == nil {
		return nil, errors.New("the cluster home needs an API")
	}
	s, err := e.open(ipam.Options{Cooldown: h.Cooldown, Clock: func() time.Time { return e.BootWall.Add(e.Boottime()) }, Log: e.Log})
	if err != nil {
		return nil, err
	}
	k := ipam.NewKeeper(ipam.KeeperOptions{Service: s, API: e.API, Node: e.Node, Wake: h.Wake, Boottime: e.Boottime, BlockLease: h.Lease, Idle: h.Idle, BackWait: 100 * time.Millisecond, // nothing is restored here

		Sandboxes: func(context.Context) ([]string, error) { return e.Kernel.Sandboxes(), nil }, Log: e.Log})
	n := newKeeperNode(e, s, k)
	n.run(ctx, reporter{store: h.Store, node: e.Node, every: 300 * time.Millisecond, sleep: sleepFor})
	return n, n.clean(ctx)
}

func sleepFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
