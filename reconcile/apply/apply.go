// Package apply brings objects into the cluster by server-side apply under one field manager, and takes them away again. An
// object that already is as wanted is not written. It never forces: a field of another manager is a reason to stop.
package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// AnnotationApplied is the digest of the manifest that was applied: it tells that a field was given up, which the object does not.
const AnnotationApplied = "danm.io/applied"

// Object makes v, any value that marshals to a manifest, an object that can be applied: without status, with the digest.
func Object(v any) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, &o.Object); err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	delete(o.Object, "status")
	unstructured.RemoveNestedField(o.Object, "metadata", "creationTimestamp")
	text, err := json.Marshal(o.Object)
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	sum := sha256.Sum256(text)
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationApplied] = hex.EncodeToString(sum[:8])
	o.SetAnnotations(annotations)
	return o, nil
}

// Apply makes the cluster's object have every field of o; changed is false, and nothing was written, if it already does.
func Apply(ctx context.Context, c client.Client, o *unstructured.Unstructured) (changed bool, err error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	late, err := get(ctx, c, client.ObjectKeyFromObject(o), live)
	switch {
	case late: // the API server says why
	case err == nil && live.GetDeletionTimestamp() != nil: // a field more or less does not keep it
		return false, fail.Waiting(string(diag.Deleting), deletedAfter, fmt.Errorf("%s is being deleted and waits for those who use it; it is made again after that", Name(o)))
	case err == nil && live.GetAnnotations()[AnnotationApplied] == o.GetAnnotations()[AnnotationApplied] && within(o.Object, live.Object):
		return false, nil
	case err != nil && !apierrors.IsNotFound(err):
		return false, Reason(Name(o), err)
	}
	err = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), client.FieldOwner(v1alpha1.FieldManager))
	return err == nil, Reason(Name(o), err)
}

// Adoptable is why an object that is there can't become the bundle's: a field has another value by another manager's word. Nothing is
// written. Labels are not asked: whoever may make a network may write them.
func Adoptable(ctx context.Context, c client.Client, o *unstructured.Unstructured) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(o.GroupVersionKind())
	_, err := get(ctx, c, client.ObjectKeyFromObject(o), live)
	if err != nil || live.GetDeletionTimestamp() != nil {
		return nil // what is wrong with it shows when it is applied
	}
	return Reason(Name(o), c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o.DeepCopy()), client.FieldOwner(v1alpha1.FieldManager), client.DryRunAll))
}

// deletedAfter is when to look again for an object that is being deleted.
const deletedAfter = 5 * time.Second

// getWithin bounds a read: a cache waits for ever for a kind whose definition was deleted under it.
const getWithin = 3 * time.Second

func get(ctx context.Context, c client.Client, key client.ObjectKey, into client.Object) (late bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, getWithin)
	defer cancel()
	err = c.Get(bounded, key, into)
	return err != nil && bounded.Err() != nil && ctx.Err() == nil, err
}

// within says whether everything in want is in have, too.
func within(want, have any) bool {
	switch w := want.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		if !ok {
			return len(w) == 0 && have == nil
		}
		for k, v := range w {
			if !within(v, h[k]) {
				return false
			}
		}
		return true
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(w) {
			return false
		}
		for i := range w {
			if !within(w[i], h[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(number(want), number(have))
}

// number makes numbers comparable: JSON has one kind of them, Go's decoders have two.
func number(v any) any {
	if f, ok := v.(float64); ok && f == float64(int64(f)) {
		return int64(f)
	}
	return v
}

// Delete takes an object away, unless somebody else has made it anew: label must still name the bundle. Gone is no error.
func Delete(ctx context.Context, c client.Client, ref v1alpha1.ObjectReference, bundle string) error {
	live := &unstructured.Unstructured{}
	live.SetAPIVersion(ref.APIVersion)
	live.SetKind(ref.Kind)
	late, err := get(ctx, c, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, live)
	switch {
	case late:
		return fail.Waiting(string(diag.APIUnavailable), 0, fmt.Errorf("%s: %w", Describe(ref), err))
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		return nil
	case err != nil:
		return Reason(Describe(ref), err)
	case live.GetLabels()[v1alpha1.LabelBundle] != v1alpha1.LabelValue(bundle):
		return nil
	}
	uid, version := live.GetUID(), live.GetResourceVersion()
	err = c.Delete(ctx, live, client.Preconditions{UID: &uid, ResourceVersion: &version})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return Reason(Describe(ref), err)
}

// Name is "Kind namespace/name".
func Name(o *unstructured.Unstructured) string { return Describe(Reference(o)) }

// Reference of an object.
func Reference(o *unstructured.Unstructured) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// Describe is "Kind namespace/name".
func Describe(r v1alpha1.ObjectReference) string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Reason sorts an error of the API by what helps against it. Nil stays nil.
func Reason(what string, err error) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s: %w", what, err)
	var status apierrors.APIStatus
	switch {
	case meta.IsNoMatchError(err):
		return fail.Waiting(string(diag.DefinitionMissing), 0, wrapped)
	case apierrors.IsConflict(err) && isFieldConflict(err):
		return fail.Terminal(string(diag.FieldConflict), wrapped)
	case apierrors.IsConflict(err):
		return fail.Waiting(string(diag.APIUnavailable), 0, wrapped) // it changed meanwhile: look again
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return fail.Waiting(string(diag.NamespaceMissing), 0, wrapped)
	case apierrors.IsNotFound(err) && noSuchResource(err):
		return fail.Waiting(string(diag.DefinitionMissing), 0, wrapped)
	case apierrors.IsInvalid(err), apierrors.IsForbidden(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return fail.Terminal(string(diag.ObjectRefused), wrapped)
	case errors.As(err, &status), errors.Is(err, context.DeadlineExceeded):
		return fail.Waiting(string(diag.APIUnavailable), 0, wrapped)
	}
	return fail.Waiting(string(diag.APIUnavailable), 0, wrapped)
}

// noSuchResource tells a path that the API server does not serve from an object that is not there: only the latter's answer is a
// Status of the server's own.
func noSuchResource(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// isFieldConflict tells server-side apply's conflict from that of a resourceVersion.
func isFieldConflict(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	for _, c := range status.Status().Details.Causes {
		if c.Type == "FieldManagerConflict" {
			return true
		}
	}
	return false
}
