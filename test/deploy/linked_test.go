package deploy

import (
	"debug/elf"
	"testing"
)

// linked says whether a program needs a loader or libraries.
func linked(t *testing.T, path string) bool {
	t.Helper()
	f, err := elf.Open(path)
	must(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true
		}
	}
	libraries, err := f.ImportedLibraries()
	must(t, err)
	return len(libraries) > 0
}
