package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of a Containerfile.
type instruction struct{ op, rest string }

// stage is what stands from one FROM to the next.
type stage struct {
	from, name string
	lines      []instruction
}

// containerfile reads the part of the syntax that ours has; anything else is an error of this test's reader.
func containerfile(t *testing.T) (stages []stage) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy/container/Containerfile"))
	must(t, err)
	for _, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		op, rest, _ := strings.Cut(line, " ")
		switch op {
		case "FROM":
			f := strings.Fields(rest)
			if len(f) != 3 || f[1] != "AS" {
				t.Fatalf("not read: %s", line)
			}
			stages = append(stages, stage{from: f[0], name: f[2]})
		case "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT":
			s := &stages[len(stages)-1]
			s.lines = append(s.lines, instruction{op, rest})
		default:
			t.Fatalf("not read: %s", line)
		}
	}
	return stages
}

func (s stage) all(op string) (out []string) {
	for _, l := range s.lines {
		if l.op == op {
			out = append(out, l.rest)
		}
	}
	return out
}

// TestContainerfile: the images are those that the manifests name; the Go is go.mod's; what is copied is there; the controller is
// nobody's root.
func TestContainerfile(t *testing.T) {
	stages := containerfile(t)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	must(t, err)
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(string(mod))[1]
	if len(stages) != 3 || stages[0].from != "docker.io/library/golang:"+version {
		t.Errorf("built by %s, go.mod says %s", stages[0].from, version)
	}
	for _, source := range stages[0].all("COPY") {
		f := strings.Fields(source)
		for _, name := range f[:len(f)-1] {
			if _, err := os.Stat(filepath.Join(root, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, run := range stages[0].all("RUN") {
		for _, f := range strings.Fields(run) {
			if strings.HasPrefix(f, "./") {
				if _, err := os.Stat(filepath.Join(root, f, "main.go")); err != nil {
					t.Error(err)
				}
			}
		}
	}
	images := map[string]bool{}
	manifests, _ := filepath.Glob(filepath.Join(root, "deploy/*/*.yaml"))
	for _, path := range manifests {
		b, err := os.ReadFile(path)
		must(t, err)
		for _, m := range regexp.MustCompile(`image: registry.example.org/danm/([a-z]+):`).FindAllStringSubmatch(string(b), -1) {
			images[m[1]] = true
		}
	}
	for _, s := range stages[1:] {
		if s.from != "scratch" || !images[s.name] {
			t.Errorf("target %s from %s: the manifests name %v", s.name, s.from, images)
		}
		delete(images, s.name)
		if user := s.all("USER"); s.name == "controller" && (len(user) != 1 || !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(user[0])) {
			t.Errorf("the controller runs as %q; a name needs an /etc/passwd, and 0 is root", user)
		}
	}
	if len(images) > 0 {
		t.Errorf("no target makes %v", images)
	}
}

// TestE2EContainerfileBuilds runs the build stage as a builder would, with directories of its own for /src and /out, from nothing but
// what is copied; then each target has its files, which are static and start.
func TestE2EContainerfileBuilds(t *testing.T) {
	stages := containerfile(t)
	box := t.TempDir()
	in := func(path string) string { return filepath.Join(box, path) }
	place := strings.NewReplacer("/src", in("src"), "/out/", in("out")+"/")
	env, dir := append(os.Environ(), "GOTOOLCHAIN=local"), box
	must(t, os.MkdirAll(in("out"), 0o700))
	for _, l := range stages[0].lines {
		switch l.op {
		case "ARG", "ENV":
			env = append(env, strings.ReplaceAll(l.rest, "VERSION=devel", "VERSION=v9.9.9-test"))
		case "WORKDIR":
			dir = place.Replace(l.rest)
			must(t, os.MkdirAll(dir, 0o700))
		case "COPY":
			f := strings.Fields(l.rest)
			for _, name := range f[:len(f)-1] {
				copyInto(t, filepath.Join(root, name), filepath.Join(dir, name))
			}
		case "RUN":
			cmd := exec.CommandContext(t.Context(), "sh", "-c", place.Replace(l.rest))
			cmd.Dir, cmd.Env = dir, env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", l.rest, err, out)
			}
		}
	}
	for _, s := range stages[1:] {
		var programs []string
		for _, c := range s.all("COPY") {
			f := strings.Fields(c)
			if f[0] != "--from=build" {
				t.Fatalf("%s copies from elsewhere: %s", s.name, c)
			}
			for _, name := range f[1 : len(f)-1] {
				if strings.HasPrefix(name, "/out/") {
					programs = append(programs, filepath.Base(name))
				} else if name != "/etc/ssl/certs/ca-certificates.crt" { // golang's image has it
					t.Errorf("%s copies %s", s.name, name)
				}
			}
		}
		entry := strings.Trim(s.all("ENTRYPOINT")[0], `[]"`)
		if !slices.Contains(programs, filepath.Base(entry)) || filepath.Dir(entry) != "/usr/local/bin" {
			t.Errorf("%s starts %s and has %v", s.name, entry, programs)
		}
		for _, name := range programs {
			path := in("out/" + name)
			if out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput(); name != "danm" && (err != nil || !strings.Contains(string(out), "v9.9.9-test")) {
				t.Errorf("%s --version: %v %s", name, err, out)
			}
			if linked(t, path) {
				t.Errorf("%s needs libraries, and the image has none", name)
			}
		}
	}
}

func copyInto(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	must(t, err)
	if info.IsDir() {
		must(t, os.CopyFS(to, os.DirFS(from)))
		return
	}
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}
