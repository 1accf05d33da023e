//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

const manyVFs = 256

// functionRows: what pools say of 256 virtual functions, from looking at the card to looking at it again, beside the bare netlink calls.
// The card is the kernel's simulated one, which the test machine has.
func functionRows(o options, r *report) error {
	share, err := os.MkdirTemp(o.cache, "vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(share)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bench, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(share, "bench"), bench, 0o755); err != nil {
		return err
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	vm := filepath.Join(root, "test/vm/vm.sh")
	if out, err := exec.Command(vm, "build").CombinedOutput(); err != nil {
		return fmt.Errorf("the test machine is not to be had: %w: %s", err, out)
	}
	cmd := exec.Command(vm, "run", "/mnt/bench", "-child", "functions")
	cmd.Env = append(os.Environ(), "VM_SHARE="+share)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	var ours, bare time.Duration
	for _, line := range strings.Split(string(out), "\n") {
		if n, _ := fmt.Sscanf(line, "functions %d %d", &ours, &bare); n == 2 {
			r.atMost(fmt.Sprintf("vf-%d-configured-vs-netlink", manyVFs), ours, bare, 1.5)
			return nil
		}
	}
	return fmt.Errorf("no figures: %s", out)
}

// functionsChild runs in the test machine and prints the medians of both.
func functionsChild() error {
	const bus = "/sys/bus/netdevsim"
	if err := os.WriteFile(bus+"/new_device", []byte("9 1"), 0); err != nil {
		return err
	}
	debug, err := os.MkdirTemp("", "debug")
	if err != nil {
		return err
	}
	if err := unix.Mount("debugfs", debug, "debugfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile(debug+"/netdevsim/netdevsim9/max_vfs", fmt.Appendf(nil, "%d", manyVFs), 0); err != nil {
		return err
	}
	names, err := os.ReadDir(bus + "/devices/netdevsim9/net")
	if err != nil || len(names) != 1 {
		return fmt.Errorf("interfaces of the card: %v: %w", names, err)
	}
	k, err := link.New("/")
	if err != nil {
		return err
	}
	defer k.Close()
	c := &manyFunctions{kernel: sriov.Over(k, "/"), card: names[0].Name()}
	if err := c.kernel.Apply(context.Background(), plan.Step{Op: plan.SetLink, LinkName: c.card, Property: "numvfs", To: fmt.Sprint(manyVFs)}); err != nil {
		return err
	}
	c.on = true // a new function has the one half of the settings, and no time is to begin with it
	if _, err := c.bare(); err != nil {
		return err
	}
	ds, err := inTurns(20, c.ours, c.bare)
	if err == nil {
		fmt.Println("functions", ds[0].Nanoseconds(), ds[1].Nanoseconds())
	}
	return err
}

type manyFunctions struct {
	kernel *sriov.Kernel
	card   string
	on     bool
}

// pool turns every setting around from one time to the next.
func (c *manyFunctions) pool() plan.Desired {
	c.on = !c.on
	p := model.SRIOVPool{Name: "p", PFs: model.PFSelector{Names: []string{c.card}}, NumVFs: manyVFs, Trust: new(c.on), SpoofCheck: new(!c.on), LinkState: "enable", MaxTxRate: 100, ResourceName: "x/y"}
	if c.on {
		p.LinkState, p.MaxTxRate = "auto", 200
	}
	return plan.Desired{Plan: model.NodePlan{Pools: []model.SRIOVPool{p}}}
}

func (c *manyFunctions) ours() (time.Duration, error) {
	d := c.pool()
	return timed(func() error {
		steps, err := c.diff(d)
		for _, s := range steps {
			err = errors.Join(err, c.kernel.Apply(context.Background(), s))
		}
		if err != nil {
			return err
		}
		if len(steps) < 4*manyVFs {
			return fmt.Errorf("%d steps", len(steps))
		}
		left, err := c.diff(d)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d steps are left", len(left))
		}
		return err
	})
}

func (c *manyFunctions) diff(d plan.Desired) ([]plan.Step, error) {
	o, err := c.kernel.Observe(context.Background())
	return plan.Diff(d, o).Steps, err
}

func (c *manyFunctions) bare() (time.Duration, error) {
	c.on = !c.on
	l, err := c.kernel.Handle().LinkByName(c.card)
	if err != nil {
		return 0, err
	}
	return timed(func() error {
		for n := range manyVFs {
			state, rate := uint32(1), 100
			if c.on {
				state, rate = 0, 200
			}
			err := errors.Join(netlink.LinkSetVfTrust(l, n, c.on), netlink.LinkSetVfSpoofchk(l, n, !c.on), netlink.LinkSetVfState(l, n, state), netlink.LinkSetVfRate(l, n, 0, rate))
			if err != nil {
				return err
			}
		}
		return nil
	})
}
