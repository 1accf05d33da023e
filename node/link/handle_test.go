package link

import (
	"errors"
	"os"
	"slices"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// noKernel says why there are no namespaces to test in.
var noKernel error

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

// TestCompleteDump: half a list is asked for again, and never given away; another error is the answer at once.
func TestCompleteDump(t *testing.T) {
	broken := errors.New("broken")
	for _, row := range []struct {
		name  string
		fails []error // of the calls, in order; then it works
		want  []int
		err   error
		calls int
	}{
		{"whole", nil, []int{1, 2}, nil, 1},
		{"interrupted", []error{netlink.ErrDumpInterrupted, unix.EINTR}, []int{1, 2}, nil, 3},
		{"always interrupted", slices.Repeat([]error{netlink.ErrDumpInterrupted}, dumpTries), nil, netlink.ErrDumpInterrupted, dumpTries},
		{"broken", []error{broken}, []int{1}, broken, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			calls := 0
			got, err := completeDump(func() ([]int, error) {
				if calls++; calls <= len(row.fails) {
					return []int{1}, row.fails[calls-1]
				}
				return []int{1, 2}, nil
			})
			if !slices.Equal(got, row.want) || !errors.Is(err, row.err) || calls != row.calls {
				t.Errorf("%v %v after %d calls", got, err, calls)
			}
		})
	}
}

// TestKernelMoved: an address on a link that the list of links does not know means that the list is old.
func TestKernelMoved(t *testing.T) {
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	world, err := lab.NewWorld(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = world.Close() })
	ns, err := world.Add("host") // its loopback is up and has an address
	if err != nil {
		t.Fatal(err)
	}
	k, err := At(ns.Path, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.observeAddresses(&plan.Observed{}, nil); !errors.Is(err, errMoved) {
		t.Error(err)
	}
}
