//go:build linux

package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// many calls f for 0 to n-1, sixteen at a time.
func (k *cluster) many(n int, f func(int) error) error {
	next := make(chan int)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range next {
				errs[w] = errors.Join(errs[w], f(i))
			}
		}()
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}

func (k *cluster) namespace(name string) error {
	return k.c.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// confirmAll is every node's agent saying that it has what it was told.
func (k *cluster) confirmAll() error {
	plans, err := k.plans()
	if err != nil {
		return err
	}
	return k.many(len(plans), func(i int) error {
		p := &plans[i]
		l := p.Spec.Layers.Bundle
		if l == nil || p.Status.Applied != nil && p.Status.Applied.Digest == l.Digest && p.Status.Applied.Revision == l.Revision {
			return nil
		}
		old := p.DeepCopy()
		p.Status.Applied, p.Status.Phase, p.Status.ObservedGeneration = &v1alpha1.AppliedPlan{Revision: l.Revision, Short: l.Short, Digest: l.Digest, Segments: l.Segments}, "Applied", p.Generation
		return k.c.Status().Patch(context.Background(), p, client.MergeFrom(old))
	})
}

// versions are the generations of node plans, and the resource versions of what else the controller makes: what it wrote.
func (k *cluster) versions() (map[string]string, error) {
	plans, err := k.plans()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for i := range plans {
		out["NodePlan "+plans[i].Name] = plans[i].Spec.Layers.Bundle.Digest + strings.Join(plans[i].Spec.Layers.Bundle.Segments, ",")
	}
	for kind, version := range map[string]string{"PlanSegment": v1alpha1.APIVersion, "TenantNetwork": danmv1.APIVersion, "ClusterNetwork": danmv1.APIVersion, "TenantConfig": danmv1.APIVersion} {
		l := &unstructured.UnstructuredList{}
		l.SetAPIVersion(version)
		l.SetKind(kind + "List")
		if err := k.c.List(context.Background(), l); err != nil {
			return nil, err
		}
		for _, o := range l.Items {
			out[kind+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
		}
	}
	return out, nil
}

// changes counts node plans and other objects that differ, came or went.
func changes(a, b map[string]string) (plans, others int) {
	for key := range a {
		if b[key] != a[key] {
			count(key, &plans, &others)
		}
	}
	for key := range b {
		if _, old := a[key]; !old {
			count(key, &plans, &others)
		}
	}
	return plans, others
}

func count(key string, plans, others *int) {
	if strings.HasPrefix(key, "NodePlan ") {
		*plans++
		return
	}
	*others++
}
