package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
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
)

var danmEps = schema.GroupVersionResource{Group: danmv1.Group, Version: danmv1.Version, Resource: "danmeps"}

// Publisher keeps the DanmEps of one node. See New.
type Publisher struct {
	opts  Options
	api   dynamic.NamespaceableResourceInterface
	queue workqueue.TypedRateLimitingInterface[string] // of sandboxes

	mu     sync.Mutex
	listed bool                       // have is what the API has
	have   map[string]map[string]held // by sandbox and name
	next   map[string]map[string]held // of the list in progress
	heard  uint64                     // events and lists so far
	ended  map[string]bool            // sandboxes that are known to be gone although they have no record
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
		have: map[string]map[string]held{}, ended: map[string]bool{},
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
		follow.Run(ctx, follow.Kind{API: p.api, Name: "DanmEps of this node", Selector: metav1.ListOptions{LabelSelector: selector.String()}, Page: page}, (*listener)(p), p.opts.Log)
	})
	for range writers {
		running.Go(func() { p.work(ctx) })
	}
	<-ctx.Done()
	p.queue.ShutDown()
	running.Wait()
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
	}
	return nil
}

// bring creates, changes and deletes.
func (p *Publisher) bring(ctx context.Context, sandbox string, want []danmv1.DanmEp) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	p.mu.Lock()
	rest := map[string]held{}
	for name, h := range p.have[sandbox] {
		rest[name] = h
	}
	p.mu.Unlock()
	for i := range want {
		e := &want[i]
		h, is := rest[e.Name]
		delete(rest, e.Name)
		if is && h.digest == digestOf(*e) {
			continue
		}
		if err := p.write(ctx, sandbox, e, h, is); err != nil {
			return err
		}
	}
	for name, h := range rest {
		err := p.api.Namespace(h.namespace).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &h.uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete DanmEp %s/%s: %w", h.namespace, name, err)
		}
		p.forget(sandbox, name, h.uid)
	}
	return nil
}

func (p *Publisher) write(ctx context.Context, sandbox string, e *danmv1.DanmEp, h held, is bool) error {
	in := p.api.Namespace(e.Namespace)
	p.mu.Lock()
	heard := p.heard
	p.mu.Unlock()
	var u *unstructured.Unstructured
	var err error
	if is {
		e.ResourceVersion, e.UID = h.version, h.uid
		u, err = p.update(ctx, e)
	} else if u, err = plain(e); err == nil {
		u, err = in.Create(ctx, u, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // somebody took the label away that we find ours by
			var there *unstructured.Unstructured
			if there, err = in.Get(ctx, e.Name, metav1.GetOptions{}); err == nil {
				e.ResourceVersion, e.UID = there.GetResourceVersion(), there.GetUID()
				u, err = p.update(ctx, e)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("write DanmEp %s/%s: %w", e.Namespace, e.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heard == heard { // else the watch may have told of this already, and of what happened since
		put(p.have, sandbox, u)
	}
	return nil
}

func (p *Publisher) update(ctx context.Context, e *danmv1.DanmEp) (*unstructured.Unstructured, error) {
	u, err := plain(e)
	if err != nil {
		return nil, err
	}
	return p.api.Namespace(e.Namespace).Update(ctx, u, metav1.UpdateOptions{})
}

func plain(e *danmv1.DanmEp) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(e)
	return &unstructured.Unstructured{Object: content}, err
}

func (p *Publisher) forget(sandbox, name string, uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have[sandbox][name].uid == uid {
		remove(p.have, sandbox, name)
	}
}

func put(into map[string]map[string]held, sandbox string, u *unstructured.Unstructured) {
	var e danmv1.DanmEp
	h := held{namespace: u.GetNamespace(), version: u.GetResourceVersion(), uid: u.GetUID()}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &e); err == nil {
		h.digest = digestOf(e)
	}
	if into[sandbox] == nil {
		into[sandbox] = map[string]held{}
	}
	into[sandbox][u.GetName()] = h
}

func remove(from map[string]map[string]held, sandbox, name string) {
	if delete(from[sandbox], name); len(from[sandbox]) == 0 {
		delete(from, sandbox)
	}
}

// sandboxOf is whose a DanmEp is; "" for one that another node's label was put on.
func (p *Publisher) sandboxOf(u *unstructured.Unstructured) string {
	host, _, _ := unstructured.NestedString(u.Object, "spec", "Host")
	cid, _, _ := unstructured.NestedString(u.Object, "spec", "CID")
	if host != p.opts.Node {
		return ""
	}
	return cid
}

// listener is told what DanmEps the node has.
type listener Publisher

// Begin is follow.Listener's.
func (l *listener) Begin() { l.next = map[string]map[string]held{} }

// Listed is follow.Listener's.
func (l *listener) Listed(u *unstructured.Unstructured) {
	if sandbox := (*Publisher)(l).sandboxOf(u); sandbox != "" {
		put(l.next, sandbox, u)
	}
}

// End is follow.Listener's.
func (l *listener) End() {
	l.mu.Lock()
	l.have, l.next, l.listed = l.next, nil, true
	l.heard++
	all := l.opts.Source.Sandboxes("")
	for sandbox := range l.have {
		all = append(all, sandbox)
	}
	maps.DeleteFunc(l.ended, func(sandbox string, _ bool) bool { return len(l.have[sandbox]) == 0 })
	l.mu.Unlock()
	for _, sandbox := range all {
		l.queue.Add(sandbox)
	}
}

// Synced is follow.Listener's.
func (l *listener) Synced(bool) {}

// Event is follow.Listener's.
func (l *listener) Event(kind watch.EventType, u *unstructured.Unstructured) {
	sandbox := (*Publisher)(l).sandboxOf(u)
	if sandbox == "" {
		return
	}
	l.mu.Lock()
	l.heard++
	if kind == watch.Deleted {
		if l.have[sandbox][u.GetName()].uid == u.GetUID() {
			remove(l.have, sandbox, u.GetName())
		}
	} else {
		put(l.have, sandbox, u)
	}
	l.mu.Unlock()
	l.queue.Add(sandbox)
}
