//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the agent may take, in KiB (design, budgets).
const (
	idleRSS, idleAnonymous = 40 << 10, 15 << 10
	fullRSS                = 70 << 10
	burstRSS               = 15 << 10
)

// agentRows: memory and processor time of an agent that has nothing to do, that has 500 Pods of three interfaces and 1,000 networks, and
// while it answers 200 ADDs at once; how long it takes after a start to compare what is attached with the kernel; the shim's memory.
func agentRows(o options, r *report) error {
	n, err := startNode(o)
	if err != nil {
		return err
	}
	defer n.stop()
	kib := func(name string, ours, limit int64) {
		r.row(name, fmt.Sprintf("%.1fMiB", float64(ours)/1024), "-", math.NaN(), fmt.Sprintf("<=%dMiB", limit>>10), ours <= limit)
	}
	time.Sleep(5 * time.Second) // what a start needed has been given back
	idle, err := memoryOf(n.agent.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	kib("agent-idle-rss", idle["VmRSS"], idleRSS)
	kib("agent-idle-anonymous", idle["RssAnon"], idleAnonymous)
	const watch = 30 * time.Second
	share, err := processorShare(n.agent.Cmd.Process.Pid, watch)
	if err != nil {
		return err
	}
	r.row("agent-idle-cpu", fmt.Sprintf("%.3f%%", 100*share), "-", math.NaN(), "<=0.1%", share <= 0.001)

	const networks, pods, each = 1000, 500, 3
	if err := n.withFabric(networks); err != nil {
		return err
	}
	all, err := n.attachMany(pods, each)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.logs())
	}
	took, err := n.compared()
	if err != nil {
		return err
	}
	r.below(fmt.Sprintf("compare-%d-attachments-after-a-start", pods*each), took, 2*time.Second)
	few, err := n.attachMany(10, each) // of a program that was just started, the pages of what it never did are not there yet
	if err != nil {
		return err
	}
	all = append(all, few...)
	time.Sleep(15 * time.Second) // a round and more
	full, err := memoryOf(n.agent.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	kib(fmt.Sprintf("agent-%d-pods-%d-networks-rss", pods, networks), full["VmRSS"], fullRSS)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", n.agent.Cmd.Process.Pid), []byte("5"), 0); err != nil { // proc(5): resets VmHWM
		return err
	}
	more, err := n.attachMany(200, 1)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.logs())
	}
	burst, err := memoryOf(n.agent.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	kib("agent-200-adds-at-once-on-top", burst["VmHWM"]-full["VmRSS"], burstRSS)
	if err := shimMemory(o, r, n.dir); err != nil {
		return err
	}
	for _, p := range append(all, more...) {
		if _, err := p.call("DEL", "danm"); err != nil {
			return err
		}
	}
	return nil
}

// attachMany attaches Pods, 200 at once.
func (n *node) attachMany(pods, interfaces int) ([]*pod, error) {
	all := make([]*pod, pods)
	for i := range all {
		p, err := n.pod(interfaces)
		if err != nil {
			return nil, err
		}
		all[i] = p
	}
	errs, turns := make([]error, pods), make(chan struct{}, 200)
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() {
			turns <- struct{}{}
			_, errs[i] = p.call("ADD", "danm")
			<-turns
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

var tookText = regexp.MustCompile(`compared what is attached with the kernel.* sandboxes=(\d+) same=(\d+) differ=0 gone=0 again=(\d+) took=(\S+)|compared what is attached.*`)

// compared starts the agent anew and reads how long it took to look at what is attached.
func (n *node) compared() (time.Duration, error) {
	n.agent.Stop(syscall.SIGTERM, 10*time.Second)
	if err := n.startAgent(); err != nil {
		return 0, err
	}
	for range 600 {
		text, err := os.ReadFile(filepath.Join(n.dir, "agent.log"))
		if err != nil {
			return 0, err
		}
		if m := tookText.FindSubmatch(text); m != nil {
			all, _ := strconv.Atoi(string(m[1]))
			same, _ := strconv.Atoi(string(m[2]))
			again, _ := strconv.Atoi(string(m[3])) // met while links on new devices were looked at, which is each at a start
			if all == 0 || same+again != all || again > all/10 {
				return 0, fmt.Errorf("not all sandboxes are as they were: %s", m[0])
			}
			return time.ParseDuration(string(m[4]))
		}
		time.Sleep(50 * time.Millisecond)
	}
	return 0, fmt.Errorf("nothing was compared\n%s", n.logs())
}

// memoryOf reads the sizes of a process in KiB (proc(5), /proc/pid/status).
func memoryOf(pid int) (map[string]int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "kB" {
			if out[strings.TrimSuffix(f[0], ":")], err = strconv.ParseInt(f[1], 10, 64); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// processorShare is how much of one core a process takes (proc(5), /proc/pid/schedstat: nanoseconds on a processor, by thread).
func processorShare(pid int, during time.Duration) (float64, error) {
	spent := func() (sum int64, err error) {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, task := range tasks {
			text, rerr := os.ReadFile(task)
			if rerr != nil {
				continue // the thread has ended
			}
			n, perr := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
			if perr != nil {
				return 0, perr
			}
			sum += n
		}
		return sum, err
	}
	before, err := spent()
	if err != nil {
		return 0, err
	}
	time.Sleep(during)
	after, err := spent()
	return float64(after-before) / float64(during), err
}

// shimMemory is the resident size of the plugin while it waits for an answer, beside that of a program that prints a line while it waits
// for its reader. What wait4(2) says of a program that ended is no less than its parent had when it was forked.
func shimMemory(o options, r *report, dir string) error {
	socket := filepath.Join(dir, "silent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	full, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer full.Close()
	defer out.Close()
	if _, err := unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		return err
	}
	if _, err := out.Write(make([]byte, os.Getpagesize())); err != nil {
		return err
	}
	waiting := func(path string, env []string, stdin string) (int64, error) {
		cmd := exec.Command(path)
		cmd.Env, cmd.Stdin, cmd.Stdout = env, strings.NewReader(stdin), out
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		time.Sleep(200 * time.Millisecond) // it has come to where it waits
		size, err := memoryOf(cmd.Process.Pid)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return size["VmRSS"], err
	}
	ours, err := waiting(filepath.Join(o.bin, "danm"), []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=c", "CNI_IFNAME=eth0"},
		fmt.Sprintf(`{"cniVersion":"1.0.0","name":"danm","type":"danm","socket":%q}`, socket))
	if err != nil {
		return err
	}
	hello, err := waiting(filepath.Join(o.cache, "hello"), nil, "")
	if err != nil {
		return err
	}
	if ours == 0 || hello == 0 {
		return errors.New("a program did not wait")
	}
	r.row("shim-rss", fmt.Sprintf("%.1fMiB", float64(ours)/1024), fmt.Sprintf("%.1fMiB", float64(hello)/1024), float64(ours)/float64(hello), "-", true)
	return nil
}
