package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/audit"
	"danm.io/danm/reconcile/live"
	"danm.io/danm/spec/api/v1alpha1"
)

// IPAMReleaseOptions are danmctl ipam release's: a node that is off, or an address of a network.
type IPAMReleaseOptions struct {
	Live       LiveOptions
	Node       string
	PoweredOff bool
	Address    string
	Network    string
	Force      bool
	Yes        bool
	DryRun     bool
	Stdin      io.Reader // answers the question; nil: there is nobody to ask
}

// IPAMRelease frees what nobody else frees in time, after it has said what it will do: OK, or Failed.
func IPAMRelease(ctx context.Context, o IPAMReleaseOptions, io IO) int {
	var err error
	switch node, address := o.Node != "" || o.PoweredOff, o.Address != "" || o.Network != ""; {
	case node == address:
		err = &UsageError{"say what to release: --node NAME --powered-off, or --address A --network N"}
	case node && (o.Node == "" || !o.PoweredOff):
		err = &UsageError{"--node and --powered-off belong together: it is your word that the machine is off"}
	case address && (o.Address == "" || o.Network == ""):
		err = &UsageError{"--address and --network belong together"}
	}
	var client *live.Client
	if err == nil {
		client, err = o.Live.connect()
	}
	if err == nil {
		if o.Node != "" {
			err = o.node(ctx, client, io)
		} else {
			err = o.address(ctx, client, io)
		}
	}
	if errors.Is(err, errNotDone) {
		return OK
	}
	if err != nil {
		return io.fail(err)
	}
	return OK
}

// errNotDone ends a dry run.
var errNotDone = errors.New("dry run")

func (o IPAMReleaseOptions) node(ctx context.Context, client *live.Client, to IO) error {
	lease, node, err := client.Lease(ctx, o.Node)
	if err != nil {
		return err
	}
	identity, err := audit.PowerOff(o.Node, lease, node, time.Now(), o.Force)
	if err != nil {
		return err
	}
	a, err := client.Addresses(ctx)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("annotate lease %s with %s=%s: %s of node %s may then be given to others at once.\nTwo machines with one address is what comes of it if the machine is not off, or boots where it does not reach the API server.\n",
		lease.Name, ipam.AnnotationOff, identity, addressesOf(a.Blocks, o.Node), o.Node)
	if err := o.agreed(what, to); err != nil {
		return err
	}
	if err := client.AnnotateLease(ctx, lease, map[string]string{ipam.AnnotationOff: identity}); err != nil {
		return err
	}
	return to.text("done: the controller frees them within seconds; kubectl get ipblocks -l " + v1alpha1.LabelOwner + "=" + v1alpha1.LabelValue(o.Node) + " shows what is left\n")
}

func addressesOf(all []v1alpha1.IPBlock, node string) string {
	blocks, singles := 0, 0
	for _, b := range all {
		switch {
		case b.Spec.Owner != node:
		case b.Spec.Role == v1alpha1.RoleSingle:
			singles++
		case b.Spec.Role == v1alpha1.RoleBlock:
			blocks++
		}
	}
	return plural(blocks, "block") + " and " + strings.Replace(plural(singles, "single address"), "addresss", "addresses", 1)
}

func (o IPAMReleaseOptions) address(ctx context.Context, client *live.Client, to IO) error {
	a, err := netip.ParseAddr(o.Address)
	if err != nil {
		return &UsageError{fmt.Sprintf("--address %q is no address", o.Address)}
	}
	_, _, c, err := readCluster(ctx, o.Live, time.Now())
	if err != nil {
		return err
	}
	f, err := c.Find(o.Network, a)
	if err != nil {
		return err
	}
	if f.Pod.Pod != "" || f.Pod.UID != "" {
		there, err := client.Pod(ctx, f.Pod.Namespace, f.Pod.Pod, f.Pod.UID)
		if err != nil {
			return err
		}
		if there {
			return &audit.Refusal{Why: fmt.Sprintf("Pod %s/%s is there: delete it first, its address comes back by itself then", f.Pod.Namespace, f.Pod.Pod)}
		}
	} else if !o.Force {
		return &audit.Refusal{Why: fmt.Sprintf("nothing says which Pod has %s: it goes twelve hours after the import by itself", a), Forced: true}
	}
	if err := o.agreed(f.String()+"\n", to); err != nil {
		return err
	}
	if f.Held == nil {
		err = client.RemoveBlock(ctx, f.Block)
	} else {
		err = client.PutHeld(ctx, f.Block, f.Left)
	}
	if err != nil {
		return err
	}
	return to.text("done: " + a.String() + " may be given to others\n")
}

// agreed says what will be done, and asks whether it may be.
func (o IPAMReleaseOptions) agreed(what string, to IO) error {
	prefix := "will "
	if o.DryRun {
		prefix = "would "
	}
	if err := to.text(prefix + what); err != nil {
		return err
	}
	switch {
	case o.DryRun:
		return errNotDone
	case o.Yes:
		return nil
	case o.Stdin == nil:
		return &UsageError{"nobody can be asked here: --yes does it without a question, --dry-run only says what it would do"}
	}
	if err := to.text("Go on? [y/N] "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(o.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
