//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	cacheEnv  = "DANM_BENCH_CACHE"
	reference = "v1.9.1" // of containernetworking/plugins
)

// prepare builds the floor program and the reference plugins into a cache directory and returns it. It runs before the
// namespaces are made, which have no way out; the second run finds the directory in the environment.
func prepare() (string, error) {
	if dir := os.Getenv(cacheEnv); dir != "" {
		return dir, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "danm-bench", reference)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := goTool("", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "hello"), "./test/bench/floor/hello"); err != nil {
		return "", fmt.Errorf("build the floor program: %w", err)
	}
	for _, p := range []string{"main/macvlan", "ipam/host-local"} {
		if _, err := os.Stat(filepath.Join(dir, filepath.Base(p))); err == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "building the reference plugin %s %s, once\n", p, reference)
		if err := goTool(dir, "install", "-trimpath", "-ldflags=-s -w", "github.com/containernetworking/plugins/plugins/"+p+"@"+reference); err != nil {
			return "", fmt.Errorf("build the reference plugin %s: %w", p, err)
		}
	}
	return dir, os.Setenv(cacheEnv, dir)
}

func goTool(gobin string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if gobin != "" {
		cmd.Env = append(cmd.Env, "GOBIN="+gobin)
		cmd.Dir = gobin // outside of our module, whose go.mod is not to be asked
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
