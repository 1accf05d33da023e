package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
)

var blocksKind = schema.GroupResource{Group: "danm.io", Resource: "ipblocks"}

// fakeAPI has the API server's semantics as far as these tests lean on them. test/ipamsim has all of them, compared with a
// real one.
type fakeAPI struct {
	mu      sync.Mutex
	version int64
	blocks  map[string]*v1alpha1.IPBlock
	leases  map[string]*coordinationv1.Lease
	writes  int
	away    error                         // every call fails with it
	before  func(call, name string) error // an error: the call is not made
	after   func(call, name string) error // an error: the call was made, the answer is lost
	ids     map[string]string             // identities by node
	clock   func() time.Time
}

func newFakeAPI(c *clock) *fakeAPI {
	return &fakeAPI{blocks: map[string]*v1alpha1.IPBlock{}, leases: map[string]*coordinationv1.Lease{}, ids: map[string]string{}, clock: c.now, version: 100}
}

// apiOf is the API as one node sees it.
type apiOf struct {
	*fakeAPI
	node string
}

func (f *fakeAPI) call(call, name string, write func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away != nil {
		return f.away
	}
	if f.before != nil {
		if err := f.before(call, name); err != nil {
			return err
		}
	}
	if err := write(); err != nil {
		return err
	}
	if f.after != nil {
		return f.after(call, name)
	}
	return nil
}

func (f *fakeAPI) stamp(m *metav1.ObjectMeta) {
	f.version++
	f.writes++
	m.ResourceVersion = strconv.FormatInt(f.version, 10)
}

func (f *fakeAPI) Block(_ context.Context, name string) (out *v1alpha1.IPBlock, err error) {
	err = f.call("get", name, func() error {
		o, ok := f.blocks[name]
		if !ok {
			return apierrors.NewNotFound(blocksKind, name)
		}
		out = o.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (f *fakeAPI) Blocks(_ context.Context, labels map[string]string) (out []v1alpha1.IPBlock, version string, err error) {
	err = f.call("list", "", func() error {
		for _, name := range slices.Sorted(maps.Keys(f.blocks)) {
			match := true
			for k, v := range labels {
				have, ok := f.blocks[name].Labels[k]
				match = match && ok && have == v
			}
			if match {
				out = append(out, *f.blocks[name].DeepCopy())
			}
		}
		version = strconv.FormatInt(f.version, 10)
		return nil
	})
	return out, version, err
}

func (f *fakeAPI) Create(_ context.Context, b *v1alpha1.IPBlock) (out *v1alpha1.IPBlock, err error) {
	err = f.call("create", b.Name, func() error {
		if _, ok := f.blocks[b.Name]; ok {
			return apierrors.NewAlreadyExists(blocksKind, b.Name)
		}
		o := b.DeepCopy()
		o.Status = v1alpha1.IPBlockStatus{}
		f.stamp(&o.ObjectMeta)
		o.UID = types.UID(fmt.Sprintf("uid-%d", f.version))
		o.CreationTimestamp = metav1.NewTime(f.clock())
		f.blocks[b.Name] = o
		out = o.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (f *fakeAPI) update(call string, b *v1alpha1.IPBlock, change func(old *v1alpha1.IPBlock) *v1alpha1.IPBlock) (out *v1alpha1.IPBlock, err error) {
	err = f.call(call, b.Name, func() error {
		old, ok := f.blocks[b.Name]
		switch {
		case !ok:
			return apierrors.NewNotFound(blocksKind, b.Name)
		case b.ResourceVersion != old.ResourceVersion || b.UID != old.UID:
			return apierrors.NewConflict(blocksKind, b.Name, errors.New("version"))
		}
		o := change(old)
		f.stamp(&o.ObjectMeta)
		if f.blocks[b.Name] = o; o.DeletionTimestamp != nil && len(o.Finalizers) == 0 {
			delete(f.blocks, b.Name)
		}
		out = o.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (f *fakeAPI) Update(_ context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return f.update("update", b, func(old *v1alpha1.IPBlock) *v1alpha1.IPBlock {
		o := b.DeepCopy()
		o.Status, o.DeletionTimestamp = old.Status, old.DeletionTimestamp
		return o
	})
}

func (f *fakeAPI) UpdateStatus(_ context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return f.update("status", b, func(old *v1alpha1.IPBlock) *v1alpha1.IPBlock {
		o := old.DeepCopy()
		o.Status = b.DeepCopy().Status
		return o
	})
}

func (f *fakeAPI) Delete(_ context.Context, name, uid string) error {
	return f.call("delete", name, func() error {
		o, ok := f.blocks[name]
		switch {
		case !ok:
			return apierrors.NewNotFound(blocksKind, name)
		case string(o.UID) != uid:
			return apierrors.NewConflict(blocksKind, name, errors.New("uid"))
		case len(o.Finalizers) > 0:
			now := metav1.NewTime(f.clock())
			o.DeletionTimestamp = &now
			f.stamp(&o.ObjectMeta)
			return nil
		}
		f.version++
		f.writes++
		delete(f.blocks, name)
		return nil
	})
}

func (a apiOf) Lease(context.Context) (out *coordinationv1.Lease, err error) {
	err = a.call("lease", a.node, func() error {
		l, ok := a.leases[a.node]
		if !ok {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "leases"}, a.node)
		}
		out = l.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a apiOf) PutLease(_ context.Context, l *coordinationv1.Lease) (out *coordinationv1.Lease, err error) {
	err = a.call("put", a.node, func() error {
		old, ok := a.leases[a.node]
		if ok && old.ResourceVersion != l.ResourceVersion || !ok && l.ResourceVersion != "" {
			return apierrors.NewConflict(schema.GroupResource{Resource: "leases"}, a.node, errors.New("version"))
		}
		o := l.DeepCopy()
		if a.stamp(&o.ObjectMeta); !ok {
			o.UID = types.UID(fmt.Sprintf("uid-%d", a.version))
		}
		a.leases[a.node] = o
		out = o.DeepCopy()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (a apiOf) Identity(context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away != nil {
		return "", a.away
	}
	return a.ids[a.node], nil
}
