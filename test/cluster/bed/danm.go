package bed

import "path/filepath"

// DANM are the programs of `make build` as images, with the names that deploy/overlays give them.
func DANM() []Image {
	bin := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, n := range names {
			out["usr/local/bin/"+n] = filepath.Join(Root(), "bin", n)
		}
		return out
	}
	return []Image{
		{Name: "registry.example.org/danm/node:devel", Files: bin("danm", "danm-node", "danmctl"), Entrypoint: []string{"/usr/local/bin/danm-node"}},
		{Name: "registry.example.org/danm/controller:devel", Files: bin("danm-controller"), Entrypoint: []string{"/usr/local/bin/danm-controller"}},
	}
}
