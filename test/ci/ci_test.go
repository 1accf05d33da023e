// Package ci runs the scripts of deploy/ci against a repository as a forge or a developer would.
package ci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

// repository is a clone with an example committed on main, and the hook in place.
type repository struct {
	t   *testing.T
	dir string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	r := &repository{t, t.TempDir()}
	r.run("git", "init", "-q", "-b", "main", ".")
	if err := os.CopyFS(filepath.Join(r.dir, "net"), os.DirFS(filepath.Join(root, "examples/edge-site"))); err != nil {
		t.Fatal(err)
	}
	hook, err := os.ReadFile(filepath.Join(root, "deploy/ci/pre-commit.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, ".git/hooks/pre-commit"), hook, 0o755); err != nil {
		t.Fatal(err)
	}
	r.run("git", "add", ".")
	if out, err := r.try("git", "commit", "-q", "-m", "first"); err != nil {
		t.Fatalf("a good bundle is refused: %v\n%s", err, out)
	}
	return r
}

func (r *repository) try(program string, args ...string) (string, error) {
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "DANM_BUNDLE=net", "HOME="+r.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *repository) run(program string, args ...string) {
	r.t.Helper()
	if out, err := r.try(program, args...); err != nil {
		r.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

func (r *repository) edit(file, old, new string) {
	r.t.Helper()
	path := filepath.Join(r.dir, file)
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		r.t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, new)), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// TestE2EPreCommit: what is staged is judged, whatever the working tree says.
func TestE2EPreCommit(t *testing.T) {
	r := newRepository(t)
	r.edit("net/networks/acme.yaml", "vxlan: 5001", "vxlann: 5001")
	r.run("git", "add", ".")
	r.edit("net/networks/acme.yaml", "vxlann: 5001", "vxlan: 5001") // mended, but not staged
	out, err := r.try("git", "commit", "-q", "-m", "bad")
	if err == nil || !strings.Contains(out, "networks/acme.yaml:8:3") || !strings.Contains(out, "--no-verify") {
		t.Errorf("a bad bundle is taken: %v\n%s", err, out)
	}
	r.run("git", "add", ".")
	if out, err := r.try("git", "commit", "-q", "--allow-empty", "-m", "good"); err != nil {
		t.Errorf("a mended bundle is refused: %v\n%s", err, out)
	}
}

func TestE2EDiffComment(t *testing.T) {
	r := newRepository(t)
	script, err := filepath.Abs(filepath.Join(root, "deploy/ci/diff-comment.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.try(script, "main", "net"); err != nil || !strings.Contains(out, "no differences") {
		t.Errorf("nothing changed: %v\n%s", err, out)
	}
	r.edit("net/networks/beta.yaml", "vxlan: 5002", "vxlan: 5002\n  mtu: 1400")
	if out, err := r.try(script, "main", "net"); err != nil || !strings.Contains(out, "| network beta/voice | networks/beta.yaml:1 | mtu none -&gt; 1400 |") {
		t.Errorf("a change: %v\n%s", err, out)
	}
	r.edit("net/networks/beta.yaml", "vxlan: 5002", "vxlann: 5002")
	if out, err := r.try(script, "main", "net"); err == nil || !strings.Contains(out, "**The bundle `net` is refused:**") || !strings.Contains(out, "networks/beta.yaml:8:3") {
		t.Errorf("a mistake: %v\n%s", err, out)
	}
	if out, err := r.try(script, "nosuchbranch", "net"); err == nil {
		t.Errorf("an unknown base: %s", out)
	}
}

// TestPipelinesAreYAML: the snippets call the scripts that exist.
func TestPipelinesAreYAML(t *testing.T) {
	for _, name := range []string{"github-actions.yaml", "gitlab-ci.yaml"} {
		data, err := os.ReadFile(filepath.Join(root, "deploy/ci", name))
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := yaml.Unmarshal(data, &v); err != nil || len(v) == 0 || !strings.Contains(string(data), "diff-comment.sh") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
