package cli

import (
	"fmt"

	v1 "danm.io/danm/spec/bundle/v1"
)

// Schema prints the JSON Schema of a bundle's documents, for editors.
func Schema(io IO) int {
	b, err := v1.Schema()
	if err != nil {
		return io.fail(fmt.Errorf("make schema: %w", err))
	}
	if _, err := fmt.Fprintf(io.Out, "%s\n", b); err != nil {
		return io.fail(err)
	}
	return OK
}
