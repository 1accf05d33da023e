package blocks

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/ipamsim/kill"
)

func TestMain(m *testing.M) {
	kill.Child()
	ctrl.SetLogger(logr.Discard())
	bed.Main(m)
}

const system = "danm-system"

// lease is short here; a test that a node is not fenced earlier has seconds for it.
const lease = 6 * time.Second

type site struct {
	t     *testing.T
	api   *bed.API
	c     client.Client
	space v1alpha1.IPSpace
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, api: bed.Shared(t), space: v1alpha1.IPSpace{Domain: "eth8", ID: 10, CIDR: "10.0.0.0/24"}}
	s.c = s.client(s.api.Config(bed.AdminToken))
	s.kubectl("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", "production"))
	s.must(client.IgnoreAlreadyExists(s.c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "acme"}})))
	s.must(client.IgnoreAlreadyExists(s.c.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "acme"}})))
	return s
}

func (s *site) client(config *rest.Config) client.Client {
	scheme, err := controller.Scheme()
	s.must(err)
	c, err := client.New(config, client.Options{Scheme: scheme})
	s.must(err)
	return c
}

func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.api.Kubectl(nil, args...)
	if err != nil {
		s.t.Fatalf("%v: %s", args, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) until(what string, within time.Duration, ok func() bool) time.Duration {
	s.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > within {
			out, _ := s.api.Kubectl(nil, "get", "ipblocks,danmnets,nodeplans,leases", "-A", "-o", "wide")
			s.t.Fatalf("not %s:\n%s", what, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(start)
}

// start runs a controller with the rights of its service account, and with a block lease.
func (s *site) start(lease time.Duration) {
	s.t.Helper()
	token := s.kubectl("create", "token", "-n", system, "danm-controller")
	m, err := controller.New(s.api.Config(token), controller.Options{
		Namespace: system, CacheDir: s.t.TempDir(), MetricsAddr: "0", HealthAddr: "0",
		Addresses: blocks.Options{BlockLease: lease, Grace: time.Second, Cooldown: time.Second, Linger: time.Second, HintEvery: 200 * time.Millisecond, CountEvery: 200 * time.Millisecond, Look: time.Second},
	})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		if err := m.Start(ctx); err != nil {
			s.t.Error(err)
		}
		close(done)
	}()
	s.t.Cleanup(func() { cancel(); <-done })
}

// node is a Node and a client with its credentials.
func (s *site) node(name string) client.Client {
	s.t.Helper()
	s.must(client.IgnoreAlreadyExists(s.c.Create(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})))
	return s.client(s.api.Config(s.token(name)))
}

// token is what the agent of a node shows.
func (s *site) token(node string) string {
	s.t.Helper()
	return s.kubectl("create", "token", "-n", system, "danm-node", "--bound-object-kind", "Node", "--bound-object-name", node)
}

// report changes what a node says in its plan's status.
func (s *site) report(name string, change func(*v1alpha1.NodePlanStatus)) {
	s.t.Helper()
	s.until("a plan of "+name, 30*time.Second, func() bool {
		p := &v1alpha1.NodePlan{}
		if s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, p) != nil {
			return false
		}
		change(&p.Status)
		return s.c.Status().Update(s.t.Context(), p) == nil
	})
}

func (s *site) renew(c client.Client, node string) {
	s.t.Helper()
	identity, now := "id-"+node, metav1.NowMicro()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: blocks.LeasePrefix + node}}
	err := c.Get(s.t.Context(), client.ObjectKeyFromObject(l), l)
	l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &identity, RenewTime: &now, AcquireTime: &now}
	if apierrors.IsNotFound(err) {
		err = c.Create(s.t.Context(), l)
	} else if err == nil {
		err = c.Update(s.t.Context(), l)
	}
	s.must(err)
}

// make creates an IPBlock with the node's credentials.
func (s *site) make(c client.Client, role, cidr, owner string, change func(*v1alpha1.IPBlock)) *v1alpha1.IPBlock {
	s.t.Helper()
	b := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: role, Space: s.space, CIDR: cidr, Owner: owner, Identity: "id-" + owner}}
	b.Name, b.Finalizers = s.space.BlockName(netip.MustParsePrefix(cidr)), []string{v1alpha1.IPFinalizer}
	b.Labels = map[string]string{v1alpha1.LabelSpace: s.space.Hash(), v1alpha1.LabelOwner: owner}
	if change != nil {
		change(b)
	}
	s.must(c.Create(s.t.Context(), b))
	return b
}

func (s *site) read(name string) *v1alpha1.IPBlock {
	s.t.Helper()
	b := &v1alpha1.IPBlock{}
	if err := s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b); err != nil {
		s.must(client.IgnoreNotFound(err))
		return nil
	}
	return b
}

func (s *site) block(cidr string) *v1alpha1.IPBlock {
	return s.read(s.space.BlockName(netip.MustParsePrefix(cidr)))
}

func (s *site) network() *danmv1.DanmNet {
	n := &danmv1.DanmNet{}
	if err := s.c.Get(s.t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, n); err != nil {
		s.must(client.IgnoreNotFound(err))
		return nil
	}
	return n
}

// change writes to an IPBlock with a node's credentials, again where a controller was faster.
func (s *site) change(c client.Client, name string, f func(*v1alpha1.IPBlock)) (b *v1alpha1.IPBlock) {
	s.t.Helper()
	s.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		b = s.read(name)
		f(b)
		return c.Update(s.t.Context(), b)
	}))
	return b
}

// giveBack is what a node does with an address that it needs no more.
func (s *site) giveBack(c client.Client, name string) {
	s.t.Helper()
	b := s.change(c, name, func(b *v1alpha1.IPBlock) { b.Finalizers = nil })
	s.must(client.IgnoreNotFound(c.Delete(s.t.Context(), b, client.Preconditions{UID: &b.UID})))
}

func (s *site) event(reason, about string) {
	s.t.Helper()
	s.until("told of "+reason, 10*time.Second, func() bool {
		var list eventsv1.EventList
		s.must(s.c.List(s.t.Context(), &list))
		n := 0
		for _, e := range list.Items {
			if e.Reason == reason && e.Regarding.Name == about {
				n++
			}
		}
		return n >= 1
	})
}
