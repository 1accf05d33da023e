package server

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/model"
)

// fakeAttacher is a kernel of sets: which sandbox has which addresses. It is unhappy when two have the same one.
type fakeAttacher struct {
	mu       sync.Mutex
	live     map[string][]model.Attachment
	clashes  []string
	attach   func(ctx context.Context) error // before an Attach, nil = nothing
	detach   func() error
	detached []string // "sandbox given/none/rebooted", and what is lost
	mismatch bool
	blind    string // a sandbox that cannot be looked at
	differs  string // a sandbox whose links are there, but not as recorded
	index    map[string]int
	lost     map[string]bool // sandbox/interface
	mend     error
	looked   int // calls of Mend
	survey   error
	homeless []string // what Homeless was asked for last
	unlike   []string // virtual functions of which the card says otherwise
	asked    int      // about how many of them Differing was called last
	away     []string // virtual functions that do not come back
	returned []string // what Return has found, as "sandbox function"
	rerouted []string // as "sandbox interface [families] [gateways]"
	stray    error    // what CheckRerouted says
}

func (f *fakeAttacher) Reroute(_ context.Context, pod attach.Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rerouted = append(f.rerouted, fmt.Sprint(pod.Sandbox, " ", ifName, " ", families, " ", gateways))
	return f.stray
}

func (f *fakeAttacher) CheckRerouted(_ context.Context, pod attach.Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if is := fmt.Sprint(pod.Sandbox, " ", ifName, " ", families, " ", gateways); !slices.Contains(f.rerouted, is) {
		return fmt.Errorf("%s was never made", is)
	}
	return f.stray
}

// Survey and Homeless: a device is there as long as no sandbox has it.
func (f *fakeAttacher) Survey(device string) (*model.Moved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, theirs := range f.live {
		for _, at := range theirs {
			if at.Type == model.HOSTDEVICE && at.Device == device {
				return nil, attach.ErrHostLink
			}
		}
	}
	return &model.Moved{Kind: "device", MTU: 1500, Alias: "survey of " + device}, f.survey
}

func (f *fakeAttacher) Homeless(_ context.Context, devices []string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.homeless = devices
	return nil, nil
}

func (f *fakeAttacher) Attach(ctx context.Context, pod attach.Pod, in []model.Attachment) ([]attach.Link, error) {
	f.mu.Lock()
	hook := f.attach
	f.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range in {
		for other, theirs := range f.live {
			for _, b := range theirs {
				for _, p := range at.Addresses {
					if b.Network == at.Network && slices.Contains(b.Addresses, p) {
						f.clashes = append(f.clashes, fmt.Sprintf("%s has %s of %s", pod.Sandbox, p, other))
					}
				}
			}
		}
	}
	if f.live == nil {
		f.live = map[string][]model.Attachment{}
	}
	f.live[pod.Sandbox] = in
	return links(in), nil
}

func (f *fakeAttacher) reroutes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.rerouted)
}

// set changes the fake between calls.
func (f *fakeAttacher) set(change func(f *fakeAttacher)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeAttacher) onAttach(hook func(context.Context) error) {
	f.set(func(f *fakeAttacher) { f.attach = hook })
}

func (f *fakeAttacher) onDetach(hook func() error) { f.set(func(f *fakeAttacher) { f.detach = hook }) }

// sandboxes lists who has links; attached is what one has; log is what was detached, and how.
func (f *fakeAttacher) sandboxes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.live))
}

func (f *fakeAttacher) attached(sandbox string) []model.Attachment {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live[sandbox]
}

func (f *fakeAttacher) log() (detached, clashes []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.detached), slices.Clone(f.clashes)
}

func links(in []model.Attachment) (out []attach.Link) {
	for _, at := range in {
		l := attach.Link{MAC: at.MAC, MTU: at.MTU}
		if at.VF != nil {
			l.RDMA = []string{"mlx5_" + strconv.Itoa(at.VF.Number)}
		}
		out = append(out, l)
	}
	return out
}

// HostIndex and Mend: host links are numbers, and interfaces of a sandbox that is in lost are gone until they are mended.
func (f *fakeAttacher) HostIndex(name string) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index[name], nil
}

func (f *fakeAttacher) Mend(_ context.Context, pod attach.Pod, in []model.Attachment) (mended []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	if f.mend != nil {
		return nil, f.mend
	}
	for _, at := range in {
		if f.lost[pod.Sandbox+"/"+at.IfName] {
			delete(f.lost, pod.Sandbox+"/"+at.IfName)
			mended = append(mended, at.IfName)
		}
	}
	return mended, nil
}

func (f *fakeAttacher) Return(_ context.Context, sandbox string, at model.Attachment) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.away, at.DeviceID) || f.survey != nil {
		return false, f.survey
	}
	f.returned = append(f.returned, sandbox+" "+at.DeviceID)
	return true, nil
}

func (f *fakeAttacher) Detach(_ context.Context, pod attach.Pod, in []model.Attachment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.detach != nil {
		if err := f.detach(); err != nil {
			return err
		}
	}
	given := "none"
	if pod.Netns != nil {
		given = "given"
	}
	if pod.Rebooted {
		given = "rebooted"
	}
	if len(pod.Lost) > 0 {
		given += fmt.Sprint(" lost ", pod.Lost)
	}
	f.detached = append(f.detached, pod.Sandbox+" "+given)
	delete(f.live, pod.Sandbox)
	var away []model.Attachment
	for _, at := range in {
		if at.VF != nil && slices.Contains(f.away, at.DeviceID) {
			away = append(away, at)
		}
	}
	if len(away) > 0 {
		return &attach.Away{Interfaces: away}
	}
	return nil
}

func (f *fakeAttacher) Check(_ context.Context, pod attach.Pod, in []model.Attachment) ([]attach.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.live[pod.Sandbox]; !ok || f.mismatch {
		return nil, attach.ErrMismatch
	}
	if f.blind == pod.Sandbox {
		return nil, errInjected
	}
	if f.differs == pod.Sandbox {
		return links(in), attach.ErrMismatch
	}
	return links(in), nil
}
