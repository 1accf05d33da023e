package hostlinks

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// listed is a network object as the API has it.
type listed struct {
	Object
	object     client.Object
	bundle     string // that it was rendered from, "" for made with kubectl
	generation int64
	status     bool // has conditions
	conditions []metav1.Condition
}

func (o *listed) ready() *metav1.Condition { return meta.FindStatusCondition(o.conditions, "Ready") }

// leaving says whether an object that is being deleted is nothing to judge: it never was Ready; or its bundle has let it go, and
// the bundle's layer its links.
func (o *listed) leaving() bool {
	return o.Deleting && (!o.Settled || o.object.GetLabels()[v1alpha1.LabelBundle] != "")
}

func (o *listed) reference() *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(danmv1.APIVersion)
	u.SetKind(o.Kind)
	u.SetNamespace(o.Namespace)
	u.SetName(o.Name)
	return u
}

// condition is Ready as it should be. It counts no nodes: each that comes would be a write to every network.
func condition(o *listed, d Decision) metav1.Condition {
	c := metav1.Condition{Type: "Ready", ObservedGeneration: o.generation, Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second))}
	if o.bundle != "" {
		c.Reason, c.Message = string(diag.RolledOut), "rolled out with its bundle"
		return c
	}
	v, judged := d.Verdicts[o.Key()]
	switch {
	case !judged || v.Code == "":
		c.Reason, c.Message = string(diag.Published), "on every node that has what it stands on"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, string(v.Code), v.Message
	}
	return c
}

// objects lists every network. A cluster without the NPWG's definition has no NetworkAttachmentDefinitions.
func (r *Reconciler) objects(ctx context.Context, made map[string][]string) ([]listed, error) {
	var danmnets danmv1.DanmNetList
	var tenants danmv1.TenantNetworkList
	var clusters danmv1.ClusterNetworkList
	for _, list := range []client.ObjectList{&danmnets, &tenants, &clusters} {
		if err := r.Client.List(ctx, list); err != nil {
			return nil, apply.Reason(fmt.Sprintf("list %T", list), err)
		}
	}
	var out []listed
	for i := range danmnets.Items {
		o := &danmnets.Items[i]
		out = append(out, newListed(danmv1.KindDanmNet, o, o, &o.Status))
	}
	for i := range tenants.Items {
		o := &tenants.Items[i]
		out = append(out, newListed(danmv1.KindTenantNetwork, o, o, &o.Status))
	}
	for i := range clusters.Items {
		o := &clusters.Items[i]
		out = append(out, newListed(danmv1.KindClusterNetwork, o, o, &o.Status))
	}
	nads, err := r.definitions.list(ctx, r.Client, r.APIReader)
	out = append(out, nads...)
	for i := range out {
		out[i].bundle = maker(made[out[i].Key()], out[i].object.GetLabels()[v1alpha1.LabelBundle])
	}
	return out, err
}

// maker is the bundle of those that have an object in their inventory whose label it carries; "" if none.
func maker(recorded []string, label string) string {
	for _, bundle := range recorded {
		if v1alpha1.LabelValue(bundle) == label {
			return bundle
		}
	}
	return ""
}

// rendered are the objects that bundles made, by their inventories. Whoever may make a network may write the label, too. More than
// one bundle has an object that two recorded at the same moment.
func rendered(bundles []v1alpha1.NetworkBundle) map[string][]string {
	out := map[string][]string{}
	for i := range bundles {
		for _, r := range bundles[i].Status.Inventory {
			o := Object{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
			out[o.Key()] = append(out[o.Key()], bundles[i].Name)
		}
	}
	return out
}

func newListed(kind string, o client.Object, value any, s *danmv1.NetworkStatus) listed {
	l := listed{object: o, generation: o.GetGeneration()}
	l.Object = Object{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()), Created: o.GetCreationTimestamp().Time, Value: value}
	l.Deleting = o.GetDeletionTimestamp() != nil
	if s != nil {
		l.status, l.conditions = true, s.Conditions
		c := l.ready()
		// To be deleted raises the generation, and nothing may be changed then.
		l.Settled = c != nil && c.Status == metav1.ConditionTrue && (c.ObservedGeneration == l.generation || l.Deleting)
	}
	return l
}

// definitions are the NPWG's, which a cluster may lack, get later, and lose.
type definitions struct {
	watch    func() error // begins to watch them
	watching bool
	known    bool
	asked    time.Time
	told     map[string]Verdict
}

var definitionKind = schema.GroupVersionKind{Group: "k8s.cni.cncf.io", Version: "v1", Kind: npwgv1.Kind}

// listWithin bounds a read from the cache, which waits for ever for a kind whose definition was deleted under it.
const listWithin = 5 * time.Second

// list returns them. None is what there is where the API server does not know the kind; not to get an answer is an error.
func (d *definitions) list(ctx context.Context, cached, api client.Reader) ([]listed, error) {
	if !d.known {
		if d.watch == nil || time.Since(d.asked) < every/2 {
			return nil, nil
		}
		d.asked = time.Now()
		if served, err := servesDefinitions(ctx, api); err != nil || !served {
			return nil, err
		}
		if !d.watching {
			if err := d.watch(); err != nil {
				return nil, apply.Reason("watch NetworkAttachmentDefinitions", err)
			}
		}
		d.watching, d.known = true, true
	}
	list := definitionList()
	bounded, cancel := context.WithTimeout(ctx, listWithin)
	defer cancel()
	if err := cached.List(bounded, list); err != nil {
		if served, failed := servesDefinitions(ctx, api); failed == nil && !served {
			d.known, d.asked = false, time.Now()
			return nil, nil
		}
		return nil, apply.Reason("list NetworkAttachmentDefinitions", err)
	}
	var out []listed
	for i := range list.Items {
		nad := &npwgv1.NetworkAttachmentDefinition{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, nad); err != nil {
			continue // its definition has no schema: it may hold anything
		}
		out = append(out, newListed(npwgv1.Kind, &list.Items[i], nad, nil))
	}
	return out, nil
}

func definitionList() *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(definitionKind.GroupVersion().WithKind(npwgv1.Kind + "List"))
	return list
}

// servesDefinitions asks the API server itself.
func servesDefinitions(ctx context.Context, api client.Reader) (bool, error) {
	err := api.List(ctx, definitionList(), client.Limit(1))
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, apply.Reason("look for NetworkAttachmentDefinitions", err)
}

// said remembers what was told of an object that has no status.
func (d *definitions) said(key string, v Verdict) bool {
	if d.told[key] == v {
		return true
	}
	if d.told == nil || len(d.told) > 10_000 {
		d.told = map[string]Verdict{}
	}
	d.told[key] = v
	return false
}
