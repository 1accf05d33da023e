package agent

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"danm.io/danm/node/podresources"
)

const (
	// askWithin is how long the loop waits for the kubelet.
	askWithin = 2 * time.Second
	// askEvery is how often the kubelet is asked beside the loop, at most and while somebody wants to know.
	askEvery = 3 * time.Second
)

// given are the Pods that devices were given to, by the devices' ids.
type given = map[string][]podresources.Holder

// holders is who has the devices of the node, as the kubelet says. nil is a node without one: nobody has any from it. A kubelet that does
// not answer takes nothing back: what it said last is told beside the error.
type holders struct {
	ask    func(context.Context) (given, error)
	wanted chan struct{} // has one when somebody would like a newer answer

	mu    sync.Mutex
	asked time.Time // for the answer that is; zero = never
	is    given
	err   error
}

func newHolders(ask func(context.Context) (given, error)) *holders {
	return &holders{ask: ask, wanted: make(chan struct{}, 1)}
}

// Fresh asks now, and waits no longer than askWithin. The answer must not be changed.
func (h *holders) Fresh(ctx context.Context) (given, error) {
	if h == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	began := time.Now()
	is, err := h.ask(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if began.Before(h.asked) { // somebody who asked later has been answered
		return h.is, h.err
	}
	if h.asked, h.err = began, err; err == nil {
		h.is = is
	}
	return h.is, h.err
}

// Known is the newest answer, and waits for none but the very first. Where it is old, run asks for the next caller. The answer must not
// be changed.
func (h *holders) Known() (given, error) {
	if h == nil {
		return nil, nil
	}
	h.mu.Lock()
	is, err, asked := h.is, h.err, h.asked
	h.mu.Unlock()
	if asked.IsZero() {
		return h.Fresh(context.Background())
	}
	if time.Since(asked) >= askEvery {
		select {
		case h.wanted <- struct{}{}:
		default:
		}
	}
	return is, err
}

// run asks as often as somebody wants to know, and no more than every askEvery, until ctx ends.
func (h *holders) run(ctx context.Context) {
	if h == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wanted:
		}
		_, _ = h.Fresh(ctx)
		sleep(ctx, askEvery)
	}
}

// given asks the kubelet who has devices, without one nobody: then all devices are had by attachment.
func (a *Agent) given(ctx context.Context) (map[string]string, error) {
	return firstPods(a.holders.Fresh(ctx))
}

// knownPods is pods by what the kubelet has said already.
func (a *Agent) knownPods() map[string][]string {
	return a.podsBy(func() (map[string]string, error) { return firstPods(a.holders.Known()) })
}

// whoHas adds what the records of attached Pods say to an answer of the kubelet: it may have none, or have forgotten Pods whose interfaces
// are still there. That it could not be had is no reason to offer nothing.
func (a *Agent) whoHas(kubelet given, _ error) given {
	out := given{}
	maps.Copy(out, kubelet)
	if a.held == nil {
		return out
	}
	for _, h := range a.held() {
		holder := podresources.Holder{Pod: h.Pod, Resource: h.Pool}
		if !slices.Contains(out[h.Device], holder) {
			out[h.Device] = append(slices.Clone(out[h.Device]), holder)
		}
	}
	return out
}

// firstPods leaves of each device's holders the first: one is enough to keep it.
func firstPods(all given, err error) (map[string]string, error) {
	out := make(map[string]string, len(all))
	for id, holders := range all {
		out[id] = holders[0].Pod
	}
	return out, err
}
