package cli

import "context"

// RenderOptions are danmctl render's.
type RenderOptions struct {
	Path      string
	Inventory string
	Output    string // yaml or json
}

// Render prints the rendered bundle. The same bundle gives the same bytes. It returns OK or Failed, Failed also for a
// bundle with errors: there is nothing to print.
func Render(ctx context.Context, o RenderOptions, io IO) int {
	if err := oneOf(o.Output, "yaml", "json"); err != nil {
		return io.fail(err)
	}
	d, err := load(ctx, o.Path, o.Inventory)
	if err != nil {
		return io.fail(err)
	}
	if err := io.print(o.Output, d); err != nil {
		return io.fail(err)
	}
	return OK
}
