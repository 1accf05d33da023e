package world

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// LeaseNamespace is where the nodes' leases are.
const LeaseNamespace = "danm-system"

// NodeAPI is what a node's IPAM asks of the API server; it implements ipam.API.
type NodeAPI struct {
	Client  Store
	Node    string
	Machine string // machine-id
}

// Block reads one IPBlock.
func (n *NodeAPI) Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	return as[*v1alpha1.IPBlock](n.Client.Get(ctx, IPBlock, "", name))
}

// Blocks reads those that have all of the labels.
func (n *NodeAPI) Blocks(ctx context.Context, labels map[string]string) ([]v1alpha1.IPBlock, string, error) {
	list, version, err := n.Client.List(ctx, IPBlock, labels)
	if err != nil {
		return nil, "", err
	}
	out := make([]v1alpha1.IPBlock, len(list))
	for i, o := range list {
		out[i] = *o.(*v1alpha1.IPBlock)
	}
	return out, version, nil
}

// Create makes an IPBlock that is not there.
func (n *NodeAPI) Create(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return as[*v1alpha1.IPBlock](n.Client.Create(ctx, b))
}

// Update replaces spec and metadata.
func (n *NodeAPI) Update(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return as[*v1alpha1.IPBlock](n.Client.Update(ctx, b))
}

// UpdateStatus replaces the status.
func (n *NodeAPI) UpdateStatus(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return as[*v1alpha1.IPBlock](n.Client.UpdateStatus(ctx, b))
}

// Delete deletes the object with this UID.
func (n *NodeAPI) Delete(ctx context.Context, name, uid string) error {
	return n.Client.Delete(ctx, IPBlock, "", name, Preconditions{UID: uid})
}

// Lease reads the node's lease.
func (n *NodeAPI) Lease(ctx context.Context) (*coordinationv1.Lease, error) {
	return as[*coordinationv1.Lease](n.Client.Get(ctx, Lease, LeaseNamespace, "danm-node-"+n.Node))
}

// PutLease makes or replaces it.
func (n *NodeAPI) PutLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	l = l.DeepCopy()
	l.Namespace, l.Name = LeaseNamespace, "danm-node-"+n.Node
	if l.ResourceVersion == "" {
		return as[*coordinationv1.Lease](n.Client.Create(ctx, l))
	}
	return as[*coordinationv1.Lease](n.Client.Update(ctx, l))
}

// Identity is the machine and the UID of its Node object.
func (n *NodeAPI) Identity(ctx context.Context) (string, error) {
	o, err := n.Client.Get(ctx, Node, "", n.Node)
	if err != nil {
		return "", err
	}
	return n.Machine + "/" + string(o.GetUID()), nil
}

func as[T any](o Object, err error) (out T, _ error) {
	if err != nil {
		return out, err
	}
	return o.(T), nil
}
