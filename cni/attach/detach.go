package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"danm.io/danm/spec/model"
)

// Detach takes down what the records say, and nothing else. What is gone already is no error, nor is a namespace that is
// gone or was replaced by another: links in a namespace end with it. After an error something may be left, and Detach can
// be called again. *Away is such an error, too, where nothing else went wrong.
func (a *Attacher) Detach(ctx context.Context, pod Pod, interfaces []model.Attachment) error {
	a.late.end(pod.Sandbox)
	var errs []error
	for _, at := range interfaces {
		if at.HostLink == "" {
			continue
		}
		if err := removeLink(a.host, at.HostLink, "veth", ""); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", at.IfName, err))
		}
	}
	w := a.work(ctx, pod, nil)
	if pod.Netns != nil {
		inside, err := a.enter(pod)
		switch {
		case errors.Is(err, ErrNetns):
		case err != nil:
			return errors.Join(append(errs, err)...)
		default:
			defer inside.Close()
			w.inside = inside
		}
	}
	for _, at := range interfaces {
		if err := w.detach(at); err != nil {
			errs = append(errs, fmt.Errorf("interface %s: %w", at.IfName, err))
		}
	}
	if len(errs) == 0 && len(w.away) > 0 {
		return &Away{w.away}
	}
	return errors.Join(errs...)
}

func (w *work) detach(at model.Attachment) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var errs []error
	switch {
	case at.VF != nil && w.pod.Rebooted: // it is as the card makes it
	case slices.Contains(w.pod.Lost, at.IfName):
	case isMoved(at):
		errs = append(errs, w.giveBack(at))
	case forProgram(at):
		errs = append(errs, w.resetFunction(at))
	}
	if w.inside == nil {
		return errors.Join(errs...)
	}
	for _, rule := range rules(at) {
		errs = append(errs, removeRule(w.inside, rule))
	}
	switch {
	case isMoved(at):
		return errors.Join(errs...)
	case forProgram(at):
		return errors.Join(append(errs, w.removeStand(at)...)...)
	}
	for _, name := range []string{at.IfName, temporaryName(w.pod.Sandbox, at.IfName)} { // the latter if we died on the way
		errs = append(errs, removeLink(w.inside, name, kernelKinds[at.Type], at.MAC))
	}
	return errors.Join(errs...)
}
