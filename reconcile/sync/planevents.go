package sync

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"danm.io/danm/spec/api/v1alpha1"
)

// PlanEvents tells of node plans that go wrong, and right again, where people look: on the Node and on the NodePlan. It changes
// nothing. A controller that has just started tells of what is wrong then.
type PlanEvents struct {
	Client   client.Client
	Recorder events.EventRecorder

	mu   sync.Mutex
	told map[string]string
}

// trouble are the phases of a NodePlan that somebody should hear of.
var trouble = map[string]bool{"RolledBack": true, "Blocked": true, "Degraded": true, "Refused": true}

// Setup makes it part of a manager.
func (r *PlanEvents) Setup(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).Named("nodeplan-events").
		For(&v1alpha1.NodePlan{}, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
			a, okA := e.ObjectOld.(*v1alpha1.NodePlan)
			b, okB := e.ObjectNew.(*v1alpha1.NodePlan)
			return okA && okB && (a.Status.Phase != b.Status.Phase || a.Status.Reason != b.Status.Reason)
		}})).Complete(r)
}

// Reconcile tells what is new of one plan.
func (r *PlanEvents) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p := &v1alpha1.NodePlan{}
	if err := r.Client.Get(ctx, req.NamespacedName, p); err != nil {
		r.swap(req.Name, "")
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	now := ""
	if trouble[p.Status.Phase] {
		now = p.Status.Phase + ": " + p.Status.Reason
	}
	kind, reason, text := corev1.EventTypeWarning, p.Status.Phase, p.Status.Reason
	switch old := r.swap(req.Name, now); {
	case old == now:
		return ctrl.Result{}, nil
	case now == "" && p.Status.Phase != "Applied": // on its way
		r.swap(req.Name, old)
		return ctrl.Result{}, nil
	case now == "":
		kind, text = corev1.EventTypeNormal, fmt.Sprintf("has its plan again, after %.500s", old)
	}
	node := &corev1.Node{}
	if err := r.Client.Get(ctx, req.NamespacedName, node); err == nil {
		r.Recorder.Eventf(node, p, kind, reason, "Apply", "network plan: %.800s", text)
	}
	r.Recorder.Eventf(p, nil, kind, reason, "Apply", "%.900s", text)
	return ctrl.Result{}, nil
}

// swap remembers what was told of a node and returns what was before.
func (r *PlanEvents) swap(node, now string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]string{}
	}
	old := r.told[node]
	if r.told[node] = now; now == "" {
		delete(r.told, node)
	}
	return old
}
