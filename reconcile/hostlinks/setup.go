package hostlinks

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/tenancy"
)

// everything is the loop's one task.
var everything = reconcile.Request{NamespacedName: types.NamespacedName{Name: "everything"}}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// wake asks for a round a little later: what comes meanwhile is served by the same one.
var wake = handler.Funcs{
	CreateFunc:  func(_ context.Context, _ event.CreateEvent, q queue) { q.AddAfter(everything, calm) },
	UpdateFunc:  func(_ context.Context, _ event.UpdateEvent, q queue) { q.AddAfter(everything, calm) },
	DeleteFunc:  func(_ context.Context, _ event.DeleteEvent, q queue) { q.AddAfter(everything, calm) },
	GenericFunc: func(_ context.Context, _ event.GenericEvent, q queue) { q.AddAfter(everything, calm) },
}

// Setup makes the loop part of a manager. What wakes it: networks and tenants, nodes that come and go, what the bundles' layers
// say, and what nodes report of their cards and addresses.
func (r *Reconciler) Setup(m ctrl.Manager) error {
	c, err := ctrl.NewControllerManagedBy(m).
		Named("hostlinks").
		Watches(&danmv1.DanmNet{}, wake, builder.WithPredicates(meant)).
		Watches(&danmv1.TenantNetwork{}, wake, builder.WithPredicates(meant)).
		Watches(&danmv1.ClusterNetwork{}, wake, builder.WithPredicates(meant)).
		Watches(&danmv1.TenantConfig{}, wake).
		Watches(&v1alpha1.NodePlan{}, wake, builder.WithPredicates(planned)).
		Watches(&v1alpha1.FabricPeers{}, wake).
		Watches(&v1alpha1.NetworkBundle{}, wake, builder.WithPredicates(listedOtherwise)).
		Watches(&corev1.Node{}, wake, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, ReconciliationTimeout: 2 * time.Minute, RateLimiter: pause()}).
		Build(r)
	if err != nil {
		return err
	}
	r.definitions.watch = func() error {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(definitionKind)
		return c.Watch(source.Kind[client.Object](m.GetCache(), u, wake))
	}
	return nil
}

// meant is true of changes by people and by tenancy, not of this loop's own words.
var meant = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels()) ||
		verdictOfTenancy(e.ObjectOld) != verdictOfTenancy(e.ObjectNew)
}}

func verdictOfTenancy(o client.Object) string {
	if t, ok := o.(*danmv1.TenantNetwork); ok {
		for _, c := range t.Status.Conditions {
			if c.Type == tenancy.ConditionAssigned {
				return string(c.Status) + c.Reason + c.Message
			}
		}
	}
	return ""
}

// listedOtherwise is true when a bundle has other objects than before.
var listedOtherwise = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	a, okA := e.ObjectOld.(*v1alpha1.NetworkBundle)
	b, okB := e.ObjectNew.(*v1alpha1.NetworkBundle)
	return !okA || !okB || !equality.Semantic.DeepEqual(a.Status.Inventory, b.Status.Inventory)
}}

// planned is true of what layers are made of: the rest of a plan's status changes often.
var planned = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	a, okA := e.ObjectOld.(*v1alpha1.NodePlan)
	b, okB := e.ObjectNew.(*v1alpha1.NodePlan)
	return !okA || !okB || a.Generation != b.Generation || !maps.Equal(a.Status.Underlays, b.Status.Underlays) || !equality.Semantic.DeepEqual(names(a.Status.Hardware), names(b.Status.Hardware))
}}

func names(cards []v1alpha1.NIC) []string {
	var out []string
	for _, c := range cards {
		out = append(out, c.Name)
	}
	return out
}

// Metrics of the loop; each stands with its meaning in docs/metrics.md. A nil one counts nothing.
type Metrics struct {
	networks *prometheus.GaugeVec
	writes   prometheus.Counter
	seconds  prometheus.Histogram
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		networks: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "danm_api_networks", Help: "Networks made with kubectl: ready, and refused."}, []string{"state"}),
		writes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "danm_api_layer_writes_total", Help: "Node plans whose api layer was written."}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "danm_api_layer_decide_seconds", Help: "Time to judge networks made with kubectl and render their links.", Buckets: []float64{.001, .01, .05, .1, .5, 1, 5, 15}}),
	}
	r.MustRegister(m.networks, m.writes, m.seconds)
	return m
}

func (m *Metrics) decided(all int, d Decision, took time.Duration) {
	if m == nil {
		return
	}
	refused := 0
	for _, v := range d.Verdicts {
		if v.Code != "" {
			refused++
		}
	}
	m.networks.WithLabelValues("ready").Set(float64(all - refused))
	m.networks.WithLabelValues("refused").Set(float64(refused))
	m.seconds.Observe(took.Seconds())
}

func (m *Metrics) wrote() {
	if m != nil {
		m.writes.Inc()
	}
}

// pause grows from one failure to the next, and not beyond a minute: what was away for a night is noticed soon in the morning.
func pause() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, time.Minute)
}
