package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// made is what an interface has become: a link of ours, or what another plugin answered.
type made struct {
	link   attach.Link
	result *types100.Result // nil for a link of ours
	info   json.RawMessage  // what is known of its device, nil for nothing
}

// own are the interfaces that the attacher makes, and their places.
func own(interfaces []model.Attachment) (list []model.Attachment, places []int) {
	for i, at := range interfaces {
		if at.Delegate == nil {
			list, places = append(list, at), append(places, i)
		}
	}
	return list, places
}

// configure completes what other plugins are called with, for the record that is written before.
func (s *Server) configure(interfaces []model.Attachment, p choice, c call) error {
	for i := range interfaces {
		n, at := p.items[i].network, &interfaces[i]
		if n.Delegate == nil {
			continue
		}
		if s.opts.Delegates == nil {
			return fail(CodeRequestRefused, diag.PodTypeUnsupported, fmt.Errorf("network %s is made by the CNI plugin %s, and this agent calls none", n.Key(), n.Type))
		}
		list, err := s.opts.Delegates.Configure(n, at.Addresses, at.Routes)
		if err != nil {
			return err
		}
		if plugin := s.opts.Delegates.Missing(list); plugin != "" {
			return fail(CodeAttachFailed, diag.PodDelegateMissing, fmt.Errorf("network %s needs the CNI plugin %s, which is not on this node", n.Key(), plugin))
		}
		var runtime map[string]any
		if i == 0 {
			runtime = c.conf.Runtime
		}
		list, capabilities, err := callWith(list, p.items[i].request.Selection, n, runtime)
		if err != nil {
			return fail(CodeRequestRefused, diag.PodSelectionRefused, fmt.Errorf("network %s: %w", n.Key(), err))
		}
		if at.DeviceID != "" {
			if list, err = delegate.WithDevice(list, at.DeviceID); err != nil {
				return fmt.Errorf("network %s: %w", n.Key(), err)
			}
			capabilities = withAll(capabilities, s.opts.Delegates.DeviceCapabilities(at.DeviceID, c.ContainerID, at.IfName))
		}
		at.Delegate = &model.DelegateCall{List: list, Args: c.args.pairs, Capabilities: capabilities}
		at.Delegate.NoDefault, at.Delegate.Gateways = p.reroutes(interfaces, i)
	}
	return nil
}

// withAll adds to capabilities, whose map is the call's.
func withAll(capabilities, more map[string]any) map[string]any {
	out := maps.Clone(capabilities)
	if out == nil {
		return more
	}
	maps.Copy(out, more)
	return out
}

// callOf is the call of another plugin for one interface. Without a namespace it is one that has ended.
func callOf(pod attach.Pod, rec record, at model.Attachment) delegate.Call {
	c := delegate.Call{Container: pod.Sandbox, IfName: at.IfName, Args: at.Delegate.Args, Capabilities: at.Delegate.Capabilities}
	if pod.Netns != nil {
		c.Netns = rec.Netns
	}
	return c
}

// attach makes all interfaces of a record: those of other plugins one after another in their order, for one container's calls must not
// overlap (CNI specification, section 2), then ours. After an error something may be left for detach.
func (s *Server) attach(ctx context.Context, pod attach.Pod, rec record) ([]made, error) {
	out := make([]made, len(rec.Interfaces))
	for i, at := range rec.Interfaces {
		if at.Delegate == nil {
			continue
		}
		c := callOf(pod, rec, at)
		if at.DeviceID != "" {
			unusable, err := s.opts.Delegates.OfferInfo(at.Pool, at.DeviceID, c)
			if err != nil {
				return nil, delegateFailure(at, err)
			}
			if unusable != nil {
				s.log.Warn("what the device plugin says of a device is not passed on", "container", pod.Sandbox, "interface", at.IfName, "device", at.DeviceID, "reason", unusable)
			}
		}
		r, err := s.opts.Delegates.Add(ctx, at.Delegate.List, c)
		if err != nil {
			return nil, delegateFailure(at, err)
		}
		out[i].result = r
		if err := s.reroute(ctx, pod, at, r, nil); err != nil { // before the next plugin meets them
			return nil, err
		}
		if at.DeviceID != "" {
			if out[i].info, err = s.opts.Delegates.Info(c); err != nil {
				s.log.Warn("what a plugin says of a device is not passed on", "container", pod.Sandbox, "interface", at.IfName, "reason", err)
			}
		}
	}
	if err := s.rerouteAll(ctx, pod, rec, out); err != nil {
		return nil, err
	}
	list, places := own(rec.Interfaces)
	if len(list) == 0 {
		return out, nil
	}
	links, err := s.opts.Attacher.Attach(ctx, pod, list)
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		out[at].link = links[i]
		if out[at].info, err = infoOf(list[i], links[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// infoOf is what is known of a virtual function (NPWG, device-info specification 1.1), nil for other interfaces.
func infoOf(at model.Attachment, l attach.Link) (json.RawMessage, error) {
	if at.VF == nil {
		return nil, nil
	}
	return json.Marshal(deviceInfo{Type: "pci", Version: "1.1.0", PCI: &pciInfo{Address: at.DeviceID, PF: at.VF.PFPCI, RDMA: strings.Join(l.RDMA, ",")}})
}

// delegateFailure keeps what another plugin says of trying again; its other codes mean something to it alone.
func delegateFailure(at model.Attachment, err error) error {
	code := CodeAttachFailed
	if e := (*types.Error)(nil); errors.As(err, &e) && e.Code == types.ErrTryAgainLater || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		code = types.ErrTryAgainLater
	}
	return fail(code, diag.PodDelegateFailed, fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err))
}

// rebooted says that the machine has started anew since the record was made.
func (s *Server) rebooted(rec record) bool {
	return rec.Boot != "" && s.opts.BootID != "" && rec.Boot != s.opts.BootID
}

// detach takes everything down that a record speaks of, in the reverse order. What is gone is no error, nor is a virtual function that is
// away.
func (s *Server) detach(ctx context.Context, pod attach.Pod, rec record) (away []model.Attachment, err error) {
	var errs []error
	pod.Rebooted = s.rebooted(rec)
	if list, _ := own(rec.Interfaces); len(list) > 0 {
		if pod.Lost = s.lost(pod.Sandbox, list); len(pod.Lost) > 0 {
			s.log.Warn("devices that another Pod has got since are not taken back from it", "container", pod.Sandbox, "interfaces", pod.Lost)
		}
		away, err = split(s.opts.Attacher.Detach(ctx, pod, list))
		errs = append(errs, err)
	}
	for _, at := range slices.Backward(rec.Interfaces) {
		if at.Delegate == nil {
			continue
		}
		if s.opts.Delegates == nil {
			errs = append(errs, fmt.Errorf("interface %s on network %s was made by the CNI plugin %s, and this agent calls none", at.IfName, at.Network, at.Type))
			continue
		}
		if plugin := s.opts.Delegates.Missing(at.Delegate.List); plugin != "" {
			s.log.Warn("a CNI plugin is not there any more to take down what it made", "container", pod.Sandbox, "interface", at.IfName, "plugin", plugin)
		}
		if err := s.opts.Delegates.Del(ctx, at.Delegate.List, callOf(pod, rec, at)); err != nil {
			errs = append(errs, delegateFailure(at, err))
			continue
		}
		if at.DeviceID != "" {
			errs = append(errs, s.opts.Delegates.DropInfo(callOf(pod, rec, at)))
		}
	}
	return away, errors.Join(errs...)
}

// compare is CHECK of everything that a record speaks of, and what is there.
func (s *Server) compare(ctx context.Context, pod attach.Pod, rec record) ([]made, error) {
	out, err := s.observe(ctx, pod, rec)
	if err != nil {
		return nil, err
	}
	for _, at := range rec.Interfaces {
		if at.Delegate == nil || s.opts.Delegates == nil {
			continue
		}
		if err := s.opts.Delegates.Check(ctx, at.Delegate.List, callOf(pod, rec, at)); err != nil {
			return nil, fail(CodeCheckFailed, diag.PodCheckFailed, fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err))
		}
	}
	return out, nil
}

// observe compares what was made here with the kernel, and finds what other plugins answered. Beside an error about what differs there
// is what was seen; it is nil where nothing could be seen.
func (s *Server) observe(ctx context.Context, pod attach.Pod, rec record) (out []made, err error) {
	out = make([]made, len(rec.Interfaces))
	if list, places := own(rec.Interfaces); len(list) > 0 {
		links, differs := s.opts.Attacher.Check(ctx, pod, list)
		if differs != nil && links == nil {
			return nil, differs
		}
		for i, at := range places {
			out[at].link = links[i]
		}
		err = differs
	}
	for i, at := range rec.Interfaces {
		if at.Delegate == nil || s.opts.Delegates == nil {
			continue
		}
		r, unknown := s.opts.Delegates.Result(at.Delegate.List, callOf(pod, rec, at))
		if err = errors.Join(err, unknown); unknown != nil {
			continue
		}
		if r == nil { // the agent died before the plugin had made it
			err = errors.Join(err, fmt.Errorf("interface %s on network %s: its plugin has not answered: %w", at.IfName, at.Network, attach.ErrMismatch))
			continue
		}
		if differs := s.checkRerouted(ctx, pod, at, r); differs != nil {
			if !errors.Is(differs, attach.ErrMismatch) {
				return nil, differs
			}
			err = errors.Join(err, differs)
		}
		out[i].result = withDefaults(r, at.Delegate) // the agent may have died before they were kept
	}
	return out, err
}

// forwardGC tells the plugins of each network which of its attachments are still there.
func (s *Server) forwardGC(ctx context.Context) error {
	state, ok := s.confirmed()
	if !ok || s.opts.Delegates == nil {
		return nil
	}
	records, err := s.opts.IPAM.List()
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	valid := map[string][]types.GCAttachment{} // by the list's name
	for _, r := range records {
		rec, err := decodeRecord(r.Data)
		if err != nil {
			return err
		}
		for _, at := range rec.Interfaces {
			if at.Delegate == nil {
				continue
			}
			name := at.NetworkID
			valid[name] = append(valid[name], types.GCAttachment{ContainerID: r.Sandbox, IfName: at.IfName})
		}
	}
	var errs []error
	done := map[string]bool{}
	for _, n := range state.Networks {
		if n.Delegate == nil {
			continue
		}
		list, err := s.opts.Delegates.Configure(n, nil, nil)
		if err != nil || s.opts.Delegates.Missing(list) != "" {
			continue // nothing can be called; an ADD says why
		}
		if key := string(list); !done[key] {
			done[key] = true
			errs = append(errs, s.opts.Delegates.GC(ctx, list, valid[n.NetworkID]))
		}
	}
	return errors.Join(errs...)
}
