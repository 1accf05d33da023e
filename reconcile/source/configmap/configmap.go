// Package configmap reads a bundle from ConfigMaps: every one of a namespace that has the labels. Their keys are file names
// with "__" for a slash; one file stands in one ConfigMap only.
//
// It knows nothing of what the documents mean, and it reads no Secret.
package configmap

import (
	"context"
	"errors"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// Source is one selection of ConfigMaps.
type Source struct {
	Client    client.Reader
	Namespace string
	Selector  map[string]string
	Dir       string // where the bundle stands among the files, "" or "." for their root
	Limits    snapshot.Limits
}

// Fetch returns the documents as the API has them now. Revision is "configmaps@sha256:<64 hex>" over all files.
func (s Source) Fetch(ctx context.Context) (snapshot.Snapshot, error) {
	var list corev1.ConfigMapList
	err := s.Client.List(ctx, &list, client.InNamespace(s.Namespace), client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(s.Selector)})
	if err != nil {
		code := diag.APIUnavailable
		if apierrors.IsForbidden(err) {
			code = diag.AuthFailed
		}
		return snapshot.Snapshot{}, snapshot.Errorf(code, "list ConfigMaps in %s: %w", s.Namespace, err)
	}
	if err := whole(list.Items); err != nil {
		return snapshot.Snapshot{}, err
	}
	c := snapshot.NewCollector(s.Limits)
	for i := range list.Items {
		m := &list.Items[i]
		for key, data := range m.Data {
			if err := add(c, key, []byte(data)); err != nil {
				return snapshot.Snapshot{}, err
			}
		}
		for key, data := range m.BinaryData {
			if err := add(c, key, data); err != nil {
				return snapshot.Snapshot{}, err
			}
		}
	}
	files, err := c.Files()
	if e := (*snapshot.Error)(nil); errors.As(err, &e) && e.Code == diag.RepositoryEmpty {
		return snapshot.Snapshot{}, snapshot.Errorf(diag.RepositoryEmpty, "no ConfigMap in %s with the labels %s has a *.yaml, *.yml or *.json key",
			s.Namespace, labels.FormatLabels(s.Selector))
	}
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	return s.place(snapshot.Snapshot{Revision: "configmaps@sha256:" + snapshot.Digest(files), Files: files})
}

// partsAnnotation says on a ConfigMap how many hold the bundle together (spec/api/v1alpha1 names it for writers).
const partsAnnotation = "danm.io/source-parts"

// whole refuses a set that is only partly there: what is missing would look like what was deleted.
func whole(items []corev1.ConfigMap) error {
	for i := range items {
		if parts := items[i].Annotations[partsAnnotation]; parts != "" && parts != strconv.Itoa(len(items)) {
			return snapshot.Errorf(diag.SourceChanging, "%d of %s ConfigMaps of the bundle are there", len(items), parts).In(items[i].Name)
		}
	}
	return nil
}

// add takes one key of a ConfigMap. Keys cannot hold a slash (the API allows [-._a-zA-Z0-9]+), so "__" stands for one.
func add(c *snapshot.Collector, key string, data []byte) error {
	path := strings.ReplaceAll(key, "__", "/")
	if err := c.Visit(path, strings.Count(path, "/")); err != nil {
		return err
	}
	for _, part := range strings.Split(path, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return snapshot.Errorf(diag.PathEscape, "the key %q is no file name", key)
		case snapshot.IsHidden(part):
			return nil
		}
	}
	if !snapshot.IsDocument(path) {
		return nil
	}
	return c.Add(path, data)
}

// place narrows the files to the bundle's directory, unless a kustomization stands there: overlays reach their bases.
func (s Source) place(snap snapshot.Snapshot) (snapshot.Snapshot, error) {
	dir := strings.Trim(s.Dir, "/")
	if dir == "." {
		dir = ""
	}
	prefix := dir
	if dir != "" {
		prefix += "/"
	}
	var inside []snapshot.File
	for _, f := range snap.Files {
		rest, ok := strings.CutPrefix(f.Path, prefix)
		if !ok {
			continue
		}
		for _, name := range snapshot.KustomizationNames {
			if rest == name {
				if snap.Dir = dir; dir == "" {
					snap.Dir = "."
				}
				return snap, nil
			}
		}
		inside = append(inside, snapshot.File{Path: rest, Data: f.Data})
	}
	if len(inside) == 0 {
		return snapshot.Snapshot{}, snapshot.Errorf(diag.RepositoryEmpty, "no file below %q", dir)
	}
	snap.Files = inside
	return snap, nil
}
