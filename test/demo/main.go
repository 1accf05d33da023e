//go:build linux

// Command demo plays DANM's main job on one machine, in network namespaces of its own: three hosts follow a Git
// repository served over https, four Pods of two tenants are attached by the CNI plugin and ping, mistakes are refused,
// drift is healed, daemons are killed, a commit that
// cuts a host off is undone. It prints what it does and fails loudly when one claim does not hold.
//
// It needs root or unprivileged user namespaces, and git. It changes nothing of the machine and ends within a minute.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/test/lab"
)

// limit is what the demo may take after the build.
const limit = 60 * time.Second

// sabotages are the values of DEMO_BREAK: each must make the demo fail.
var sabotages = map[string]bool{"": true, "isolation": true, "drift": true, "refuse": true, "guard": true}

func main() {
	bin := flag.String("bin", "bin", "directory of the built binaries")
	site := flag.String("site", "examples/edge-site", "bundle to start from")
	flag.Parse()
	sabotage := os.Getenv("DEMO_BREAK")
	if !sabotages[sabotage] {
		fmt.Fprintf(os.Stderr, "DEMO_BREAK=%s: want isolation, drift, refuse or guard\n", sabotage)
		os.Exit(2)
	}
	outer := os.Getenv("DANM_LAB") == ""
	var before []string
	if outer {
		before, _ = lab.Mounts()
	}
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	if done {
		if after, _ := lab.Mounts(); strings.Join(before, "\n") != strings.Join(after, "\n") {
			fmt.Fprintln(os.Stderr, "demo: mounts of this machine changed")
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(play(*bin, *site, sabotage))
}

func play(bin, site, sabotage string) int {
	start := time.Now()
	bin, err := filepath.Abs(bin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "danm-demo-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	s := &story{bin: bin, dir: dir, sabotage: sabotage, start: start}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	finished := make(chan error, 1)
	go func() { finished <- s.play(site) }()
	select {
	case err = <-finished:
	case <-interrupted:
		err = fmt.Errorf("interrupted")
	}
	if cleanErr := s.cleanUp(); err == nil {
		err = cleanErr
	}
	took := time.Since(start).Round(100 * time.Millisecond)
	if err != nil {
		fmt.Printf("\nFAILED after %v: %v\n", took, err)
		s.printLogs(os.Stdout)
		os.RemoveAll(dir)
		return 1
	}
	os.RemoveAll(dir)
	if took > limit {
		fmt.Printf("\nFAILED: took %v, the limit is %v\n", took, limit)
		return 1
	}
	fmt.Printf("\nDEMO OK in %v\n", took)
	return 0
}
