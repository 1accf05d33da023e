package world

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Server is a real API server as a Store.
type Server struct{ Client client.Client }

var _ Store = Server{}

// Get reads one object.
func (s Server) Get(ctx context.Context, kind, namespace, name string) (Object, error) {
	k, ok := kinds[kind]
	if !ok {
		return nil, apierrors.NewBadRequest("no kind " + kind)
	}
	o := k.new()
	return o, s.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, o)
}

// List reads those that have all of the labels, and the version of the list.
func (s Server) List(ctx context.Context, kind string, labels map[string]string) ([]Object, string, error) {
	k, ok := kinds[kind]
	if !ok {
		return nil, "", apierrors.NewBadRequest("no kind " + kind)
	}
	list, err := s.Client.Scheme().New(k.gvk.GroupVersion().WithKind(kind + "List"))
	if err != nil {
		return nil, "", err
	}
	l, ok := list.(client.ObjectList)
	if !ok {
		return nil, "", apierrors.NewBadRequest("no list of " + kind)
	}
	if err := s.Client.List(ctx, l, client.MatchingLabels(labels)); err != nil {
		return nil, "", err
	}
	var out []Object
	err = meta.EachListItem(l, func(o runtime.Object) error {
		out = append(out, o.(Object)) //nolint:forcetypeassert // every kind is one
		return nil
	})
	return out, l.GetResourceVersion(), err
}

// Create makes an object that is not there.
func (s Server) Create(ctx context.Context, o Object) (Object, error) {
	out := o.DeepCopyObject().(Object)
	return out, s.Client.Create(ctx, out)
}

// Update replaces metadata and spec.
func (s Server) Update(ctx context.Context, o Object) (Object, error) {
	out := o.DeepCopyObject().(Object)
	return out, s.Client.Update(ctx, out)
}

// UpdateStatus replaces the status.
func (s Server) UpdateStatus(ctx context.Context, o Object) (Object, error) {
	out := o.DeepCopyObject().(Object)
	return out, s.Client.Status().Update(ctx, out)
}

// Delete removes an object, or marks it.
func (s Server) Delete(ctx context.Context, kind, namespace, name string, pre Preconditions) error {
	k, ok := kinds[kind]
	if !ok {
		return apierrors.NewBadRequest("no kind " + kind)
	}
	o := k.new()
	o.SetNamespace(namespace)
	o.SetName(name)
	p := client.Preconditions{}
	if pre.UID != "" {
		uid := types.UID(pre.UID)
		p.UID = &uid
	}
	if pre.ResourceVersion != "" {
		p.ResourceVersion = &pre.ResourceVersion
	}
	return s.Client.Delete(ctx, o, p)
}
