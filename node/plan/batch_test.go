package plan

import (
	"strings"
	"testing"

	"danm.io/danm/spec/model"
)

func TestBatches(t *testing.T) {
	del := func(name, parent, master string) Step {
		return Step{Op: DeleteLink, Link: &model.Link{Name: name, Parent: parent, Master: master}}
	}
	add := Step{Op: CreateLink, Link: &model.Link{Name: "new"}}
	for name, tc := range map[string]struct {
		steps []Step
		want  string
	}{
		"none":               {nil, ""},
		"leaves together":    {[]Step{del("a", "eth0", ""), del("b", "eth0", ""), del("c", "", "")}, "a b c"},
		"parent after child": {[]Step{del("a", "bond0", ""), del("b", "eth0", ""), del("bond0", "", ""), del("c", "", "")}, "a b|bond0 c"},
		"master after port":  {[]Step{del("port", "", "br0"), del("br0", "", "")}, "port|br0"},
		"others alone":       {[]Step{del("a", "", ""), add, add, del("b", "", ""), del("c", "", "")}, "a|new|new|b c"},
	} {
		var got []string
		for _, batch := range Batches(tc.steps) {
			var names []string
			for _, s := range batch {
				names = append(names, s.Link.Name)
			}
			got = append(got, strings.Join(names, " "))
		}
		if s := strings.Join(got, "|"); s != tc.want {
			t.Errorf("%s: %s, want %s", name, s, tc.want)
		}
	}
}
