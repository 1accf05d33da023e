// Package overlay turns the files of a repository into the documents of a bundle where the bundle is a kustomization: a
// base and what sites change of it.
//
// kustomize runs in process, on files in memory, and is given nothing that could make it reach out: before it starts, every
// kustomization that it would read is read here, and whatever is not a plain local file is refused by name (remote
// resources, components, helm, plugins, generators; kustomize's defaults fetch over the network even on a file system in
// memory). Paths are bounded by the repository's root. Raw files are decoded strictly first, because kustomize takes
// duplicate keys and its output has no line numbers; what is found later names the origin of the document.
//
// It decides nothing about documents beyond that: spec/validate does.
package overlay
