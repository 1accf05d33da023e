package bed

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Fork starts a program and returns what waits for its end; nil starts it as a child of this process. One that starts it in a
// network namespace is what whole nodes need.
type Fork func(*exec.Cmd) (wait func() error, err error)

// process is a program of the bed; it ends with the test.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func start(dir, name string, fork Fork, path string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{cmd: exec.Command(path, args...), log: log.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if fork == nil {
		fork = forkThread
	}
	wait, err := fork(p.cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = wait(); close(p.done) }()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-2000):])
}

// forks starts programs on one thread that lives as long as the process: Pdeathsig (prctl(2)) is about the thread.
var forks = func() chan func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

func forkThread(cmd *exec.Cmd) (func() error, error) {
	done := make(chan error)
	forks <- func() { done <- cmd.Start() }
	return cmd.Wait, <-done
}
