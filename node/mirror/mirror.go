package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"danm.io/danm/node/state"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
	"danm.io/danm/spec/segment"
)

const (
	// every is how often the NodePlan is read when nothing wakes the mirror, and the status looked at.
	every = time.Second
	// relist is how often the API is asked although no event came.
	relist = 2 * time.Minute
	// mostPause is between two tries while an error stands: every node of a cluster may have it.
	mostPause = 30 * time.Second
	// driftEvery is between two writes that say of more repairs alone.
	driftEvery = 30 * time.Second
	// countsEvery is the same for addresses and attached Pods.
	countsEvery = 30 * time.Second
	// watchFor bounds one watch, establish the wait for the server's first answer.
	watchFor  = 5 * time.Minute
	establish = 10 * time.Second
)

// Options of Run. All but Log, Retry and NoRecords are needed.
type Options struct {
	Node   string
	Config *rest.Config
	Dir    *state.Dir
	View   func(context.Context) View
	Retry  func(ctx context.Context, plan string) error // lifts the guard's refusal of a plan
	// NoRecords is nil when no address record exists, so that the home may switch.
	NoRecords func() error
	Log       *slog.Logger
}

type mirror struct {
	Options
	api      dynamic.Interface
	endpoint string
	segments map[string]model.Segment
	plan     *v1alpha1.NodePlan // as read last
	said     string
	err      error
	wrote    time.Time // the status
}

var (
	nodePlans   = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "nodeplans"}
	segments    = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "plansegments"}
	fabricPeers = schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "fabricpeers"}
)

// Run mirrors until ctx ends. It fails only if the options are wrong: an API that is away is waited for.
func Run(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	api, err := dynamic.NewForConfig(o.Config)
	if err != nil {
		return fmt.Errorf("client of the API: %w", err)
	}
	m := &mirror{Options: o, api: api, endpoint: endpointOf(o.Config.Host), segments: map[string]model.Segment{}}
	o.Dir.AllowIdentity(o.NoRecords)
	wake := make(chan struct{}, 1)
	go m.watch(ctx, nodePlans, fields.OneTermEqualSelector("metadata.name", o.Node).String(), wake)
	go m.watch(ctx, fabricPeers, "", wake)
	tick := time.NewTicker(every)
	defer tick.Stop()
	woken, next, pause := true, time.Time{}, time.Duration(0)
	for {
		ran := woken || !time.Now().Before(next)
		if ran {
			m.err = m.round(ctx)
			m.say(m.err)
		}
		err := m.report(ctx)
		if err != nil && ctx.Err() == nil {
			m.Log.Debug("status not written", "reason", err.Error()) // the plan changed meanwhile, or the API is away: read again
		}
		switch now := time.Now(); {
		case m.err == nil && err == nil:
			if pause = 0; ran {
				next = now.Add(relist)
			}
		case ran || next.Sub(now) > mostPause:
			pause = min(2*pause+every, mostPause)
			next = now.Add(pause/2 + rand.N(pause/2))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			woken = true
		case <-tick.C:
			woken = false
		}
	}
}

// endpointOf is host:port of the API server.
func endpointOf(host string) string {
	if !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (m *mirror) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != m.said {
		if m.said = text; text != "" {
			m.Log.Warn("the state directory keeps what it has", "reason", text)
		}
	}
}

// watch wakes the mirror on every event of a kind. A watch that ends is begun again; what was missed meanwhile is read anyway.
func (m *mirror) watch(ctx context.Context, kind schema.GroupVersionResource, selector string, wake chan<- struct{}) {
	pause := time.Second
	for ctx.Err() == nil {
		if err := m.watchOnce(ctx, kind, selector, wake); err != nil {
			m.Log.Debug("no watch", "kind", kind.Resource, "reason", err.Error())
			pause = min(2*pause, 30*time.Second)
		} else {
			pause = time.Second
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// watchOnce watches for watchFor at most. A server that takes the connection and says nothing is given up on, too.
func (m *mirror) watchOnce(ctx context.Context, kind schema.GroupVersionResource, selector string, wake chan<- struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, watchFor+establish)
	defer cancel()
	patience := time.AfterFunc(establish, cancel)
	seconds := int64(watchFor.Seconds())
	w, err := m.api.Resource(kind).Watch(ctx, metav1.ListOptions{FieldSelector: selector, TimeoutSeconds: &seconds})
	if err != nil {
		return err
	}
	defer w.Stop()
	patience.Stop()
	poke(wake)
	for range w.ResultChan() {
		poke(wake)
	}
	return nil
}

func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// round reads the plan and writes the state directory. On an error the directory has what it had.
func (m *mirror) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p := &v1alpha1.NodePlan{}
	err := m.get(ctx, nodePlans, m.Node, p)
	if apierrors.IsNotFound(err) {
		m.plan = nil
		return nil // not an empty plan: keep the last
	}
	if err != nil {
		return fmt.Errorf("read the NodePlan: %w", err)
	}
	m.plan = p
	if err := m.lift(ctx); err != nil {
		return err
	}
	if err := m.fetch(ctx, p); err != nil {
		return err
	}
	peers, err := m.peers(ctx)
	if err != nil {
		return err
	}
	if err := m.keepsBundle(p); err != nil {
		return err
	}
	st, err := nodeplan.Assemble(p, m.segments, peers, m.endpoint)
	if errors.Is(err, nodeplan.ErrNoLayer) {
		return nil
	}
	if err != nil {
		return err
	}
	changed, err := m.Dir.Write(st)
	if err != nil {
		return fmt.Errorf("write the state directory: %w", err)
	}
	if changed {
		m.Log.Info("state", "revision", st.Revision, "digest", st.Digest)
	}
	return nil
}

// keepsBundle refuses a plan that has lost the bundle's layer: like a plan that is gone it is no wish to take everything away.
func (m *mirror) keepsBundle(p *v1alpha1.NodePlan) error {
	if p.Spec.Teardown || p.Spec.Layers.Bundle != nil {
		return nil
	}
	have, err := m.Dir.Read()
	if err != nil || !slices.ContainsFunc(have.Layers, func(l model.LayerRef) bool { return l.Name == nodeplan.LayerBundle }) {
		return nil // nothing is lost
	}
	return fmt.Errorf("%s: the NodePlan has no layer of a bundle any more; the node keeps that of %s. spec.teardown gives it up", diag.NoPlan, have.Revision)
}

func (m *mirror) get(ctx context.Context, kind schema.GroupVersionResource, name string, into any) error {
	u, err := m.api.Resource(kind).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into)
}

// fetch has every segment in memory that the plan names, and no other.
func (m *mirror) fetch(ctx context.Context, p *v1alpha1.NodePlan) error {
	have := map[string]model.Segment{}
	for _, l := range []*v1alpha1.Layer{p.Spec.Layers.Bundle, p.Spec.Layers.API} {
		if l == nil {
			continue
		}
		for _, name := range l.Segments {
			if s, ok := m.segments[name]; ok {
				have[name] = s
				continue
			}
			o := &v1alpha1.PlanSegment{}
			if err := m.get(ctx, segments, name, o); err != nil {
				if apierrors.IsNotFound(err) {
					err = nodeplan.ErrSegments
				}
				return fmt.Errorf("segment %s: %w", name, err)
			}
			s, err := segment.Decode(name, []byte(o.Data))
			if err != nil {
				return err
			}
			have[name] = s
		}
	}
	m.segments = have
	return nil
}

func (m *mirror) peers(ctx context.Context) ([]v1alpha1.FabricPeersSpec, error) {
	unicast := false
	for _, s := range m.segments {
		for _, l := range s.Links {
			unicast = unicast || l.Underlay != "" && l.VXLAN != nil && !l.VXLAN.Group.IsValid()
		}
	}
	if !unicast {
		return nil, nil
	}
	list, err := m.api.Resource(fabricPeers).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list FabricPeers: %w", err)
	}
	var out []v1alpha1.FabricPeersSpec
	for i := range list.Items {
		p := &v1alpha1.FabricPeers{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, p); err != nil {
			return nil, fmt.Errorf("FabricPeers %s: %w", list.Items[i].GetName(), err)
		}
		out = append(out, p.Spec)
	}
	return out, nil
}

// lift passes a request to try a refused plan again on to the guard.
func (m *mirror) lift(ctx context.Context) error {
	value := m.plan.Annotations[v1alpha1.AnnotationRetry]
	if value == "" || value == m.plan.Status.HandledRetry || m.Retry == nil {
		return nil
	}
	digest, _, _ := strings.Cut(value, " ")
	plan := digest
	if r := m.plan.Status.Refused; r != nil && r.Digest == digest {
		plan = r.Plan
	}
	if err := m.Retry(ctx, plan); err != nil {
		return fmt.Errorf("lift the quarantine of %s: %w", digest, err)
	}
	m.Log.Info("quarantine lifted", "digest", digest)
	return m.status(ctx, func(st *v1alpha1.NodePlanStatus) { st.HandledRetry, st.Refused = value, nil })
}

// report writes what became of the plan into its status, if it is something new.
func (m *mirror) report(ctx context.Context) error {
	if m.plan == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	v := m.View(ctx)
	return m.status(ctx, func(st *v1alpha1.NodePlanStatus) {
		handled := st.HandledRetry
		*st = report(m.plan, v, m.err)
		st.HandledRetry = handled
	})
}

// status changes the status in the API by a merge patch guarded by the version that was read, and nothing if it is the same.
func (m *mirror) status(ctx context.Context, change func(*v1alpha1.NodePlanStatus)) error {
	next := m.plan.DeepCopy()
	change(&next.Status)
	next.Status = calm(m.plan.Status, next.Status, time.Since(m.wrote))
	if equality.Semantic.DeepEqual(next.Status, m.plan.Status) {
		return nil
	}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(next)
	if err != nil {
		return fmt.Errorf("encode the status: %w", err)
	}
	raw["apiVersion"], raw["kind"] = v1alpha1.APIVersion, v1alpha1.KindNodePlan
	u, err := m.api.Resource(nodePlans).UpdateStatus(ctx, &unstructured.Unstructured{Object: raw}, metav1.UpdateOptions{FieldManager: "danm-node"})
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	m.wrote = time.Now()
	p := &v1alpha1.NodePlan{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, p); err != nil {
		return fmt.Errorf("read the status back: %w", err)
	}
	m.plan = p
	return nil
}
