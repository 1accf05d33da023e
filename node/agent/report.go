package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

// hardwareEvery is how often the cards are read: they come and go rarely, and reading them costs an observation.
const hardwareEvery = time.Minute

// attendAgain is how often an agent that another one hinders tries to say that it is at work.
const attendAgain = time.Second

// attend says in the state directory that an agent is at work, until ctx ends. One that ends late is waited for.
func attend(ctx context.Context, dir *state.Dir, log *slog.Logger) {
	for said := false; ctx.Err() == nil; sleep(ctx, attendAgain) {
		leave, err := dir.Attend()
		if err == nil {
			<-ctx.Done()
			leave()
			return
		}
		if !said {
			log.Warn("danmctl status cannot tell that this agent is at work", "reason", err)
			said = true
		}
	}
}

// report leaves in the state directory what the guard and people want to know without asking the agent.
func (a *Agent) report(ctx context.Context, problem string) {
	if err := a.dir.WriteReport(state.Report{BootID: a.bootID, Problem: problem, Pods: a.knownPods()}); err != nil {
		a.sayOnce(&a.reportProblem, "report not written", err)
	}
	if a.opts.Hardware == nil || time.Since(a.hardwareAt) < hardwareEvery {
		return
	}
	a.hardwareAt = time.Now()
	cards, err := a.opts.Hardware(ctx)
	if err == nil {
		a.cards.Store(&cards)
		err = a.dir.WriteInventory(model.Inventory{Hardware: map[string][]model.NIC{a.opts.Node: cards}})
	}
	if observed, failed := a.opts.Kernel.Observe(ctx); failed == nil {
		addresses := underlays(observed)
		a.underlays.Store(&addresses)
	}
	if err != nil {
		a.sayOnce(&a.inventoryProblem, "inventory not written", err)
	}
}

// maxUnderlays bounds what a node reports of its addresses.
const maxUnderlays = 64

// underlays are the addresses at which other nodes may reach this one's VXLANs: the first of each link that can carry one,
// IPv4 before IPv6. Links in Pods, and those on other networks' wires, carry none.
func underlays(o plan.Observed) map[string]string {
	out := map[string]string{}
	for _, l := range o.Links {
		if l.Name == "lo" || l.Kind != model.Physical && l.Kind != model.Bond && l.Kind != model.VLAN && l.Kind != model.Bridge || len(out) == maxUnderlays {
			continue
		}
		for _, v4 := range []bool{true, false} {
			i := slices.IndexFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 && p.Addr().IsGlobalUnicast() })
			if i >= 0 {
				out[l.Name] = l.Addresses[i].Addr().String()
				break
			}
		}
	}
	return out
}

// sayOnce logs an error when it is another one than before.
func (a *Agent) sayOnce(last *string, what string, err error) {
	if text := err.Error(); text != *last {
		*last = text
		a.log.Warn(what, "reason", err)
	}
}
