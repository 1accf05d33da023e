package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	err := c.Execute()
	return out.String(), err
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"agent"}, {"frobnicate"}, {"guard", "extra"}, {"guard", "--log-level", "loud", "--state-dir", dir},
		{"agent", "--node-name", "x", "--log-format", "xml", "--state-dir", dir},
		{"pause", "--state-dir", dir}, {"retry", "--state-dir", dir}, {"restore", "--state-dir", dir}, // no guard answers
	} {
		if out, err := run(t, args...); err == nil {
			t.Errorf("%v succeeded: %s", args, out)
		}
	}
}

func TestUninstallRemovesConfAndBinaryOnly(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"10-danm.conf", "10-danm.conflist", "danm", "fakeipam", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []int{4, 0} {
		out, err := run(t, "uninstall", "--cni-conf-dir", dir, "--cni-bin-dir", dir)
		if err != nil || strings.Count(out, "removed") != want || !strings.Contains(out, "stay") {
			t.Errorf("run %d: %v\n%s", i, err, out)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left %v", left)
	}
}

func TestInstallReplacesTheBinaryByRename(t *testing.T) {
	dir := t.TempDir()
	binary, bin := filepath.Join(dir, "danm"), filepath.Join(dir, "opt", "bin")
	install := func(content, want string) {
		t.Helper()
		if err := os.WriteFile(binary, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := run(t, "install", "--binary", binary, "--cni-bin-dir", bin)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v: %s", err, out)
		}
		for _, name := range []string{"danm", "fakeipam"} {
			got, err := os.ReadFile(filepath.Join(bin, name))
			if info, _ := os.Stat(filepath.Join(bin, name)); err != nil || string(got) != content || info.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v: %q", name, err, got)
			}
		}
		if left, _ := os.ReadDir(bin); len(left) != 2 {
			t.Errorf("left %v", left)
		}
	}
	install("one", "copied")
	running, err := os.Open(filepath.Join(bin, "danm"))
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	install("two", "copied")
	install("two", "is there already")
	b := make([]byte, 3)
	if _, err := running.Read(b); err != nil || string(b) != "one" {
		t.Errorf("a program in use was overwritten: %q, %v", b, err)
	}
	if out, err := run(t, "install", "--binary", filepath.Join(dir, "none"), "--cni-bin-dir", bin); err == nil {
		t.Error(out)
	}
}
