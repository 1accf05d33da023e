package agent

import (
	"context"
	"time"

	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

// hardwareEvery is how often the cards are read: they come and go rarely, and reading them costs an observation.
const hardwareEvery = time.Minute

// report leaves in the state directory what the guard and people want to know without asking the agent.
func (a *Agent) report(ctx context.Context, problem string) {
	if err := a.dir.WriteReport(state.Report{BootID: a.bootID, Problem: problem, Pods: a.pods()}); err != nil {
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
	if err != nil {
		a.sayOnce(&a.inventoryProblem, "inventory not written", err)
	}
}

// sayOnce logs an error when it is another one than before.
func (a *Agent) sayOnce(last *string, what string, err error) {
	if text := err.Error(); text != *last {
		*last = text
		a.log.Warn(what, "reason", err)
	}
}
