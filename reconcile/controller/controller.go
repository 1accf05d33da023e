// Package controller puts the loops of the cluster home into one process: manager, cache, leader election, metrics, health.
// It decides nothing.
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/hostlinks"
	bundlesync "danm.io/danm/reconcile/sync"
	"danm.io/danm/reconcile/tenancy"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// Options of Run.
type Options struct {
	Namespace           string   // where the controller runs: Secrets and the lease
	ConfigMapNamespaces []string // that bundles may be read from, beside Namespace
	CacheDir            string
	LeaderElection      bool
	MetricsAddr         string // "0" = off
	HealthAddr          string // "0" = off
	Patience            time.Duration
	Addresses           blocks.Options
	Log                 *slog.Logger
}

// DefaultPatience is how long a node may take to confirm beyond its window before nobody waits for it.
const DefaultPatience = 2 * time.Minute

// Scheme of every kind that the loops read or write.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, danmv1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Run runs the loops until ctx ends, or until another process is the leader.
func Run(ctx context.Context, config *rest.Config, o Options) error {
	m, err := New(config, o)
	if err != nil {
		return err
	}
	return m.Start(ctx)
}

// New makes the manager with its loops.
func New(config *rest.Config, o Options) (ctrl.Manager, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if !slices.Contains(o.ConfigMapNamespaces, o.Namespace) {
		o.ConfigMapNamespaces = append(o.ConfigMapNamespaces, o.Namespace)
	}
	if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("cache directory: %w", err)
	}
	ctrl.SetLogger(logr.FromSlogHandler(o.Log.Handler()))
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	namespaces := map[string]cache.Config{}
	for _, n := range o.ConfigMapNamespaces {
		namespaces[n] = cache.Config{}
	}
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(o.Log.Handler()),
		LeaderElection: o.LeaderElection, LeaderElectionID: "danm-controller", LeaderElectionNamespace: o.Namespace, LeaderElectionReleaseOnCancel: true,
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddr},
		HealthProbeBindAddress: o.HealthAddr,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}: {Namespaces: namespaces}, &corev1.Node{}: {Transform: slim}, &coordinationv1.Lease{}: {Namespaces: map[string]cache.Config{o.Namespace: {}}},
		}},
		Controller: ctrlconfig.Controller{SkipNameValidation: ptr.To(true)}, // tests run several managers in a process
		Client:     client.Options{Cache: &client.CacheOptions{Unstructured: true}},
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	for name, check := range map[string]healthz.Checker{"ping": healthz.Ping} {
		if err := m.AddHealthzCheck(name, check); err != nil {
			return nil, err
		}
		if err := m.AddReadyzCheck(name, check); err != nil {
			return nil, err
		}
	}
	numbers := &sync.Mutex{}
	loop := &bundlesync.Reconciler{
		Client: m.GetClient(), APIReader: m.GetAPIReader(), Recorder: m.GetEventRecorder("danm-controller"), Namespace: o.Namespace,
		ConfigMapNamespaces: o.ConfigMapNamespaces, CacheDir: o.CacheDir, Patience: o.Patience, Numbers: numbers, Now: time.Now,
		Metrics: sharedMetrics(),
	}
	if err := loop.Setup(m); err != nil {
		return nil, fmt.Errorf("set up the loop of NetworkBundles: %w", err)
	}
	seen := &bundlesync.PlanEvents{Client: m.GetClient(), Recorder: m.GetEventRecorder("danm-controller")}
	if err := seen.Setup(m); err != nil {
		return nil, fmt.Errorf("set up the events of node plans: %w", err)
	}
	links := &hostlinks.Reconciler{Client: m.GetClient(), APIReader: m.GetAPIReader(), Recorder: m.GetEventRecorder("danm-controller"), Metrics: sharedLinkMetrics()}
	if err := links.Setup(m); err != nil {
		return nil, fmt.Errorf("set up the loop of host links: %w", err)
	}
	tenants := &tenancy.Reconciler{
		Client: m.GetClient(), APIReader: m.GetAPIReader(), Recorder: m.GetEventRecorder("danm-controller"), Numbers: numbers, Metrics: tenancyMetrics(),
	}
	if err := tenants.Setup(m); err != nil {
		return nil, fmt.Errorf("set up the loop of tenants: %w", err)
	}
	addresses := &blocks.Reconciler{
		Client: m.GetClient(), APIReader: m.GetAPIReader(), Recorder: m.GetEventRecorder("danm-controller"), Metrics: addressMetrics(),
		Namespace: o.Namespace, Options: o.Addresses,
	}
	if err := addresses.Setup(m); err != nil {
		return nil, fmt.Errorf("set up the loop of addresses: %w", err)
	}
	return m, nil
}

// Metrics are registered once a process: tests run several managers.
var (
	sharedMetrics  = sync.OnceValue(func() *bundlesync.Metrics { return bundlesync.NewMetrics(metrics.Registry) })
	tenancyMetrics = sync.OnceValue(func() *tenancy.Metrics { return tenancy.NewMetrics(metrics.Registry) })
	addressMetrics = sync.OnceValue(func() *blocks.Metrics { return blocks.NewMetrics(metrics.Registry) })
)

var sharedLinkMetrics = sync.OnceValue(func() *hostlinks.Metrics { return hostlinks.NewMetrics(metrics.Registry) })

// slim drops what no loop looks at: a Node's status is most of it.
func slim(o any) (any, error) {
	if n, ok := o.(*corev1.Node); ok {
		n.Status, n.ManagedFields, n.Annotations = corev1.NodeStatus{}, nil, nil
	}
	return o, nil
}
