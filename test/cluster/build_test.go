package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"danm.io/danm/test/cluster/bed"
)

// builder is build.sh with a cache of its own and a go command that writes down what it was asked to build.
type builder struct {
	t                *testing.T
	tree, cache, log string
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	b := &builder{t: t, tree: t.TempDir(), cache: t.TempDir()}
	stubs := t.TempDir()
	b.log = filepath.Join(stubs, "built")
	stub := "#!/bin/sh\nwhile [ \"$1\" != -o ]; do shift; done\necho \"$3\" >>" + b.log + "\necho \"$3\" >\"$2\"\n"
	for _, err := range []error{
		os.WriteFile(filepath.Join(stubs, "go"), []byte(stub), 0o755),
		os.CopyFS(filepath.Join(b.tree, "modules"), os.DirFS(filepath.Join(bed.Root(), "test/cluster/modules"))),
		os.MkdirAll(filepath.Join(b.cache, "danm-testbed"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile(filepath.Join(bed.Root(), "test/cluster/build.sh"))
	if err != nil {
		t.Fatal(err)
	}
	b.write("build.sh", string(script))
	t.Setenv("PATH", stubs+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", b.cache)
	return b
}

func (b *builder) write(name, text string) {
	b.t.Helper()
	f, err := os.OpenFile(filepath.Join(b.tree, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	_ = f.Close()
}

// run returns the bed's directory and the programs that had to be built for it.
func (b *builder) run() (dir string, built []string) {
	b.t.Helper()
	_ = os.Remove(b.log)
	cmd := exec.Command("sh", filepath.Join(b.tree, "build.sh"))
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%v %s", err, out)
	}
	text, _ := os.ReadFile(b.log)
	for p := range strings.FieldsSeq(string(text)) {
		built = append(built, filepath.Base(p))
	}
	return strings.TrimSpace(string(out)), built
}

var nodePrograms = []string{"etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "cni/bridge", "cni/host-local", "cni/loopback", "cni/macvlan", "cni/static", "cni/portmap", "cni/bandwidth", "cni/tuning"}

// TestBuild: nothing is built twice, and a change of one set builds that set alone.
func TestBuild(t *testing.T) {
	b := newBuilder(t)
	first, built := b.run()
	if len(built) != len(nodePrograms) {
		t.Errorf("built %q", built)
	}
	for _, p := range nodePrograms {
		if _, err := os.Stat(filepath.Join(first, p)); err != nil {
			t.Error(err)
		}
	}
	b.write("build.sh", "\n# a remark\n")
	if dir, built := b.run(); dir != first || len(built) != 0 {
		t.Errorf("a remark in the script: %s, built %q", dir, built)
	}
	b.write("modules/plugins/go.mod", "\n")
	second, built := b.run()
	if second == first || strings.Join(built, " ") != "host-local static bridge loopback macvlan bandwidth portmap tuning" {
		t.Errorf("other plugins: %s, built %q", second, built)
	}
	b.write("modules/etcd/go.sum", "\n")
	if dir, built := b.run(); dir == second || strings.Join(built, " ") != "v3" {
		t.Errorf("another etcd: %s, built %q", dir, built)
	}
}
