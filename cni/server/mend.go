package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"danm.io/danm/cni/attach"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
)

// Mend makes the interfaces of attached Pods again whose host link was made anew since they were attached: the kernel
// deleted them together with it. A host link is looked at once, and again when it is another one of the same name. What a card says of
// Pods' virtual functions is looked at each time. It returns how many interfaces it mended. A sandbox with a call in progress is left to
// the next time.
func (s *Server) Mend(ctx context.Context) (mended int, err error) {
	fresh, err := s.freshDevices()
	unlike, fought := s.unlike(time.Now())
	look := map[string]bool{}
	for d := range fresh {
		look[d] = true
	}
	for _, d := range unlike {
		look[d] = true
	}
	failed := []error{err, fought, s.home(ctx), s.welcome(ctx)}
	if len(look) == 0 {
		return 0, errors.Join(failed...)
	}
	var again []string // devices to be looked at once more
	for sandbox, devices := range s.sandboxesOn(look) {
		n, err := s.mendSandbox(ctx, sandbox, look)
		mended += n
		if !errors.Is(err, errBusy) {
			s.noteRepairs(devices, unlike, time.Now())
		}
		if err == nil {
			continue
		}
		again = append(again, devices...)
		if !errors.Is(err, errBusy) {
			failed = append(failed, fmt.Errorf("mend container %s: %w", sandbox, err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := byDevice(s.pods)
	maps.DeleteFunc(s.mendedOn, func(d string, _ int) bool { return used[d] == nil })
	for d, index := range fresh {
		if !slices.Contains(again, d) {
			s.mendedOn[d] = index
		}
	}
	return mended, errors.Join(failed...)
}

// home gives devices of the host their name again that came back from Pods whose records are gone.
func (s *Server) home(ctx context.Context) error {
	state, ok := s.confirmed()
	if !ok {
		return nil
	}
	s.mu.Lock()
	used := byDevice(s.pods)
	s.mu.Unlock()
	var devices []string
	for _, n := range state.Networks {
		if n.Driver() == model.HOSTDEVICE && n.Device != "" && used[n.Device] == nil {
			devices = append(devices, n.Device)
		}
	}
	names, err := s.opts.Attacher.Homeless(ctx, devices)
	if len(names) > 0 {
		s.log.Warn("devices of the host that came back from Pods have their names again", "devices", names)
	}
	return err
}

// freshDevices are the host links under Pods that are there and not those of the last time, with their index.
func (s *Server) freshDevices() (map[string]int, error) {
	s.mu.Lock()
	seen := map[string]int{}
	for _, p := range s.pods {
		for _, d := range p.devices {
			seen[d] = s.mendedOn[d]
		}
	}
	s.mu.Unlock()
	fresh := map[string]int{}
	var failed []error
	for d, before := range seen {
		index, err := s.indexOf(d)
		if err != nil {
			failed = append(failed, err)
		} else if index != 0 && index != before {
			fresh[d] = index
		}
	}
	return fresh, errors.Join(failed...)
}

// indexOf is the kernel's index of a device under Pods, 0 if it is not in the host: a virtual function that a Pod has is not.
func (s *Server) indexOf(device string) (int, error) {
	if pci, is := strings.CutPrefix(device, FunctionKey); is {
		return s.opts.Attacher.FunctionIndex(pci)
	}
	if strings.HasPrefix(device, PhysicalKey) { // that it is there says nothing of its virtual ones
		return 0, nil
	}
	return s.opts.Attacher.HostIndex(device)
}

func (s *Server) sandboxesOn(devices map[string]bool) map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string][]string{}
	for sandbox, p := range s.pods {
		for _, d := range p.devices {
			if devices[d] && !slices.Contains(out[sandbox], d) {
				out[sandbox] = append(out[sandbox], d)
			}
		}
	}
	return out
}

var errBusy = errors.New("another call of the sandbox is in progress")

func (s *Server) mendSandbox(ctx context.Context, sandbox string, devices map[string]bool) (int, error) {
	unlock, free := s.locks.tryLock("sandbox/" + sandbox)
	if !free {
		return 0, errBusy
	}
	defer unlock()
	old, err := s.opts.IPAM.Lookup(sandbox)
	if errors.Is(err, ipam.ErrNotFound) {
		return 0, nil // a DEL was faster
	}
	if err != nil {
		return 0, err
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return 0, err
	}
	if rec.Given != nil || rec.Away {
		return 0, nil // the link is another plugin's, or nobody's any more
	}
	unlockPod, free := s.locks.tryLock("pod/" + old.PodUID) // the Pod's next sandbox may be taking this one's links down
	if !free {
		return 0, errBusy
	}
	defer unlockPod()
	netns := s.netns(nil, rec)
	if netns == nil {
		return 0, nil // the Pod is gone, its DEL is to come
	}
	defer netns.Close()
	on := slices.DeleteFunc(slices.Clone(rec.Interfaces), func(at model.Attachment) bool {
		return at.Delegate != nil || !slices.ContainsFunc(devicesOf(at), func(d string) bool { return devices[d] })
	})
	pod := attach.Pod{Sandbox: sandbox, Netns: netns}
	mended, err := s.opts.Attacher.Mend(ctx, pod, on)
	if len(mended) > 0 {
		if all, _ := s.observe(ctx, pod, rec); all != nil { // a link that stands on another device may have another MAC
			s.settle(sandbox, seenOf(rec.Interfaces, all))
		}
		s.log.Warn("interfaces as recorded again: what they stand on was made anew, or changed by others", "container", sandbox, "pod", old.Namespace+"/"+old.Pod, "interfaces", mended)
	}
	return len(mended), err
}
