package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	"danm.io/danm/node/follow"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// Source is who knows what is attached; cni/server.Server.
type Source interface {
	// Sandboxes are all, or those of the Pod with that UID.
	Sandboxes(podUID string) []string
	// Seen is what a sandbox has: nothing (has is false), or not to be told yet (complete is false).
	Seen(sandbox string) (a model.Attached, has, complete bool, err error)
}

// Options of a Publisher. All are required.
type Options struct {
	Node   string
	Config *rest.Config
	Source Source
	// Pod finds a Pod of the node by the UID that its runtime knows; false while the API says nothing of it.
	Pod func(uid string) (Pod, bool)
	// Complete says whether the node's records can be all there are: after a journal was lost, they are not.
	Complete func() bool
	Log      *slog.Logger
}

const (
	page     = 100 // DanmEps in one answer of a list
	writers  = 4
	callTime = 10 * time.Second
	look     = 10 * time.Second // for whether the records are complete
	allAgain = 10 * time.Minute
	// A sandbox's DanmEps are written as often as most in a while; whoever changes them all the time is left alone until that is over.
	most  = 12
	while = time.Minute
)

var danmEps = schema.GroupVersionResource{Group: danmv1.Group, Version: danmv1.Version, Resource: "danmeps"}

// Publisher keeps the DanmEps of one node. See New.
type Publisher struct {
	opts  Options
	api   dynamic.NamespaceableResourceInterface
	queue workqueue.TypedRateLimitingInterface[string] // of sandboxes
	look  time.Duration

	mu     sync.Mutex
	listed bool                       // have is what the API has
	have   map[string]map[string]held // by sandbox and name
	next   map[string]map[string]held // of the list in progress
	flight map[string]bool            // names that are being written: whether the watch told of them meanwhile
	owner  map[string]string          // sandbox by name, of have
	wrote  map[string]writes          // by sandbox
	ended  map[string]bool            // sandboxes that are known to be gone although they have no record
}

// writes are those of one sandbox since some time.
type writes struct {
	since time.Time
	count int
}

// held is a DanmEp in the API.
type held struct {
	namespace, version string
	uid                types.UID
	digest             digest
}

// New makes ready. Nothing is written before Run.
func New(o Options) (*Publisher, error) {
	config := rest.CopyConfig(o.Config)
	config.QPS, config.Burst = 100, 200 // after a boot all Pods of a node come at once
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API: %w", err)
	}
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, 30*time.Second)
	return &Publisher{
		opts: o, api: api.Resource(danmEps), queue: workqueue.NewTypedRateLimitingQueue(limit),
		have: map[string]map[string]held{}, owner: map[string]string{}, wrote: map[string]writes{}, flight: map[string]bool{}, ended: map[string]bool{}, look: look,
	}, nil
}

// Changed says that a sandbox was attached, or is attached no more. It does not wait.
func (p *Publisher) Changed(sandbox string, attached bool) {
	p.mu.Lock()
	if attached || !p.listed || len(p.have[sandbox]) > 0 {
		delete(p.ended, sandbox)
		if !attached {
			p.ended[sandbox] = true
		}
	}
	p.mu.Unlock()
	p.queue.Add(sandbox)
}

// PodChanged says that the API tells something new of a Pod, whom the runtime knows by these UIDs.
func (p *Publisher) PodChanged(uids ...string) {
	for _, uid := range uids {
		if uid == "" {
			continue
		}
		for _, sandbox := range p.opts.Source.Sandboxes(uid) {
			p.queue.Add(sandbox)
		}
	}
}

// Published is how many DanmEps the node has in the API, as far as it knows.
func (p *Publisher) Published() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.have {
		n += len(s)
	}
	return n
}

// Run publishes until ctx ends. An API that is away is waited for.
func (p *Publisher) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() {
		selector := labels.SelectorFromSet(labels.Set{danmv1.LabelNode: v1alpha1.LabelValue(p.opts.Node)})
		follow.Run(ctx, follow.Kind{API: p.api, Name: "DanmEps of this node", Selector: metav1.ListOptions{LabelSelector: selector.String()}, Page: page, FromCache: true}, (*listener)(p), p.opts.Log)
	})
	for range writers {
		running.Go(func() { p.work(ctx) })
	}
	running.Go(func() { p.lookAgain(ctx) })
	<-ctx.Done()
	p.queue.ShutDown()
	running.Wait()
}

// lookAgain compares everything now and then, and when it becomes known that the records are all there are.
func (p *Publisher) lookAgain(ctx context.Context) {
	tick := time.NewTicker(p.look)
	defer tick.Stop()
	for last, complete := time.Now(), false; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		was := complete
		if complete = p.opts.Complete(); complete && !was || time.Since(last) > allAgain {
			last = time.Now()
			p.all()
		}
	}
}

// all has every sandbox compared that is attached or has DanmEps.
func (p *Publisher) all() {
	p.mu.Lock()
	all := p.opts.Source.Sandboxes("")
	for sandbox := range p.have {
		all = append(all, sandbox)
	}
	p.mu.Unlock()
	for _, sandbox := range all {
		p.queue.Add(sandbox)
	}
}

func (p *Publisher) work(ctx context.Context) {
	for {
		sandbox, closed := p.queue.Get()
		if closed {
			return
		}
		err := p.publish(ctx, sandbox)
		switch {
		case err == nil:
			p.queue.Forget(sandbox)
		case ctx.Err() == nil:
			if p.queue.NumRequeues(sandbox) == 2 { // once is a conflict, or the API's restart
				p.opts.Log.Warn("DanmEps are not as they should be", "container", sandbox, "reason", err)
			}
			p.queue.AddRateLimited(sandbox)
		}
		p.queue.Done(sandbox)
	}
}

// publish makes the DanmEps of one sandbox what they should be.
func (p *Publisher) publish(ctx context.Context, sandbox string) error {
	p.mu.Lock()
	listed, ended := p.listed, p.ended[sandbox]
	p.mu.Unlock()
	if !listed {
		return nil // the end of the list comes back to all
	}
	a, has, complete, err := p.opts.Source.Seen(sandbox)
	if err != nil {
		return err
	}
	var want []danmv1.DanmEp
	switch {
	case !has && !ended && !p.opts.Complete():
		return nil // nobody knows of it, and that may be our fault
	case !has:
	case !complete:
		return nil
	default:
		pod, known := p.opts.Pod(a.PodUID)
		if !known {
			return nil // Kubernetes would collect them at once
		}
		want = Objects(p.opts.Node, a, pod)
	}
	if err := p.bring(ctx, sandbox, want); err != nil {
		return err
	}
	if !has {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.ended, sandbox)
		delete(p.wrote, sandbox)
	}
	return nil
}
