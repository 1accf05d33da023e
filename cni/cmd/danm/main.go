// Command danm is the CNI plugin: it hands each call, with the Pod's network namespace, to the agent of the node and
// prints the answer. It answers VERSION itself and decides nothing else; its start is part of every Pod's start.
//
// Whether it is called as the plugin or as another plugin's IPAM, the agent sees by the configuration. Called fakeipam, it asks
// nobody: it prints the addresses of the configuration as an IPAM result.
package main

import (
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"
)

// options are what a test changes.
type options struct {
	name   string // that it was called by
	getenv func(string) string
	stdin  io.Reader
	stdout io.Writer
	wait   time.Duration // for an agent to appear
	limit  time.Duration // for the whole call
}

var version = "devel" // set by the build

func main() {
	debug.SetGCPercent(-1) // one call, at most a few MiB: a collection would only cost time
	os.Exit(run(options{name: filepath.Base(os.Args[0]), getenv: os.Getenv, stdin: os.Stdin, stdout: os.Stdout, wait: 3 * time.Second, limit: 90 * time.Second}))
}

// run makes the call and returns the exit code. Errors go to standard output, as the CNI specification wants (section 2,
// "Error").
func run(o options) int {
	c, failure := read(o)
	out := []byte(nil)
	switch {
	case failure != nil:
	case c.req.Command == "VERSION":
		out = versions(c.conf.CNIVersion)
	case isFake(o.name, c.conf):
		out, failure = fake(c)
	default:
		out, failure = call(o, c)
	}
	if failure != nil {
		out = printError(c.conf.CNIVersion, failure)
	}
	if _, err := o.stdout.Write(out); err != nil || failure != nil {
		return 1
	}
	return 0
}
