package validate

import (
	"time"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// What a bundle that says nothing gets: one node first, then a tenth at a time.
const (
	defaultCanary  = 1
	defaultPercent = 10
	defaultSoak    = 30 * time.Second
)

func (c *checker) rollout(s spot, v *v1.Rollout) {
	if v == nil {
		v = &v1.Rollout{}
	}
	out := model.Rollout{
		CanaryCount:      defaultCanary,
		MaxUnavailable:   model.IntOrPercent{Percent: defaultPercent},
		Soak:             c.duration(s.in("soak"), v.Soak, defaultSoak, 0, 24*time.Hour),
		RevertOnFailure:  c.choice(s.in("onFailure"), v.OnFailure, "Halt", "Revert") == "Revert",
		AllowsDisruptive: c.choice(s.in("disruptive"), v.Disruptive, "Deny", "Allow") == "Allow",
	}
	if v.Canary != nil {
		out.CanarySelector = v.Canary.Selector
		if n := v.Canary.Count; n != nil && c.number(diag.InvalidNumber, s.in("canary").in("count"), int64(*n), 0, 5000) {
			out.CanaryCount = *n
		}
	}
	if m := v.MaxUnavailable; m != nil {
		ms := s.in("maxUnavailable")
		switch {
		case m.Percent && c.number(diag.InvalidNumber, ms, m.Value, 1, 100):
			out.MaxUnavailable = model.IntOrPercent{Percent: int(m.Value)}
		case !m.Percent && c.number(diag.InvalidNumber, ms, m.Value, 1, 1<<31-1):
			out.MaxUnavailable = model.IntOrPercent{Int: int(m.Value)}
		}
	}
	c.out.Rollout = out
}

func (c *checker) prune(s spot, v *v1.Prune) {
	if v == nil {
		return
	}
	for _, limit := range []struct {
		field string
		from  *int
		to    **int
	}{{"maxNetworks", v.MaxNetworks, &c.out.Prune.MaxNetworks}, {"maxTenants", v.MaxTenants, &c.out.Prune.MaxTenants}} {
		if limit.from != nil && c.number(diag.InvalidNumber, s.in(limit.field), int64(*limit.from), 0, 1<<31-1) {
			*limit.to = limit.from
		}
	}
}
