// Package deploy holds what deploy/ ships to the programs and services that read it.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"danm.io/danm/test/lab"
)

const root = "../.."

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noNamespaces = err
	os.Exit(m.Run())
}

// noNamespaces says why there are none; then only files are looked at.
var noNamespaces error

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bin(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, "bin"))
	must(t, err)
	return dir
}

// accepts runs a command with --help behind its arguments: an unknown subcommand or flag fails.
func accepts(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.Command(filepath.Join(bin(t), program), append(args, "--help")...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), args[0]) {
		t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// TestE2EUnits: systemd takes the units without a word, their commands exist, and the guard is not the agent's to take along.
func TestE2EUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "deploy/systemd"))))
	units, err := filepath.Glob(filepath.Join(dir, "*.service"))
	must(t, err)
	if len(units) != 3 {
		t.Fatal(units)
	}
	env, err := os.ReadFile(filepath.Join(dir, "danm.env"))
	must(t, err)
	for _, path := range units {
		b, err := os.ReadFile(path)
		must(t, err)
		text := strings.ReplaceAll(string(b), "/usr/local/bin/", bin(t)+"/")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		command := regexp.MustCompile(`(?m)^ExecStart=\S*/(\S+) (.*)$`).FindStringSubmatch(text)
		if command == nil {
			t.Fatalf("%s has no ExecStart", path)
		}
		var args []string
		for _, a := range strings.Fields(command[2]) {
			if name := strings.Trim(a, "${}"); name != a {
				if !regexp.MustCompile(`(?m)^` + name + `=`).Match(env) {
					t.Errorf("%s: danm.env does not say %s", filepath.Base(path), name)
				}
				a = "x"
				if name == "DANM_AGENT_FLAGS" {
					continue
				}
			}
			args = append(args, a)
		}
		accepts(t, command[1], args...)
		for _, bond := range []string{"Requires=", "BindsTo=", "PartOf=", "Slice="} {
			if strings.Contains(text, "\n"+bond) {
				t.Errorf("%s says %s: the end of one service must not end another", filepath.Base(path), bond)
			}
		}
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--recursive-errors=no"}, units...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	broken := filepath.Join(dir, "danm-broken.service")
	must(t, os.WriteFile(broken, []byte("[Service]\nExecStart=/nowhere/x\nRestartt=always\n"), 0o600))
	if out, _ := exec.Command(analyze, "verify", "--recursive-errors=no", broken).CombinedOutput(); !strings.Contains(string(out), "Restartt") {
		t.Errorf("control: systemd-analyze does not mind: %s", out)
	}
}

type manifest struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Selector       struct{ MatchLabels map[string]string }
		UpdateStrategy struct{ Type string }
		Template       struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				HostNetwork, HostPID       bool
				PriorityClassName          string
				Tolerations                []struct{ Operator string }
				InitContainers, Containers []struct {
					Args         []string
					VolumeMounts []struct{ Name, MountPath, MountPropagation string }
				}
				Volumes []struct {
					Name     string
					HostPath struct{ Path string }
				}
			}
		}
	}
}

// TestE2EManifests: guard and agent are two DaemonSets, each on every node, with commands that exist and volumes that do.
func TestE2EManifests(t *testing.T) {
	strategies := map[string]string{"guard.yaml": "OnDelete", "agent.yaml": "RollingUpdate"}
	selectors := map[string]bool{}
	for name, strategy := range strategies {
		b, err := os.ReadFile(filepath.Join(root, "deploy/container", name))
		must(t, err)
		var m manifest
		must(t, yaml.Unmarshal(b, &m))
		pod := m.Spec.Template.Spec
		if m.Kind != "DaemonSet" || m.Spec.UpdateStrategy.Type != strategy || !pod.HostNetwork || pod.PriorityClassName != "system-node-critical" || len(pod.Tolerations) != 1 || pod.Tolerations[0].Operator != "Exists" {
			t.Errorf("%s: %+v", name, m)
		}
		if name == "agent.yaml" && !pod.HostPID {
			t.Errorf("%s: plugins of the host do not work in a PID namespace of the container's", name)
		}
		app := m.Spec.Selector.MatchLabels["app"]
		if app == "" || m.Spec.Template.Metadata.Labels["app"] != app || selectors[app] {
			t.Errorf("%s selects %v", name, m.Spec.Selector)
		}
		selectors[app] = true
		var volumes []string
		for _, v := range pod.Volumes {
			volumes = append(volumes, v.Name)
			if v.HostPath.Path == "" {
				t.Errorf("%s: volume %s is not the host's", name, v.Name)
			}
		}
		for _, c := range append(pod.InitContainers, pod.Containers...) {
			accepts(t, "danm-node", c.Args...)
			for _, mount := range c.VolumeMounts {
				if !slices.Contains(volumes, mount.Name) {
					t.Errorf("%s mounts %s, which is no volume", name, mount.Name)
				}
			}
		}
	}
}
