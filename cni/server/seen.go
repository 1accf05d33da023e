package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/cni/attach"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
)

// seen is what an interface turned out to be, beyond what its record could say before it was made.
type seen struct {
	mac       string
	mtu       int
	addresses []netip.Prefix // as other plugins answered; nil = the record's
}

// seenOf looks at what interfaces have become.
func seenOf(interfaces []model.Attachment, all []made) []seen {
	out := make([]seen, len(interfaces))
	for i, at := range interfaces {
		out[i] = seen{mac: cmp.Or(all[i].link.MAC, at.MAC), mtu: cmp.Or(all[i].link.MTU, at.MTU)}
		if at.Delegate != nil {
			out[i] = answered(at, all[i].result)
		}
	}
	return out
}

// answered is what another plugin said of the interface that it made.
func answered(at model.Attachment, r *types100.Result) seen {
	out := seen{mac: at.MAC, mtu: at.MTU}
	if r == nil {
		return out
	}
	of := slices.IndexFunc(r.Interfaces, func(in *types100.Interface) bool { return in.Sandbox != "" && in.Name == at.IfName })
	if of >= 0 {
		out.mac, out.mtu = cmp.Or(r.Interfaces[of].Mac, out.mac), cmp.Or(r.Interfaces[of].Mtu, out.mtu)
	}
	for _, ip := range r.IPs {
		if p, ok := prefixOf(ip.Address); ok && (ip.Interface == nil || *ip.Interface == of) {
			out.addresses = append(out.addresses, p)
		}
	}
	return out
}

func prefixOf(n net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, bits), ok && size == addr.BitLen()
}

// settle keeps what the interfaces of a sandbox were seen as, if it is still attached.
func (s *Server) settle(sandbox string, what []seen) {
	s.mu.Lock()
	p, is := s.pods[sandbox]
	if is {
		p.seen = what
		s.pods[sandbox] = p
	}
	s.mu.Unlock()
	if is {
		s.changed(sandbox, true)
	}
}

func (s *Server) changed(sandbox string, attached bool) {
	if s.opts.Changed != nil {
		s.opts.Changed(sandbox, attached)
	}
}

// Sandboxes are all that have a record of interfaces made here; with a Pod's UID, as the runtime knows it, that Pod's alone.
func (s *Server) Sandboxes(podUID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for sandbox, p := range s.pods {
		if _, foreign := containerOf(sandbox); !foreign && (podUID == "" || p.uid == podUID) {
			out = append(out, sandbox)
		}
	}
	return out
}

// Seen is what a sandbox has. There is nothing (false) of one that is not attached; and nothing yet, but complete is false, of
// one that is being attached, or that has not been looked at since the agent's start.
func (s *Server) Seen(sandbox string) (out model.Attached, has, complete bool, err error) {
	s.mu.Lock()
	p, has := s.pods[sandbox]
	s.mu.Unlock()
	if !has || p.seen == nil {
		return out, has, false, nil
	}
	old, err := s.opts.IPAM.Lookup(sandbox)
	if errors.Is(err, ipam.ErrNotFound) {
		return out, false, false, nil
	}
	if err != nil {
		return out, true, false, fmt.Errorf("look sandbox %s up: %w", sandbox, err)
	}
	rec, err := decodeRecord(old.Data)
	if err != nil || len(rec.Interfaces) != len(p.seen) {
		return out, true, false, err
	}
	out = model.Attached{Sandbox: sandbox, Netns: rec.Netns, Namespace: old.Namespace, Pod: old.Pod, PodUID: p.uid, Interfaces: rec.Interfaces}
	for i, is := range p.seen {
		at := &out.Interfaces[i]
		at.MAC, at.MTU = is.mac, is.mtu
		if is.addresses != nil {
			at.Addresses = is.addresses
		}
	}
	return out, true, true, nil
}

// Survey is the result of Compare.
type Survey struct {
	Same    int              // sandboxes that are as recorded
	Gone    int              // whose namespace has ended: their DEL is to come
	Again   []string         // with a call in progress, or that could not be looked at
	Unseen  error            // why they could not
	Differs map[string]error // by "namespace/name" of the Pod
}

// Compare looks at sandboxes: what the kernel has of them, and what other plugins had answered. It changes nothing; afterwards Seen tells of
// them. It is for the start of an agent, whose records are from an earlier life.
func (s *Server) Compare(ctx context.Context, sandboxes []string) Survey {
	out := Survey{Differs: map[string]error{}}
	var mu sync.Mutex
	work := make(chan string)
	var running sync.WaitGroup
	for range max(2, runtime.NumCPU()) {
		running.Go(func() {
			for sandbox := range work {
				found, pod, err := s.look(ctx, sandbox)
				mu.Lock()
				switch found {
				case sandboxSame:
					out.Same++
				case sandboxGone:
					out.Gone++
				case sandboxDiffers:
					out.Differs[pod] = errors.Join(out.Differs[pod], fmt.Errorf("container %s: %w", sandbox, err))
				case sandboxBusy:
					out.Again = append(out.Again, sandbox)
				case sandboxUnseen:
					out.Again, out.Unseen = append(out.Again, sandbox), fmt.Errorf("container %s of %s: %w", sandbox, pod, err)
				}
				mu.Unlock()
			}
		})
	}
	for _, sandbox := range sandboxes {
		select {
		case work <- sandbox:
		case <-ctx.Done():
		}
	}
	close(work)
	running.Wait()
	return out
}

// looked is what came of looking at a sandbox.
type looked int

const (
	sandboxSame looked = iota
	sandboxDiffers
	sandboxGone   // its namespace
	sandboxBusy   // a call for it is in progress
	sandboxUnseen // it could not be looked at
	sandboxEnded  // a DEL was faster
)

// look compares one sandbox with its record and notes what is seen.
func (s *Server) look(ctx context.Context, sandbox string) (found looked, pod string, err error) {
	unlock, free := s.locks.tryLock(lockOf(sandbox))
	if !free {
		return sandboxBusy, "", nil
	}
	defer unlock()
	old, err := s.opts.IPAM.Lookup(sandbox)
	if errors.Is(err, ipam.ErrNotFound) {
		return sandboxEnded, "", nil
	}
	pod = podName(old.Namespace, old.Pod)
	if err != nil {
		return sandboxUnseen, pod, err
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return sandboxUnseen, pod, err
	}
	netns := s.netns(nil, rec)
	if netns == nil {
		return sandboxGone, pod, nil
	}
	defer netns.Close()
	all, err := s.observe(ctx, attach.Pod{Sandbox: sandbox, Netns: netns}, rec)
	switch {
	case all == nil:
		return sandboxUnseen, pod, err
	case err != nil:
		found = sandboxDiffers
	}
	s.settle(sandbox, seenOf(rec.Interfaces, all))
	return found, pod, err
}
