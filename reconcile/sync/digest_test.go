package sync_test

import (
	"slices"
	"strings"

	"danm.io/danm/reconcile/source/snapshot"
)

// digest is the revision of a ConfigMap's content.
func digest(content map[string]string) string {
	var files []snapshot.File
	for key, data := range content {
		if path := strings.ReplaceAll(key, "__", "/"); snapshot.IsDocument(path) {
			files = append(files, snapshot.File{Path: path, Data: []byte(data)})
		}
	}
	slices.SortFunc(files, func(a, b snapshot.File) int { return strings.Compare(a.Path, b.Path) })
	return "configmaps@sha256:" + snapshot.Digest(files)
}
