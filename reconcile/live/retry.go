package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
)

// ErrNotTaken says that the controller did not act upon a request in time. The request stays.
var ErrNotTaken = errors.New("the controller has not taken the request up; it stays on the NetworkBundle: does danm-controller run?")

// Retry asks the controller to forget the quarantine of each digest, one after the other, and waits until it has: at most within
// for each.
func (c *Client) Retry(ctx context.Context, bundle string, digests []string, within time.Duration) error {
	for _, digest := range digests {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{v1alpha1.AnnotationRetry: digest}}})
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		what := "patch NetworkBundle " + bundle
		if _, err := c.api.Resource(ours("networkbundles")).Patch(ctx, bundle, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "danmctl"}); err != nil {
			return c.explain(what, err)
		}
		if err := c.taken(ctx, bundle, digest, within); err != nil {
			return fmt.Errorf("retry %s of NetworkBundle %s: %w", digest, bundle, err)
		}
	}
	return nil
}

// taken waits until the request is gone from the NetworkBundle.
func (c *Client) taken(ctx context.Context, bundle, digest string, within time.Duration) error {
	for deadline := time.Now().Add(within); ; {
		u, err := c.api.Resource(ours("networkbundles")).Get(ctx, bundle, metav1.GetOptions{})
		if err != nil {
			return c.explain("get NetworkBundle "+bundle, err)
		}
		var b v1alpha1.NetworkBundle
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &b); err != nil {
			return fmt.Errorf("NetworkBundle %s: %w", bundle, err)
		}
		if b.Annotations[v1alpha1.AnnotationRetry] != digest {
			return nil
		}
		if time.Now().After(deadline) {
			return ErrNotTaken
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
