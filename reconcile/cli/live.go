package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"danm.io/danm/reconcile/desired"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/live"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// LiveOptions say which cluster, and which NetworkBundle of it.
type LiveOptions struct {
	Live       bool   // the API server, not this host
	Kubeconfig string // as kubectl's
	Context    string // as kubectl's
	Bundle     string // "" is the only one
}

// Wanted says whether a cluster is meant: by the flag of that name, or by one that makes no sense without it. KUBECONFIG alone
// does not: it is set in many a shell.
func (o LiveOptions) Wanted() bool {
	return o.Live || o.Kubeconfig != "" || o.Context != "" || o.Bundle != ""
}

func (o LiveOptions) connect() (*live.Client, error) {
	return live.Connect(live.Options{Kubeconfig: o.Kubeconfig, Context: o.Context})
}

// DiffLive prints what PATH changes against what the cluster's nodes have: numbers, nodes and steps are those that the
// controller and the guards will come to. It writes nothing and returns OK without differences, Differences, or Failed.
func DiffLive(ctx context.Context, path string, o LiveOptions, output string, io IO) int {
	if err := oneOf(output, "text", "json", "markdown"); err != nil {
		return io.fail(err)
	}
	client, err := o.connect()
	if err != nil {
		return io.fail(err)
	}
	read, err := readCandidate(ctx, path)
	if err != nil {
		return io.failSide("new", err)
	}
	cluster, err := client.Read(ctx)
	if err != nil {
		return io.failSide("old", err)
	}
	nb, err := choose(o.Bundle, cluster.Bundles.Items)
	if err != nil {
		return io.fail(err)
	}
	c, err := read(cluster, nb)
	if err != nil {
		return io.refused(err)
	}
	d, err := liveDifference(cluster, nb, c)
	if err != nil {
		return io.failSide("old", err)
	}
	if cluster.NoEndpoints != nil {
		fmt.Fprintln(io.Err, "danmctl: Pods are not shown:", cluster.NoEndpoints)
	}
	if cluster.NoNetworks != nil {
		fmt.Fprintln(io.Err, "danmctl: a number that the bundle leaves open may come out as another: not all networks of the cluster are known:", cluster.NoNetworks)
	}
	return io.difference(output, d)
}

// readCandidate fetches PATH now, and makes of it later what the cluster would get. A bundle is rendered as the controller does; what
// danmctl render wrote stays as it is.
func readCandidate(ctx context.Context, path string) (func(live.Cluster, *v1alpha1.NetworkBundle) (candidate, error), error) {
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		d, err := readDocument(path)
		return func(live.Cluster, *v1alpha1.NetworkBundle) (candidate, error) { return candidateOf(d), nil }, err
	}
	snap, err := fetch(ctx, path)
	if err != nil {
		return nil, err
	}
	return func(c live.Cluster, nb *v1alpha1.NetworkBundle) (candidate, error) {
		world := c.World(nb)
		r, err := desired.Decide(snap, desired.Origin{Bundle: nb.Name, Revision: snap.Revision}, world)
		if err == nil {
			err = desired.Acceptable(nb, r, world.Others)
		}
		if err != nil {
			return candidate{}, err
		}
		return candidateFrom(r, c.Peers, nb.Name)
	}, nil
}

// refused reports why the controller would not publish a revision.
func (o IO) refused(err error) int {
	var list *diag.ListError
	if f := (*fail.Failure)(nil); errors.As(err, &f) && !errors.As(err, &list) {
		return o.fail(fmt.Errorf("the controller would refuse this revision: %s: %w; see danmctl explain %s", f.Reason, f.Err, f.Reason))
	}
	return o.failSide("new", err)
}

// choose is the NetworkBundle of that name, or the only one. A cluster without any gets its first: what that would do is what
// people want to see before.
func choose(name string, all []v1alpha1.NetworkBundle) (*v1alpha1.NetworkBundle, error) {
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
		if names[i] == name {
			return &all[i], nil
		}
	}
	switch {
	case len(all) == 0 && name == "":
		return &v1alpha1.NetworkBundle{}, nil
	case len(all) == 0:
		return nil, fmt.Errorf("the cluster has no NetworkBundle %q, nor any other: kubectl apply one (docs/operations.md), or leave --bundle away to see what a first one would do", name)
	case name != "":
		hint := diag.Suggest(name, names)
		if hint == "" {
			hint = "it has " + strings.Join(names, ", ")
		}
		return nil, &UsageError{fmt.Sprintf("the cluster has no NetworkBundle %q; %s", name, hint)}
	case len(all) > 1:
		return nil, &UsageError{fmt.Sprintf("the cluster has %d NetworkBundles: say which with --bundle: %s", len(all), strings.Join(names, ", "))}
	}
	return &all[0], nil
}

// BundleNames lists the cluster's NetworkBundles for a shell's completion: none if the cluster does not answer.
func BundleNames(ctx context.Context, o LiveOptions) []string {
	client, err := o.connect()
	if err != nil {
		return nil
	}
	bundles, _, err := client.Status(ctx)
	if err != nil {
		return nil
	}
	names := make([]string, len(bundles))
	for i := range bundles {
		names[i] = bundles[i].Name
	}
	return names
}
