package guard

import (
	"context"
	"errors"
	"fmt"

	"danm.io/danm/node/plan"
)

// whenFailing says what a failed step means for those behind it.
type whenFailing int

const (
	untilFailure whenFailing = iota // nothing is applied on top of a failure
	allOfThem                       // one stubborn object must not keep the others from where they belong
)

// run applies steps in order, says each in the log under the name of what they are for, and returns those that succeeded.
func (g *Guard) run(ctx context.Context, what string, steps []plan.Step, rule whenFailing) (done []plan.Step, err error) {
	var failed []error
	for _, batch := range plan.Batches(steps) {
		for _, s := range batch {
			g.log.Info(what, "diff", s.String(), "reason", s.Reason)
		}
		if len(batch) > 1 {
			err := g.opts.Kernel.DeleteLinks(ctx, batch)
			if err == nil {
				done = append(done, batch...)
				continue
			}
			g.log.Warn("links are deleted one by one", "reason", err)
		}
		for _, s := range batch {
			err := g.opts.Kernel.Apply(ctx, s) // names the step
			if err == nil {
				done = append(done, s)
				continue
			}
			failed = append(failed, fmt.Errorf("%s: %w", what, err))
			if rule == untilFailure {
				return done, errors.Join(failed...)
			}
		}
	}
	return done, errors.Join(failed...)
}
