package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"danm.io/danm/reconcile/desired"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// Cluster is what the API says at one moment.
type Cluster struct {
	desired.Lists
	Segments  map[string]model.Segment // those that a plan names
	Peers     []v1alpha1.FabricPeers
	Endpoints []danmv1.DanmEp
	// NoEndpoints is why Endpoints are not known, nil if they are.
	NoEndpoints error
	// NoNetworks is why the numbers of networks are not all known, nil if they are.
	NoNetworks error
}

// errMoving says that plans changed while their segments were read.
var errMoving = errors.New("a segment that a node plan names is not there: plans changed while they were read, run it again")

func ours(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: resource}
}

func danms(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: danmv1.Group, Version: danmv1.Version, Resource: resource}
}

// Read lists everything that a diff or a status needs. It writes nothing.
func (c *Client) Read(ctx context.Context) (Cluster, error) {
	const tries = 3 // a rollout collects the segments it left behind
	for try := 1; ; try++ {
		out, err := c.read(ctx)
		if !errors.Is(err, errMoving) || try == tries {
			return out, err
		}
	}
}

func (c *Client) read(ctx context.Context) (Cluster, error) {
	var out Cluster
	err := errors.Join(list(ctx, c, ours("networkbundles"), &out.Bundles.Items), list(ctx, c, ours("nodeplans"), &out.Plans.Items))
	if err != nil {
		return out, firstOf(err)
	}
	if out.Segments, err = c.segments(ctx, out.Plans.Items); err != nil {
		return out, err
	}
	err = errors.Join(list(ctx, c, ours("fabricpeers"), &out.Peers),
		list(ctx, c, danms("tenantconfigs"), &out.Tenants.Items),
		list(ctx, c, corev1.SchemeGroupVersion.WithResource("nodes"), &out.Nodes.Items))
	if err != nil {
		return out, firstOf(err)
	}
	if out.NoEndpoints, err = withheld(list(ctx, c, danms("danmeps"), &out.Endpoints)); err != nil {
		return out, err
	}
	for _, err := range []error{list(ctx, c, danms("clusternetworks"), &out.Cluster.Items),
		list(ctx, c, danms("tenantnetworks"), &out.Networks.Items),
		list(ctx, c, danms("danmnets"), &out.Danm.Items)} {
		no, err := withheld(err)
		if err != nil {
			return out, err
		}
		out.NoNetworks = cmp.Or(out.NoNetworks, no)
	}
	return out, nil
}

// withheld tells a list that may not be read, or that the cluster does not have, from one that could not be read.
func withheld(err error) (no, failure error) {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return err, nil
	}
	return nil, err
}

// firstOf keeps an error readable: what hinders one list hinders the others.
func firstOf(err error) error {
	if all, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // of errors.Join right above
		return all.Unwrap()[0]
	}
	return err
}

// Status lists the bundles and plans alone.
func (c *Client) Status(ctx context.Context) (bundles []v1alpha1.NetworkBundle, plans []v1alpha1.NodePlan, err error) {
	if err = list(ctx, c, ours("networkbundles"), &bundles); err == nil {
		err = list(ctx, c, ours("nodeplans"), &plans)
	}
	return bundles, plans, err
}

// list reads all objects of a kind.
func list[T any](ctx context.Context, c *Client, kind schema.GroupVersionResource, into *[]T) error {
	return listIn(ctx, c, c.api.Resource(kind), kind.Resource, into)
}

// listIn reads all objects of a place, in pieces that an API server bears.
func listIn[T any](ctx context.Context, c *Client, place dynamic.ResourceInterface, name string, into *[]T) error {
	options := metav1.ListOptions{Limit: 500}
	*into = nil
	for {
		page, err := place.List(ctx, options)
		if apierrors.IsResourceExpired(err) && options.Continue != "" { // the snapshot of the earlier pieces is gone
			options.Continue, options.Limit, *into = "", 0, nil
			continue
		}
		if err != nil {
			return c.explain("list "+name, err)
		}
		for i := range page.Items {
			var o T
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(page.Items[i].Object, &o); err != nil {
				return fmt.Errorf("%s %s: %w", name, page.Items[i].GetName(), err)
			}
			*into = append(*into, o)
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// segments reads those that a present layer, or one to go back to, names.
func (c *Client) segments(ctx context.Context, plans []v1alpha1.NodePlan) (map[string]model.Segment, error) {
	out := map[string]model.Segment{}
	var stored []v1alpha1.PlanSegment
	if err := list(ctx, c, ours("plansegments"), &stored); err != nil {
		return nil, err
	}
	data := map[string]string{}
	for _, s := range stored {
		data[s.Name] = s.Data
	}
	for i := range plans {
		l := plans[i].Spec.Layers
		for _, layer := range []*v1alpha1.Layer{l.Bundle, l.API, plans[i].Spec.LastGood} {
			if layer == nil {
				continue
			}
			for _, name := range layer.Segments {
				if _, ok := out[name]; ok {
					continue
				}
				text, ok := data[name]
				if !ok {
					return nil, fmt.Errorf("NodePlan %s, %s: %w", plans[i].Name, name, errMoving)
				}
				s, err := segment.Decode(name, []byte(text))
				if err != nil {
					return nil, fmt.Errorf("NodePlan %s: %w", plans[i].Name, err)
				}
				out[name] = s
			}
		}
	}
	return out, nil
}
