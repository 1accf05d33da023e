package ipam

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// machine is a node with a journal that outlives its agents.
type machine struct {
	t         *testing.T
	clock     *clock
	api       *fakeAPI
	name      string
	dir       string
	sandboxes []string
	k         *Keeper
	n         int
}

func newMachine(t *testing.T, api *fakeAPI, c *clock, name string) *machine {
	m := &machine{t: t, clock: c, api: api, name: name, dir: t.TempDir()}
	api.ids[name] = "machine-" + name + "/uid-1"
	m.boot()
	return m
}

// askWait is for questions that nobody answers.
const askWait = 200 * time.Millisecond

// boot starts an agent, without its round.
func (m *machine) boot() {
	m.t.Helper()
	s, err := Open(m.dir, m.clock.options())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = s.Close() })
	m.k = NewKeeper(KeeperOptions{Service: s, API: apiOf{m.api, m.name}, Node: m.name, AskWait: askWait,
		Boottime:  func() time.Duration { return time.Duration(m.clock.now().UnixNano()) },
		Sandboxes: func(context.Context) ([]string, error) { return m.sandboxes, nil }})
}

func (m *machine) kill() { _ = m.k.Close() }

func (m *machine) round() error {
	_, err := m.k.Round(ctx)
	return err
}

func (m *machine) mustRound() {
	m.t.Helper()
	if err := m.round(); err != nil {
		m.t.Fatalf("round of %s: %v", m.name, err)
	}
}

// pod starts a Pod, and returns its sandbox and address.
func (m *machine) pod(n model.Network, how model.AddressRequest) (sandbox, addr string, err error) {
	m.n++
	sandbox = fmt.Sprintf("%s-s%d", m.name, m.n)
	in := intent(sandbox, fmt.Sprintf("%s-u%d", m.name, m.n), want("eth0", n, how, noneMode))
	in.Claimed = true
	g, err := m.k.Acquire(ctx, in)
	if err != nil {
		return sandbox, "", err
	}
	return sandbox, g[0].Addresses[0].Addr().String(), nil
}

func (m *machine) mustPod(n model.Network, how model.AddressRequest) (sandbox, addr string) {
	m.t.Helper()
	sandbox, addr, err := m.pod(n, how)
	if err != nil {
		m.t.Fatalf("Pod on %s: %v", m.name, err)
	}
	return sandbox, addr
}

func spaceOfNetwork(n model.Network) Space {
	return Space{Domain: n.SpaceDomain, ID: n.ID(), VXLAN: n.VXLAN, CIDR: n.IPv4.CIDR}
}

// openSpace makes a root as the controller does.
func openSpace(api *fakeAPI, n model.Network, bits int32) *v1alpha1.IPBlock {
	s := spaceOfNetwork(n).object()
	o := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleRoot, Space: s, CIDR: s.CIDR, BlockBits: bits}}
	o.Name = s.RootName()
	return must(api.Create(ctx, o))
}

func world(t *testing.T, cidr string, bits int32, names ...string) (*clock, *fakeAPI, model.Network, []*machine) {
	c := newClock()
	api := newFakeAPI(c)
	n := network("net", cidr, "")
	openSpace(api, n, bits)
	var ms []*machine
	for _, name := range names {
		m := newMachine(t, api, c, name)
		m.mustRound()
		ms = append(ms, m)
	}
	return c, api, n, ms
}

// atOnce starts so many Pods at one instant; each must get an address.
func atOnce(m *machine, n model.Network, pods int) {
	m.t.Helper()
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() {
			in := intent(fmt.Sprintf("x%d", i), fmt.Sprintf("x%d", i), want("eth0", n, dynamic, noneMode))
			in.Claimed = true
			if _, err := m.k.Acquire(ctx, in); err != nil {
				m.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// accepted is an administrator's word that what the node waits for was checked.
func (m *machine) accepted() {
	m.t.Helper()
	l := must(apiOf{m.api, m.name}.Lease(ctx))
	if l.Annotations[AnnotationSuspect] == "" {
		m.t.Fatal("nobody can see that the node waits")
	}
	l.Annotations[AnnotationChecked] = l.Annotations[AnnotationSuspect]
	must(apiOf{m.api, m.name}.PutLease(ctx, l))
}
