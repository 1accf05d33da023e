package validate

import (
	"testing"

	"danm.io/danm/spec/diag"
)

// TestPFNameWithRange: the hint is what to write instead.
func TestPFNameWithRange(t *testing.T) {
	for name, want := range map[string]string{
		"ens1f0#0-3": `write names: [ens1f0] and vfs: ["0-3"]`,
		"ens1f0#7":   `write names: [ens1f0] and vfs: ["7"]`,
	} {
		m := good(t)
		edit(t, m, "tenants.yaml", "[ens1f0]", `["`+name+`"]`)
		if _, problems := Files(files(m)); len(problems) != 1 || problems[0].Code != diag.InvalidPFSelector || problems[0].Hint != want || problems[0].Path != "spec.pfs.names[0]" {
			t.Errorf("%s: %v", name, problems)
		}
	}
}
