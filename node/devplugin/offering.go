package devplugin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Pauses before another try, doubled each time as long as nothing lasts.
const (
	firstPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
)

const (
	heardWithin = 15 * time.Second // a kubelet asks for the list as soon as it has registered a resource
	lasting     = 10 * time.Second // a registration that held so long was none that fails at once
	endWithin   = 2 * time.Second  // for the kubelet to hear that nothing is offered any more
)

// Why a registration is over.
var (
	errUnheard    = errors.New("the kubelet does not ask for the devices")
	errLost       = errors.New("the kubelet no longer listens")
	errSocketGone = errors.New("the socket is gone")
	errNewKubelet = errors.New("the kubelet has a new socket")
	errNoServer   = errors.New("the server has ended")
)

// offering is one resource at the kubelet.
type offering struct {
	p    *Plugin
	name string
	wake chan struct{} // has one when something happened to sockets
	done chan struct{} // closed when run has returned

	connected atomic.Bool

	mu      sync.Mutex
	is      Resource
	last    bool                       // it is taken back: this list is the last
	changed chan struct{}              // closed when is or last is another
	streams map[stream]<-chan struct{} // those that listen, with the changed of what they were sent
}

func newOffering(p *Plugin, r Resource) *offering {
	return &offering{p: p, name: r.Name, wake: make(chan struct{}, 1), done: make(chan struct{}), is: r, changed: make(chan struct{}),
		streams: map[stream]<-chan struct{}{}}
}

// set changes what is offered; the last list ends run.
func (o *offering) set(r Resource, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == last && sameDevices(o.is, r) {
		return
	}
	o.is, o.last = r, last
	close(o.changed)
	o.changed = make(chan struct{})
}

// now is what is offered, and a channel that is closed when that changes.
func (o *offering) now() (r Resource, last bool, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.is, o.last, o.changed
}

// run keeps the resource registered until ctx ends or its last list was told. It begins when an earlier one of the same resource has
// ended: a kubelet mixes up what it hears of two.
func (o *offering) run(ctx context.Context, before <-chan struct{}) {
	defer close(o.done)
	if before != nil {
		<-before
	}
	log, pause, failing := o.p.log.With("resource", o.name), firstPause, false
	for {
		began, kubelet := time.Now(), identify(o.p.kubelet())
		err := o.once(ctx, kubelet)
		if _, last, _ := o.now(); ctx.Err() != nil || last {
			return
		}
		if time.Since(began) > lasting {
			pause = firstPause
		}
		if !failing || wasRegistered(err) { // once, not once a try
			log.Warn("not registered at the kubelet, it is tried again", "reason", err)
		}
		failing = true
		if o.rest(ctx, pause, kubelet) {
			pause = firstPause
		} else {
			pause = min(2*pause, longPause)
		}
	}
}

// wasRegistered says whether a registration that is over was one.
func wasRegistered(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, errSocketGone) || errors.Is(err, errNewKubelet)
}

// rest waits before another try, and says whether it was cut short: by a new socket of the kubelet, or because nothing is to be tried.
func (o *offering) rest(ctx context.Context, pause time.Duration, kubelet identity) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		_, last, changed := o.now()
		if last {
			return true
		}
		select {
		case <-ctx.Done():
			return true
		case <-changed: // it may have been the last
		case <-timer.C:
			return false
		case <-o.wake:
			if is := identify(o.p.kubelet()); is != kubelet && is != (identity{}) {
				return true
			}
		}
	}
}

// once registers the resource and returns when that is over, with the reason.
func (o *offering) once(ctx context.Context, kubelet identity) error {
	// The socket is made when the kubelet is there: one that starts removes all that it finds before it listens.
	if err := reachable(ctx, o.p.kubelet()); err != nil {
		return fmt.Errorf("reach the kubelet: %w", err)
	}
	s, err := o.serve()
	if err != nil {
		return fmt.Errorf("serve the kubelet: %w", err)
	}
	defer s.end()
	err = register(ctx, o.p.kubelet(), s.socket, o.name)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	o.p.opts.Registered(o.name, err)
	if err != nil {
		return fmt.Errorf("register at the kubelet: %w", err)
	}
	return o.hold(ctx, s, kubelet)
}

// hold returns when a registration is over.
func (o *offering) hold(ctx context.Context, s *session, kubelet identity) error {
	defer o.connected.Store(false)
	patience := time.NewTimer(heardWithin)
	defer patience.Stop()
	heard := s.heard
	for {
		_, last, changed := o.now()
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-heard:
			heard = nil
			patience.Stop()
			o.connected.Store(true)
			r, _, _ := o.now()
			o.p.log.Info("registered at the kubelet", "resource", o.name, "devices", len(r.Devices), "socket", s.socket)
		case <-patience.C:
			return errUnheard
		case <-s.lost:
			return errLost
		case <-s.served:
			return errNoServer
		case <-o.wake:
			if identify(s.path()) != s.file {
				return errSocketGone
			}
			if is := identify(o.p.kubelet()); is != kubelet && is != (identity{}) {
				return errNewKubelet
			}
		}
	}
}
