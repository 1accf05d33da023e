package blocks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

const (
	// writers are under way at once: an answer takes milliseconds, most of them waiting for etcd.
	writers = 16
	// perRound bounds how long a round goes without looking.
	perRound = 2000
	// prompt is how old what a Prompt action was decided upon may be.
	prompt = 5 * time.Second
	// statusManager owns this loop's part of networks' status.
	statusManager = "danm-controller-blocks"
)

// errLate says that a round was held up between reading and writing.
var errLate = errors.New("decided too long ago, looking again")

// act carries out actions. All are tried; done are those that were written.
func (r *Reconciler) act(ctx context.Context, list []Action, decided time.Time) (done []Action, err error) {
	if len(list) > perRound {
		list = list[:perRound]
	}
	failed := make([]error, len(list))
	var mu sync.Mutex
	var all errgroup.Group
	all.SetLimit(writers)
	for i := range list {
		a := &list[i]
		all.Go(func() error {
			if a.Prompt && time.Since(decided) > prompt {
				failed[i] = errLate
				return nil
			}
			if err := r.one(ctx, a); err != nil {
				failed[i] = fmt.Errorf("%s %s: %w", a.Verb, a.name(), err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			done = append(done, *a)
			if a.Key != "" {
				r.wrote[a.Key] = r.now()
			}
			r.tell(a)
			return nil
		})
	}
	_ = all.Wait()
	return done, errors.Join(failed...)
}

func (a *Action) name() string {
	switch {
	case a.Block != nil:
		return "IPBlock " + a.Block.Name
	case a.Lease != nil:
		return "Lease " + a.Lease.Name
	}
	return a.Network.Key()
}

func (r *Reconciler) one(ctx context.Context, a *Action) error {
	log.FromContext(ctx).V(1).Info("write", "verb", string(a.Verb), "object", a.name(), "reason", a.Why)
	owner := client.FieldOwner(v1alpha1.FieldManager)
	switch a.Verb {
	case Create:
		return r.Client.Create(ctx, a.Block, owner)
	case Update:
		return r.Client.Update(ctx, a.Block, owner)
	case UpdateStatus:
		return r.Client.Status().Update(ctx, a.Block, owner)
	case Remove:
		return r.remove(ctx, a.Block.DeepCopy())
	case DeleteLease:
		uid, version := a.Lease.UID, a.Lease.ResourceVersion
		return r.Client.Delete(ctx, a.Lease, client.Preconditions{UID: &uid, ResourceVersion: &version})
	case Finalize:
		return r.finalize(ctx, a.Network, a.Keep)
	case Tell:
		return r.status(ctx, a.Network, a.Status)
	}
	return fmt.Errorf("no such verb %q", a.Verb)
}

// remove takes the finalizer off and deletes the object that was decided upon. Cut off between the two it is done again.
func (r *Reconciler) remove(ctx context.Context, b *v1alpha1.IPBlock) error {
	if i := slices.Index(b.Finalizers, v1alpha1.IPFinalizer); i >= 0 {
		b.Finalizers = slices.Delete(b.Finalizers, i, i+1)
		if err := r.Client.Update(ctx, b, client.FieldOwner(v1alpha1.FieldManager)); err != nil {
			return err
		}
	}
	uid, version := b.UID, b.ResourceVersion
	return client.IgnoreNotFound(r.Client.Delete(ctx, b, client.Preconditions{UID: &uid, ResourceVersion: &version}))
}

func (r *Reconciler) finalize(ctx context.Context, n *Network, keep bool) error {
	next, ok := n.Object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object", n.Object)
	}
	list := slices.DeleteFunc(slices.Clone(next.GetFinalizers()), func(f string) bool { return f == Finalizer })
	if keep {
		list = append(list, Finalizer)
	}
	next.SetFinalizers(list)
	patch := client.MergeFromWithOptions(n.Object, client.MergeFromWithOptimisticLock{})
	return r.Client.Patch(ctx, next, patch, client.FieldOwner(v1alpha1.FieldManager))
}

// status applies this loop's conditions and counts, and no others': each writer of a network's status has a manager of its own.
func (r *Reconciler) status(ctx context.Context, n *Network, s *danmv1.NetworkStatus) error {
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(s)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	delete(raw, "observedGeneration") // hostlinks'
	o := n.Object
	metadata := map[string]any{"name": o.GetName(), "uid": string(o.GetUID()), "resourceVersion": o.GetResourceVersion()}
	if o.GetNamespace() != "" {
		metadata["namespace"] = o.GetNamespace()
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": danmv1.APIVersion, "kind": n.Kind, "metadata": metadata, "status": raw}}
	return r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(statusManager), client.ForceOwnership)
}

func (r *Reconciler) tell(a *Action) {
	r.Metrics.wrote(a)
	if r.Recorder == nil {
		return
	}
	for _, e := range a.Events {
		about := e.About
		switch {
		case about != nil:
		case a.Block != nil:
			about = a.Block
		default:
			about = a.Network.Object
		}
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		r.Recorder.Eventf(about, nil, kind, e.Reason, "ManageAddresses", "%.900s", e.Text)
	}
}

// expected are the errors of a write that somebody else was faster than: looking again is all there is to do.
func expected(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(e error) bool { return !expected(e) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || errors.Is(err, errLate)
}
