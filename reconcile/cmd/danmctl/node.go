package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"danm.io/danm/reconcile/cli"
	"github.com/spf13/cobra"
)

func sync(code *int, to cli.IO) *cobra.Command {
	var o cli.SyncOptions
	c := &cobra.Command{Use: "sync PATH --state-dir D --node N", Short: "Keep a node's state directory in step with a bundle (no cluster needed)", Args: cobra.ExactArgs(1)}
	c.Run = func(c *cobra.Command, a []string) { o.Path = a[0]; *code = cli.Sync(c.Context(), o, to) }
	c.Flags().StringVar(&o.StateDir, "state-dir", "", "`directory` that the node's agent reads")
	nodeFlag(c, &o.Node, new(string))
	c.Flags().DurationVar(&o.Interval, "interval", 30*time.Second, "how often to ask the source")
	c.Flags().BoolVar(&o.Once, "once", false, "one round: exit 0 done, 1 bundle refused, 2 error")
	c.Flags().StringVar(&o.LogFormat, "log-format", "text", "text or json")
	must(c.MarkFlagRequired("state-dir"))
	return c
}

func status(code *int, to cli.IO) *cobra.Command {
	var o cli.StatusOptions
	var l cli.LiveOptions
	c := &cobra.Command{
		Use: "status", Args: cobra.NoArgs,
		Short: "Show how this node stands, or with --live how a cluster's bundles and nodes do: exit 0, 1 (--live) not all ready, 2 error",
	}
	c.Run = func(c *cobra.Command, _ []string) {
		switch {
		case !l.Wanted():
			*code = cli.Status(c.Context(), o, to)
		case c.Flags().Changed("state-dir"):
			*code = usage(to, "--state-dir is this node's, --live the cluster's: give one of them")
		default:
			*code = cli.StatusLive(c.Context(), l, o.Output, to)
		}
	}
	stateDir(c, &o.StateDir)
	liveFlags(c, &l)
	outputFormats(c, &o.Output, "text", "json")
	return c
}

func retry(code *int, to cli.IO) *cobra.Command {
	var dir string
	var l cli.LiveOptions
	c := &cobra.Command{
		Use: "retry [DIGEST]", Args: cobra.MaximumNArgs(1),
		Short: "Lift the quarantine of a plan on this node, or with --live in a cluster; without DIGEST of all (--live: of --bundle): exit 0, or 2",
	}
	c.Run = func(c *cobra.Command, a []string) {
		switch digest := strings.Join(a, ""); {
		case !l.Wanted():
			*code = cli.Retry(c.Context(), dir, digest, to)
		case c.Flags().Changed("state-dir"):
			*code = usage(to, "--state-dir is this node's, --live the cluster's: give one of them")
		default:
			*code = cli.RetryLive(c.Context(), l, digest, to)
		}
	}
	stateDir(c, &dir)
	liveFlags(c, &l)
	return c
}

// liveFlags say which cluster. Any of them means a cluster; KUBECONFIG in the environment alone does not.
func liveFlags(c *cobra.Command, l *cli.LiveOptions) {
	c.Flags().BoolVar(&l.Live, "live", false, "ask the cluster of KUBECONFIG or ~/.kube/config; the three flags below imply it, KUBECONFIG alone does not")
	c.Flags().StringVar(&l.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster")
	c.Flags().StringVar(&l.Context, "context", "", "`name` of a context in it; its current one if not given")
	c.Flags().StringVar(&l.Bundle, "bundle", "", "`name` of a NetworkBundle; needed where the cluster has several")
	must(c.RegisterFlagCompletionFunc("bundle", func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), 3*time.Second)
		defer cancel()
		return cli.BundleNames(ctx, *l), cobra.ShellCompDirectiveNoFileComp
	}))
	c.Flags().SortFlags = false
}

func usage(to cli.IO, message string) int {
	fmt.Fprintln(to.Err, "danmctl:", message)
	return cli.Failed
}

func stateDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "/var/lib/danm", "the node's state `directory`")
}
