package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// cleanupTime bounds undoing, which goes on after the caller has gone.
const cleanupTime = 15 * time.Second

// add attaches a sandbox: record and addresses first, in one write; then the links.
func (s *Server) add(ctx context.Context, c call) ([]byte, error) {
	if c.netns == nil {
		return nil, fail(types.ErrInvalidNetNS, diag.PodNetnsInvalid, errors.New("ADD without a network namespace"))
	}
	id, err := attach.Identity(c.netns)
	if err != nil {
		return nil, err
	}
	old, err := s.opts.IPAM.Lookup(c.ContainerID)
	if err == nil {
		return s.addAgain(ctx, c, id, old)
	}
	if !errors.Is(err, ipam.ErrNotFound) {
		return nil, fmt.Errorf("look the sandbox up: %w", err)
	}
	state, ok := s.confirmed()
	if !ok {
		return nil, fail(types.ErrTryAgainLater, diag.AgentNotReady, errNotReady)
	}
	s.everReady.Store(true)
	p, err := s.decide(ctx, state, c)
	if err != nil {
		return nil, err
	}
	if err := s.oneMode(p); err != nil {
		return nil, err
	}
	if err := s.takeDevices(ctx, c, &p); err != nil {
		return nil, err
	}
	unclaim, err := s.claim(p, c.args)
	if err != nil {
		return nil, err
	}
	defer unclaim() // from then on the record says it
	if err := s.atHome(ctx, p); err != nil {
		return nil, err
	}
	// One ADD a Pod: a new sandbox of a Pod must find the old one complete, or its links could not all be taken down.
	unlock, err := s.locks.lock(ctx, "pod/"+c.args.uid)
	if err != nil {
		return nil, fmt.Errorf("wait for the Pod's other call: %w", err)
	}
	defer unlock()
	rec := record{Conf: c.conf.Name, CNIVersion: c.conf.CNIVersion, IfName: c.IfName, Netns: c.Netns, NetnsID: id, Boot: s.opts.BootID}
	var made []model.Attachment
	_, err = s.acquire(ctx, p, ipam.Intent{
		Sandbox: c.ContainerID, PodUID: c.args.uid, Namespace: c.args.namespace, Pod: c.args.pod, Wants: p.wants(),
		Slot: p.state.Slot, Slots: p.state.Slots, Claimed: p.state.Home == model.ClusterHome,
		Record: func(g []ipam.Grant) ([]byte, error) {
			r := rec
			r.Interfaces = p.attachments(g)
			if err := errors.Join(s.survey(r.Interfaces, p), s.configure(r.Interfaces, p, c)); err != nil {
				return nil, err
			}
			made = r.Interfaces
			return r.encode()
		},
		Evict: s.evict,
	})
	if err != nil {
		return nil, fmt.Errorf("get addresses: %w", err)
	}
	rec.Interfaces = made
	s.remember(c.ContainerID, c.args, rec.Interfaces)
	out, each, infos, err := s.makeLinks(ctx, c, rec)
	if err == nil && s.opts.Report != nil && p.inNPWGs() {
		s.tellPod(c, p, each, infos)
	}
	return out, err
}

// survey notes what devices of the host are like that the Pod will get, after its former sandbox has given them up.
func (s *Server) survey(interfaces []model.Attachment, p choice) error {
	for i := range interfaces {
		at, err := &interfaces[i], error(nil)
		switch p.items[i].network.Driver() { //nolint:exhaustive // the others take none
		case model.HOSTDEVICE:
			at.Moved, err = s.opts.Attacher.Survey(at.Device)
		case model.SRIOV:
			err = s.surveyFunction(at)
		}
		if err != nil {
			return fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err)
		}
	}
	return nil
}

// surveyFunction notes what a virtual function is like. The interface has the MAC that the Pod asks for, else the function's own, so that
// it has the same one when it is made again.
func (s *Server) surveyFunction(at *model.Attachment) error {
	f, err := s.opts.Attacher.SurveyFunction(at.DeviceID)
	if err != nil {
		return err
	}
	at.VF, at.Device, at.Moved, at.MAC = &f.VF, f.Device, f.Moved, cmp.Or(at.MAC, f.MAC)
	return nil
}

// pod is what the API says of the Pod of a call; the zero value where there is no API, or no Pod that it could know.
func (s *Server) pod(ctx context.Context, c call) (Pod, error) {
	if s.opts.Pod == nil || !c.args.named {
		return Pod{}, nil
	}
	uid := ""
	if c.args.identified {
		uid = c.args.uid
	}
	p, err := s.opts.Pod(ctx, c.args.namespace, c.args.pod, uid)
	if err != nil {
		return Pod{}, fail(types.ErrTryAgainLater, diag.PodUnknown, fmt.Errorf("find out what Pod %s/%s asks for: %w", c.args.namespace, c.args.pod, err))
	}
	return p, nil
}

// decide asks the API for the Pod only where the answer matters: the configuration says no interfaces, or a network keeps addresses
// for StatefulSets.
func (s *Server) decide(ctx context.Context, state model.NodeState, c call) (p choice, err error) {
	var pod Pod
	asked := c.conf.requests
	if len(asked) == 0 {
		if pod, err = s.pod(ctx, c); err == nil {
			asked, err = requests(c, pod)
		}
	}
	if err == nil {
		p, err = choose(state, c, asked)
	}
	if err == nil && len(c.conf.requests) > 0 && p.sticky() {
		pod, err = s.pod(ctx, c)
	}
	p.pod = pod
	return p, err
}

// requests are what a Pod asks for in its annotations; none is the default network.
func requests(c call, p Pod) ([]model.InterfaceRequest, error) {
	asked, problems := annotation.Parse(p.Annotations)
	if err := problems.Err(); err != nil {
		return nil, fail(CodeRequestRefused, problems[0].Code, fmt.Errorf("annotations of Pod %s/%s: %w", c.args.namespace, c.args.pod, err))
	}
	return asked, nil
}

// makeLinks answers with what was made, as a whole and of each interface, and what is known of devices, or undoes it.
func (s *Server) makeLinks(ctx context.Context, c call, rec record) (out []byte, each []*types100.Result, infos []json.RawMessage, err error) {
	pod := attach.Pod{Sandbox: c.ContainerID, Netns: c.netns}
	made, err := s.attach(ctx, pod, rec)
	if err == nil {
		each, err = results(c.conf.CNIVersion, c.Netns, rec.Interfaces, made)
	}
	if err == nil {
		out, err = result(c.conf.CNIVersion, each)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		s.settle(c.ContainerID, seenOf(rec.Interfaces, made))
		for _, m := range made {
			infos = append(infos, m.info)
		}
		return out, each, infos, nil
	}
	if f := cniError(err); f.Code == types.ErrInternal {
		err = fail(CodeAttachFailed, diag.PodAttachFailed, err)
	}
	return nil, nil, nil, errors.Join(err, s.takeDown(context.WithoutCancel(ctx), pod, rec))
}

// addAgain answers an ADD for a sandbox that has a record. The specification forbids it without a DEL between; a runtime
// that lost the answer gets the same one, if it is still true.
func (s *Server) addAgain(ctx context.Context, c call, id string, old ipam.Record) ([]byte, error) {
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return nil, err
	}
	if rec.Away || rec.Conf != c.conf.Name || rec.IfName != c.IfName || rec.NetnsID != id {
		return nil, fail(CodeAlreadyAttached, diag.PodAlreadyAttached,
			fmt.Errorf("container %s is attached by configuration %s as %s in %s", c.ContainerID, rec.Conf, rec.IfName, rec.Netns))
	}
	made, err := s.compare(ctx, attach.Pod{Sandbox: c.ContainerID, Netns: c.netns}, rec)
	if err != nil {
		return nil, fail(CodeAlreadyAttached, diag.PodAlreadyAttached, fmt.Errorf("container %s is attached already: %w", c.ContainerID, err))
	}
	s.settle(c.ContainerID, seenOf(rec.Interfaces, made))
	each, err := results(c.conf.CNIVersion, c.Netns, rec.Interfaces, made)
	if err != nil {
		return nil, err
	}
	return result(c.conf.CNIVersion, each)
}

// takeDown removes links, and only when none is left, record and addresses: an address must not be free while a link
// has it. Of virtual functions that are away the record stays, without addresses.
func (s *Server) takeDown(ctx context.Context, pod attach.Pod, rec record) error {
	if rec.Away {
		return nil // that was done
	}
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	away, err := s.detach(ctx, pod, rec)
	if err != nil {
		return fmt.Errorf("take links down: %w", err)
	}
	if len(away) > 0 {
		s.log.Warn("virtual functions are not back from a container that is gone; they are awaited", "container", pod.Sandbox, "functions", len(away))
	}
	if err := s.setAway(ctx, pod.Sandbox, rec, away); err != nil {
		return fmt.Errorf("release addresses: %w", err)
	}
	s.forget(pod.Sandbox)
	return nil
}

// evict takes down the links of a Pod's former sandbox, whose record is about to move. It takes no lock: the one for the
// Pod is held, and a DEL of that sandbox does the same. A link that another plugin made is not ours to take down: it must be gone (R2).
func (s *Server) evict(ctx context.Context, old ipam.Record) error {
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return err
	}
	if rec.Given != nil {
		h, err := holdingOf(old)
		if err == nil && !s.NetnsGone(h) {
			err = fail(types.ErrTryAgainLater, diag.PodFormerSandbox, fmt.Errorf("the Pod's former sandbox %s still has %v, on a link that another plugin made", h.Container, rec.Given.Addresses))
		}
		if err != nil {
			return err
		}
	}
	if len(rec.Interfaces) > 0 {
		netns := s.netns(nil, rec)
		if netns != nil {
			defer netns.Close()
		}
		away, err := s.detach(ctx, attach.Pod{Sandbox: old.Sandbox, Netns: netns}, rec)
		if err == nil && len(away) > 0 {
			err = fail(types.ErrTryAgainLater, diag.PodFormerSandbox, fmt.Errorf("the Pod's former sandbox %s: %w", old.Sandbox, &attach.Away{Interfaces: away}))
		}
		if err != nil {
			return err
		}
	}
	s.forget(old.Sandbox)
	return nil
}

// check compares a sandbox with its record.
func (s *Server) check(ctx context.Context, c call) error {
	old, err := s.opts.IPAM.Lookup(c.ContainerID)
	if errors.Is(err, ipam.ErrNotFound) {
		return fail(types.ErrUnknownContainer, diag.PodCheckFailed, fmt.Errorf("container %s is not attached", c.ContainerID))
	}
	if err != nil {
		return fmt.Errorf("look the sandbox up: %w", err)
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return err
	}
	if rec.Away {
		return fail(types.ErrUnknownContainer, diag.PodCheckFailed, fmt.Errorf("container %s is not attached any more", c.ContainerID))
	}
	if rec.IfName != c.IfName {
		return fail(types.ErrUnknownContainer, diag.PodCheckFailed, fmt.Errorf("container %s is attached as %s", c.ContainerID, rec.IfName))
	}
	_, err = s.compare(ctx, attach.Pod{Sandbox: c.ContainerID, Netns: c.netns}, rec)
	return err
}

// del detaches a sandbox. It succeeds when there is nothing (any more), and leaves alone what was made under another
// interface name: that is not the attachment the runtime speaks of. The configuration's name may have changed since.
func (s *Server) del(ctx context.Context, c call) error {
	old, err := s.opts.IPAM.Lookup(c.ContainerID)
	if errors.Is(err, ipam.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look the sandbox up: %w", err)
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return err
	}
	if rec.IfName != "" && rec.IfName != c.IfName {
		s.log.Info("DEL speaks of another attachment", "container", c.ContainerID, "interface", c.IfName, "attached", rec.IfName)
		return nil
	}
	netns := s.netns(c.netns, rec)
	if netns != nil && netns != c.netns {
		defer netns.Close()
	}
	return s.takeDown(ctx, attach.Pod{Sandbox: c.ContainerID, Netns: netns}, rec)
}

// forsake undoes an ADD that was answered to nobody, unless the runtime has asked again meanwhile.
func (s *Server) forsake(req wire.Request, number uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTime)
	defer cancel()
	conf, err := parseConf(req.Stdin)
	if err != nil {
		return // such an ADD has done nothing
	}
	sandbox := keyOf(req, conf)
	unlock, err := s.locks.lock(ctx, lockOf(sandbox))
	if err != nil {
		return
	}
	defer unlock()
	if !s.newest(sandbox, number) {
		return
	}
	old, err := s.opts.IPAM.Lookup(sandbox)
	if err != nil {
		return // the runtime's DEL was faster
	}
	rec, err := decodeRecord(old.Data)
	if err == nil {
		netns := s.netns(nil, rec)
		if netns != nil {
			defer netns.Close()
		}
		err = s.takeDown(ctx, attach.Pod{Sandbox: sandbox, Netns: netns}, rec)
	}
	if err != nil {
		s.log.Warn("detach after an answer that nobody took; DEL will", "container", sandbox, "reason", err)
	}
}

// netns finds the namespace of a record: the one the runtime gave, or the recorded path; nil if neither is the one that
// was attached, which then is gone, and its links with it.
func (s *Server) netns(given *os.File, rec record) *os.File {
	if given != nil {
		if id, err := attach.Identity(given); err == nil && id == rec.NetnsID {
			return given
		}
	}
	if rec.Boot != "" && s.opts.BootID != "" && rec.Boot != s.opts.BootID {
		return nil // another namespace may have its number now
	}
	f, err := os.OpenFile(s.hostPath(rec.Netns), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	if id, err := attach.Identity(f); err != nil || id != rec.NetnsID {
		f.Close()
		return nil
	}
	return f
}
