package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/node/endpoints"
	"danm.io/danm/node/mirror"
)

// publisher makes DanmEps of what the CNI server attached.
func publisher(s Settings, pods *mirror.Pods, cni *server.Server, journal *ipam.Service, log *slog.Logger) (*endpoints.Publisher, error) {
	p, err := endpoints.New(endpoints.Options{
		Node: s.Node, Config: s.API, Source: cni, Log: log,
		Pod:      podOf(pods),
		Complete: func() bool { return journal.Meta().LostSince == 0 },
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
	Compare(context.Context) server.Survey
}

// busyPause is before sandboxes are looked at again that had a call in progress.
const busyPause = time.Second

// compare looks once, at the agent's start, at what earlier lives attached, and says what differs.
func (a *Agent) compare(ctx context.Context, cni comparer) {
	for began := time.Now(); ; {
		found := cni.Compare(ctx)
		if ctx.Err() != nil {
			return
		}
		if found.Busy > 0 {
			sleep(ctx, busyPause)
			continue
		}
		for result, n := range map[string]int{"same": found.Same, "differs": len(found.Differs), "gone": found.Gone} {
			a.m.compared.WithLabelValues(result).Set(float64(n))
		}
		for pod, why := range found.Differs {
			a.log.Warn("a Pod's interfaces are not as they were attached", "pod", pod, "reason", why)
		}
		if n := found.Same + len(found.Differs) + found.Gone; n > 0 {
			a.log.Info("compared what is attached with the kernel", "sandboxes", n, "same", found.Same, "differ", len(found.Differs), "gone", found.Gone, "took", time.Since(began))
		}
		return
	}
}

// publishes registers how many DanmEps there are.
func (m *metrics) publishes(p *endpoints.Publisher) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "danm_endpoints_published",
		Help: "DanmEps of this node in the API."}, func() float64 { return float64(p.Published()) }))
}
