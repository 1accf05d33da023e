//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/validate"
)

// renderRows measure the scale bundle, each in a process of its own, whose peak memory is then the work's: render alone,
// and everything from the files on.
func renderRows(_ options, r *report) error {
	for _, c := range []struct{ child, name string }{{"render", "render-5000-nodes"}, {"bundle", "decode-validate-render-5000-nodes"}} {
		var times []time.Duration
		peak := 0
		for range 3 {
			out, err := exec.Command("/proc/self/exe", "-child", c.child).Output()
			if err != nil {
				return fmt.Errorf("%s: %w", c.child, err)
			}
			var ns, kib int
			if _, err := fmt.Sscan(string(out), &ns, &kib); err != nil {
				return fmt.Errorf("%s printed %q: %w", c.child, out, err)
			}
			times, peak = append(times, time.Duration(ns)), max(peak, kib)
		}
		r.below(c.name, quantile(times, 0.5), time.Second)
		r.row(c.name+"-memory", fmt.Sprintf("%dMiB", peak>>10), "-", math.NaN(), "<=512MiB", peak <= 512<<10)
	}
	return nil
}

func runChild(what string) int {
	var err error
	var start time.Time
	switch what {
	case "render":
		b := rendertest.Scale(rendertest.Budget)
		start = time.Now()
		err = rendered(b)
	case "bundle":
		files := rendertest.Files(rendertest.Budget)
		start = time.Now()
		b, problems := validate.Files(files)
		err = errors.Join(problems.Err(), rendered(b))
	case "functions":
		if err = functionsChild(); err == nil {
			return 0
		}
	default:
		return 2
	}
	took := time.Since(start)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(took.Nanoseconds(), peakMemory())
	return 0
}

func rendered(b model.Bundle) error {
	res := render.Render(b, model.Inventory{})
	if len(res.Nodes) != rendertest.Budget.Nodes || len(res.Diagnostics) > 0 {
		return fmt.Errorf("rendered %d nodes, %d diagnostics", len(res.Nodes), len(res.Diagnostics))
	}
	return nil
}

// documentRows measure danmctl as its users do, from exec to the end of the process.
func documentRows(o options, r *report) error {
	ctl := filepath.Join(o.bin, "danmctl")
	call := func(want int, args ...string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			cmd := exec.Command(ctl, args...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			took, err := timed(cmd.Run)
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
				return 0, fmt.Errorf("danmctl %v: %w\n%s", args, err, out.Bytes()[:min(out.Len(), 2000)])
			}
			return took, nil
		}
	}
	ds, err := inTurns(min(o.n, 20), call(0, "validate", "examples/edge-site"))
	if err != nil {
		return err
	}
	r.below("validate-example", ds[0], 50*time.Millisecond)
	dir, err := os.MkdirTemp(o.cache, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := rendertest.Files(rendertest.Budget)
	before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
	if err := writeFiles(before, files); err != nil {
		return err
	}
	last := &files[len(files)-1]
	last.Data = bytes.Replace(last.Data, []byte("  type: macvlan\n"), []byte("  type: macvlan\n  mtu: 1400\n"), 1)
	if err := writeFiles(after, files); err != nil {
		return err
	}
	if ds, err = inTurns(3, call(1, "diff", before, after)); err != nil {
		return err
	}
	r.below("diff-5000-nodes", ds[0], 3*time.Second)
	return nil
}

func writeFiles(dir string, files []decode.File) error {
	for _, f := range files {
		path := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
