// Package kube is IPAM's way to the API server: IPBlocks, the node's Lease, its identity. It decides nothing.
package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
)

const (
	// patience bounds one call: a server that takes the connection and says nothing must not hold a Pod up for long.
	patience = 10 * time.Second
	// watchFor bounds one watch, establish the wait for the server's first answer.
	watchFor  = 5 * time.Minute
	establish = 10 * time.Second
	manager   = "danm-node"
)

// Client is an ipam.API. See New.
type Client struct {
	node, namespace, machine string
	blocks, leases, core     *rest.RESTClient
}

var _ ipam.API = (*Client)(nil)

// New makes the client of a node. namespace is where Leases are, machine what Machine returns.
func New(config *rest.Config, node, namespace, machine string) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, coordinationv1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := &Client{node: node, namespace: namespace, machine: machine}
	for _, of := range []struct {
		into    **rest.RESTClient
		gv      schema.GroupVersion
		apiPath string
	}{{&c.blocks, v1alpha1.GroupVersion, "/apis"}, {&c.leases, coordinationv1.SchemeGroupVersion, "/apis"}, {&c.core, schema.GroupVersion{Version: "v1"}, "/api"}} {
		cfg := rest.CopyConfig(config)
		cfg.GroupVersion, cfg.APIPath, cfg.NegotiatedSerializer = &of.gv, of.apiPath, serializer.NewCodecFactory(scheme).WithoutConversion()
		cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json"
		cfg.QPS, cfg.Burst = 500, 1000 // the server has its own fairness
		rc, err := rest.RESTClientFor(cfg)
		if err != nil {
			return nil, fmt.Errorf("client of the API: %w", err)
		}
		*of.into = rc
	}
	return c, nil
}

// Machine is a hash of the machine-id below root: the same on every boot of one machine, and on no other. Where there is none, it
// is one that is made once in the state directory.
func Machine(root, stateDir string) (string, error) {
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("machine-id: %w", err)
		}
		if id := strings.TrimSpace(string(b)); len(id) >= 16 && id != "uninitialized" {
			sum := sha256.Sum256([]byte("danm addresses\x00" + id)) // machine-id(5): not to be shown as it is
			return hex.EncodeToString(sum[:16]), nil
		}
	}
	return ownID(filepath.Join(stateDir, "machine-id"))
}

func ownID(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 32 {
		return string(b), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("machine-id: %w", err)
	}
	id := strings.ReplaceAll(string(uuid.NewUUID()), "-", "")
	if err := os.WriteFile(path+".tmp", []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("machine-id: %w", err)
	}
	return id, os.Rename(path+".tmp", path)
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, patience)
}

// Block is ipam.API's.
func (c *Client) Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &v1alpha1.IPBlock{}
	if err := c.blocks.Get().Resource("ipblocks").Name(name).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	return out, nil
}

// Blocks is ipam.API's.
func (c *Client) Blocks(ctx context.Context, match map[string]string) ([]v1alpha1.IPBlock, string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &v1alpha1.IPBlockList{}
	err := c.blocks.Get().Resource("ipblocks").Param("labelSelector", labels.SelectorFromSet(match).String()).Do(ctx).Into(out)
	return out.Items, out.ResourceVersion, err
}

// Create is ipam.API's.
func (c *Client) Create(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &v1alpha1.IPBlock{}
	if err := c.blocks.Post().Resource("ipblocks").Param("fieldManager", manager).Body(kinded(b)).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	return out, nil
}

// Update is ipam.API's.
func (c *Client) Update(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return c.put(ctx, b)
}

// UpdateStatus is ipam.API's.
func (c *Client) UpdateStatus(ctx context.Context, b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	return c.put(ctx, b, "status")
}

func (c *Client) put(ctx context.Context, b *v1alpha1.IPBlock, sub ...string) (*v1alpha1.IPBlock, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &v1alpha1.IPBlock{}
	if err := c.blocks.Put().Resource("ipblocks").Name(b.Name).SubResource(sub...).Param("fieldManager", manager).Body(kinded(b)).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	return out, nil
}

func kinded(b *v1alpha1.IPBlock) *v1alpha1.IPBlock {
	b.APIVersion, b.Kind = v1alpha1.APIVersion, v1alpha1.KindIPBlock
	return b
}

// Delete is ipam.API's.
func (c *Client) Delete(ctx context.Context, name, uid string) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	id := types.UID(uid)
	return c.blocks.Delete().Resource("ipblocks").Name(name).Body(&metav1.DeleteOptions{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &metav1.Preconditions{UID: &id},
	}).Do(ctx).Error()
}

// Lease is ipam.API's.
func (c *Client) Lease(ctx context.Context) (*coordinationv1.Lease, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &coordinationv1.Lease{}
	if err := c.leases.Get().Namespace(c.namespace).Resource("leases").Name(ipam.LeaseName(c.node)).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	return out, nil
}

// PutLease is ipam.API's.
func (c *Client) PutLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	l.APIVersion, l.Kind, l.Name, l.Namespace = "coordination.k8s.io/v1", "Lease", ipam.LeaseName(c.node), c.namespace
	out := &coordinationv1.Lease{}
	req := c.leases.Put().Name(l.Name)
	if l.ResourceVersion == "" {
		req = c.leases.Post()
	}
	if err := req.Namespace(c.namespace).Resource("leases").Param("fieldManager", manager).Body(l).Do(ctx).Into(out); err != nil {
		return nil, err
	}
	return out, nil
}

// Identity is ipam.API's: the machine and the UID of the Node object.
func (c *Client) Identity(ctx context.Context) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	out := &metav1.PartialObjectMetadata{}
	err := c.core.Get().Resource("nodes").Name(c.node).SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Into(out)
	if err != nil {
		return "", fmt.Errorf("read Node %s: %w", c.node, err)
	}
	return c.machine + "/" + string(out.UID), nil
}

// Watch pokes wake when an IPBlock that this node is asked for changes, until ctx ends. It calls returned when the API server
// answers again after a watch ended that should not have, with the time that it was away.
func (c *Client) Watch(ctx context.Context, wake chan<- struct{}, returned func(away time.Duration)) {
	selector := labels.SelectorFromSet(map[string]string{v1alpha1.LabelAsked: v1alpha1.LabelValue(c.node)}).String()
	pause, broken, ended := time.Second, false, time.Time{}
	for ctx.Err() == nil {
		began := time.Now()
		err := c.watchOnce(ctx, selector, wake, func() {
			if broken {
				returned(time.Since(ended))
			}
			ended = time.Time{}
		})
		if err != nil {
			pause = min(2*pause, 30*time.Second)
		} else {
			pause = time.Second
		}
		broken = err != nil || time.Since(began) < watchFor*9/10
		if ended.IsZero() {
			ended = time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // a pause is no secret
		}
	}
}

func (c *Client) watchOnce(ctx context.Context, selector string, wake chan<- struct{}, begun func()) error {
	ctx, cancel := context.WithTimeout(ctx, watchFor+establish)
	defer cancel()
	patient := time.AfterFunc(establish, cancel)
	defer patient.Stop()
	w, err := c.blocks.Get().Resource("ipblocks").Param("labelSelector", selector).Param("watch", "true").
		Param("timeoutSeconds", fmt.Sprint(int(watchFor.Seconds()))).Watch(ctx)
	if err != nil {
		return err
	}
	defer w.Stop()
	patient.Stop()
	begun()
	poke(wake) // what happened before
	for range w.ResultChan() {
		poke(wake)
	}
	return nil
}

func poke(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
