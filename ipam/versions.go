package ipam

import (
	"context"
	"sync/atomic"

	"danm.io/danm/spec/api/v1alpha1"
)

// versions is an API whose answers tell whether it went back in time (R18): an IPBlock that was just written must be newer than all
// that were ever seen. Kubernetes lets versions of one kind be compared as numbers since 1.35; those of Leases may be another
// etcd's (kube-apiserver, --etcd-servers-overrides).
type versions struct {
	API

	seen atomic.Uint64
	back atomic.Bool
}

// forget has versions begin anew with what is seen from now on.
func (v *versions) forget() {
	v.back.Store(false)
	v.seen.Store(0)
}

func (v *versions) note(version string) {
	n := versionOf(version)
	for seen := v.seen.Load(); n > seen && !v.seen.CompareAndSwap(seen, n); seen = v.seen.Load() {
	}
}

// wrote notes the version of something new. before is what had been seen when it was sent: others may have noted later writes.
func (v *versions) wrote(version string, before uint64) {
	if n := versionOf(version); n != 0 && n < before {
		v.back.Store(true)
	}
	v.note(version)
}

// Block is API's.
func (v *versions) Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	b, err := v.API.Block(ctx, name)
	if err == nil {
		v.note(b.ResourceVersion)
	}
	return b, err
}

// Blocks is API's. A list may be as old as the server's cache.
func (v *versions) Blocks(ctx context.Context, labels map[string]string) ([]v1alpha1.IPBlock, string, error) {
	list, version, err := v.API.Blocks(ctx, labels)
	if err == nil {
		v.note(version)
	}
	return list, version, err
}

// Create is API's.
func (v *versions) Create(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	before := v.seen.Load()
	b, err := v.API.Create(ctx, b)
	if err == nil {
		v.wrote(b.ResourceVersion, before)
	}
	return b, err
}

// Update is API's.
func (v *versions) Update(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	b, err := v.API.Update(ctx, b)
	if err == nil {
		v.note(b.ResourceVersion)
	}
	return b, err
}
