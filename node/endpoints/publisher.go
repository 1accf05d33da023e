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
		if wait := p.tooOften(sandbox); wait > 0 {
			p.opts.Log.Warn("somebody else keeps changing DanmEps", "namespace", e.Namespace, "name", e.Name, "again", wait)
			p.queue.AddAfter(sandbox, wait)
			return nil
		}
		if err := p.write(ctx, sandbox, e, is); err != nil {
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

// tooOften counts a write, and says how long to wait if there were too many.
func (p *Publisher) tooOften(sandbox string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, now := p.wrote[sandbox], time.Now()
	if now.Sub(w.since) > while {
		w = writes{since: now}
	}
	w.count++
	if p.wrote[sandbox] = w; w.count <= most*max(1, len(p.have[sandbox])) {
		return 0
	}
	return w.since.Add(while).Sub(now) + time.Second
}

func (p *Publisher) write(ctx context.Context, sandbox string, e *danmv1.DanmEp, is bool) error {
	p.mu.Lock()
	p.flight[e.Name] = false
	p.mu.Unlock()
	var u *unstructured.Unstructured
	err := error(nil)
	if !is {
		u, err = p.create(ctx, e)
		is = apierrors.IsAlreadyExists(err) // somebody took the label away that we find ours by
	}
	if is {
		u, err = p.update(ctx, e)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	told := p.flight[e.Name]
	delete(p.flight, e.Name)
	switch {
	case apierrors.IsNotFound(err) && !told: // the watch has not told yet
		p.drop(e.Name)
	case err == nil && !told: // else the watch may have told of this already, and of what happened since
		p.note(sandbox, u)
	}
	if err != nil {
		return fmt.Errorf("write DanmEp %s/%s: %w", e.Namespace, e.Name, err)
	}
	return nil
}

func (p *Publisher) create(ctx context.Context, e *danmv1.DanmEp) (*unstructured.Unstructured, error) {
	u, err := plain(e)
	if err != nil {
		return nil, err
	}
	return p.api.Namespace(e.Namespace).Create(ctx, u, metav1.CreateOptions{})
}

// update makes what is there say what it should, and leaves annotations and finalizers of others alone.
func (p *Publisher) update(ctx context.Context, e *danmv1.DanmEp) (*unstructured.Unstructured, error) {
	in := p.api.Namespace(e.Namespace)
	there, err := in.Get(ctx, e.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	e.ResourceVersion, e.UID, e.Annotations, e.Finalizers = there.GetResourceVersion(), there.GetUID(), there.GetAnnotations(), there.GetFinalizers()
	u, err := plain(e)
	if err != nil {
		return nil, err
	}
	return in.Update(ctx, u, metav1.UpdateOptions{})
}

func plain(e *danmv1.DanmEp) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(e)
	return &unstructured.Unstructured{Object: content}, err
}

func (p *Publisher) forget(sandbox, name string, uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.have[sandbox][name].uid == uid {
		p.drop(name)
	}
}

// note and drop keep have and owner. A DanmEp whose CID somebody changed is noted where it says to be, and no more where it was: both
// are then compared. p.mu is held.
func (p *Publisher) note(sandbox string, u *unstructured.Unstructured) (before string) {
	if before = p.owner[u.GetName()]; before != "" && before != sandbox {
		p.drop(u.GetName())
	}
	put(p.have, sandbox, u)
	p.owner[u.GetName()] = sandbox
	return before
}

func (p *Publisher) drop(name string) (before string) {
	before = p.owner[name]
	delete(p.owner, name)
	if delete(p.have[before], name); len(p.have[before]) == 0 {
		delete(p.have, before)
		delete(p.wrote, before)
	}
	return before
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
	for name := range l.flight {
		l.flight[name] = true
	}
	clear(l.owner)
	for sandbox, names := range l.have {
		for name := range names {
			l.owner[name] = sandbox
		}
	}
	maps.DeleteFunc(l.ended, func(sandbox string, _ bool) bool { return len(l.have[sandbox]) == 0 })
	l.mu.Unlock()
	(*Publisher)(l).all()
}

// Synced is follow.Listener's.
func (l *listener) Synced(bool) {}

// Event is follow.Listener's.
func (l *listener) Event(kind watch.EventType, u *unstructured.Unstructured) {
	p := (*Publisher)(l)
	sandbox := p.sandboxOf(u)
	p.mu.Lock()
	if _, is := p.flight[u.GetName()]; is {
		p.flight[u.GetName()] = true
	}
	before := ""
	switch {
	case kind == watch.Deleted && p.have[p.owner[u.GetName()]][u.GetName()].uid != u.GetUID(): // one before the one that is there
	case kind == watch.Deleted, sandbox == "":
		before = p.drop(u.GetName())
	default:
		before = p.note(sandbox, u)
	}
	p.mu.Unlock()
	for _, one := range []string{before, sandbox} {
		if one != "" {
			p.queue.Add(one)
		}
	}
}
