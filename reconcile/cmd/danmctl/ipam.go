package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"danm.io/danm/reconcile/cli"
	"github.com/spf13/cobra"
)

func addresses(code *int, to cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "ipam", Short: "Show and check addresses, of this node or, with --live, of a cluster; release a cluster's"}
	c.RunE = func(c *cobra.Command, a []string) error { return noCommand(c, a) }
	c.AddCommand(ipamShow(code, to), ipamCheck(code, to), ipamRelease(code, to))
	return c
}

// noCommand is the error of a group of commands that was given none of them.
func noCommand(c *cobra.Command, a []string) error {
	if len(a) == 0 {
		return fmt.Errorf("%s needs a command; see %s --help", c.CommandPath(), c.CommandPath())
	}
	hint := ""
	c.SuggestionsMinimumDistance = 2
	if s := c.SuggestionsFor(a[0]); len(s) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", s[0])
	}
	return fmt.Errorf("unknown command %q for %s%s", a[0], c.CommandPath(), hint)
}

func ipamShow(code *int, to cli.IO) *cobra.Command {
	var o cli.IPAMOptions
	c := &cobra.Command{
		Use: "show [NETWORK]", Args: cobra.MaximumNArgs(1), Short: "Show who has which address since when: exit 0, or 2",
		Long: "Show who has which address since when, of this node (its journal, read beside the agent) or, with --live, of a cluster (IPBlocks, what nodes report, DanmEps). NETWORK is namespace/name, or the name of a cluster network. Neighbouring addresses of one state are one line.",
	}
	c.Run = func(c *cobra.Command, a []string) {
		o.Network = strings.Join(a, "")
		if o.Live.Wanted() && c.Flags().Changed("state-dir") {
			*code = usage(to, "--state-dir is this node's, --live the cluster's: give one of them")
			return
		}
		*code = cli.IPAMShow(c.Context(), o, to)
	}
	c.ValidArgsFunction = func(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(a) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return networkNames(c, o), cobra.ShellCompDirectiveNoFileComp
	}
	stateDir(c, &o.StateDir)
	clusterFlags(c, &o.Live)
	outputFormats(c, &o.Output, "text", "json")
	c.Flags().BoolVarP(&o.All, "all", "a", false, "also what is free, unclaimed or out of the pools")
	return c
}

func networkNames(c *cobra.Command, o cli.IPAMOptions) []string {
	ctx, cancel := context.WithTimeout(c.Context(), 3*time.Second)
	defer cancel()
	return cli.NetworkNames(ctx, o)
}

func ipamCheck(code *int, to cli.IO) *cobra.Command {
	o := cli.IPAMOptions{Again: 3 * time.Second}
	c := &cobra.Command{
		Use: "check", Args: cobra.NoArgs, Short: "Compare what kernel, journal, IPBlocks and DanmEps say: exit 0 nothing differs, 1 differences, 2 error",
		Long: "On a node: compare the addresses in the network namespaces of Pods with the journal, and with --live and --state-dir also with the node's IPBlocks and DanmEps. With --live alone: compare a cluster's IPBlocks with one another, its Nodes and DanmEps. What differs is looked at twice, and named with place and remedy.",
	}
	c.Run = func(c *cobra.Command, _ []string) {
		o.OnNode = c.Flags().Changed("state-dir")
		*code = cli.IPAMCheck(c.Context(), o, to)
	}
	stateDir(c, &o.StateDir)
	c.Flags().StringVar(&o.SysRoot, "sys-root", "/", "`directory` below which the node's files are")
	clusterFlags(c, &o.Live)
	outputFormats(c, &o.Output, "text", "json")
	c.Flags().BoolVar(&o.Accept, "accept", false, "after etcd was restored: if no difference is in the way, let the nodes that wait claim addresses again")
	return c
}

func ipamRelease(code *int, to cli.IO) *cobra.Command {
	var o cli.IPAMReleaseOptions
	c := &cobra.Command{
		Use: "release (--node N --powered-off | --address A --network NETWORK)", Args: cobra.NoArgs, Short: "Free what nobody else frees in time, after saying what: exit 0, or 2",
		Long: "Free the addresses of a node that is off, on your word that it is, or an address that was imported from before DANM's blocks, or that is kept for a Pod of a StatefulSet and that no node has, in the cluster of KUBECONFIG or ~/.kube/config. It says what it will do and asks. On a node without a cluster nothing has to be released: an address whose Pod is gone comes back by itself within minutes, and danmctl ipam check names those that do not.",
	}
	c.Run = func(c *cobra.Command, _ []string) {
		if cli.IsTerminal(os.Stdin) {
			o.Stdin = os.Stdin
		}
		*code = cli.IPAMRelease(c.Context(), o, to)
	}
	c.Flags().StringVar(&o.Node, "node", "", "`name` of a node")
	c.Flags().BoolVar(&o.PoweredOff, "powered-off", false, "its machine is off, and does not boot where it cannot reach the API server")
	c.Flags().StringVar(&o.Address, "address", "", "`address` to free")
	c.Flags().StringVar(&o.Network, "network", "", "`network` of the address: namespace/name, or the name of a cluster network")
	c.Flags().BoolVar(&o.Force, "force", false, "although the node is Ready or gave a sign of life, or nothing says whose the address is")
	c.Flags().BoolVar(&o.Yes, "yes", false, "do it without asking")
	c.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be done")
	clusterFlags(c, &o.Live)
	must(c.RegisterFlagCompletionFunc("network", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		l := o.Live
		l.Live = true
		return networkNames(c, cli.IPAMOptions{Live: l}), cobra.ShellCompDirectiveNoFileComp
	}))
	return c
}

// clusterFlags say which cluster, for commands that are not about a NetworkBundle.
func clusterFlags(c *cobra.Command, l *cli.LiveOptions) {
	c.Flags().BoolVar(&l.Live, "live", false, "ask the cluster of KUBECONFIG or ~/.kube/config; the two flags below imply it, KUBECONFIG alone does not")
	c.Flags().StringVar(&l.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster")
	c.Flags().StringVar(&l.Context, "context", "", "`name` of a context in it; its current one if not given")
	c.Flags().SortFlags = false
}
