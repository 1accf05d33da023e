package fake

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// Refusals, named after the kernel's errno.
var (
	ErrExist       = errors.New("file exists")
	ErrNoDevice    = errors.New("no such device")
	ErrInvalid     = errors.New("invalid argument")
	ErrDown        = errors.New("network is down")
	ErrNoEntry     = errors.New("no such file or directory")
	ErrUnreachable = errors.New("network is unreachable")
	ErrNotOurs     = errors.New("not ours") // node/link's refusal, no errno
	ErrInjected    = errors.New("injected fault")
)

// Fault says what an injected failure leaves behind.
type Fault int

const (
	Before Fault = iota // the call fails and nothing has happened
	After               // everything has happened, and the caller hears of a failure
	Half                // CreateLink: the link is there, down and without alias and master; other steps as Before
)

// Kernel is the stack. The zero value is not usable, see New.
type Kernel struct {
	mu     sync.Mutex
	links  map[string]*plan.ObservedLink
	routes []plan.ObservedRoute
	rules  []plan.ObservedRule
	params params
	mtus   map[string]int // of ports of bonds, from before they came
	peers  map[model.Peer]bool
	subs   []chan struct{}
	calls  int
	faults map[int]Fault
	writes int
}

// New returns a stack with only the loopback device, down.
func New() *Kernel {
	lo := &plan.ObservedLink{Link: model.Link{Name: "lo", Kind: model.Physical, MTU: 65536}}
	return &Kernel{links: map[string]*plan.ObservedLink{"lo": lo}, peers: map[model.Peer]bool{}, faults: map[int]Fault{}, params: newParams(), mtus: map[string]int{}}
}

// FailAt makes the n-th call from now (1 is the next) of Observe or Apply fail with ErrInjected, once.
func (k *Kernel) FailAt(n int, f Fault) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults[k.calls+n] = f
}

// Calls counts Observe and Apply so far, Writes the Apply calls that changed something.
func (k *Kernel) Calls() int { k.mu.Lock(); defer k.mu.Unlock(); return k.calls }

// Writes counts the Apply calls that changed something.
func (k *Kernel) Writes() int { k.mu.Lock(); defer k.mu.Unlock(); return k.writes }

// Dump is the state as normalised text, with the kernel parameters asked for.
func (k *Kernel) Dump(sysctls ...string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.observe(sysctls...).Dump()
}

func (k *Kernel) fault() (Fault, error) {
	k.calls++
	f, ok := k.faults[k.calls]
	if !ok {
		return 0, nil
	}
	delete(k.faults, k.calls)
	return f, fmt.Errorf("call %d: %w", k.calls, ErrInjected)
}

// Observe lists everything, of kernel parameters those asked for; the ledger's records are the caller's to add, as with node/link.
func (k *Kernel) Observe(ctx context.Context, sysctls ...string) (plan.Observed, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.fault(); err != nil {
		return plan.Observed{}, err
	}
	return k.observe(sysctls...), ctx.Err()
}

func (k *Kernel) observe(sysctls ...string) plan.Observed {
	o := plan.Observed{Sysctls: k.params.list(sysctls)}
	for _, l := range k.links {
		c := *l
		c.Addresses = slices.Clone(l.Addresses)
		c.AltNames = slices.Clone(l.AltNames)
		if l.Bond != nil {
			b := *l.Bond
			c.Bond = &b
		}
		if l.SRIOV != nil {
			s := *l.SRIOV
			s.VFs = slices.Clone(s.VFs)
			c.SRIOV = &s
		}
		c.Children = len(k.children(l.Name))
		o.Links = append(o.Links, c)
	}
	o.Routes, o.Rules = slices.Clone(k.routes), slices.Clone(k.rules)
	for p := range k.peers {
		o.Peers = append(o.Peers, p)
	}
	plan.Sort(&o)
	return o
}

// Subscribe wakes the receiver after each change; the channel is closed when ctx ends.
func (k *Kernel) Subscribe(ctx context.Context) (<-chan struct{}, error) {
	ch := make(chan struct{}, 1)
	k.mu.Lock()
	k.subs = append(k.subs, ch)
	k.mu.Unlock()
	context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.subs = slices.DeleteFunc(k.subs, func(c chan struct{}) bool { return c == ch })
		close(ch)
	})
	return ch, nil
}

func (k *Kernel) wake() {
	for _, ch := range k.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Apply executes one step with the kernel's checks. Steps on objects already as wanted, or already gone, are no errors.
func (k *Kernel) Apply(ctx context.Context, step plan.Step) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	f, injected := k.fault()
	if injected != nil && f == Before {
		return injected
	}
	if injected != nil && f == Half {
		if step.Op == plan.CreateLink && k.links[step.Link.Name] == nil {
			l := *step.Link
			l.Alias, l.Master, l.Up = "", "", false
			if err := k.create(l); err != nil {
				return err
			}
			k.wake()
		}
		return injected
	}
	before := k.observe(everyParam).Dump()
	if err := k.apply(step); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	if k.observe(everyParam).Dump() != before {
		k.writes++
		k.wake()
	}
	return injected
}

// DeleteLinks executes a batch of deletions.
func (k *Kernel) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	for _, s := range steps {
		if err := k.Apply(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kernel) apply(s plan.Step) error {
	switch s.Op {
	case plan.CreateLink:
		return k.create(*s.Link)
	case plan.DeleteLink:
		l := k.links[s.Link.Name]
		if l != nil && l.Group != plan.Group {
			return ErrNotOurs
		}
		k.remove(s.Link.Name)
		return nil
	case plan.SetLink:
		return k.set(s.LinkName, s.Property, s.To)
	case plan.SetVF:
		return k.setVF(s)
	case plan.AddAddress:
		return k.addAddress(s.LinkName, s.Address)
	case plan.DeleteAddress:
		k.deleteAddress(s.LinkName, s.Address)
		return nil
	case plan.AddRoute:
		return k.addRoute(*s.Route, protocol(s))
	case plan.DeleteRoute:
		k.deleteRoute(*s.Route, protocol(s))
		return nil
	case plan.AddRule:
		k.addRule(plan.ObservedRule{Rule: *s.Rule, Protocol: protocol(s)})
		return nil
	case plan.DeleteRule:
		k.deleteRule(plan.ObservedRule{Rule: *s.Rule, Protocol: protocol(s)})
		return nil
	case plan.SetSysctl:
		return k.params.write(s.Sysctl, s.To)
	case plan.AddPeer:
		if l := k.links[s.Peer.Link]; l == nil || l.Kind != model.VXLAN {
			return ErrNoDevice
		}
		k.peers[*s.Peer] = true
		return nil
	case plan.DeletePeer:
		delete(k.peers, *s.Peer)
		return nil
	}
	return fmt.Errorf("step %q: %w", s.Op, ErrInvalid)
}

func protocol(s plan.Step) int {
	if s.Protocol != 0 {
		return s.Protocol
	}
	return plan.RouteProtocol
}

// routeKey is what the kernel's FIB holds once: table, destination, metric, with the defaults written out.
type routeKey struct {
	table, metric uint32
	to            netip.Prefix
}

func keyOf(r model.Route) routeKey {
	key := routeKey{table: r.Table, metric: r.Metric, to: r.To.Masked()}
	if key.table == 0 {
		key.table = 254
	}
	if key.metric == 0 && key.to.Addr().Is6() {
		key.metric = 1024
	}
	return key
}
