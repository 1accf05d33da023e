package cli

import (
	"context"

	"danm.io/danm/reconcile/graph"
)

// GraphOptions are danmctl graph's.
type GraphOptions struct {
	Path      string
	Inventory string
	Output    string // mermaid, svg or dot
}

// Graph prints who is connected to what: OK or Failed.
func Graph(ctx context.Context, o GraphOptions, io IO) int {
	if err := oneOf(o.Output, "mermaid", "svg", "dot"); err != nil {
		return io.fail(err)
	}
	d, err := load(ctx, o.Path, o.Inventory)
	if err != nil {
		return io.fail(err)
	}
	g := graph.Build(d.Bundle, d.Nodes, d.Networks, d.Tenants)
	text := map[string]func() string{"mermaid": g.Mermaid, "svg": g.SVG, "dot": g.Dot}[o.Output]()
	if _, err := io.Out.Write([]byte(text)); err != nil {
		return io.fail(err)
	}
	return OK
}
