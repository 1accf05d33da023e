package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/endpoints"
	"danm.io/danm/node/mirror"
)

// publisher makes DanmEps of what the CNI server attached.
func publisher(s Settings, pods *mirror.Pods, cni *server.Server, a *addresses, log *slog.Logger) (*endpoints.Publisher, error) {
	p, err := endpoints.New(endpoints.Options{
		Node: s.Node, Config: s.API, Source: cni, Log: log,
		Pod: podOf(pods),
		// That a journal was wiped or set back shows when it is compared with the API.
		Complete: func() bool { return a.keeper.Reached() && a.journal.Meta().LostSince == 0 },
	})
	if err != nil {
		return nil, err
	}
	pods.Changed = func(info mirror.PodInfo) { p.PodChanged(info.UID, info.Static) }
	return p, nil
}

func podOf(pods podSource) func(uid string) (endpoints.Pod, bool) {
	return func(uid string) (endpoints.Pod, bool) {
		info, known := pods.Known(uid)
		return endpoints.Pod{UID: info.UID, Namespace: info.Namespace, Name: info.Name, Labels: info.Labels}, known
	}
}

// comparer is the part of cni/server that is asked at the agent's start.
type comparer interface {
	Sandboxes(podUID string) []string
	Compare(ctx context.Context, sandboxes []string) server.Survey
}

// What could not be looked at is looked at again after a pause that grows from the one to the other.
const (
	lookAgain    = time.Second
	lookAgainMax = 5 * time.Minute
)

// compare looks, at the agent's start, at what earlier lives attached, and says what differs. A sandbox with a call in progress, and one
// that could not be seen, is looked at again.
func (a *Agent) compare(ctx context.Context, cni comparer) {
	began, said := time.Now(), false
	for left, pause := cni.Sandboxes(""), lookAgain; ; pause = min(2*pause, lookAgainMax) {
		found := cni.Compare(ctx, left)
		if ctx.Err() != nil {
			return
		}
		for result, n := range map[string]int{"same": found.Same, "differs": len(found.Differs), "gone": found.Gone} {
			a.m.compared.WithLabelValues(result).Add(float64(n))
		}
		for pod, why := range found.Differs {
			a.log.Warn("a Pod's interfaces are not as they were attached", "pod", pod, "reason", why)
		}
		if n := len(left); n > 0 && !said {
			a.log.Info("compared what is attached with the kernel", "sandboxes", n, "same", found.Same, "differ", len(found.Differs), "gone", found.Gone, "again", len(found.Again), "took", time.Since(began))
		}
		if left, said = found.Again, true; len(left) == 0 {
			return
		}
		if found.Unseen != nil {
			a.log.Warn("interfaces of Pods could not be looked at", "reason", found.Unseen)
		}
		sleep(ctx, pause)
	}
}

// publishes registers how many DanmEps there are.
func (m *metrics) publishes(p *endpoints.Publisher) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "danm_endpoints_published",
		Help: "DanmEps of this node in the API."}, func() float64 { return float64(p.Published()) }))
}
