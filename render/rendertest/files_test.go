package rendertest_test

import (
	"encoding/json"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/validate"
	"github.com/google/go-cmp/cmp"
)

// The documents and the model of a scale bundle render alike: a benchmark of either speaks of the other.
func TestFilesAreTheModel(t *testing.T) {
	shape := rendertest.Shape{Nodes: 30, Groups: 4, Networks: 50, Tenants: 6}
	b, problems := validate.Files(rendertest.Files(shape))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	text := func(b model.Bundle) []string {
		b.Name, b.ConfirmTimeout = "", 0
		var out []string
		for _, n := range render.Render(b, model.Inventory{}).Nodes {
			data, err := json.MarshalIndent(n, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(data))
		}
		return out
	}
	if d := cmp.Diff(text(rendertest.Scale(shape)), text(b)); d != "" {
		t.Errorf("-model +files:\n%s", d)
	}
}
