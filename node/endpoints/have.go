package endpoints

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	danmv1 "danm.io/danm/spec/danm/v1"
)

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
