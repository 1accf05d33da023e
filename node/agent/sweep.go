package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/cri"
	"danm.io/danm/node/mirror"
)

const (
	sweepEvery = 5 * time.Minute
	// sweepPause is at least between the two looks that must say the same before anything is freed: a runtime lists a sandbox only
	// some time after its ADD began, and may be replaced meanwhile.
	sweepPause = time.Minute
	// podGrace is how long a Pod must have been gone from the API before that alone counts: its containers may outlive it.
	podGrace = 5 * time.Minute
)

// holder is the part of cni/server that the sweeper needs.
type holder interface {
	Holdings() ([]server.Holding, error)
	Rebooted(server.Holding) bool
	NetnsGone(server.Holding) bool
	Reclaim(context.Context, server.Holding) (bool, error)
}

// podList is what the API knows of this node's Pods; *mirror.Pods.
type podList interface {
	Synced() bool
	Known(uid string) (mirror.PodInfo, bool)
	Get(ctx context.Context, namespace, name string) (mirror.PodInfo, error)
}

// sweeper frees what attachments that nobody will end any more hold: a runtime that lost its own records makes no DEL.
type sweeper struct {
	holder    holder
	sandboxes func(context.Context) ([]string, error) // of the container runtime, all states
	pods      podList                                 // nil = no API
	reclaimed func(reason string)
	log       *slog.Logger
	now       func() time.Time

	suspects map[string]suspect   // by record key
	gone     map[string]time.Time // Pods by UID: since when the API does not know them
	said     string               // about the runtime, last
}

type suspect struct {
	server.Holding
	since time.Time
}

// facts are what one look tells about a record.
type facts struct {
	netnsGone bool
	asked     bool // the runtime answered
	listed    bool // and has the sandbox
	rebooted  bool
	podGone   bool          // the API does not know the Pod
	goneFor   time.Duration // how long so
}

// The reasons for freeing, as in the metric.
const (
	reasonSandbox = "sandbox"
	reasonPod     = "pod"
	reasonReboot  = "reboot"
)

// verdict is why a record is an orphan, "" if it is none or nobody can tell. It is pure. One witness is never enough: a namespace may
// be out of sight, a runtime may not be the one that made the sandbox, an API may be behind.
func verdict(h server.Holding, f facts) string {
	switch {
	case f.asked && f.listed:
		return ""
	case f.asked && f.netnsGone:
		return reasonSandbox
	case f.asked && f.podGone && f.goneFor > podGrace && !h.Foreign: // links are taken down first, and another plugin's could not be
		return reasonPod
	case f.asked:
		return ""
	case f.netnsGone && f.rebooted:
		return reasonReboot
	case f.netnsGone && f.podGone:
		return reasonPod
	}
	return ""
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) {
	for ctx.Err() == nil {
		s.sweep(ctx)
		pause := sweepEvery
		if len(s.suspects) > 0 {
			pause = sweepPause + time.Second
		}
		sleep(ctx, pause)
	}
}

// sweep looks once, and frees what an earlier look, long enough ago, said the same about.
func (s *sweeper) sweep(ctx context.Context) {
	holdings, err := s.holder.Holdings()
	if err != nil {
		s.log.Warn("records are not looked through for what nobody needs any more", "reason", err)
		return
	}
	if len(holdings) == 0 {
		s.suspects, s.gone = nil, nil
		return
	}
	listed, asked := s.ask(ctx)
	now := s.now()
	s.notePods(holdings, now)
	before := s.suspects
	s.suspects = map[string]suspect{}
	for _, h := range holdings {
		f := facts{netnsGone: s.holder.NetnsGone(h), asked: asked, listed: listed[h.Container], rebooted: s.holder.Rebooted(h)}
		if since, ok := s.gone[h.PodUID]; ok && s.pods.Synced() {
			f.podGone, f.goneFor = true, now.Sub(since)
		}
		why := verdict(h, f)
		if why == "" {
			continue
		}
		old, seen := before[h.Key]
		switch {
		case !seen || !old.Same(h):
			s.suspects[h.Key] = suspect{h, now}
			s.log.Info("nobody seems to need this any more; looking again", "container", h.Container, "pod", h.Namespace+"/"+h.Pod, "reason", why)
		case now.Sub(old.since) < sweepPause || !s.free(ctx, h, why):
			s.suspects[h.Key] = old
		}
	}
}

// free reclaims one record and says whether it is done with.
func (s *sweeper) free(ctx context.Context, h server.Holding, why string) bool {
	if why == reasonPod && !s.podIsGone(ctx, h) {
		return false
	}
	done, err := s.holder.Reclaim(ctx, h)
	if err != nil {
		s.log.Warn("what nobody needs any more is not free yet", "container", h.Container, "pod", h.Namespace+"/"+h.Pod, "reason", err)
	}
	if !done {
		return false
	}
	s.log.Warn("freed what nobody needs any more", "container", h.Container, "pod", h.Namespace+"/"+h.Pod, "reason", why)
	s.reclaimed(why)
	return true
}

// ask lists the runtime's sandboxes; false if nobody knows.
func (s *sweeper) ask(ctx context.Context) (map[string]bool, bool) {
	ids, err := s.sandboxes(ctx)
	said := ""
	if err != nil {
		said = err.Error()
	}
	if said != s.said && said != "" && !errors.Is(err, cri.ErrNone) {
		s.log.Warn("the container runtime does not say which sandboxes it has", "reason", said)
	}
	s.said = said
	if err != nil {
		return nil, false
	}
	listed := map[string]bool{}
	for _, id := range ids {
		listed[id] = true
	}
	return listed, true
}

// notePods remembers since when the API has not known the Pods of records. An API that cannot be seen says nothing: what was noted stays.
func (s *sweeper) notePods(holdings []server.Holding, now time.Time) {
	if s.pods == nil || !s.pods.Synced() {
		return
	}
	gone := map[string]time.Time{}
	for _, h := range holdings {
		if h.PodUID == "" {
			continue
		}
		if _, known := s.pods.Known(h.PodUID); known {
			continue
		}
		since, noted := s.gone[h.PodUID]
		if !noted {
			since = now
		}
		gone[h.PodUID] = since
	}
	s.gone = gone
}

// podIsGone asks the API itself, once more: a list may be behind.
func (s *sweeper) podIsGone(ctx context.Context, h server.Holding) bool {
	p, err := s.pods.Get(ctx, h.Namespace, h.Pod)
	if errors.Is(err, mirror.ErrNoPod) {
		return true
	}
	if err != nil {
		s.log.Warn("whether a Pod is gone is not known", "pod", h.Namespace+"/"+h.Pod, "reason", err)
		return false
	}
	return p.UID != h.PodUID && p.Static != h.PodUID
}
