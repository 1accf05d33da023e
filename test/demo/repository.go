//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"danm.io/danm/test/gitserver"
	"danm.io/danm/test/lab"
)

// repository is what the administrator works on: a working tree, the bare repository behind it, and its https server.
type repository struct {
	bare             *gitserver.Repo
	bareDir, work    string
	server           *gitserver.Server
	location, caFile string // as hosts take them
}

// serveRepository copies the site into a working tree and serves an empty repository at addr inside ns.
func serveRepository(ns *lab.NS, dir, addr, site string) (*repository, error) {
	r := &repository{bareDir: filepath.Join(dir, "served", "site.git"), work: filepath.Join(dir, "work")}
	if err := os.MkdirAll(filepath.Dir(r.bareDir), 0o755); err != nil {
		return nil, err
	}
	if err := os.CopyFS(r.work, os.DirFS(site)); err != nil {
		return nil, fmt.Errorf("copy %s: %w", site, err)
	}
	var err error
	if r.bare, err = gitserver.InitBare(r.bareDir); err != nil {
		return nil, err
	}
	var listener net.Listener
	err = ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for Git: %w", err)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if r.server, err = gitserver.Start(gitserver.Options{Root: filepath.Dir(r.bareDir), Listener: listener, Hosts: []string{host}}); err != nil {
		return nil, err
	}
	r.location = "git+https://" + addr + "/site.git?ref=main"
	r.caFile = filepath.Join(dir, "ca.pem")
	return r, os.WriteFile(r.caFile, r.server.CAPEM, 0o644)
}

func (r *repository) close() { _ = r.server.Close() }

// commit publishes the working tree.
func (r *repository) commit(message string) error {
	files := map[string]string{}
	err := filepath.WalkDir(r.work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.work, path)
		files[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		return err
	}
	id, err := r.bare.Commit("main", message, files)
	if err != nil {
		return fmt.Errorf("commit %q: %w", message, err)
	}
	fmt.Printf("$ git commit -m %q && git push   # main@%s\n", message, id[:7])
	return nil
}

func (r *repository) write(file, content string) error {
	return os.WriteFile(filepath.Join(r.work, file), []byte(content), 0o644)
}

// replace edits a file as a person would; text that is not there is an error.
func (r *repository) replace(file, old, new string) error {
	data, err := os.ReadFile(filepath.Join(r.work, file))
	if err != nil {
		return err
	}
	if !strings.Contains(string(data), old) {
		return fmt.Errorf("%s does not say %q", file, old)
	}
	return r.write(file, strings.ReplaceAll(string(data), old, new))
}

// revert publishes the good content again, as `git revert` would.
func (r *repository) revert(file, content string) error {
	if err := r.write(file, content); err != nil {
		return err
	}
	return r.commit("Revert \"a slip of the hand\"")
}

// closedSite keeps the nodes and declares nothing for them.
const closedSite = `apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: edge}
spec:
  slots: 4
  nodes:
  - {name: edge-1, slot: 0}
  - {name: edge-2, slot: 1}
  - {name: edge-3, slot: 2}
`

// empty leaves a site of which nothing is declared but its name and its nodes.
func (r *repository) empty() error {
	for _, gone := range []string{"networks", "tenants", "tenants.yaml"} {
		if err := os.RemoveAll(filepath.Join(r.work, gone)); err != nil {
			return err
		}
	}
	return r.write("topology.yaml", closedSite)
}

// closedCopy writes that empty site to a directory of its own: what the hosts are before the first commit.
func (r *repository) closedCopy(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	bundle, err := os.ReadFile(filepath.Join(r.work, "bundle.yaml"))
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "bundle.yaml"), bundle, 0o644); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "topology.yaml"), []byte(closedSite), 0o644)
}
