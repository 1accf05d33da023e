package deploy

import (
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestE2EOverlays: in each overlay every container runs a command that exists with flags that exist, the guard's Pod is not the
// agent's, and only the guard and the agent are privileged.
func TestE2EOverlays(t *testing.T) {
	programs := map[string]string{"danm-guard": "danm-node", "danm-agent": "danm-node", "danm-controller": "danm-controller"}
	for _, overlay := range []string{"lightweight", "production"} {
		seen := 0
		for _, r := range build(t, filepath.Join(root, "deploy/overlays", overlay)).Resources() {
			program := programs[r.GetName()]
			if kind := r.GetKind(); kind != "DaemonSet" && kind != "Deployment" {
				continue
			}
			if program == "" {
				t.Fatalf("%s: whose is %s?", overlay, r.GetName())
			}
			seen++
			var m struct {
				Metadata struct{ Namespace string }
				Spec     struct {
					Template struct {
						Spec struct {
							SecurityContext            struct{ RunAsNonRoot bool }
							ServiceAccountName         string
							InitContainers, Containers []struct {
								Args            []string
								SecurityContext struct {
									Privileged, AllowPrivilegeEscalation *bool
									ReadOnlyRootFilesystem               bool
								}
							}
						}
					}
				}
			}
			must(t, yaml.Unmarshal([]byte(r.MustYaml()), &m))
			pod := m.Spec.Template.Spec
			if account := map[string]string{"danm-agent": "danm-node", "danm-controller": "danm-controller"}[r.GetName()]; pod.ServiceAccountName != account || m.Metadata.Namespace != "danm-system" {
				t.Errorf("%s: %s runs as %q in %s", overlay, r.GetName(), pod.ServiceAccountName, m.Metadata.Namespace)
			}
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				acceptsAll(t, program, c.Args)
				privileged := c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
				if !c.SecurityContext.ReadOnlyRootFilesystem || program == "danm-controller" && (privileged || !pod.SecurityContext.RunAsNonRoot || c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation) {
					t.Errorf("%s: %s may too much: %+v", overlay, r.GetName(), c.SecurityContext)
				}
			}
		}
		if seen != 3 {
			t.Errorf("%s runs %d workloads", overlay, seen)
		}
	}
}

// acceptsAll runs the program with the flags and --help: one that does not exist fails.
func acceptsAll(t *testing.T, program string, args []string) {
	t.Helper()
	out, problems, err := execute(t, t.TempDir(), nil, program, append(append([]string{}, args...), "--help")...)
	if err != nil {
		t.Errorf("%s %v: %v\n%s%s", program, args, err, out, problems)
	}
	if _, _, err := execute(t, t.TempDir(), nil, program, append(append([]string{}, args...), "--no-such-flag", "--help")...); err == nil {
		t.Errorf("control: %s takes --no-such-flag", program)
	}
}
