package ipam

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// API is what a node's IPAM asks of the API server. Errors are those of k8s.io/apimachinery/pkg/api/errors: NotFound,
// AlreadyExists, Conflict. Any other error of a write means that nobody knows whether it was done, or will be.
type API interface {
	// Block reads one IPBlock, from the API itself and not from a cache.
	Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error)
	// Blocks reads those that have all of the given labels, and the version of the list.
	Blocks(ctx context.Context, labels map[string]string) (list []v1alpha1.IPBlock, version string, err error)
	// Create makes one that is not there.
	Create(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// Update replaces spec and metadata, if metadata.resourceVersion is still the object's.
	Update(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// UpdateStatus replaces the status, under the same condition.
	UpdateStatus(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// Delete deletes the object with this UID; with a finalizer on it, it only marks it.
	Delete(ctx context.Context, name, uid string) error
	// Lease reads the node's lease.
	Lease(ctx context.Context) (*coordinationv1.Lease, error)
	// PutLease makes it, if it has no resourceVersion, or replaces it under the condition that it is still the object's.
	PutLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error)
	// Identity is the hash of this machine and of the UID of its Node object.
	Identity(ctx context.Context) (string, error)
}
