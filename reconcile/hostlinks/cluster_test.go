package hostlinks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
	"danm.io/danm/spec/segment"
	"danm.io/danm/test/cluster/bed"
)

func TestMain(m *testing.M) { bed.Main(m) }

type site struct {
	t *testing.T
	c client.Client
}

// newSite is a controller and two nodes with the cards eth8 and eth9, in no bundle.
func newSite(t *testing.T) *site {
	t.Helper()
	api := bed.Shared(t)
	scheme, err := controller.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(api.Config(bed.AdminToken), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, c: c}
	for _, n := range []string{"danm-system", "acme"} {
		s.must(client.IgnoreAlreadyExists(c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})))
	}
	for _, n := range []string{"n1", "n2"} {
		s.must(client.IgnoreAlreadyExists(c.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})))
	}
	m, err := controller.New(api.Config(bed.AdminToken), controller.Options{Namespace: "danm-system", CacheDir: t.TempDir(), MetricsAddr: "0", HealthAddr: "0", Addresses: blocks.Options{Linger: 100 * time.Millisecond, Look: time.Second}})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = m.Start(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			out, _ := bed.Shared(s.t).Kubectl(nil, "get", "danmnets,tenantnetworks,clusternetworks,nodeplans", "-A", "-o", "wide")
			s.t.Fatalf("not %s:\n%s", what, out)
		}
	}
}

// report is what the agent of a node says of its cards.
func (s *site) report(node string) {
	s.t.Helper()
	p := &v1alpha1.NodePlan{}
	s.until("a plan for "+node, func() bool { return s.c.Get(s.t.Context(), client.ObjectKey{Name: node}, p) == nil })
	old := p.DeepCopy()
	p.Status.Hardware = []v1alpha1.NIC{{Name: "eth8"}, {Name: "eth9"}}
	s.must(s.c.Status().Patch(s.t.Context(), p, client.MergeFrom(old)))
}

// state is what the node would make of the API: assembled by the node's code. False while the plan tells it nothing, so that it
// keeps what it has: no layer yet, or segments of a plan that another has replaced since it was read.
func (s *site) state(node string) (model.NodeState, bool) {
	s.t.Helper()
	p := &v1alpha1.NodePlan{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: node}, p))
	var list v1alpha1.PlanSegmentList
	s.must(s.c.List(s.t.Context(), &list))
	segments := map[string]model.Segment{}
	for _, x := range list.Items {
		decoded, err := segment.Decode(x.Name, []byte(x.Data))
		s.must(err)
		segments[x.Name] = decoded
	}
	st, err := nodeplan.Assemble(p, segments, nil, "")
	if errors.Is(err, nodeplan.ErrNoLayer) || errors.Is(err, nodeplan.ErrSegments) {
		return model.NodeState{}, false
	}
	s.must(err)
	return st, true
}

func (s *site) has(node, link string) bool {
	st, _ := s.state(node)
	return slices.ContainsFunc(st.Plan.Links, func(l model.Link) bool { return l.Name == link })
}

// bare says whether the node is told to have nothing, which is more than to be told nothing.
func (s *site) bare(node string) bool {
	st, told := s.state(node)
	return told && len(st.Plan.Links) == 0 && len(st.Networks) == 0
}

func (s *site) ready(o client.Object, conditions func() []metav1.Condition) (metav1.ConditionStatus, string, string) {
	s.must(s.c.Get(s.t.Context(), client.ObjectKeyFromObject(o), o))
	c := meta.FindStatusCondition(conditions(), "Ready")
	if c == nil || c.ObservedGeneration != o.GetGeneration() {
		return "", "", ""
	}
	return c.Status, c.Reason, c.Message
}

// TestClusterNetworksMadeWithKubectl: the story of a lightweight cluster without any bundle, on a real API server.
func TestClusterNetworksMadeWithKubectl(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	dnet := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "voice"}, Spec: danmv1.NetworkSpec{NetworkID: "voice", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 30}}}
	s.must(s.c.Create(ctx, dnet))
	s.report("n1")
	s.until("a link on n1", func() bool { return s.has("n1", "voice.30") })
	if s.has("n2", "voice.30") {
		t.Error("n2 has not reported the card")
	}
	s.report("n2")
	s.until("a link on n2, and Ready", func() bool {
		is, reason, _ := s.ready(dnet, func() []metav1.Condition { return dnet.Status.Conditions })
		return s.has("n2", "voice.30") && is == metav1.ConditionTrue && reason == "Published"
	})
	// DANM's own words are not taken: a tenant's network needs a reservation, and nothing of it reaches a node.
	tnet := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "own"}, Spec: danmv1.NetworkSpec{NetworkID: "own", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 31}}}
	s.must(s.c.Create(ctx, tnet))
	cnet := &danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: danmv1.NetworkSpec{NetworkID: "bad", NetworkType: "ipvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 30}}}
	s.must(s.c.Create(ctx, cnet))
	s.until("refused", func() bool {
		a, _, _ := s.ready(tnet, func() []metav1.Condition { return tnet.Status.Conditions })
		b, _, _ := s.ready(cnet, func() []metav1.Condition { return cnet.Status.Conditions })
		return a == metav1.ConditionFalse && b == metav1.ConditionFalse
	})
	if s.has("n1", "own.31") {
		t.Error("a tenant chose its VLAN")
	}
	if is, _, _ := s.ready(dnet, func() []metav1.Condition { return dnet.Status.Conditions }); is != metav1.ConditionTrue {
		t.Error("a younger network took an older one down")
	}
	s.until("an event about it", func() bool {
		out, err := bed.Shared(t).Kubectl(nil, "get", "events.events.k8s.io", "-A")
		return err == nil && strings.Contains(string(out), "clusternetwork/bad")
	})

	// A definition keeps its author's bytes.
	nad := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": map[string]any{"namespace": "acme", "name": "video"},
		"spec": map[string]any{"config": `{"cniVersion":"0.3.1","name":"vid","type":"macvlan","master":"eth8","vxlan":7}`}}}
	s.must(s.c.Create(ctx, nad))
	s.until("the definition's link", func() bool { return s.has("n1", "vx_vid") && s.has("n2", "vx_vid") })
	live := nad.DeepCopy()
	s.must(s.c.Get(ctx, client.ObjectKeyFromObject(nad), live))
	if live.GetResourceVersion() != nad.GetResourceVersion() {
		t.Error("the definition was rewritten")
	}

	// At rest nothing is written; what is deleted goes from nodes, with its segments.
	time.Sleep(time.Second)
	before := s.versions()
	s.must(s.c.Create(ctx, &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "nowhere"}, Spec: danmv1.NetworkSpec{NetworkID: "nowhere", Options: danmv1.NetworkOptions{Device: "eth77"}}}))
	nowhere := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "nowhere"}}
	s.until("NoNode", func() bool {
		_, reason, _ := s.ready(nowhere, func() []metav1.Condition { return nowhere.Status.Conditions })
		return reason == "NoNode"
	})
	if after := s.versions(); after != before {
		t.Errorf("a network that reaches nobody wrote\n%s\nwas\n%s", after, before)
	}
	for _, o := range []client.Object{dnet, tnet, cnet, nad, nowhere} {
		s.must(s.c.Delete(ctx, o))
	}
	s.until("everything gone", func() bool {
		var list v1alpha1.PlanSegmentList
		s.must(s.c.List(ctx, &list))
		return s.bare("n1") && s.bare("n2") && len(list.Items) == 0
	})
	emptied := &v1alpha1.NodePlan{}
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n1"}, emptied))
	s.must(s.c.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}))
	s.until("no plan of a node that left", func() bool {
		return apierrors.IsNotFound(s.c.Get(ctx, client.ObjectKey{Name: "n2"}, &v1alpha1.NodePlan{}))
	})
	after := &v1alpha1.NodePlan{}
	if s.must(s.c.Get(ctx, client.ObjectKey{Name: "n1"}, after)); after.Generation != emptied.Generation {
		t.Errorf("an empty layer was written again: generation %d, was %d", after.Generation, emptied.Generation)
	}
}

// versions of node plans' specs: what nodes are told.
func (s *site) versions() string {
	var list v1alpha1.NodePlanList
	s.must(s.c.List(s.t.Context(), &list))
	out := ""
	for _, p := range list.Items {
		b, err := json.Marshal(p.Spec)
		s.must(err)
		out += fmt.Sprintln(p.Name, p.Generation, string(b))
	}
	return out
}
