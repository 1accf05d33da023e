package endpoints

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	danmv1 "danm.io/danm/spec/danm/v1"
)

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
