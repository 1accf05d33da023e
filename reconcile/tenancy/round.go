package tenancy

import (
	"context"
	"errors"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/tenancy"
)

// registry is the API as a round needs it. Every write is guarded by the version of the object that it is handed: if that is
// not the newest, nothing is written, and the error is one that apierrors.IsConflict knows.
type registry interface {
	// read reads past every cache, the networks first; all but Input.Links.
	read(ctx context.Context) (Input, error)
	// links is Input.Links.
	links(ctx context.Context) (map[tenancy.Number]bool, error)
	// condition writes a network's Assigned, and no other condition.
	condition(ctx context.Context, v Verdict) error
	reserve(ctx context.Context, c *danmv1.TenantConfig, list []danmv1.ReservedNumber) error
	write(ctx context.Context, w Write) error
	// judge writes a TenantConfig's conditions.
	judge(ctx context.Context, c *danmv1.TenantConfig, v ConfigVerdict) error
}

// result of a round.
type result struct {
	last    Decision
	input   Input
	yielded int // networks that gave up a number: whoever chooses again does so after a pause
}

// maxSteps bounds a round: reserve, hold, write, and say so are four; the rest is for objects that change meanwhile.
const maxSteps = 12

// round takes step after step, each decided upon what the API has after the one before, until nothing is left to do. It can be
// cut off anywhere: the next one goes on from what the API has.
func round(ctx context.Context, r registry) (result, error) {
	var out result
	for range maxSteps {
		in, err := r.read(ctx)
		if err != nil {
			return out, err
		}
		d := Decide(in)
		var blind error // nothing is freed then; the rest goes on
		if d.Orphans {
			if in.Links, blind = r.links(ctx); blind == nil {
				d = Decide(in)
			}
		}
		out.last, out.input = d, in
		refused, done, err := step(ctx, r, in, d)
		out.yielded += d.Yielded
		switch {
		case d.Yielded > 0:
			return out, err
		case done && (err == nil || onlyConflicts(err)):
			continue // look again
		}
		return out, errors.Join(blind, err, conclude(ctx, r, in, d, refused))
	}
	return out, errTooBusy
}

var errTooBusy = errors.New("objects change faster than they are read; trying again")

// step carries out what a decision has to do before its verdicts hold, in the one safe order. refused are networks whose spec the
// API would not take; done says that something was, or may have been, written.
func step(ctx context.Context, r registry, in Input, d Decision) (refused []Verdict, done bool, err error) {
	for _, v := range d.Marks {
		if err := r.condition(ctx, v); err != nil {
			return nil, apierrors.IsConflict(err), err // the reservation behind it must not go
		}
		done = true
	}
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(d.Reserved)) {
		i := slices.IndexFunc(in.Configs, func(c danmv1.TenantConfig) bool { return c.Name == name })
		err := r.reserve(ctx, &in.Configs[i], d.Reserved[name])
		done = done || err == nil || apierrors.IsConflict(err)
		failed = append(failed, err)
	}
	for _, v := range d.Holds {
		err := r.condition(ctx, v)
		done = done || err == nil || apierrors.IsConflict(err)
		failed = append(failed, err)
	}
	for _, w := range d.Writes {
		err := r.write(ctx, w)
		if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
			refused = append(refused, Verdict{w.Network, metav1.ConditionFalse, diag.ObjectRefused, short(err.Error())})
			continue
		}
		done = done || err == nil || apierrors.IsConflict(err)
		failed = append(failed, err)
	}
	return refused, done, errors.Join(failed...)
}

// conclude says what became of networks and TenantConfigs, where that is news.
func conclude(ctx context.Context, r registry, in Input, d Decision, refused []Verdict) error {
	var failed []error
	for _, v := range slices.Concat(d.Verdicts, refused) {
		if v.news() {
			failed = append(failed, r.condition(ctx, v))
		}
	}
	for _, v := range d.Configs {
		i := slices.IndexFunc(in.Configs, func(c danmv1.TenantConfig) bool { return c.Name == v.Name })
		if c := in.Configs[i].DeepCopy(); v.apply(c) {
			failed = append(failed, r.judge(ctx, &in.Configs[i], v))
		}
	}
	return errors.Join(failed...)
}

// onlyConflicts says whether each of joined errors is a conflict.
func onlyConflicts(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !onlyConflicts(e) })
	}
	return apierrors.IsConflict(err)
}

// idle says whether a decision asks for no write at all.
func idle(in Input, d Decision) bool {
	if d.Steps() || d.Orphans {
		return false
	}
	for _, v := range d.Verdicts {
		if v.news() {
			return false
		}
	}
	for _, v := range d.Configs {
		for i := range in.Configs {
			if in.Configs[i].Name == v.Name && v.apply(in.Configs[i].DeepCopy()) {
				return false
			}
		}
	}
	return true
}

// news says whether the network does not say so yet.
func (v Verdict) news() bool {
	c := conditionOf(v.Network)
	return c == nil || c.Status != v.Status || c.Reason != string(v.Reason) || c.Message != v.Message || c.ObservedGeneration != v.Network.Generation
}
