// Package world is an API server in memory, for tests of programs whose safety rests on the real one's promises: versions,
// UIDs, preconditions, finalizers, the status apart from the spec, the rules of IPBlock. TestClusterConformance plays random
// operations against it and against a real API server and compares what comes back.
//
// A Client is the way to it of one program, and can be cut, frozen, lose answers, and have writes land long after the
// program was told that they timed out.
//
// It does not watch (OnChange only wakes), default, or check what no one here writes wrong: the syntax of names and labels.
package world

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Object is any API object.
type Object interface {
	metav1.Object
	runtime.Object
}

// Preconditions of a deletion; "" is none.
type Preconditions struct{ UID, ResourceVersion string }

type key struct{ kind, namespace, name string }

// World is the API server and its storage. All methods may be called concurrently.
type World struct {
	mu       sync.Mutex
	now      func() time.Time
	version  int64
	uids     int
	objects  map[key]Object            // never changed in place
	index    map[string]map[key]Object // the same, by kind, and by kind and label
	watchers []func(kind, namespace, name string)
	frozen   chan struct{} // closed at the thaw
	writes   int64
}

// New is an empty one. now is the server's clock.
func New(now func() time.Time) *World {
	return &World{now: now, version: 1, objects: map[key]Object{}, index: map[string]map[key]Object{}}
}

// OnChange has f called after each change, while no lock is held; it must not block.
func (w *World) OnChange(f func(kind, namespace, name string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watchers = append(w.watchers, f)
}

// Writes is how many times something was changed.
func (w *World) Writes() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

// Get reads one object.
func (w *World) Get(kindName, namespace, name string) (Object, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := kinds[kindName]
	o, ok := w.objects[key{kindName, namespace, name}]
	if !ok {
		return nil, apierrors.NewNotFound(k.resource, name)
	}
	return o.DeepCopyObject().(Object), nil
}

// List reads those that have all of the labels, by name, and the version of the list.
func (w *World) List(kindName string, labels map[string]string) ([]Object, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Object
	some := w.index[kindName]
	for k, v := range labels {
		if x := w.index[labelled(kindName, k, v)]; len(x) <= len(some) {
			some = x
		}
	}
	for _, o := range some {
		if within(labels, o.GetLabels()) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	for i, o := range out {
		out[i] = o.DeepCopyObject().(Object)
	}
	return out, strconv.FormatInt(w.version, 10)
}

func labelled(kind, key, value string) string { return kind + "\x00" + key + "\x00" + value }

func (w *World) indexed(at key, o Object) {
	put := func(name string) {
		if w.index[name] == nil {
			w.index[name] = map[key]Object{}
		}
		w.index[name][at] = o
	}
	put(at.kind)
	for k, v := range o.GetLabels() {
		put(labelled(at.kind, k, v))
	}
}

func (w *World) unindex(at key) {
	o, ok := w.objects[at]
	if !ok {
		return
	}
	delete(w.index[at.kind], at)
	for k, v := range o.GetLabels() {
		name := labelled(at.kind, k, v)
		if delete(w.index[name], at); len(w.index[name]) == 0 {
			delete(w.index, name)
		}
	}
}

func within(want, have map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// Create makes an object that is not there. manager is who does it.
func (w *World) Create(manager string, in Object) (Object, error) {
	k, o, err := w.prepare(in)
	if err != nil {
		return nil, err
	}
	if o.GetResourceVersion() != "" {
		return nil, errors.New("resourceVersion should not be set on objects to be created")
	}
	if k.status {
		k.set("Status", o, nil)
	}
	w.mu.Lock()
	now := w.now()
	w.uids++
	o.SetUID(types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012x", w.uids)))
	o.SetCreationTimestamp(metav1.NewTime(now.Truncate(time.Second)))
	o.SetDeletionTimestamp(nil)
	o.SetDeletionGracePeriodSeconds(nil)
	o.SetGeneration(0)
	if k.generation {
		o.SetGeneration(1)
	}
	o.SetManagedFields(nil)
	if errs := k.check(o, nil); len(errs) > 0 {
		w.mu.Unlock()
		return nil, apierrors.NewInvalid(k.gvk.GroupKind(), o.GetName(), errs)
	}
	at := key{k.gvk.Kind, o.GetNamespace(), o.GetName()}
	if old, ok := w.objects[at]; ok {
		w.mu.Unlock()
		err := apierrors.NewAlreadyExists(k.resource, o.GetName())
		if old.GetDeletionTimestamp() != nil {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
		}
		return nil, err
	}
	managed(o, nil, manager, "", now)
	return w.store(at, o), nil
}

// Update replaces metadata and spec; where the status stands apart, it is ignored.
func (w *World) Update(manager string, in Object) (Object, error) {
	return w.update(manager, in, "")
}

// UpdateStatus replaces the status and ignores everything else.
func (w *World) UpdateStatus(manager string, in Object) (Object, error) {
	return w.update(manager, in, "status")
}

func (w *World) update(manager string, in Object, sub string) (Object, error) {
	k, o, err := w.prepare(in)
	if err != nil {
		return nil, err
	}
	if sub == "status" && !k.status {
		return nil, apierrors.NewNotFound(k.resource, o.GetName())
	}
	at := key{k.gvk.Kind, o.GetNamespace(), o.GetName()}
	w.mu.Lock()
	old, ok := w.objects[at]
	if !ok {
		w.mu.Unlock()
		if k.createOnUpdate && o.GetUID() == "" { // whatever version it bears: a precondition is the UID alone
			o.SetResourceVersion("")
			return w.Create(manager, o)
		}
		if k.createOnUpdate {
			return nil, apierrors.NewConflict(k.resource, o.GetName(), fmt.Errorf("the object is not there"))
		}
		return nil, apierrors.NewNotFound(k.resource, o.GetName())
	}
	o, err = merge(k, o, old, sub)
	if err != nil {
		w.mu.Unlock()
		return nil, err
	}
	if apiequality.Semantic.DeepEqual(o, old) {
		w.mu.Unlock()
		return old.DeepCopyObject().(Object), nil // nothing is written
	}
	managed(o, old, manager, sub, w.now())
	if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) == 0 {
		return w.remove(at, o), nil
	}
	return w.store(at, o), nil
}

// merge is what an update makes of the object that is there.
func merge(k *kind, o, old Object, sub string) (Object, error) {
	name := o.GetName()
	if uid := o.GetUID(); uid != "" && uid != old.GetUID() {
		return nil, apierrors.NewConflict(k.resource, name, fmt.Errorf("precondition failed: UID in precondition: %s, UID in object meta: %s", uid, old.GetUID()))
	}
	switch rv := o.GetResourceVersion(); {
	case rv == "" && !k.unconditional:
		return nil, apierrors.NewInvalid(k.gvk.GroupKind(), name, field.ErrorList{field.Invalid(field.NewPath("metadata", "resourceVersion"), 0, "must be specified for an update")})
	case rv != "" && rv != old.GetResourceVersion():
		return nil, apierrors.NewConflict(k.resource, name, fmt.Errorf("the object has been modified"))
	}
	switch {
	case sub == "status" && k.metaAndStatus:
		k.set("Spec", o, old)
	case sub == "status":
		status := o
		o = old.DeepCopyObject().(Object)
		k.set("Status", o, status)
	case k.status:
		k.set("Status", o, old)
	}
	o.SetUID(old.GetUID())
	o.SetResourceVersion(old.GetResourceVersion())
	o.SetCreationTimestamp(old.GetCreationTimestamp())
	o.SetDeletionTimestamp(old.GetDeletionTimestamp())
	o.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	o.SetManagedFields(old.GetManagedFields())
	o.SetGeneration(old.GetGeneration())
	if k.generation && sub == "" && !k.sameSpec(o, old) {
		o.SetGeneration(old.GetGeneration() + 1)
	}
	errs := k.check(o, old)
	if old.GetDeletionTimestamp() != nil {
		for _, f := range o.GetFinalizers() {
			if !slices.Contains(old.GetFinalizers(), f) {
				errs = append(errs, field.Forbidden(field.NewPath("metadata", "finalizers"), "no new finalizers can be added if the object is being deleted"))
			}
		}
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(k.gvk.GroupKind(), name, errs)
	}
	return o, nil
}

// Delete removes an object, or marks it if it has finalizers.
func (w *World) Delete(kindName, namespace, name string, pre Preconditions) error {
	k, at := kinds[kindName], key{kindName, namespace, name}
	w.mu.Lock()
	old, ok := w.objects[at]
	var err error
	switch {
	case !ok:
		err = apierrors.NewNotFound(k.resource, name)
	case pre.UID != "" && pre.UID != string(old.GetUID()):
		err = apierrors.NewConflict(k.resource, name, fmt.Errorf("precondition failed: UID in precondition: %s, UID in object meta: %s", pre.UID, old.GetUID()))
	case pre.ResourceVersion != "" && pre.ResourceVersion != old.GetResourceVersion():
		err = apierrors.NewConflict(k.resource, name, fmt.Errorf("precondition failed: ResourceVersion in precondition: %s, in object meta: %s", pre.ResourceVersion, old.GetResourceVersion()))
	case len(old.GetFinalizers()) == 0:
		w.remove(at, old.DeepCopyObject().(Object))
		return nil
	}
	if err != nil || old.GetDeletionTimestamp() != nil {
		w.mu.Unlock()
		return err
	}
	o := old.DeepCopyObject().(Object)
	now := metav1.NewTime(w.now().Truncate(time.Second))
	o.SetDeletionTimestamp(&now)
	o.SetDeletionGracePeriodSeconds(new(int64))
	if k.generation {
		o.SetGeneration(o.GetGeneration() + 1)
	}
	w.store(at, o)
	return nil
}

// prepare is the object as it would come out of a request: what does not survive JSON is lost.
func (w *World) prepare(in Object) (*kind, Object, error) {
	k, err := kindOf(in)
	if err != nil {
		return nil, nil, err
	}
	data, err := json.Marshal(in)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	o := k.new()
	if err := json.Unmarshal(data, o); err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error())
	}
	o.GetObjectKind().SetGroupVersionKind(k.gvk)
	return k, o, nil
}

// store puts an object under the next version, unlocks, and wakes who wants to know.
func (w *World) store(at key, o Object) Object {
	w.version++
	w.writes++
	o.SetResourceVersion(strconv.FormatInt(w.version, 10))
	w.unindex(at)
	w.objects[at] = o
	w.indexed(at, o)
	return w.changed(at, o)
}

// remove uses a version up, but the answer has the object's last one.
func (w *World) remove(at key, o Object) Object {
	w.version++
	w.writes++
	w.unindex(at)
	delete(w.objects, at)
	return w.changed(at, o)
}

func (w *World) changed(at key, o Object) Object {
	out, watchers := o.DeepCopyObject().(Object), w.watchers
	w.mu.Unlock()
	for _, f := range watchers {
		f(at.kind, at.namespace, at.name)
	}
	return out
}

// managed notes who changed the object and when; only the times are kept, not the fields.
func managed(o, old Object, manager, sub string, now time.Time) {
	var out []metav1.ManagedFieldsEntry
	if old != nil {
		for _, e := range old.GetManagedFields() {
			if e.Manager != manager || e.Subresource != sub {
				out = append(out, e)
			}
		}
	}
	at := metav1.NewTime(now.Truncate(time.Second))
	out = append(out, metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, Subresource: sub, Time: &at})
	o.SetManagedFields(out)
}

// Snapshot is a backup of the storage.
type Snapshot struct {
	version int64
	objects map[key]Object
}

// Snapshot makes a backup.
func (w *World) Snapshot() *Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &Snapshot{w.version, maps.Clone(w.objects)}
}

// Restore makes the storage what it was. Versions run on from those of the backup, plus bump: 0 makes them run backwards.
func (w *World) Restore(s *Snapshot, bump int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.version, w.objects, w.index = s.version+bump, maps.Clone(s.objects), map[string]map[key]Object{}
	for at, o := range w.objects {
		w.indexed(at, o)
	}
}
