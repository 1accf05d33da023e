package devplugin

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// stream is how a kubelet, or a person, listens to a resource.
type stream = grpc.ServerStreamingServer[deviceplugin.ListAndWatchResponse]

// Told returns when whoever listens has been sent what Set said before. Where nobody listens there is nobody to wait for: a kubelet that
// comes hears of the newest list. The error is that ctx ended first.
func (p *Plugin) Told(ctx context.Context) error {
	p.mu.Lock()
	number := p.sets
	p.mu.Unlock()
	for {
		told, moved := p.toldOf(number)
		if told {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("tell the kubelet of devices: %w", context.Cause(ctx))
		}
	}
}

// toldOf says whether all have been sent the list of a number or a later one, and has a channel that is closed when that may be otherwise.
func (p *Plugin) toldOf(number uint64) (told bool, moved <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.handed < number {
		return false, p.moved
	}
	for _, o := range p.offers {
		if !o.told() {
			return false, p.moved
		}
	}
	return true, p.moved
}

// note changes what Told looks at. change may be nil.
func (p *Plugin) note(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if change != nil {
		change()
	}
	close(p.moved)
	p.moved = make(chan struct{})
}

// sent remembers what a stream has been sent: the list that changed stands for, nil = none yet.
func (o *offering) sent(to stream, changed <-chan struct{}) {
	o.mu.Lock()
	o.streams[to] = changed
	o.mu.Unlock()
	o.p.note(nil)
}

// left forgets a stream.
func (o *offering) left(to stream) {
	o.mu.Lock()
	delete(o.streams, to)
	o.mu.Unlock()
	o.p.note(nil)
}

// told says whether all who listen have the list that is.
func (o *offering) told() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, has := range o.streams {
		if has != o.changed {
			return false
		}
	}
	return true
}
