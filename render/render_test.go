package render_test

import (
	"testing"
	"time"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/model"
)

// The budget counts the render alone; the test's limit is wider, because tests run beside others.
func TestScale(t *testing.T) {
	b := rendertest.Scale(rendertest.Budget)
	start := time.Now()
	r := render.Render(b, model.Inventory{})
	took := time.Since(start)
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics[0])
	}
	if len(r.Nodes) != rendertest.Budget.Nodes {
		t.Fatalf("%d node states", len(r.Nodes))
	}
	t.Logf("rendered in %v", took)
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	for _, i := range []int{0, 1, 19, 20, 4999} {
		s := r.Nodes[i]
		if got, want := len(s.Plan.Links), 2+50; got != want {
			t.Errorf("%s: %d links, want %d", s.Node, got, want)
		}
		if s.Digest != s.Plan.Digest() {
			t.Errorf("%s: digest is not its plan's", s.Node)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	bundle := rendertest.Scale(rendertest.Budget)
	b.ReportAllocs()
	for b.Loop() {
		if r := render.Render(bundle, model.Inventory{}); r.Diagnostics.HasErrors() {
			b.Fatal(r.Diagnostics)
		}
	}
}
